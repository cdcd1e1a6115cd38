"""Work spread over the cluster by Ray Data, with progress that a person can watch; without Ray, done right here."""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from pydantic import BaseModel
from rich.progress import Progress

from ray_app.errors import UserError

Work = TypeVar("Work", bound=BaseModel)
Report = TypeVar("Report", bound=BaseModel)
_TASKS_PER_CPU = 4
_WORK_PER_TASK = 4
_WORK, _REPORT, _FAULT = "work", "report", "fault"


def run_pass(
    function: Callable[[Work], Report],
    work: Sequence[Work],
    kinds: tuple[type[Work], type[Report]],
    label: str,
    progress: Progress | None,
) -> list[Report]:
    """`function` of every piece of work, anywhere on the cluster that is connected; reports in no particular order.

    Raises:
        UserError: what `function` raised, as it was raised.
    """
    if not work:
        return []
    bar = progress.add_task(label, total=len(work)) if progress else None
    reports = []
    for report in _spread(function, work, kinds) if ray.is_initialized() else map(function, work):
        reports.append(report)
        if progress and bar is not None:
            progress.advance(bar)
    assert len(reports) == len(work)
    return reports


def _spread(
    function: Callable[[Work], Report], work: Sequence[Work], kinds: tuple[type[Work], type[Report]]
) -> Iterator[Report]:
    import ray.data  # noqa: PLC0415 (takes seconds)

    cpus = int(ray.cluster_resources().get("CPU", 1))
    tasks = min(len(work), max(1, cpus * _TASKS_PER_CPU, len(work) // _WORK_PER_TASK))  # no CPU yet, if they scale up
    rows = ray.data.from_items([{_WORK: piece.model_dump_json()} for piece in work], override_num_blocks=tasks)
    mapped = rows.map(_Task(function, kinds[0]))
    mapped.context.enable_progress_bars = False
    with quiet():
        for row in mapped.iter_rows():
            if row[_FAULT]:
                raise pickle.loads(row[_FAULT])  # noqa: S301 (written by `_Task`)
            yield kinds[1].model_validate_json(row[_REPORT])


class _Task:
    def __init__(self, function: Callable[[Any], BaseModel], kind: type[BaseModel]) -> None:
        self.function = function
        self.kind = kind

    def __call__(self, row: dict[str, str]) -> dict[str, str | bytes]:
        try:
            report = self.function(self.kind.model_validate_json(row[_WORK]))
        except (
            UserError
        ) as error:  # travels as a value: raised, Ray would wrap it and print its way through the cluster
            return {_REPORT: "", _FAULT: pickle.dumps(error)}
        return {_REPORT: report.model_dump_json(), _FAULT: b""}


@contextmanager
def quiet() -> Iterator[None]:
    """Without Ray Data's lines about plans, and about the bars that it was told not to show."""
    levels = {"ray.data": logging.WARNING, "ray.data._internal.progress": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
