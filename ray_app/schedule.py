"""The fine-tuning schedule as data: phases, and in each phase a table of (parameter pattern -> rate or frozen).

The trainer runs it, the search varies it, the checkpoint remembers it, the report explains it.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

START, WISE = "start", "wise"
"""Phases of the records that tell of no epoch: the look before the first one, and the interpolation after the last."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


def _share(depth: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= depth[0] < depth[1] <= 1:
        raise ValueError("depth goes up, from 0 or more to 1 at most")
    return depth


class ParamGroup(Section):
    """Parameters whose name matches `match` (re.search) and no earlier group of the phase."""

    match: Annotated[str, AfterValidator(_regex)]
    r"""Regular expression, such as `^backbone\.` or `^head\.`."""
    rate: Annotated[float, Field(gt=0)] | Literal["frozen"] = 1.0
    """Factor on the phase's learning rate, or "frozen"."""
    depth: Annotated[tuple[float, float], AfterValidator(_share)] | None = None
    """Of these the backbone's blocks between two shares of its depth alone: [0, 0.5] is the half next to the input."""


class Phase(Section):
    """One stretch of training with one optimizer. A phase that has `patience` ends with its best weights."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """As curves and records call it."""
    epochs: Annotated[int, Field(ge=1)]
    """At most so many."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """That of the head, where groups give the backbone a factor."""
    groups: Annotated[tuple[ParamGroup, ...], Field(min_length=1)] = (ParamGroup(match=".*"),)
    """First match wins; a parameter that no group covers, or a group that covers nothing, is an error."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the rate of the backbone from block to block, from the output down to the input (BEiT, 2106.08254)."""
    optimizer: Literal["adamw", "sgd", "lbfgs"] = "adamw"
    """lbfgs: a head on a frozen backbone, on all its kept features at once (all views) and without dropout. It finds
    the length of its steps itself, whatever learning_rate says; an epoch is up to 50 of them."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay toward zero, on matrices of the head (everything, when training from scratch); decoupled from the gradient
    (adamw), or lambda/2 * |theta|^2 beside the mean loss."""
    keep_statistics: bool = False
    """Batch norms of the backbone go on with the means and variances that the phase begins with; their scales and
    shifts are trained. Where batches are small or unlike what it was pretrained on, theirs undo what the head knows."""
    l2_sp: Annotated[float, Field(ge=0)] = 0.0
    """Strength of the pull toward the pretrained weights, lambda/2 * |theta - theta0|^2, on the backbone alone."""
    warmup: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the phase's steps over which the rate rises; unset: 0.3 of one_cycle, else none."""
    decay: Literal["constant", "cosine", "one_cycle", "plateau"] = "constant"
    """one_cycle: up from 1/25 of the rate, and down to nearly nothing (Smith 2018, arXiv 1803.09820), while SGD's
    momentum goes down to 0.85 and up again; plateau: halved after half of patience without a better metric."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation metric before the phase ends."""

    @model_validator(mode="after")
    def _plateau_needs_patience(self) -> Self:
        if self.decay == "plateau" and self.patience is None:
            raise ValueError("plateau goes by patience, and takes half of it: set it too")
        return self

    @model_validator(mode="after")
    def _steps_of_its_own(self) -> Self:
        if self.is_whole and (self.warmup is not None or self.decay != "constant"):
            raise ValueError("lbfgs finds the length of its steps itself: leave out warmup and decay")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether each epoch is one step on all training targets at once."""
        return self.optimizer == "lbfgs"


HEAD = Phase(
    name="head",
    epochs=10,
    learning_rate=1e-3,
    groups=(ParamGroup(match=r"^backbone\.", rate="frozen"), ParamGroup(match=r"^head\.")),
    patience=2,
)
FULL = Phase(
    name="full",
    epochs=60,
    learning_rate=1e-3,
    groups=(ParamGroup(match=r"^backbone\.", rate=0.3), ParamGroup(match=r"^head\.")),
    l2_sp=1e-3,
    patience=6,
)


class Schedule(Section):
    """Phases in order. The default is the two-phase recipe: the head on a frozen backbone, then everything."""

    phases: Annotated[tuple[Phase, ...], Field(min_length=1)] = (HEAD, FULL)
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Global norm above which gradients are scaled down."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between validations; patience counts epochs, so it is checked at each validation."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step, such as 0.999, of a running average of the weights (Polyak and Juditsky 1992) that is validated,
    kept and published in their place. Begun anew by each phase; its decay is (1 + t) / (10 + t) at most at step t."""
    wise: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Shares alpha of the way from the pretrained backbone to the trained one, such as [0.3, 0.5, 0.7], that are tried
    when the last phase is over, the whole way among them; validation takes the best (WiSE-FT, arXiv 2109.01903)."""

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phase names must differ, got {names}")
        if taken := {START, WISE} & set(names):
            raise ValueError(f"{taken.pop()!r} is the name of a record, and not free for a phase")
        return self

    @property
    def needs_validation(self) -> bool:
        """Whether weights are chosen by validation."""
        return bool(self.wise) or any(phase.patience for phase in self.phases)


def _goes_forward(schedule: Schedule) -> Schedule:
    if schedule.wise:
        raise ValueError("wise goes back toward pretrained weights, and training from scratch has none: leave it out")
    if any(phase.is_whole for phase in schedule.phases):
        raise ValueError("lbfgs fits a head on a frozen backbone, and from scratch nothing is frozen: take adamw")
    return schedule


ScratchSchedule = Annotated[Schedule, AfterValidator(_goes_forward)]


def from_scratch(epochs: int = 100, learning_rate: float = 1e-3, patience: int = 10) -> Schedule:
    """One phase that trains everything: what pretraining and the from-scratch comparison use."""
    return Schedule(phases=(Phase(name="scratch", epochs=epochs, learning_rate=learning_rate, patience=patience),))
