"""Promotion of real models on a small log."""

import contextlib
from argparse import Namespace

import numpy as np
import promote
import pytest
import stages
import torch
from ragged import ragged

from ray_app.checkpoint import fetched
from ray_app.config import Config, apply_overrides
from ray_app.data.dataset import Dataset
from ray_app.errors import ConfigError
from ray_app.registry import Registry, RegistryError, Version
from ray_app.storage import Storage
from ray_app.tasks.beginning import build_model
from ray_app.tasks.scorer import load_scorer
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot

OPTIONS = {"version": None, "rollback": False, "list": False, "force": False, "canary": None, "shadow": None}


@pytest.fixture(scope="module")
def config(small_config: Config) -> Config:
    return apply_overrides(small_config, ["evaluate.baselines=[popular]", "evaluate.exclude_seen=false"])


@pytest.fixture(scope="module")
def versions(small_dataset: Dataset, config: Config) -> dict[str, Version]:
    """A model that knows what is popular, one that holds the opposite, both registered as the pipeline does it."""
    found = {}
    for name, sign in (("poor", -1), ("good", 1)):
        trained = apply_overrides(config, [f"train.seed={sign + 1}"])
        run = Run("scratch", trained, trained.evaluate.scratch_schedule, small_dataset)
        model, _ = build_model(trained.model, small_dataset.items(), 0)
        counts = small_dataset.items()["train_count"].to_numpy()
        with torch.no_grad():
            model.head.bias.copy_(torch.from_numpy(sign * np.log1p(counts) * 10))
        run.publish(Snapshot.take(model, None, {}, Progress()))
        folder = stages.evaluate_stage(trained, small_dataset, {name: run}, {name: run.uri})
        found[name] = stages.register_stage(trained, small_dataset, run.uri, folder)
    return found


def promoted(config: Config, monkeypatch: pytest.MonkeyPatch, **options: object) -> str | None:
    monkeypatch.setattr(promote, "connected", contextlib.nullcontext)  # the work is small
    promote.main(config, Namespace(**(OPTIONS | options)))
    return Registry(Storage.from_config(config.storage), config.name).production()[0].version


def test_only_what_is_better_replaces_what_is_there(
    versions: dict[str, Version], config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    poor, good = versions["poor"].name, versions["good"].name
    with pytest.raises(RegistryError, match=r"not promoted, ndcg@10 .*the best baseline \(popular\)"):
        promoted(config, monkeypatch, version=poor)
    assert promoted(config, monkeypatch, version=poor, force=True) == poor
    assert promoted(config, monkeypatch) == good, "the one that was registered last"
    assert f"{good}: promoted, ndcg@10 +" in capsys.readouterr().out
    assert promoted(config, monkeypatch, version=good) == good
    assert "in production already" in capsys.readouterr().out
    with pytest.raises(RegistryError, match=r"ndcg@10 -.*not better beyond the interval"):
        promoted(config, monkeypatch, version=poor)
    assert promoted(config, monkeypatch, rollback=True) == poor
    with pytest.raises(RegistryError, match="nothing was in production before"):
        promoted(config, monkeypatch, rollback=True)
    promoted(config, monkeypatch, list=True)
    assert "rolled back" in capsys.readouterr().out


def test_a_trial_goes_beside_what_is_there_and_ends_first(
    versions: dict[str, Version], config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    poor, good = versions["poor"].name, versions["good"].name
    registry = Registry(Storage.from_config(config.storage), config.name)
    promoted(config, monkeypatch, version=poor, force=True)
    assert promoted(config, monkeypatch, canary=10.0) == poor, "it stays in production"
    assert f"{good}: canary of 10% of the users" in capsys.readouterr().out
    trial = registry.production()[0].trial
    assert trial is not None
    assert (trial.version, trial.kind, trial.percent) == (good, "canary", 10)
    promoted(config, monkeypatch, list=True)
    assert "canary of 10%" in " ".join(capsys.readouterr().out.split())
    assert promoted(config, monkeypatch, rollback=True) == poor, "the trial ends first"
    assert registry.production()[0].trial is None
    promoted(config, monkeypatch, shadow=50.0)
    assert promoted(config, monkeypatch, force=True) == good, "what is on trial is promoted"
    with pytest.raises(ConfigError, match="takes no --version"):
        promoted(config, monkeypatch, rollback=True, version=poor)


def test_a_version_is_a_checkpoint_like_any_other(versions: dict[str, Version], small_dataset: Dataset, config: Config):
    """The evidence beside the weights does not hinder loading them."""
    version, storage = versions["good"], small_dataset.storage
    histories = ragged([1, 2], [])
    served = load_scorer(storage, small_dataset, version.uri, config).scores(histories)
    trained = load_scorer(storage, small_dataset, version.manifest["checkpoint"], config).scores(histories)
    assert np.array_equal(served, trained)
    with fetched(storage, version.uri) as folder:
        assert {"item_index.safetensors", "report.html"} <= {path.name for path in folder.iterdir()}
