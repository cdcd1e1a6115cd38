"""Pictures decoded and resized through Ray Data beside a torch DataLoader, both with the same number of processes.

    python benchmarks/picture_ingest.py --data 'FOLDER/*.parquet' [--processes 2] [--side 224] [--passes 3] [--times 4]

FOLDER has parquet files with a column `image` of bytes. Each pass reads all files, as often as `--times` says, as if
the catalogue were that much larger, and hands every picture over as uint8 tensors; the two take turns. Prints pictures
per second, seconds until the first batch (in the first pass that is with the start of the processes; the cluster runs
already), and the ratio, Ray Data over DataLoader.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

import door  # sets what Ray reads when it is imported
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ray_app.data.squares import squares
from ray_app.storage import Storage

BATCH = 64
PIXELS = "pixels"
BLOCK_BYTES = 32 * 2**20
"""Of Ray Data: some batches, so that the first comes soon and few are handed over."""


class Pass(NamedTuple):
    """One reading of everything."""

    pictures: int
    seconds: float
    first_s: float


def row_groups(paths: list[str]) -> list[str]:
    """All row groups, as `PATH#NUMBER`: both sides are given the same pieces."""
    return [f"{path}#{group}" for path in paths for group in range(pq.ParquetFile(path).num_row_groups)]


def decoded(piece: str, side: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a row group, `[n, side, side, 3]`."""
    path, _, group = piece.rpartition("#")
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(BATCH, row_groups=[int(group)], columns=["image"], use_threads=False):
        yield squares(batch["image"].to_pylist(), side)


def decode_pieces(side: int, shares: pa.Table) -> Iterator[pa.Table]:
    """What a task of Ray Data does: its process stays for the tasks after it. It needs no torch."""
    for pieces in shares["pieces"].to_pylist():
        for piece in pieces:
            for pictures in decoded(piece, side):
                flat = pa.array(pictures.reshape(-1))
                yield pa.table({PIXELS: pa.FixedSizeListArray.from_arrays(flat, pictures[0].size)})


class Pieces(IterableDataset):  # type: ignore[type-arg]
    """What the processes of a DataLoader read: each every n-th piece."""

    def __init__(self, pieces: list[str], side: int) -> None:
        self._pieces, self._side = pieces, side

    def __iter__(self) -> Iterator[torch.Tensor]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        for piece in self._pieces[worker.id :: worker.num_workers]:
            yield from map(torch.from_numpy, decoded(piece, self._side))


def through_ray(pieces: list[str], side: int, processes: int) -> Iterator[torch.Tensor]:
    shares = [{"pieces": pieces[number::processes]} for number in range(processes)]
    tables = ray.data.from_items(shares, override_num_blocks=processes).map_batches(
        partial(decode_pieces, side),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=processes),
    )
    tables.context.enable_progress_bars = False
    tables.context.target_max_block_size = BLOCK_BYTES
    for table in tables.iter_batches(batch_size=None, batch_format="pyarrow"):
        for chunk in table[PIXELS].chunks:
            yield torch.from_dlpack(chunk.flatten()).view(-1, side, side, 3)  # where Ray keeps it, not copied


def through_loader(pieces: list[str], side: int, processes: int) -> Iterator[torch.Tensor]:
    yield from DataLoader(Pieces(pieces, side), batch_size=None, num_workers=processes)


def timed(read: Callable[[], Iterator[torch.Tensor]]) -> Pass:
    start, first, pictures, total = time.perf_counter(), 0.0, 0, 0
    for batch in read():
        first = first or time.perf_counter() - start
        pictures += len(batch)
        total += int(batch[:, 0, 0].sum())  # touched, as training would
    assert total
    return Pass(pictures, time.perf_counter() - start, first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder or glob of parquet files")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--times", type=int, default=4)
    args = parser.parse_args()
    paths = [entry.uri for entry in Storage().list_files(args.data) if entry.uri.endswith(".parquet")]
    ways = {"Ray Data": through_ray, "DataLoader": through_loader}
    passes: dict[str, list[Pass]] = {name: [] for name in ways}
    with door.connected():
        for number in range(args.passes):
            for name, way in ways.items():
                passes[name].append(timed(partial(way, row_groups(paths) * args.times, args.side, args.processes)))
                print(number, name, passes[name][-1], file=sys.stderr, flush=True)
    print(f"| {args.processes} processes, {args.side} px | pictures/s | seconds to the first batch |\n|---|---|---|")
    for name, found in passes.items():
        rates = ", ".join(f"{one.pictures / one.seconds:.0f}" for one in found)
        print(f"| {name} | {rates} | {', '.join(f'{one.first_s:.1f}' for one in found)} |")
    ratios = [ours.seconds / theirs.seconds for theirs, ours in zip(*passes.values(), strict=True)]
    print(f"| Ray Data over DataLoader | {', '.join(f'{ratio:.2f}' for ratio in ratios)} | |")


if __name__ == "__main__":
    main()
