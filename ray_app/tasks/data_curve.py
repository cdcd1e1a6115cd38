"""What results are worth with fewer users to learn from: models of samples of a log, all asked about all of its users.

Who was not drawn is a new customer to a model: the history is read, and nothing was learned from it. So every point of
the curve asks the same users the same question, and differences between points are those of what was learned from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress

from ray_app.config import Config, dump, with_values
from ray_app.data.batches import num_steps
from ray_app.data.dataset import Dataset
from ray_app.schema import SCHEMA_VERSION
from ray_app.tasks.ranking import evaluate

MIN_STEPS = 8
"""Of an epoch, where the whole log has as many, so that no strategy falls behind for want of steps."""


@dataclass(frozen=True)
class Point:
    """A share of the users, and what was trained on it."""

    share: float
    dataset: Dataset
    """The sample, or the whole log."""
    models: Mapping[str, str]
    """Name of each strategy -> URI of its published checkpoint; the first is compared with the others."""


def for_few(config: Config, part: Dataset, whole: Dataset) -> Config:
    """The configuration with batches so small that an epoch on `part` has `MIN_STEPS`, as far as one on `whole` has."""
    workers, tokens = config.train.num_workers, config.train.tokens_per_batch
    steps = min(MIN_STEPS, num_steps(_targets(whole) // workers, tokens))
    return with_values(config, {"train.tokens_per_batch": min(tokens, max(_targets(part) // workers // steps, 1))})


def _targets(dataset: Dataset) -> int:
    return sum(part.train_targets for part in dataset.manifest.parts)


def data_curve(
    target: Dataset, points: Iterable[Point], config: Config, progress: Progress | None = None
) -> dict[str, Any]:
    """What `metrics.json` of a data curve holds; raises as `tasks.ranking.evaluate`.

    Args:
        target: the whole log, whose test part is asked about.
        points: the shares, the whole log among them.
        config: `data_curve`, `evaluate` and the workers of `train`.
        progress: where bars are shown.
    """
    assert config.data_curve is not None
    found: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda one: one.share):
        board = evaluate(target.storage, target, point.models, config, progress, known=point.dataset)
        counts = point.dataset.manifest.counts
        drawn = {"share": point.share, "users": counts.users, "train_events": counts.train_events}
        found.append({**drawn, **{name: board[name] for name in ("methods", "metrics", "differences")}})
        protocol, main, metric = (board[name] for name in ("protocol", "main", "metric"))
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": {**protocol, **dump(config.data_curve), "min_steps": MIN_STEPS, "seed": config.train.seed},
        "main": main,
        "metric": metric,
        "points": found,
    }
