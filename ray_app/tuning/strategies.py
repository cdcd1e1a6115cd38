"""Strategies of fine-tuning as named transformations of the configured schedule."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from itertools import takewhile
from types import MappingProxyType

from ray_app.config import Config
from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.tune_config import Strategy, Value

MEANING: MappingProxyType[Strategy, str] = MappingProxyType(
    {
        "configured": "the configured phases",
        "without_l2_sp": "the configured phases, not held to the pretrained weights",
        "linear_probe": "the first phase alone, on a frozen backbone",
        "full": "the last phase alone, for the epochs of all",
        "gradual": "the configured phases, the backbone unfrozen bit by bit in the last, from its output down",
        "surgical_first": "the configured phases, the last with the third of the backbone next to the input alone",
        "surgical_middle": "the configured phases, the last with the middle third of the backbone alone",
        "surgical_last": "the configured phases, the last with the third of the backbone next to the output alone",
        "bounded_delta": "the configured phases, what an item's id adds to its content within a bound",
        "population": "the configured phases, the last in stages with rates of their own",
        "scratch": "random weights, trained by evaluate.scratch_schedule",
    }
)

THIRDS: MappingProxyType[Strategy, tuple[float, float]] = MappingProxyType(
    {"surgical_first": (0, 1 / 3), "surgical_middle": (1 / 3, 2 / 3), "surgical_last": (2 / 3, 1)}
)
"""Depth at which the surgical strategies tune the backbone (Lee et al. 2022, arXiv 2210.11466)."""
BACKBONE = r"^backbone\."
DELTA_NORM, BOUND = "model.delta_norm", 0.15
"""The setting that makes `bounded_delta`, and its value where none was chosen."""
STAGES = "stages."
"""Path of a factor on the rate of the last phase, before the number of the stage (`population`)."""
PICTURE_BLOCKS = 4
"""Any network for pictures has so many blocks, and most have more: gradually, it is unfrozen in as many parts."""


def num_blocks(config: Config) -> int:
    """Blocks that the backbone has at least; of the sequence model, the lowest is the vectors of items."""
    return PICTURE_BLOCKS if config.task.kind == "classify" else 1 + config.model.num_layers


def has_start(config: Config) -> bool:
    """Whether there are pretrained weights to begin with."""
    if config.classifier is not None:
        return config.classifier.weights is not None
    return config.pretrain is not None or config.model.start_from is not None


def possible(config: Config) -> tuple[Strategy, ...]:
    """The strategies that differ for this configuration, the configured schedule first."""
    if not has_start(config):
        return ("scratch",)
    phases = config.schedule.phases
    several = len(phases) > 1
    probes = several and _is_frozen(phases[0])
    found: dict[Strategy, bool] = {
        "configured": True,
        "without_l2_sp": any(phase.l2_sp for phase in phases),
        "linear_probe": probes,
        "full": several,
        "gradual": probes and _opens_backbone(phases[-1]) and phases[-1].epochs >= num_blocks(config),
        **dict.fromkeys(THIRDS, _opens_backbone(phases[-1]) and num_blocks(config) >= len(THIRDS)),
        "bounded_delta": config.content is not None and config.model.delta_norm is None,
        "scratch": True,
    }
    return tuple(strategy for strategy, applies in found.items() if applies)


def unusable(strategies: Iterable[Strategy], path: str, config: Config) -> list[str]:
    """A fault for each strategy, of those at this path, that the configuration has no use for."""
    allowed = possible(config)
    return [
        f"{path}.{number}: {name!r} ({MEANING[name]}) is nothing new here; allowed: {', '.join(allowed)}"
        for number, name in enumerate(strategies)
        if name not in allowed
    ]


def usual(config: Config) -> tuple[Strategy, ...]:
    """Those of them that are tried unless others are named."""
    surgical = THIRDS if config.task.kind != "classify" else {}
    return tuple(strategy for strategy in possible(config) if strategy not in surgical)


def schedule_of(strategy: Strategy, config: Config) -> Schedule:
    """The schedule that the strategy makes of the configured one."""
    if strategy == "scratch":
        return config.evaluate.scratch_schedule
    *early, last = config.schedule.phases
    change: dict[Strategy, Callable[[], list[Phase]]] = {
        "configured": lambda: [*early, last],
        "bounded_delta": lambda: [*early, last],
        "without_l2_sp": lambda: [phase.model_copy(update={"l2_sp": 0.0}) for phase in (*early, last)],
        "linear_probe": lambda: [*early, last][:1],
        "full": lambda: [last.model_copy(update={"epochs": sum(phase.epochs for phase in (*early, last))})],
        "gradual": lambda: [*early, *_unfreezing(last, num_blocks(config))],
        **{strategy: partial(lambda third: [*early, _only(third, last)], third) for strategy, third in THIRDS.items()},
    }
    return config.schedule.model_copy(update={"phases": tuple(change[strategy]())})


def _unfreezing(phase: Phase, parts: int) -> list[Phase]:
    """The phase in stages of as many epochs: one more part of the backbone from the top in each, all in the last.

    Howard and Ruder 2018, arXiv 1801.06146.
    """
    each = phase.epochs // parts
    stages = [
        _only((1 - number / parts, 1), phase).model_copy(
            update={"name": f"{phase.name}_{number}_of_{parts}", "epochs": each}
        )
        for number in range(1, parts)
    ]
    return [*stages, phase.model_copy(update={"epochs": phase.epochs - each * len(stages)})]


def staged(schedule: Schedule, values: Iterable[Value], generations: int) -> Schedule:
    """The schedule until the end of as many stages of its last phase as there are values, factors on its rate."""
    *early, last = schedule.phases
    stages = [_stage(last, number, float(factor or 1), generations) for number, factor in enumerate(values)]
    return schedule.model_copy(update={"phases": (*early, *stages)})


def _stage(last: Phase, number: int, factor: float, generations: int) -> Phase:
    epochs = last.epochs * (number + 1) // generations - last.epochs * number // generations
    name, rate = f"{last.name}_{number + 1}_of_{generations}", float(f"{last.learning_rate * factor:.4g}")
    return last.model_copy(update={"name": name, "epochs": epochs, "learning_rate": rate})


def _only(depth: tuple[float, float], phase: Phase) -> Phase:
    """The phase with the backbone frozen outside a depth."""
    outside = [(0, depth[0]), (depth[1], 1)]
    frozen = [ParamGroup(match=BACKBONE, depth=part, rate="frozen") for part in outside if part[0] < part[1]]
    # What the phase freezes itself stays first: behind these, nothing might be left for it, which is an error.
    own = tuple(takewhile(lambda group: group.rate == "frozen", phase.groups))
    return phase.model_copy(update={"groups": (*own, *frozen, *phase.groups[len(own) :])})


def _opens_backbone(phase: Phase) -> bool:
    """Whether the phase trains the backbone, some parts of it apart, such as the projection of its content."""
    ruling = (group for group in phase.groups if re.search(group.match, "backbone.") and group.depth is None)
    return next((group.rate != "frozen" for group in ruling), not _is_frozen(phase))


def _is_frozen(phase: Phase) -> bool:
    """Whether the phase leaves some of the model as it is."""
    return any(group.rate == "frozen" for group in phase.groups)
