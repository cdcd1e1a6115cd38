"""The search as configuration: distributions, what they may vary, and faults in one line."""

from typing import Any

import pytest
import yaml

from ray_app.config import Config, parse_config
from ray_app.errors import ConfigError
from ray_app.tune_config import Distribution

L2_SP = "schedule.phases.1.l2_sp"


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ({L2_SP: {"loguniform": [1, 0.1]}}, f"{L2_SP}: loguniform should have its low end below its high end, got 1 a"),
        ({L2_SP: {"loguniform": [0, 0.1]}}, f"{L2_SP}: loguniform should begin above 0, got 0"),
        ({L2_SP: {"quniform": [0, 1, 2]}}, f"{L2_SP}: the step of quniform should lie above 0 and fit into its range"),
        ({L2_SP: {"uniform": [1, 2], "choice": [1]}}, f"{L2_SP}: should have exactly one of the keys uniform, log"),
        ({L2_SP: {}}, f"{L2_SP}: should have exactly one of the keys uniform, loguniform, quniform, randint, choice"),
        ({L2_SP: {"normal": [0, 1]}}, f"{L2_SP}.normal: unknown key, did you mean 'uniform'? allowed: uniform, log"),
        ({L2_SP: {"choice": []}}, f"{L2_SP}.choice: [] given; should have at least 1 item"),
        ({L2_SP: {"uniform": [1]}}, f"{L2_SP}.uniform.1: required, but not given"),
        ({L2_SP: {"uniform": ["a", 2]}}, f"{L2_SP}.uniform.0: 'a' given; should be a valid number"),
        ({L2_SP: {"uniform": [-1, 1]}}, f"{L2_SP}: -1.0 given; should be greater than or equal to 0"),
        ({L2_SP: {"choice": [0.1, "x"]}}, f"{L2_SP}: 'x' given; should be a valid number"),
        ({"model.dropout": {"uniform": [0, 1]}}, "model.dropout: 1.0 given; should be less than 1"),
        ({"model.num_heads": {"choice": [1, 3]}}, "model.num_heads: model: dim (64) must be a multiple of num_heads"),
        ({"schedule.phases.2.l2_sp": {"uniform": [0, 1]}}, "schedule.phases.2.l2_sp: '2' is not a position in a list"),
        ({"model.drop": {"uniform": [0, 1]}}, "model.drop: unknown key, did you mean 'dropout'? allowed: start_from"),
        ({"train.num_workers": {"choice": [1]}}, "train.num_workers: cannot be searched; what can is in schedule, mod"),
        ({"evaluate.k": {"choice": [1]}}, "evaluate.k: cannot be searched; what can is in schedule, model, class"),
    ],
)
def test_one_line_for_one_fault(space: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"tune": {"space": space}})
    [found] = caught.value.faults
    assert found.startswith(f"tune.space.{line}")


def test_a_strategy_that_is_none() -> None:
    with pytest.raises(
        ConfigError, match=r"tune\.strategies\.0: 'fast' given; should be 'configured', 'without_l2_sp'"
    ):
        parse_config({"tune": {"strategies": ["fast"]}})


def test_a_space_survives_yaml_and_shows_what_is_set() -> None:
    space = {L2_SP: {"loguniform": [1e-4, 1]}, "train.seed": {"choice": [1, 2]}, "model.dim": {"randint": [8, 9]}}
    config = parse_config({"tune": {"num_trials": 3, "space": space}})
    assert parse_config(yaml.safe_load(config.to_yaml())) == config
    assert "uniform:" not in config.to_yaml().replace("loguniform:", "")
    assert Config().tune is None


def distribution(**kind: Any) -> Distribution:
    return Distribution.model_validate(kind)


@pytest.mark.parametrize(
    ("kind", "ends", "three"),
    [
        ({"uniform": (0, 1)}, [0, 1], [0, 0.5, 1]),
        ({"loguniform": (1e-4, 1)}, [1e-4, 1], [1e-4, 1e-2, 1]),
        ({"quniform": (0, 1, 0.3)}, [0, 0.9], [0, 0.6, 0.9]),
        ({"randint": (0, 10**9)}, [0, 10**9 - 1], [0, 500_000_000, 10**9 - 1]),
        ({"randint": (3, 5)}, [3, 4], [3, 4]),
        ({"choice": (True, 1, None, "a")}, [True, 1, None, "a"], [True, 1, None, "a"]),
    ],
)
def test_points_are_spread_from_end_to_end(kind: dict[str, Any], ends: list[Any], three: list[Any]) -> None:
    found = distribution(**kind)
    assert found.ends() == pytest.approx(ends) if None not in ends else found.ends() == ends
    assert found.points(3) == pytest.approx(three) if None not in three else found.points(3) == three
    assert all(found.has(value) for value in [*ends, *three])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ({"uniform": (0, 1)}, 1.1),
        ({"uniform": (0, 1)}, True),
        ({"uniform": (0, 1)}, None),
        ({"quniform": (0, 1, 0.3)}, 0.5),
        ({"randint": (3, 5)}, 5),
        ({"randint": (3, 5)}, 3.5),
        ({"choice": (1, "frozen")}, True),
    ],
)
def test_what_a_distribution_never_gives(kind: dict[str, Any], value: object) -> None:
    assert not distribution(**kind).has(value)
