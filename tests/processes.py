"""Processes of a test: pairs that train together, and those below it that it may kill."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing


def run_two_workers(body: Callable[..., None], folder: Path, *args: object) -> None:
    """`body(rank, folder, *args)` in two processes of one gloo group; what it raises is raised here."""
    multiprocessing.start_processes(_worker, (body, folder, args), nprocs=2, start_method="spawn")


def _worker(rank: int, body: Callable[..., None], folder: Path, args: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", meet, timedelta(seconds=60), rank=rank, world_size=2)
    body(rank, folder, *args)
    gc.collect()  # a model that still holds the group would keep its threads
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of gloo that are left when the interpreter goes down abort it now and then (SIGABRT).
    os._exit(0)


def kill_descendants(ancestor: int, *wanted: bytes) -> int:
    """SIGKILL to every process below `ancestor` whose command line holds one of `wanted`; how many died."""
    killed = 0
    for pid in _descendants(ancestor):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if any(words in line for words in wanted):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]  # the name before may hold anything
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
