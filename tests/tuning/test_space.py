"""Strategies as transformations of the configured schedule, and which settings matter under each."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ray_app.config import Config, TaskConfig, apply_overrides, load_config, parse_config
from ray_app.errors import ConfigError
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.schedule import Phase, Schedule
from ray_app.training.optimizer import assign_rates
from ray_app.tune_config import Strategy
from ray_app.tuning.space import Candidate, Space, default_space
from ray_app.tuning.strategies import MEANING, THIRDS, possible, schedule_of, usual

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
TWO_PHASES = parse_config({"model": {"start_from": "somewhere", "num_layers": 2}, "tune": {}})
HEAD_RATE, RATE, L2_SP = (
    "schedule.phases.0.learning_rate",
    "schedule.phases.1.learning_rate",
    "schedule.phases.1.l2_sp",
)
SCRATCH_RATE = "evaluate.scratch_schedule.phases.0.learning_rate"
ALL = tuple(name for name in MEANING if name not in ("bounded_delta", "population"))
"""Without content, and without a population."""


def phases(strategy: Strategy, config: Config = TWO_PHASES) -> tuple[Phase, ...]:
    return schedule_of(strategy, config).phases


def test_strategies_of_the_default_schedule() -> None:
    head, full = Schedule().phases
    assert possible(TWO_PHASES) == ALL
    assert phases("configured") == (head, full)
    assert phases("without_l2_sp") == (head, full.model_copy(update={"l2_sp": 0.0}))
    assert phases("linear_probe") == (head,)
    assert phases("full") == (full.model_copy(update={"epochs": head.epochs + full.epochs}),)
    assert phases("scratch") == TWO_PHASES.evaluate.scratch_schedule.phases


def test_gradual_unfreezing_goes_down_from_the_top_block() -> None:
    shape = SequenceShape(8, 2, 1, 8, 5, False)
    model = SequenceModel(shape, torch.arange(6), 4, 0.0)
    free = []
    for phase in phases("gradual"):
        rates = assign_rates(model, phase)
        free.append({name for name, rate in rates.items() if name.startswith("backbone") and rate is not None})
        assert all(rate is not None for name, rate in rates.items() if name.startswith("head"))
    assert [phase.name for phase in phases("gradual")] == ["head", "full_1_of_3", "full_2_of_3", "full"]
    assert [phase.epochs for phase in phases("gradual")] == [10, 20, 20, 20]
    assert free[0] == set()
    assert {name.split(".")[1] for name in free[1]} == {"norm", "blocks"}
    assert not any("blocks.0" in name for name in free[1])
    assert any("blocks.0" in name for name in free[2])
    assert "backbone.items.weight" not in free[2]
    assert free[3] == {name for name, _ in model.named_parameters() if name.startswith("backbone")}


def test_a_projection_that_stays_frozen_is_no_reason_not_to_unfreeze_the_rest() -> None:
    config = load_config(CONFIGS / "amazon_scientific.yaml", ["content.text=hf:encoder"])
    assert "gradual" in possible(config)
    model = SequenceModel(SequenceShape(8, 1, 1, 8, 5, content_dim=4), torch.arange(6), 4, content=torch.ones(6, 4))
    *_, top, full = [assign_rates(model, phase) for phase in phases("gradual", config)]
    free = [{name for name, rate in rates.items() if rate is not None} for rates in (top, full)]
    assert "backbone.items.weight" not in free[0] < free[1]
    assert free[1] == {name for name, _ in model.named_parameters() if not name.startswith("backbone.content")}
    frozen = apply_overrides(config, ["schedule.phases.1.groups=[{match: '^backbone', rate: frozen}, {match: '.*'}]"])
    assert "gradual" not in possible(frozen)


def test_surgical_tuning_moves_a_third_of_the_backbone() -> None:
    found = {}
    for strategy in THIRDS:
        *early, last = phases(strategy)
        assert early == [*phases("configured")[:-1]]
        rates = assign_rates(SequenceModel(SequenceShape(8, 2, 1, 8, 5), torch.arange(6), 4), last)
        moved = {name for name, rate in rates.items() if rate is not None}
        assert {name for name in rates if name.startswith("head")} <= moved
        found[strategy] = {".".join(name.split(".")[1:3]) for name in moved if name.startswith("backbone")}
    assert found == {
        "surgical_first": {"items.weight", "positions.weight"},
        "surgical_middle": {"blocks.0"},
        "surgical_last": {"blocks.1", "norm.weight", "norm.bias"},
    }


def test_pictures_are_unfrozen_in_quarters_and_their_rates_fall_with_depth() -> None:
    pictures = TWO_PHASES.model_copy(update={"task": TaskConfig(kind="classify")})
    free = []
    blocks = (nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)) for _ in range(9))
    model = nn.ModuleDict({"backbone": nn.Sequential(*blocks), "head": nn.Linear(1, 3)})
    for phase in phases("gradual", pictures):
        rates = assign_rates(model, phase)
        free.append(sum(rate is not None for name, rate in rates.items() if name.startswith("backbone")))
    assert free[0] == 0 < free[1] < free[2] < free[3] < free[4] == sum(1 for _ in model["backbone"].parameters())
    assert "schedule.phases.1.layer_decay" in default_space(pictures, ())
    assert "schedule.phases.1.layer_decay" not in default_space(TWO_PHASES, ())
    assert set(THIRDS) & set(usual(TWO_PHASES)) == set()
    assert usual(pictures) == possible(pictures) == ALL


SURGICAL = tuple(THIRDS)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.start_from=null"], ("scratch",)),
        (["schedule.phases=[{name: a, epochs: 3}]"], ("configured", *SURGICAL, "scratch")),
        (["schedule.phases=[{name: a, epochs: 3}]", "model.num_layers=1"], ("configured", "scratch")),
        (["schedule.phases=[{name: a, epochs: 3, l2_sp: 1}]"], ("configured", "without_l2_sp", *SURGICAL, "scratch")),
        (["schedule.phases.1.epochs=2"], ("configured", "without_l2_sp", "linear_probe", "full", *SURGICAL, "scratch")),
        (
            ["schedule.phases=[{name: a, epochs: 3}, {name: b, epochs: 3}]"],
            ("configured", "full", *SURGICAL, "scratch"),
        ),
    ],
)
def test_only_strategies_that_differ(overrides: list[str], expected: tuple[Strategy, ...]) -> None:
    assert possible(apply_overrides(TWO_PHASES, overrides)) == expected


def test_a_strategy_without_use_is_refused() -> None:
    config = apply_overrides(TWO_PHASES, ["model.start_from=null", "tune.strategies=[scratch, gradual]"])
    with pytest.raises(ConfigError, match=r"tune\.strategies\.1: 'gradual' \(.*\) is nothing new here; allowed: scrat"):
        Space(config)


def test_settings_are_proposed_where_they_make_a_difference() -> None:
    space = Space(TWO_PHASES)
    of_last = {RATE, L2_SP, "schedule.phases.1.weight_decay", "schedule.phases.1.groups.0.rate"}
    assert set(space.active("configured")) == {HEAD_RATE, *of_last}
    assert set(space.active("without_l2_sp")) == set(space.active("configured")) - {L2_SP}
    assert set(space.active("linear_probe")) == {HEAD_RATE}
    assert set(space.active("full")) == set(space.active("configured")) - {HEAD_RATE}
    assert set(space.active("scratch")) == {SCRATCH_RATE}


def test_a_bound_on_what_ids_add_is_a_strategy_where_there_is_content() -> None:
    space = Space(apply_overrides(TWO_PHASES, ["content={text: 'hf:folder'}"]))
    assert "bounded_delta" in space.strategies
    assert set(space.active("bounded_delta")) == {*space.active("configured"), "model.delta_norm"}
    assert "model.delta_norm" not in space.active("configured")
    bounds = {}
    for candidate in (Candidate("bounded_delta"), Candidate("bounded_delta", {"model.delta_norm": 0.3}),
                      Candidate("configured", {"model.delta_norm": 0.3})):  # fmt: skip
        config, schedule = space.resolve(candidate)
        assert schedule == TWO_PHASES.schedule
        bounds[space.key(candidate)] = config.model.delta_norm
    assert list(bounds.values()) == [0.15, 0.3, None]
    held = apply_overrides(space.config, ["model.delta_norm=0.2"])
    assert "bounded_delta" not in possible(held)
    free = Space(apply_overrides(space.config, ["tune={strategies: [configured]}"]))
    assert free.distributions.keys() == space.distributions.keys() - {"model.delta_norm"}
    own = "tune={space: {model.delta_norm: {choice: [0.1, 0.2]}}, strategies: [configured]}"
    assert set(Space(apply_overrides(space.config, [own])).active("configured")) == {"model.delta_norm"}


def test_a_space_of_ones_own() -> None:
    own = "tune.space={model.dropout: {uniform: [0, 0.5]}, schedule.phases.0.epochs: {randint: [1, 4]}}"
    space = Space(apply_overrides(TWO_PHASES, [own, "tune.strategies=[linear_probe, full, scratch]"]))
    assert set(space.active("linear_probe")) == {"model.dropout", "schedule.phases.0.epochs"}
    assert set(space.active("full")) == {"model.dropout", "schedule.phases.0.epochs"}  # the epochs of all
    assert set(space.active("scratch")) == {"model.dropout"}
    assert space.configured("schedule.phases.0.epochs") == 10
    assert space.label(SCRATCH_RATE) == "scratch.learning_rate"
    assert space.label("schedule.phases.1.groups.0.rate") == "full.groups.0.rate"
    assert space.label("model.dropout") == "model.dropout"
    assert space.max_epochs == 100  # of scratch
    assert [candidate.strategy for candidate in space.anchors] == ["configured", "linear_probe"]
    assert len(space.grid) == 3 * 3 + 3 * 3 + 3
    assert Candidate("scratch", {"model.dropout": 0.25}) in space.grid


def test_a_log_alone_is_searched_from_scratch() -> None:
    space = Space(apply_overrides(TWO_PHASES, ["model.start_from=null"]))
    assert (space.strategies, [one.strategy for one in space.anchors]) == (("scratch",), ["scratch"])
    assert set(space.active("scratch")) == {SCRATCH_RATE}


def test_candidates_that_train_alike_have_one_key() -> None:
    space = Space(TWO_PHASES)
    assert space.key(Candidate("linear_probe", {RATE: 0.5})) == space.key(Candidate("linear_probe"))
    assert space.key(Candidate("configured", {HEAD_RATE: 1e-3})) == space.key(Candidate("configured"))
    assert len({space.key(Candidate(strategy)) for strategy in ALL}) == len(ALL)


def test_settings_that_exclude_each_other_are_told() -> None:
    config = apply_overrides(TWO_PHASES, ["model.dim=12"])
    with pytest.raises(ConfigError, match=r"dim \(16\) must be a multiple of num_heads \(3\)"):
        Space(config).resolve(Candidate("full", {"model.dim": 16, "model.num_heads": 3}))
