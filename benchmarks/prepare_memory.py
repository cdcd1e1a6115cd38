"""Peak memory of `prepare` for a log and for one ten times as long.

    python benchmarks/prepare_memory.py [--rows 2000000] [--factor 10] [--format parquet]

Each size runs in a process and a Ray cluster of its own (two CPUs). Memory is the proportional set size (PSS) of the
driver, Ray's daemons, its workers and the object store together, sampled twice a second: pages that processes share
count once. The larger log must take at most 1.5 times the memory of the smaller.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ITEMS, EVENTS_PER_USER, GROUP_ROWS, YEAR_S = 50_000, 25, 250_000, 365 * 86_400
LIMIT = 1.5
JOB = """
import sys, time
import ray
from rich.progress import Progress
from ray_app.data_config import DataConfig
from ray_app.data.prepare import prepare
from ray_app.storage import Storage
ray.init(address="local", num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, logging_level="warning")
time.sleep(5)
print("ready", flush=True)
with Progress(disable=not sys.stderr.isatty()) as progress:
    dataset = prepare(Storage(path=sys.argv[2]), "memory", DataConfig(events=sys.argv[1]), progress)
counts = dataset.manifest.counts
assert counts.rows_in == int(sys.argv[3]) == counts.rows_kept + counts.rows_quarantined
"""


class Run(NamedTuple):
    """One size, measured."""

    rows: int
    seconds: float
    idle_mb: float
    peak_mb: float
    largest_mb: float


def write_log(rows: int, folder: Path, form: str) -> None:
    """One file of purchases: as many users as the log is long, popular items, a few returns."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    schema = pa.schema(
        [("user_id", pa.int64()), ("item_id", pa.string()), ("timestamp", pa.int64()), ("quantity", pa.int8())]
    )
    path = folder / f"log.{form}"
    writer = pq.ParquetWriter(path, schema) if form == "parquet" else pa.csv.CSVWriter(path, schema)
    with writer:
        for start in range(0, rows, GROUP_ROWS):
            count = min(GROUP_ROWS, rows - start)
            item = (ITEMS * rng.random(count) ** 3).astype(np.int64).astype(str)
            columns = [
                rng.integers(rows // EVENTS_PER_USER, size=count),
                np.char.add("sku-", item),
                1_500_000_000 + (YEAR_S * (start + np.arange(count)) / rows).astype(np.int64),
                rng.choice(np.array([1, 2, -1], np.int8), size=count, p=[0.9, 0.07, 0.03]),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def measure(rows: int, form: str) -> Run:
    """Prepare a log of so many rows in a fresh process and watch its whole tree."""
    with tempfile.TemporaryDirectory() as folder:
        write_log(rows, Path(folder, "raw"), form)
        command = [sys.executable, "-c", JOB, f"{folder}/raw", f"{folder}/out", str(rows)]
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
        job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert job.stdout is not None
        if "ready\n" not in iter(job.stdout.readline, ""):
            raise SystemExit("Ray did not start")
        started, idle = time.perf_counter(), sum(tree_memory(job.pid).values())
        peak = largest = 0.0
        while job.poll() is None:
            found = tree_memory(job.pid)
            peak, largest = max(peak, sum(found.values())), max(largest, *found.values(), 0.0)
            time.sleep(0.5)
        if job.returncode:
            raise SystemExit(f"prepare failed with exit code {job.returncode}")
        return Run(rows, time.perf_counter() - started, idle, peak, largest)


def tree_memory(root: int) -> dict[int, float]:
    """PSS in MB of a process and everything below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    waiting, found = [root], {}
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # ended in the meantime
            continue
        found[pid] = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--factor", type=int, default=10)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    arguments = parser.parse_args()
    print("| rows | seconds | rows/s | Ray idle, MB | peak, MB | largest process, MB |\n|---|---|---|---|---|---|")
    runs = []
    for rows in (arguments.rows, arguments.rows * arguments.factor):
        run = measure(rows, arguments.format)
        runs.append(run)
        speed = f"{run.rows / run.seconds:,.0f}"
        memory = f"{run.idle_mb:,.0f} | {run.peak_mb:,.0f} | {run.largest_mb:,.0f}"
        print(f"| {run.rows:,} | {run.seconds:.0f} | {speed} | {memory} |", flush=True)
    ratio = runs[1].peak_mb / runs[0].peak_mb
    print(f"\n{arguments.factor} times the rows take {ratio:.2f} times the memory (at most {LIMIT}).")
    sys.exit(ratio > LIMIT)


if __name__ == "__main__":
    main()
