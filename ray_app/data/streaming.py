"""Work spread over the cluster by Ray Data, with progress that a person can watch."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from pydantic import BaseModel
from ray.data import DataContext
from rich.progress import Progress

from ray_app.errors import UserError

Work = TypeVar("Work", bound=BaseModel)
Report = TypeVar("Report", bound=BaseModel)
_TASKS_PER_CPU = 4


def run_pass(
    function: Callable[[Work], Report],
    work: Sequence[Work],
    kinds: tuple[type[Work], type[Report]],
    label: str,
    progress: Progress | None,
) -> list[Report]:
    """`function` of every piece of work, anywhere on the cluster; reports in no particular order.

    Raises:
        UserError: what `function` raised, as it was raised.
    """
    bar = progress.add_task(label, total=len(work)) if progress else None
    reports = []
    with _quiet():
        tasks = min(len(work), max(int(ray.cluster_resources().get("CPU", 1)) * _TASKS_PER_CPU, len(work) // 16))
        rows = ray.data.from_items([{"work": piece.model_dump_json()} for piece in work], override_num_blocks=tasks)
        try:
            for row in rows.map(_Task(function, kinds[0])).iter_rows():
                reports.append(kinds[1].model_validate_json(row["report"]))
                if progress and bar is not None:
                    progress.advance(bar)
        except Exception as error:
            raise _cause(error) from None
    return reports


class _Task:
    def __init__(self, function: Callable[[Any], BaseModel], kind: type[BaseModel]) -> None:
        self.function = function
        self.kind = kind

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        return {"report": self.function(self.kind.model_validate_json(row["work"])).model_dump_json()}


def _cause(error: BaseException) -> BaseException:
    """The error for the person, from inside those that Ray puts around it."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, UserError):
        inner = getattr(inner, "cause", None) or inner.__cause__
    return inner or error


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without bars and log lines of its own."""
    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
