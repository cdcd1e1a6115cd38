"""Strategies of fine-tuning as named transformations of the configured schedule."""

from collections.abc import Callable
from types import MappingProxyType

from ray_app.config import Config
from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.tune_config import Strategy

MEANING: MappingProxyType[Strategy, str] = MappingProxyType(
    {
        "configured": "the configured phases",
        "without_l2_sp": "the configured phases, not held to the pretrained weights",
        "linear_probe": "the first phase alone, on a frozen backbone",
        "full": "the last phase alone, for the epochs of all",
        "gradual": "the configured phases, the backbone unfrozen block by block in the last",
        "scratch": "random weights, trained by evaluate.scratch_schedule",
    }
)


def has_start(config: Config) -> bool:
    """Whether there are pretrained weights to begin with."""
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
        "gradual": probes and not _is_frozen(phases[-1]) and phases[-1].epochs > config.model.num_layers,
        "scratch": True,
    }
    return tuple(strategy for strategy, applies in found.items() if applies)


def schedule_of(strategy: Strategy, config: Config) -> Schedule:
    """The schedule that the strategy makes of the configured one."""
    if strategy == "scratch":
        return config.evaluate.scratch_schedule
    change: dict[Strategy, Callable[[tuple[Phase, ...]], tuple[Phase, ...]]] = {
        "configured": lambda phases: phases,
        "without_l2_sp": lambda phases: tuple(phase.model_copy(update={"l2_sp": 0.0}) for phase in phases),
        "linear_probe": lambda phases: phases[:1],
        "full": lambda phases: (phases[-1].model_copy(update={"epochs": sum(phase.epochs for phase in phases)}),),
        "gradual": lambda phases: (*phases[:-1], *_unfreezing(phases[-1], config.model.num_layers)),
    }
    return config.schedule.model_copy(update={"phases": change[strategy](config.schedule.phases)})


def _unfreezing(phase: Phase, num_blocks: int) -> list[Phase]:
    """The phase in stages of as many epochs: one more block of the backbone from the top in each, all in the last.

    Howard and Ruder 2018, arXiv 1801.06146.
    """
    each = phase.epochs // (num_blocks + 1)
    stages = []
    for block in reversed(range(num_blocks)):
        free = "|".join(f"blocks\\.{number}" for number in range(block, num_blocks))
        frozen = ParamGroup(match=rf"^backbone\.(?!norm\.|{free}\.)", rate="frozen")
        change = {"name": f"{phase.name}_from_block_{block}", "epochs": each, "groups": (frozen, *phase.groups)}
        stages.append(phase.model_copy(update=change))
    return [*stages, phase.model_copy(update={"epochs": phase.epochs - each * num_blocks})]


def _is_frozen(phase: Phase) -> bool:
    """Whether the phase leaves some of the model as it is."""
    return any(group.rate == "frozen" for group in phase.groups)
