"""What a search over schedules may choose, and what it may spend."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ray_app.data_config import Positive
from ray_app.errors import ConfigError
from ray_app.schedule import Section

Value = bool | int | float | str | None
Strategy = Literal[
    "configured",
    "without_l2_sp",
    "linear_probe",
    "full",
    "gradual",
    "surgical_first",
    "surgical_middle",
    "surgical_last",
    "bounded_delta",
    "population",
    "scratch",
]
SEARCHED = ("schedule.", "model.", "classifier.", "train.", "evaluate.scratch_schedule.")
"""Where the settings lie that a search may vary."""
SAME_FOR_ALL = frozenset(
    {
        *("model.start_from", "classifier.backbone", "classifier.weights"),
        *("train.num_workers", "train.use_gpu", "train.cpus_per_worker", "train.max_failures"),
    }
)
"""What all trials share, although it lies there: what they begin with, and what each takes of the cluster."""
_SEARCHED, _SAME = ", ".join(place.rstrip(".") for place in SEARCHED), ", ".join(sorted(SAME_FOR_ALL))


class Distribution(Section):
    """Values of one setting, by exactly one of these keys, which are named and meant as in Ray Tune."""

    uniform: tuple[float, float] | None = None
    """Low, high."""
    loguniform: tuple[float, float] | None = None
    """Low, high: every order of magnitude is as likely."""
    quniform: tuple[float, float, float] | None = None
    """Low, high, step."""
    randint: tuple[int, int] | None = None
    """Whole numbers from low up to, and without, high."""
    choice: Annotated[tuple[Value, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_kind_in_bounds(self) -> Self:
        kinds = list(type(self).model_fields)
        if len(_given(self)) != 1:
            raise ValueError(f"should have exactly one of the keys {', '.join(kinds)}")
        if self.kind != "choice":
            low, high, *step = self.bounds
            if not low < high:
                raise ValueError(f"{self.kind} should have its low end below its high end, got {low:g} and {high:g}")
            if self.kind == "loguniform" and low <= 0:
                raise ValueError(f"loguniform should begin above 0, got {low:g}")
            if step and not 0 < step[0] <= high - low:
                raise ValueError(f"the step of quniform should lie above 0 and fit into its range, got {step[0]:g}")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}

    @property
    def kind(self) -> str:
        """The key that is set."""
        return next(iter(_given(self)))

    @property
    def bounds(self) -> tuple[Any, ...]:
        """What the key says."""
        found: tuple[Any, ...] = getattr(self, self.kind)
        return found

    def ends(self) -> list[Value]:
        """The lowest and the highest value, or all of a choice: where these are allowed, so is what lies between."""
        return list(self.bounds) if self.kind == "choice" else self.points(2)

    def points(self, number: int) -> list[Value]:
        """All values of a choice, else at most `number` that are spread evenly from end to end."""
        if self.kind == "choice":
            return list(self.bounds)
        low, high, *step = self.bounds
        shares = [n / (number - 1) for n in range(number)]
        if self.kind == "loguniform":
            return [float(f"{low ** (1 - share) * high**share:.6g}") for share in shares]
        if self.kind == "uniform":
            return [low + (high - low) * share for share in shares]
        width = step[0] if step else 1
        last = math.floor((high - low) / width + 1e-9) if step else high - 1 - low
        return [low + width * place for place in sorted({round(last * share) for share in shares})]

    def has(self, value: object) -> bool:
        """Whether this may give `value`."""
        if self.kind == "choice":
            return any(value == one and type(value) is type(one) for one in self.bounds)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high, *step = self.bounds
        if self.kind == "randint":
            return bool(low <= value < high) and value == int(value)
        steps = (value - low) / step[0] if step else 0.0
        return bool(low <= value <= high) and abs(steps - round(steps)) < 1e-9


def _given(distribution: Distribution) -> set[str]:
    return {key for key in Distribution.model_fields if getattr(distribution, key) is not None}


def _without_credentials(tracker: str) -> str:
    if "@" in tracker:
        raise ValueError("credentials belong in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, not here")
    return tracker


Tracker = Annotated[str, Field(pattern=r"^(tensorboard|mlflow(:.+)?)$"), AfterValidator(_without_credentials)]


class TuneConfig(Section):
    """A search for the best schedule: trials on the target log, judged on its validation part."""

    num_trials: Positive = 20
    """At most so many, the configured schedule and its linear probe included."""
    search: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    """Who proposes: tpe tries each way to fine-tune as it is configured and the best slower and held tighter, all to
    their end, then learns from the trials before (Optuna); a grid takes three points of every range; pbt changes the
    rate of the last phase while it lasts, and asks neither space nor scheduler (population-based training)."""
    population: Annotated[int, Field(ge=2)] = 4
    """pbt: trials in each generation, of which the better half has children."""
    generations: Annotated[int, Field(ge=2)] = 4
    """pbt: stages of the last phase; each trial trains one, with one worker per trial, and takes over those before."""
    strategies: Annotated[tuple[Strategy, ...], Field(min_length=1)] | None = None
    """Variants of the configured schedule to choose among; unset: all that the configuration allows, of which the
    surgical ones (a third of the backbone alone) are for pictures only."""
    space: dict[str, Distribution] | None = None
    """Path of a setting, as in an override -> its distribution; unset: rates, pulls and decay of the schedule."""
    scheduler: Literal["asha", "hyperband", "median", "none"] = "asha"
    """Who stops trials that are behind: asha by the best third at each rung of epochs, hyperband the same with some
    trials judged later than others (with tpe, what BOHB does), median by half of all."""
    grace_epochs: Positive = 3
    """A trial is not stopped before it has trained so long, nor before its last phase; those that tpe begins with are
    not stopped at all, but for training from scratch."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """asha and hyperband: one in so many goes on from each rung, and the next rung is so many times as far."""
    data_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the users, whose histories alone trials train and are validated on; the best schedule then trains on all.
    Logs only: files of users are left out whole, and there are 16 or more."""
    max_epochs: Positive | None = None
    """Epochs of all trials together after which the search ends."""
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which the search ends."""
    max_concurrent_trials: Positive | None = None
    """Unset: as many as the cluster has room for."""
    soup: Positive = 5
    """Of so many of the best trials the weights are averaged, one after another as long as validation is better for it
    (greedy soup, arXiv 2203.05482); 1: none. With one worker per trial alone, and all of the data."""
    trackers: tuple[Tracker, ...] = ()
    """Where each trial is shown as a run of its own: `tensorboard` files under the storage, `mlflow` where
    MLFLOW_TRACKING_URI says or in a file here, `mlflow:URI` on that server."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the proposals; all trials train with train.seed."""

    @property
    def most_at_once(self) -> int:
        """Trials at a time where the cluster has room for them."""
        return min(self.num_trials, self.max_concurrent_trials or self.num_trials)

    def faults(self, try_out: Callable[[str, Value], object]) -> list[str]:
        """What the search would vary although it may not, or set to a value that the configuration does not allow.

        Args:
            try_out: sets the path to the value in the configuration; raises `ConfigError` where that is not allowed.
        """
        found: list[str] = []
        for path, distribution in (self.space or {}).items():
            if not path.startswith(SEARCHED) or path in SAME_FOR_ALL:
                found.append(f"tune.space.{path}: cannot be searched; what can is in {_SEARCHED}, but for {_SAME}")
                continue
            try:
                for value in distribution.ends():
                    try_out(path, value)
            except ConfigError as error:
                # Where a rule between settings is broken, the fault names another key than the one that is searched.
                found += [f"tune.space.{path}: {fault.removeprefix(f'{path}: ')}" for fault in error.faults]
        return found
