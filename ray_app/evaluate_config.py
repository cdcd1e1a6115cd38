"""What comes after training: how models are compared on the test part, and the lists written for every user."""

from typing import Annotated, Literal

from pydantic import Field

from ray_app.data_config import Positive
from ray_app.schedule import ScratchSchedule, Section, from_scratch

CurveStrategy = Literal["configured", "without_l2_sp", "linear_probe", "full", "gradual", "scratch"]
BaselineName = Literal["popular", "popular_recent", "personal_frequency", "item_knn", "transitions", "transitions_text"]


class EvaluateConfig(Section):
    """Full-catalogue ranking of the test part."""

    k: Annotated[tuple[Positive, ...], Field(min_length=1)] = (5, 10, 20)
    """Lengths of lists that are judged."""
    exclude_seen: bool = True
    """Whether items of the user's history are taken out of the ranking, and are no negatives in training: ask the
    service as it was trained. Papers differ: never mix the two."""
    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    """Of users, for each 95% interval."""
    baselines: tuple[BaselineName, ...] = (
        "popular",
        "popular_recent",
        "personal_frequency",
        "item_knn",
        "transitions",
        "transitions_text",
    )
    """What every model must beat, fitted to the same train part."""
    scratch: bool = True
    """Also train the same model from random weights, with `scratch_schedule`, and put it into the table."""
    scratch_schedule: ScratchSchedule = from_scratch()
    batch_users: Positive = 256
    """Users ranked at once: each takes 4 bytes per item of the catalogue, several times."""


class DataCurveConfig(Section):
    """What is learned from a part of the users: how much data a catalogue needs, and what pretraining spares."""

    shares: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.05, 0.1, 0.2, 0.5)
    """Of the users, drawn by their ids so that a smaller part lies inside a larger; all users are a point too."""
    strategies: Annotated[tuple[CurveStrategy, ...], Field(min_length=1)] | None = None
    """Variants of the configured schedule, as in `tune`; unset: configured, linear_probe, full and scratch, as far as
    the configuration has them."""


class PredictConfig(Section):
    """Top-k lists for every user."""

    k: Positive = 20
    """Items per list."""
    exclude_seen: bool = True
    """Whether lists leave out what a user had."""
    history: Literal["all", "before_test"] = "all"
    """all: as the service answers, by all events of the log; before_test: exactly the lists that evaluation scored."""
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far likeness to what is already on a list counts against an item (1 - lambda of MMR): 0 not at all."""
    together: bool = False
    """Also write what is bought together with each item: `k` partners by lift, from the orders of the log."""
    together_orders: Positive = 5
    """Orders that two items must share to be called bought together."""
