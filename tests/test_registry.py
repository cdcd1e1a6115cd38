"""The registry, on a local folder and on S3."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_app.checkpoint import CheckpointError, fetched, publish, seal, verify
from ray_app.registry import Production, Registry, RegistryError
from ray_app.storage import Storage, join

METRICS = {
    "main": "fine-tuned",
    "methods": {"fine-tuned": {"kind": "model"}, "popular": {"kind": "baseline"}},
    "metrics": {"fine-tuned": {"ndcg@10": {"mean": 0.2}}, "popular": {"ndcg@10": {"mean": 0.1}}},
}


def add(folder: Path) -> None:
    (folder / "index.bin").write_bytes(b"index")


def register(storage: Storage, weights: bytes, tmp_path: Path, metrics: dict = METRICS):
    folder = tmp_path / weights.decode()
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(weights)
    seal(folder, {"name": "shop"}, role="finetune", dataset="runs/shop/datasets/d", git_commit="then")
    uri = join(storage.path, "shop", "finetune", weights.decode())
    publish(storage, folder, uri)
    return Registry(storage, "shop").register(uri, json.dumps(metrics).encode(), b"<html>", add)


def test_a_version_holds_checkpoint_evidence_and_index(storage: Storage, tmp_path: Path):
    version = register(storage, b"one", tmp_path)
    with fetched(storage, version.uri) as folder:
        files = verify(folder)["files"]
        assert set(files) == {"config.json", "model.bin", "metrics.json", "report.html", "index.bin"}
        assert (folder / "model.bin").read_bytes() == b"one"
    assert version.summary == {"fine-tuned": 0.2, "popular": 0.1}
    assert (version.main, version.baselines) == ("fine-tuned", {"popular": 0.1})
    assert version.manifest["git_commit"] == "then", "where the model comes from, not who registered it"
    assert version.dataset == "runs/shop/datasets/d"


def test_a_version_goes_by_the_metric_of_its_evaluation(tmp_path: Path):
    storage = Storage(path=str(tmp_path / "storage"))
    means = {"fine-tuned": {"top1": {"mean": 0.8}}, "popular": {"top1": {"mean": 0.6}, "ece": {"mean": 0.1}}}
    version = register(storage, b"one", tmp_path, METRICS | {"metric": "top1", "metrics": means})
    assert (version.metric, version.summary) == ("top1", {"fine-tuned": 0.8, "popular": 0.6})
    assert register(storage, b"two", tmp_path).metric == "ndcg@10"  # an evaluation that does not say


def test_the_same_is_found_and_other_evidence_is_another_version(storage: Storage, tmp_path: Path):
    registry = Registry(storage, "shop")
    first = register(storage, b"one", tmp_path)
    assert register(storage, b"one", tmp_path).registered_at == first.registered_at
    second = register(storage, b"two", tmp_path)
    third = register(storage, b"one", tmp_path, METRICS | {"more": 1})
    assert [version.name for version in registry.versions()] == [first.name, second.name, third.name]


def test_a_damaged_checkpoint_is_not_registered(tmp_path: Path):
    storage = Storage(path=str(tmp_path / "storage"))
    register(storage, b"one", tmp_path)
    uri = join(storage.path, "shop", "finetune", "one")
    storage.write_bytes(join(uri, "model.bin"), b"One")
    with pytest.raises(CheckpointError, match="its bytes differ"):
        Registry(storage, "shop").register(uri, json.dumps(METRICS | {"new": 1}).encode(), b"", add)
    assert len(Registry(storage, "shop").versions()) == 1


def test_production_moves_and_keeps_its_history(storage: Storage, tmp_path: Path):
    registry = Registry(storage, "shop")
    assert registry.production() == (Production(), None)
    assert registry.versions() == []
    names = [register(storage, weights, tmp_path).name for weights in (b"one", b"two", b"three")]
    for name in names:
        registry.move(*registry.production(), name, "promoted", "better")
    present, _ = registry.production()
    assert (present.version, present.previous) == (names[2], names[1])
    registry.move(*registry.production(), names[1], "rolled back", "from it")
    present, _ = registry.production()
    assert [move.version for move in present.moves] == [*names, names[1]]
    assert present.previous == names[0], "a second rollback goes on, and does not come back"
    registry.move(*registry.production(), names[0], "rolled back", "from it")
    assert registry.production()[0].previous is None


def test_a_trial_leaves_production_as_it_is(tmp_path: Path):
    storage = Storage(path=str(tmp_path / "storage"))
    registry = Registry(storage, "shop")
    one, two, three = (register(storage, weights, tmp_path).name for weights in (b"one", b"two", b"three"))
    with pytest.raises(RegistryError, match="nothing is in production beside which"):
        registry.move(*registry.production(), two, "canary", "", 10)
    for name in (one, two):
        registry.move(*registry.production(), name, "promoted", "better")
    registry.move(*registry.production(), three, "shadow", "to see", 100)
    present, token = registry.production()
    assert (present.version, present.previous) == (two, one)
    assert present.trial is not None
    assert (present.trial.version, present.trial.percent) == (three, 100)
    ended = registry.back(present, token, "slow")
    assert (ended.version, ended.previous, ended.trial) == (two, one, None)
    with pytest.raises(RegistryError, match="another promotion was faster"):
        registry.back(present, token, "slow")
    back = registry.back(*registry.production(), "slow")
    assert (back.version, back.moves[-1].kind, back.moves[-1].why) == (one, "rolled back", f"from {two}: slow")


def test_of_many_promotions_at_once_one_wins_and_the_others_are_told(storage: Storage, tmp_path: Path):
    registry = Registry(storage, "shop")
    names = [register(storage, b"w%d" % n, tmp_path).name for n in range(6)]
    for first in (True, False):  # the file is created, then replaced
        seen = registry.production()

        def promote(name: str, seen=seen) -> str:
            try:
                registry.move(*seen, name, "promoted", "better")
            except RegistryError as error:
                return str(error)
            return "won"

        with ThreadPoolExecutor(6) as pool:
            told = list(pool.map(promote, names))
        assert told.count("won") == 1
        winner = names[told.index("won")]
        assert registry.production()[0].version == winner
        assert all(text == "won" or "another promotion was faster" in text for text in told)
        assert len(registry.production()[0].moves) == (1 if first else 2)


def test_what_does_not_exist_and_what_is_damaged(tmp_path: Path):
    storage = Storage(path=str(tmp_path))
    registry = Registry(storage, "shop")
    for name in ("none", "../finetune/one"):
        with pytest.raises(RegistryError, match="no such version"):
            registry.move(*registry.production(), name, "promoted", "")
    storage.write_bytes(join(storage.path, "shop", "models", "production.json"), b"[]")
    with pytest.raises(RegistryError, match="damaged"):
        registry.production()
