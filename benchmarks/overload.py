"""Ten times as many requests as can be answered: who is sent away, what does it cost, and how soon is it over?

    python benchmarks/overload.py --config X.yaml [--seconds 60] [--times 10] [--plain] [key=value ...]

Starts the service on Ray Serve (or on plain uvicorn), measures what it can do (16 clients, closed loop), then lets
requests begin at so many times that rate, whether or not others were answered. Memory is that of all processes of the
service. It is back to normal when 20 requests in a row are answered within twice the median of before. Exit code 1 for
any other answer than 200 and 503, or none.
"""

import argparse
import asyncio
import os
import random
import resource
import sys
import time
from collections import Counter

import numpy as np
import psutil
from serving import Caller, closed_loop, on_ray_serve, plain, request_bodies

NONE = 0
"""Status of what was not answered at all."""
MOST_CONNECTIONS = 2000
IN_A_ROW = 20


async def flood(
    url: str, bodies: list[bytes], rate: float, seconds: float
) -> tuple[Counter[int], int, int, list[float]]:
    """Statuses, how many found too many connections, how many were sent anew, and times of the 503s in ms."""
    idle: list[Caller] = []
    busy: set[asyncio.Task[None]] = set()
    found: Counter[int] = Counter()
    unsent, again, refused = 0, 0, list[float]()

    async def ask() -> None:
        nonlocal again
        caller = idle.pop() if idle else Caller(url, bodies)
        try:
            await caller.ask(time.perf_counter())
        except (OSError, EOFError):
            found[NONE] += 1
            return
        finally:
            again, caller.again = again + caller.again, 0
        found.update(caller.statuses)
        refused.extend(caller.times if caller.statuses[503] else [])
        caller.statuses.clear()
        caller.times.clear()
        idle.append(caller)

    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        if time.perf_counter() > start + seconds:  # this machine cannot send as fast
            unsent += int(rate * seconds) - number
            break
        if len(busy) >= MOST_CONNECTIONS:
            unsent += 1
            continue
        busy.add(task := asyncio.create_task(ask()))
        task.add_done_callback(busy.discard)
    await asyncio.gather(*busy)
    return found, unsent, again, refused


async def back_to_normal(url: str, bodies: list[bytes], limit_ms: float) -> float:
    """Seconds until the first of so many good answers in a row."""
    caller, start, since, row = Caller(url, bodies), time.perf_counter(), 0.0, 0
    while row < IN_A_ROW:
        asked = time.perf_counter()
        try:
            await caller.ask(asked)
            good = caller.statuses.pop(200, 0) == 1 and caller.times[-1] < limit_ms
        except (OSError, EOFError):
            caller, good = Caller(url, bodies), False
        since = since if row else asked - start
        row = row + 1 if good else 0
    return since


def memory(service: psutil.Process) -> float:
    """MB of the service's processes, what they share counted once."""
    return sum(each.memory_full_info().pss for each in (service, *service.children(recursive=True))) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--plain", action="store_true", help="on plain uvicorn, without Ray")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    random.seed(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server = plain if arguments.plain else on_ray_serve
    with server(arguments.config, [*arguments.overrides, "serve.log_requests=false"]) as (url, service):
        bodies = request_bodies(url)
        asyncio.run(closed_loop(url, bodies, 16, 5))  # warm-up
        callers, took = asyncio.run(closed_loop(url, bodies, 16, 10))
        rate = sum(len(caller.times) for caller in callers) / took
        [alone], _ = asyncio.run(closed_loop(url, bodies, 1, 5))
        median, before = float(np.median(alone.times)), memory(service)
        print(f"alone: {median:.1f} ms; 16 clients: {rate:.0f}/s; {before:.0f} MB", flush=True)
        found, unsent, again, refused = asyncio.run(flood(url, bodies, rate * arguments.times, arguments.seconds))
        normal = asyncio.run(back_to_normal(url, bodies, 2 * median))
        after = memory(service)
    wanted, sent = rate * arguments.times, found.total() / arguments.seconds
    print(f"wanted {wanted:.0f}/s, sent {sent:.0f}/s ({unsent:,} not sent, {again:,} anew)")
    print(f"answers {dict(found)}, 0: none")
    print(f"503 after {np.median(refused or [np.nan]):.0f} ms (median); normal after {normal:.1f} s")
    print(f"{after:.0f} MB afterwards ({after / before - 1:+.1%}); load average at the end: {os.getloadavg()[0]:.1f}")
    return int(bool(set(found) - {200, 503}))


if __name__ == "__main__":
    sys.exit(main())
