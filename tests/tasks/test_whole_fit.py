"""A head that is fitted on all kept features at once: what scikit-learn finds, on any number of workers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import picture_set
from processes import run_two_workers
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression

from ray_app.config import Config, parse_config
from ray_app.content.picture_features import Features, cached_features, compute_here
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError, TrainingError
from ray_app.models.backbones import build_backbone
from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.tasks import classify
from ray_app.tasks.classify import ClassifyTask, build_task
from ray_app.training import optimizer
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.world import World

BACKBONE = "torchvision:resnet18"
DECAY = 0.1
FROZEN = (ParamGroup(match="^backbone", rate="frozen"), ParamGroup(match="^head"))
HEAD = Phase(name="head", epochs=20, optimizer="lbfgs", weight_decay=DECAY, groups=FROZEN)
FULL = Phase(name="full", epochs=1, learning_rate=1e-4, l2_sp=0.1, keep_statistics=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(build_backbone(BACKBONE).network.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    """Of one class there are more than of the others."""
    return picture_set(tmp_path_factory.mktemp("pictures"), train=31)


def config(weights: str, **classifier: object) -> Config:
    given = {"backbone": BACKBONE, "weights": weights, "size": 32, "batch_size": 10, **classifier}
    return parse_config({"task": {"kind": "classify"}, "pictures": {}, "classifier": given})


def computed(pictures: PictureSet, of: Config) -> Features:
    features = cached_features(pictures, of)
    assert features is not None
    compute_here(features, of)
    return features


def run(task: ClassifyTask, *phases: Phase, ema: float | None = None) -> Progress:
    schedule = Schedule(phases=phases, ema=ema)
    return fit(task, schedule, LoopSettings(), World.current(), lambda *_: None)


def test_the_head_is_the_logistic_regression_of_scikit_learn(pictures: PictureSet, weights: str) -> None:
    of = config(weights, balance=1.0)
    features = computed(pictures, of)
    task = build_task(of, pictures, features)
    progress = run(task, HEAD, ema=0.999)
    vectors, labels = features.part("train")
    mean, std = vectors.mean(0), np.sqrt(vectors.var(0, ddof=1) + 1e-5)
    rarity = np.array([31 / (3 * count) for count in pictures.manifest.train_counts])[labels]
    reference = LogisticRegression(C=1 / (DECAY * rarity.sum()), tol=1e-8, max_iter=5000)
    reference.fit((vectors - mean) / std, labels, sample_weight=rarity)
    held_out, _ = features.part("validation")
    with torch.no_grad():
        found = task.model.eval().head(torch.from_numpy(held_out)).softmax(1).numpy()
    expected = reference.predict_proba((held_out - mean) / std)
    assert np.ptp(expected, axis=0).min() > 0.3
    assert np.allclose(found, expected, atol=2e-3)
    assert len(progress.records) < HEAD.epochs  # it ends when it moves no more


@pytest.mark.parametrize("head", [{"kind": "linear"}, {"kind": "mlp", "hidden": 8, "dropout": 0.5}])
def test_all_views_are_fitted_until_the_loss_falls_no_more(
    pictures: PictureSet, weights: str, head: dict[str, object]
) -> None:
    of = config(weights, cached_views=3, label_smoothing=0.1, head=head)
    task = build_task(of, pictures, computed(pictures, of))
    run(task, HEAD)
    whole = task.whole()
    assert whole.inputs.shape == (31 * 3, 512)
    assert torch.equal(whole.targets[0], whole.targets[2])
    assert task.model.head.norm.running_mean == pytest.approx(whole.inputs.mean(0))
    trained = dict(task.model.head.eval().named_parameters())
    for parameter in trained.values():
        parameter.requires_grad_()
    loss, count = task.loss(whole)
    decay = sum(value.square().sum() for value in trained.values() if value.ndim > 1) * DECAY / 2
    (loss / count + decay).backward()
    assert count == pytest.approx(31 * 3)
    assert max(float(value.grad.abs().max()) for value in trained.values()) < 1e-3


def test_resume_needs_nothing_of_what_the_optimizer_knew(
    pictures: PictureSet, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "WHOLE_STEPS", 3)
    of = config(weights)
    features, schedule = computed(pictures, of), Schedule(phases=(HEAD.model_copy(update={"epochs": 5}), FULL))

    def save(record: dict[str, float | str], snapshot: Snapshot) -> None:
        if (record["phase"], record["epoch"]) == ("head", 2):
            snapshot.save(tmp_path)

    whole = build_task(of, pictures, features)
    records = fit(whole, schedule, LoopSettings(), World.current(), save).records
    assert len(records) > 4
    assert records[1]["train/loss"] > records[2]["train/loss"]
    resumed = build_task(of, pictures, features)
    again = fit(resumed, schedule, LoopSettings(), World.current(), lambda *_: None, Snapshot.load(tmp_path)).records
    assert [one.get("train/loss") for one in again] == [one.get("train/loss") for one in records]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def _one_of_two(rank: int, folder: Path, pictures: PictureSet, weights: str) -> None:
    of = config(weights)
    task = build_task(of, pictures, cached_features(pictures, of), rank, 2)
    progress = run(task, HEAD)
    save_file({"weight": task.model.head.out.weight.detach()}, folder / f"{rank}.safetensors")
    assert all(record["train/loss"] == progress.records[1]["train/loss"] for record in progress.records[2:])
    if rank == 0:
        (folder / "loss").write_text(str(progress.records[1]["train/loss"]))


def test_two_workers_fit_the_same_head_as_one(pictures: PictureSet, weights: str, tmp_path: Path) -> None:
    of = config(weights)
    one = build_task(of, pictures, computed(pictures, of))
    loss = run(one, HEAD).records[1]["train/loss"]
    run_two_workers(_one_of_two, tmp_path, pictures, weights)
    first, second = (load_file(tmp_path / f"{rank}.safetensors")["weight"] for rank in (0, 1))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one.model.head.out.weight.detach(), rtol=1e-4, atol=1e-6)
    assert float((tmp_path / "loss").read_text()) == pytest.approx(loss, rel=1e-5)


def test_what_cannot_be_fitted_at_once_is_a_sentence(
    pictures: PictureSet, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = config(weights)
    task = build_task(of, pictures, computed(pictures, of))
    unfrozen = HEAD.model_copy(update={"groups": (ParamGroup(match=".*"),)})
    with pytest.raises(TrainingError, match=r"phase 'head': .*'backbone\..*' has a rate\. Freeze .*optimizer: adamw"):
        run(task, unfrozen)
    with pytest.raises(TrainingError, match=r"an earlier phase has moved it: put the phase before that one"):
        run(task, FULL, HEAD)
    monkeypatch.setattr(classify, "WHOLE_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"classifier\.cached_views: 1 of 31 are 0\.0 GiB of features.*optimizer: ad"):
        run(build_task(of, pictures, computed(pictures, of)), HEAD)
