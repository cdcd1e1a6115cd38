"""Processes that a test may kill: those that it started, itself or through others."""

import contextlib
import os
import signal
from pathlib import Path


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
