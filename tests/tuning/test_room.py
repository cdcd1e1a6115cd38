"""The arithmetic of trials and clusters."""

from collections.abc import Mapping

import pytest

from ray_app.config import apply_overrides, parse_config
from ray_app.errors import TrainingError
from ray_app.tuning.room import Room, room_for

CONFIG = parse_config({"tune": {"num_trials": 20}})


def room(overrides: list[str], cluster: Mapping[str, float]) -> Room:
    config = apply_overrides(CONFIG, overrides)
    assert config.tune is not None
    return room_for(config.train, cluster, config.tune.most_at_once)


@pytest.mark.parametrize(
    ("overrides", "cluster", "at_once"),
    [
        ([], {"CPU": 2}, 2),
        ([], {"CPU": 64}, 20),
        (["tune.max_concurrent_trials=3"], {"CPU": 64}, 3),
        (["train.cpus_per_worker=4"], {"CPU": 15}, 3),
        (["train.use_gpu=true"], {"CPU": 64, "GPU": 3}, 3),
        (["train.num_workers=2"], {"CPU": 4}, 1),
        (["train.num_workers=2", "train.use_gpu=true"], {"CPU": 64, "GPU": 6}, 3),
    ],
)
def test_as_many_as_fit(overrides: list[str], cluster: dict[str, float], at_once: int) -> None:
    assert room(overrides, cluster).at_once == at_once


def test_the_arithmetic_is_told() -> None:
    cluster = {"CPU": 16.0, "GPU": 2.0}
    found = room(["train.use_gpu=true", "train.cpus_per_worker=4"], cluster)
    assert found.describe("up to 20 trials", cluster) == (
        "up to 20 trials, 2 at a time, each one process with 4 CPUs and 1 GPU; the cluster has 16 CPUs and 2 GPUs"
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.use_gpu=true"], r"which needs 1 GPUs \(the cluster has 0\).*train\.use_gpu=false, or add nodes"),
        (["train.cpus_per_worker=3"], r"which needs 3 CPUs \(the cluster has 2\): lower train\.cpus_per_worker"),
        (["train.num_workers=2"], r"which needs 2\.1 CPUs \(the cluster has 2\): lower train\.num_workers, lower tr"),
    ],
)
def test_what_cannot_run_is_refused_with_the_remedy(overrides: list[str], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        room(overrides, {"CPU": 2.0})
