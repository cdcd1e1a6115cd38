"""From a phase's table of patterns to an optimizer: which parameters move, how fast, and what they are held to."""

import re

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ray_app.errors import TrainingError
from ray_app.models.blocks import blocks_of
from ray_app.schedule import ParamGroup, Phase

BACKBONE = "backbone."
WHOLE_STEPS = 50
"""Of L-BFGS in an epoch."""


def assign_rates(model: nn.Module, phase: Phase) -> dict[str, float | None]:
    """Learning rate of each parameter by name, None where it is frozen. First matching group wins.

    Raises:
        TrainingError: a parameter that no group covers, or a group that covers no parameter whatever comes before it.
    """
    places = _places(model, phase)
    rates: dict[str, float | None] = {}
    for name, parameter in model.named_parameters():
        group = next((group for group in phase.groups if _covers(group, name, places)), None)
        if group is None:
            patterns = ", ".join(group.match for group in phase.groups)
            raise TrainingError(
                f"phase {phase.name!r}: no group covers parameter {name!r}; patterns: {patterns}. "
                "Add a group for it to schedule.phases.*.groups, if need be with rate: frozen"
            )
        # An empty tensor (a catalogue without new items) counts as covered but has nothing to learn.
        is_frozen = group.rate == "frozen" or parameter.numel() == 0
        rates[name] = None if is_frozen else float(group.rate) * phase.learning_rate * _decay(phase, name, places)
    for group in phase.groups:
        if not any(_covers(group, name, places) for name in rates):
            where = f" between depths {group.depth[0]:g} and {group.depth[1]:g}" if group.depth else ""
            raise TrainingError(
                f"phase {phase.name!r}: the pattern {group.match!r} matches no parameter{where}; "
                f"parameters: {', '.join(rates)}"
            )
    return rates


def _places(model: nn.Module, phase: Phase) -> dict[str, tuple[int, int]]:
    """Number of each backbone parameter's block, from 0 at the input, and how many there are; where that is asked."""
    if phase.layer_decay == 1 and not any(group.depth for group in phase.groups):
        return {}
    blocks = blocks_of(model.get_submodule(BACKBONE.rstrip(".")))
    return {BACKBONE + name: (number, len(blocks)) for number, names in enumerate(blocks) for name in names}


def _covers(group: ParamGroup, name: str, places: dict[str, tuple[int, int]]) -> bool:
    if group.depth is not None:
        if name not in places:
            return False
        number, of = places[name]
        if not group.depth[0] <= (number + 0.5) / of < group.depth[1]:
            return False
    return re.search(group.match, name) is not None


def _decay(phase: Phase, name: str, places: dict[str, tuple[int, int]]) -> float:
    number, of = places.get(name, (0, 1))
    return phase.layer_decay ** (of - 1 - number)


def freeze(model: nn.Module, rates: dict[str, float | None], *, keep_statistics: bool = False) -> None:
    """Let gradients flow to the parameters that have a rate, and let what is frozen be as it is in use.

    Norm layers inside a part that is frozen keep their statistics, with `keep_statistics` all of the backbone do. A
    backbone that is frozen as a whole has no dropout and no stochastic depth either, so that the head learns on the
    features that it will be given, cached or not; unless it has `dropout_when_frozen`.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(rates[name] is not None)
    for module in model.modules():
        if _is_frozen(module) or _is_fixed_norm(module):
            _keep_statistics(module)
    backbone = getattr(model, BACKBONE.rstrip("."), None)
    if backbone is not None and keep_statistics:
        _keep_statistics(backbone)
    if backbone is not None and _is_frozen(backbone) and not getattr(backbone, "dropout_when_frozen", False):
        backbone.eval()


def _keep_statistics(module: nn.Module) -> None:
    for inner in module.modules():
        if isinstance(inner, nn.modules.batchnorm._BatchNorm):
            inner.eval()


def _is_fixed_norm(module: nn.Module) -> bool:
    """Whether its scale and shift are no parameters, as in an encoder that adapters are trained beside."""
    is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
    return is_norm and next(module.parameters(), None) is None


def _is_frozen(module: nn.Module) -> bool:
    moves = [parameter.requires_grad for parameter in module.parameters()]
    return bool(moves) and not any(moves)


def build_optimizer(model: nn.Module, phase: Phase, rates: dict[str, float | None], decay_all: bool) -> Optimizer:
    """One parameter group per (rate, decay).

    Plain weight decay falls on matrices of the head alone, since the backbone is held by L2-SP; with `decay_all`
    (training from scratch) on every matrix.
    """
    groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        rate = rates[name]
        if rate is None:
            continue
        decays = parameter.ndim > 1 and (decay_all or not name.startswith(BACKBONE))
        groups.setdefault((rate, phase.weight_decay if decays else 0.0), []).append((name, parameter))
    if not groups:
        raise TrainingError(f"phase {phase.name!r}: every parameter is frozen, so there is nothing to train")
    described = [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    if phase.is_whole:
        return _whole_optimizer(phase, [member for members in groups.values() for member in members])
    if phase.optimizer == "sgd":
        return torch.optim.SGD(described, lr=phase.learning_rate, momentum=0.9)
    return torch.optim.AdamW(described, lr=phase.learning_rate, fused=True)


def _whole_optimizer(phase: Phase, members: list[tuple[str, nn.Parameter]]) -> Optimizer:
    if trained := [name for name, _ in members if name.startswith(BACKBONE)]:
        raise TrainingError(
            f"phase {phase.name!r}: lbfgs fits a head on a frozen backbone, and {trained[0]!r} has a rate. Freeze all "
            "of the backbone in schedule.phases.*.groups (match: '^backbone', rate: frozen), or take optimizer: adamw"
        )
    group = {"params": members, "base_lr": 1.0, "weight_decay": phase.weight_decay}
    return torch.optim.LBFGS([group], max_iter=WHOLE_STEPS, line_search_fn="strong_wolfe")


@torch.no_grad()
def pull(optimizer: Optimizer, reference: dict[int, Tensor], strength: float) -> None:
    """L2-SP (Li et al. 2018, arXiv 1802.01483): theta <- theta - rate * strength * (theta - theta0).

    Decoupled from the gradient, as AdamW decouples weight decay, so that Adam's scaling does not undo it.

    Args:
        optimizer: gives each parameter its present rate.
        reference: theta0 by `id` of the parameter.
        strength: lambda.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            origin = reference.get(id(parameter))
            if origin is not None:
                parameter.lerp_(origin, min(1.0, group["lr"] * strength))
