"""A search over the schedule of a classifier: its own metric and settings, phases and features that trials share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import picture_set
from plain_loop import plain
from rich.console import Console
from safetensors.torch import save_file
from searching import tuned_run

from ray_app.config import Config, apply_overrides, parse_config
from ray_app.content.picture_features import Encoding, cached_features
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError
from ray_app.models.backbones import build_backbone
from ray_app.report import winning_config
from ray_app.tuning.search import Search
from ray_app.tuning.space import Candidate, Space
from ray_app.tuning.trials import Trial
from ray_app.tuning.tuner import Proposals
from ray_app.tuning.worker import train_trial

BACKBONE = "torchvision:shufflenet_v2_x0_5"
RATE, SMOOTHING = "schedule.phases.1.learning_rate", "classifier.label_smoothing"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return picture_set(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    torch.manual_seed(0)
    save_file(build_backbone(BACKBONE).network.state_dict(), tmp_path / "weights.safetensors")
    frozen = [{"match": "^backbone", "rate": "frozen"}, {"match": "^head"}]
    phases = [
        {"name": "head", "epochs": 3, "learning_rate": 0.03, "groups": frozen},
        {"name": "full", "epochs": 1, "learning_rate": 1e-4, "l2_sp": 0.1},
    ]
    network = {"backbone": BACKBONE, "weights": str(tmp_path / "weights.safetensors"), "size": 32, "batch_size": 10}
    given = {"task": {"kind": "classify"}, "pictures": {}, "classifier": network, "schedule": {"phases": phases}}
    scratch = {"phases": [{"name": "scratch", "epochs": 1}]}
    given |= {"tune": {}, "evaluate": {"scratch_schedule": scratch}, "storage": {"path": str(tmp_path / "runs")}}
    return parse_config(given)


def trained(search: Search, candidate: Candidate, number: int = 0) -> Trial:
    key = search.space.key(candidate)
    told: list[dict[str, Any]] = []
    trial = Trial(number=number, strategy=candidate.strategy, values=dict(candidate.values), key=key)
    train_trial(search, trial, told.append)
    return Trial.model_validate_json(told[-1]["trial"])


def test_trials_share_phases_and_features_and_have_the_numbers_of_runs_that_do_not(
    pictures: PictureSet, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search.begin(config, pictures, None)
    assert search.metric == "top1"
    probe = trained(search, Candidate("linear_probe"))
    assert (probe.state, probe.epochs) == ("finished", 3)
    features = cached_features(pictures, config)
    assert features is not None
    assert features.missing() == []
    monkeypatch.setattr(Encoding, "__init__", lambda *_: pytest.fail("features were computed twice"))
    other = trained(search, Candidate("configured", {RATE: 2e-4}), 2)
    assert (other.state, other.epochs, other.reused) == ("finished", 4, 3)
    whole = plain(search.run_of(other.candidate)).progress.records
    assert [record["val/top1"] for record in other.records] == [record["val/top1"] for record in whole]
    assert other.score == other.records[-1]["val/top1"]


def test_what_the_best_trial_learned_is_published(pictures: PictureSet, config: Config) -> None:
    """The trials one after another in this process: what Ray Tune adds is that of logs (test_resume.py)."""
    own = apply_overrides(config, ["tune.num_trials=2"])
    search = Search.begin(own, pictures, None)
    trials = search.trials()
    while (trial := Proposals(search, trials).next()) is not None:
        trials.keep(trained(search, Candidate(trial.strategy, trial.values), trial.number))
    assert [(trial.strategy, trial.state, trial.reused) for trial in trials.all()] == [
        ("configured", "finished", 0),
        ("linear_probe", "finished", 3),  # the probe is the first phase of the configured schedule
    ]
    run = tuned_run(own, pictures, None, Console(quiet=True))
    assert run.is_published()
    assert max(trial.score or 0 for trial in trials.all()) in [record.get("val/top1") for record in run.records()]


def test_from_scratch_nothing_is_pretrained(pictures: PictureSet, config: Config) -> None:
    search = Search.begin(config, pictures, None)
    run = search.run_of(Candidate("scratch"))
    assert run.role == "scratch"
    assert run.config.classifier is not None
    assert run.config.classifier.weights is None
    assert trained(search, Candidate("scratch")).records[0]["phase"] == "scratch"  # no look before the first epoch
    found = search.config_of(Candidate("scratch"))
    assert found.classifier == run.config.classifier
    alone = Space(apply_overrides(config, ["classifier.weights=null"]))
    assert alone.strategies == ("scratch",)


def test_what_a_classifier_is_shown_may_be_searched_and_what_it_begins_with_not(
    pictures: PictureSet, config: Config
) -> None:
    own = apply_overrides(config, [f"tune.space={{{SMOOTHING}: {{choice: [0.0, 0.1]}}}}"])
    search = Search.begin(own, pictures, None)
    assert set(search.space.active("linear_probe")) == {SMOOTHING}
    keys = {search.space.key(Candidate("configured", {SMOOTHING: value})) for value in (0.0, 0.1)}
    assert len(keys) == 2
    assert search.key != Search.begin(config, pictures, None).key
    best = trained(search, Candidate("linear_probe", {SMOOTHING: 0.1}))
    assert "label_smoothing: 0.1" in winning_config(search, best, search.metric)
    for path in ("classifier.weights", "classifier.backbone"):
        with pytest.raises(ConfigError, match=rf"tune\.space\.{path}: cannot be searched"):
            apply_overrides(config, [f"tune.space={{{path}: {{choice: [a]}}}}"])


def test_another_size_has_features_of_its_own(pictures: PictureSet, config: Config) -> None:
    """Files of features that nobody had computed were asked for, and the trial failed."""
    own = apply_overrides(config, ["tune.space={classifier.size: {choice: [32, 48]}}"])
    search = Search.begin(own, pictures, None)
    assert trained(search, Candidate("linear_probe", {"classifier.size": 48})).state == "finished"


def test_the_settings_of_the_schedule_are_searched_unless_others_are_named(config: Config) -> None:
    space = Space(config)
    active = set(space.active("configured"))
    assert active == {
        "schedule.phases.0.learning_rate",
        *(f"schedule.phases.1.{name}" for name in ("learning_rate", "l2_sp", "layer_decay")),
    }
    assert space.distributions["schedule.phases.1.l2_sp"].bounds == (1e-2, 10)


def test_a_head_that_is_fitted_at_once_has_no_rate_to_search(config: Config) -> None:
    def proposed(*overrides: str) -> set[str]:
        return set(Space(apply_overrides(config, list(overrides))).active("configured"))

    fitted = "schedule.phases.0.optimizer=lbfgs"
    assert proposed() - proposed(fitted) == {"schedule.phases.0.learning_rate"}
    assert proposed(fitted) - proposed() == {"schedule.phases.0.weight_decay"}
    decays = Space(apply_overrides(config, [fitted, "schedule.phases.0.weight_decay=0.3"])).distributions
    assert decays["schedule.phases.0.weight_decay"].has(0.3)
    frozen = "[{match: x, rate: frozen}, {match: y}]"
    alone = f"schedule.phases=[{{name: head, epochs: 3, optimizer: lbfgs, groups: {frozen}}}]"
    assert proposed(alone) == {"schedule.phases.0.weight_decay"}
