"""Work on the cluster gives what it gives in this process: reports, tables in order, large values, faults."""

import os
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pydantic import BaseModel

from ray_app.data.pool import Shared, map_parts
from ray_app.data.streaming import run_pass
from ray_app.errors import DataError
from ray_app.train_config import TrainConfig


class Number(BaseModel):
    value: int
    process: int = 0


def square(number: Number) -> Number:
    if number.value < 0:
        raise DataError(f"{number.value} is negative")
    return Number(value=number.value**2, process=os.getpid())


class Naming:
    def __init__(self, names: Shared[dict[str, str]]) -> None:
        self._names = names.get()

    def __call__(self, uri: str) -> Iterator[pa.Table]:
        for copy in range(2):
            yield pa.table({"name": [f"{self._names[uri]}{copy}"], "process": [os.getpid()]})


def check(num_workers: int) -> set[int]:
    """What both have to do; the processes that did it."""
    reports = run_pass(square, [Number(value=value) for value in range(9)], (Number, Number), "squares", None)
    assert sorted(report.value for report in reports) == [value**2 for value in range(9)]
    with pytest.raises(DataError, match="-3 is negative"):
        run_pass(square, [Number(value=-3)], (Number, Number), "squares", None)
    names = {str(number): f"part {number}-" for number in range(5)}
    workers = TrainConfig(num_workers=num_workers)
    rows = pa.concat_tables(map_parts(list(names), Naming, {"names": Shared(names)}, workers)).to_pylist()
    assert [row["name"] for row in rows] == [f"part {number}-{copy}" for number in range(5) for copy in range(2)]
    return {row["process"] for row in rows} | {report.process for report in reports}


def test_without_ray_it_is_done_here() -> None:
    assert check(1) == {os.getpid()}


@pytest.mark.cluster
def test_on_a_cluster_it_is_done_there(ray_cluster: None) -> None:
    assert os.getpid() not in check(2)
