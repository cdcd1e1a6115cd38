"""What a search chooses among: strategies, and the settings that matter under each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from ray_app.config import Config, dump, fingerprint, with_values
from ray_app.errors import ConfigError
from ray_app.schedule import Schedule
from ray_app.tune_config import Distribution, Strategy, TuneConfig, Value
from ray_app.tuning.strategies import (
    BOUND,
    DELTA_NORM,
    STAGES,
    has_start,
    num_blocks,
    possible,
    schedule_of,
    staged,
    unusable,
    usual,
)

GRID_POINTS = 3
FEW_BLOCKS = 3
"""In a backbone of so few, one rate for all of them says nearly what a rate for each would."""
LAYER_DECAYS = (0.65, 0.8, 1.0)
PULLS = (1e-4, 1.0)
PULLS_OF_PICTURES = (1e-2, 10.0)
"""Of networks that SGD trains: at its rates a pull below these is nothing (benchmarks/LOG.md)."""
DECAYS_OF_LOGS = (0.1, 3.0)
"""Of the last phase, on what a log adds to items in the head: where it is sparse, that overfits first
(benchmarks/LOG.md)."""
DECAYS = (1e-3, 1.0)
"""Of a head that is fitted on all features at once, and stays as it is."""
HEAD_DECAYS = (1e-3, 0.1, 5.0)
"""The same where the backbone is trained behind it: one that fits frozen features well is not what it learns best from
(benchmarks/LOG.md)."""


@dataclass(frozen=True)
class Candidate:
    """A strategy, and settings that differ from the configured ones, by their dotted paths."""

    strategy: Strategy
    values: Mapping[str, Value] = field(default_factory=dict)
    is_planned: bool = False
    """Tried whatever the trials before say of settings, and so to its end: others are compared with it."""


class Space:
    """All candidates of one configuration.

    Raises:
        ConfigError: a strategy that the configuration has no use for.
    """

    def __init__(self, config: Config) -> None:
        self.config = config.model_copy(update={"tune": None})
        tune = config.tune or TuneConfig()
        self.generations = tune.generations
        self.strategies = tune.strategies or usual(config)
        faults = unusable(self.strategies, "tune.strategies", config)
        if tune.search == "pbt" and config.schedule.phases[-1].epochs < tune.generations:
            faults.append(
                f"tune.generations: {tune.generations}, and the last phase of the schedule has "
                f"{config.schedule.phases[-1].epochs} epochs; each stage needs one"
            )
        if tune.search == "pbt" and not has_start(config):
            faults.append("tune.search: pbt goes by the schedule of fine-tuning, and nothing pretrained is given")
        if faults:
            raise ConfigError(faults)
        self.distributions = default_space(config, self.strategies) if tune.space is None else tune.space
        self._active: dict[Strategy, dict[str, Distribution]] = {}

    @property
    def anchors(self) -> list[Candidate]:
        """What is tried before anything is proposed: the schedule as it is configured, and its linear probe."""
        allowed = possible(self.config)
        return [Candidate(name, is_planned=True) for name in allowed if name in (allowed[0], "linear_probe")]

    def active(self, strategy: Strategy) -> dict[str, Distribution]:
        """The settings that make a difference under the strategy: the others are not proposed with it."""
        if strategy not in self._active:
            self._active[strategy] = {
                path: distribution
                for path, distribution in self.distributions.items()
                if len({self.key(Candidate(strategy, {path: value})) for value in distribution.points(GRID_POINTS)}) > 1
            }
        return self._active[strategy]

    def configured(self, path: str) -> Any:
        """The value that the configuration has at a dotted path."""
        node: Any = self.config.model_dump()
        for part in path.split("."):
            node = node[int(part) if isinstance(node, list | tuple) else part]
        return node

    def label(self, path: str) -> str:
        """A short name of a setting, with phases by their names."""
        if path.startswith(STAGES):
            return f"{self.config.schedule.phases[-1].name} stage {int(path.removeprefix(STAGES)) + 1} rate x"
        place = re.fullmatch(r"((?:evaluate\.scratch_)?schedule\.phases\.\d+)\.(.+)", path)
        return f"{self.configured(f'{place[1]}.name')}.{place[2]}" if place else path

    def resolve(self, candidate: Candidate) -> tuple[Config, Schedule]:
        """The configuration and the schedule of a run of the candidate.

        Raises:
            ConfigError: settings that are allowed each, and not together.
        """
        if candidate.strategy == "population":
            return self.config, staged(self.config.schedule, candidate.values.values(), self.generations)
        config = with_values(self.config, self._values(candidate))
        return config, schedule_of(candidate.strategy, config)

    def _values(self, candidate: Candidate) -> dict[str, Value]:
        """Its settings, with the bound that one strategy has, and the others have not beside it."""
        bound: dict[str, Value] = {DELTA_NORM: BOUND} if candidate.strategy == "bounded_delta" else {}
        is_apart = not bound and "bounded_delta" in self.strategies
        return bound | {
            path: value for path, value in candidate.values.items() if not (is_apart and path == DELTA_NORM)
        }

    def key(self, candidate: Candidate) -> str:
        """The same for two candidates that are the same training."""
        config, schedule = self.resolve(candidate)
        return training_key(config, schedule, has_start(config) and candidate.strategy != "scratch")

    @cached_property
    def grid(self) -> list[Candidate]:
        """Every combination of all choices and of three points of every range."""
        return [
            Candidate(strategy, dict(zip(active, values, strict=True)))
            for strategy in self.strategies
            for active in [self.active(strategy)]
            for values in product(*(distribution.points(GRID_POINTS) for distribution in active.values()))
        ]

    @cached_property
    def max_epochs(self) -> int:
        """Epochs of the longest candidate."""
        return max(sum(phase.epochs for phase in self.resolve(one)[1].phases) for one in [*self.anchors, *self._ends()])

    def _ends(self) -> list[Candidate]:
        ends = [{path: value} for path, found in self.distributions.items() for value in found.ends()]
        return [Candidate(strategy, values) for strategy in self.strategies for values in [{}, *ends]]


def training_key(config: Config, schedule: Schedule, is_fine_tuned: bool) -> str:
    """Hash of all that a training depends on and candidates may differ in."""
    network = config.model if config.classifier is None else config.classifier
    return fingerprint(network, dump(config.train), schedule, is_fine_tuned)


def default_space(config: Config, strategies: Sequence[Strategy]) -> dict[str, Distribution]:
    """How fast each phase learns, and how tightly the last is held to the pretrained weights.

    The phases before the last have few choices, so that trials share them.
    """
    space = {}
    scratch = config.evaluate.scratch_schedule.phases
    for number, phase in enumerate(scratch):
        path = f"evaluate.scratch_schedule.phases.{number}.learning_rate"
        space[path] = _around(phase.learning_rate)
    if not has_start(config):
        return space
    *early, last = config.schedule.phases
    for number, phase in enumerate(early):
        if phase.is_whole:
            path = f"schedule.phases.{number}.weight_decay"
            space[path] = Distribution(choice=tuple(sorted({*HEAD_DECAYS, phase.weight_decay})))
            continue
        rates = tuple(float(f"{phase.learning_rate * factor:.3g}") for factor in (0.3, 1.0, 3.0))
        space[f"schedule.phases.{number}.learning_rate"] = Distribution(choice=rates)
    path = f"schedule.phases.{len(early)}"
    if last.is_whole:
        return space | {f"{path}.weight_decay": Distribution(loguniform=DECAYS)}
    space[f"{path}.learning_rate"] = _around(last.learning_rate)
    space[f"{path}.l2_sp"] = Distribution(loguniform=PULLS_OF_PICTURES if config.task.kind == "classify" else PULLS)
    if config.task.kind != "classify":
        space[f"{path}.weight_decay"] = Distribution(loguniform=DECAYS_OF_LOGS)
    if num_blocks(config) > FEW_BLOCKS:
        space[f"{path}.layer_decay"] = Distribution(choice=LAYER_DECAYS)
    if "bounded_delta" in strategies:  # where nobody is bound, the bound would make each trial's first phases its own
        space[DELTA_NORM] = Distribution(loguniform=(0.03, 0.5))
    for number, group in enumerate(last.groups):
        if "backbone" in group.match and group.rate != "frozen":
            space[f"{path}.groups.{number}.rate"] = Distribution(loguniform=(0.03, 1.0))
    return space


def _around(rate: float) -> Distribution:
    return Distribution(loguniform=(float(f"{rate / 10:.3g}"), float(f"{rate * 3:.3g}")))
