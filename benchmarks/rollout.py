"""Promotion, loss of a replica and rollback under constant load, through the client that is shipped: what fails?

    python benchmarks/rollout.py --config X.yaml [--seconds 300] [--rate 100] [serve.num_replicas=2] [key=value ...]

Starts the service on Ray Serve. Requests begin at a fixed rate (open loop); the time of each counts from when it was
due, attempts after the first included. At a quarter of the time the other version is promoted, at half a replica is
killed with SIGKILL, at three quarters `jobs/promote.py --rollback` leads back. The registry must hold two versions;
afterwards that is in production which was before. Exit code 1 if a request failed.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
from serving import JOBS, on_ray_serve

from ray_app.config import load_config
from ray_app.registry import Registry
from ray_app.serving.client import Client, ClientError
from ray_app.storage import Storage

THREADS = 128


def replicas(service: psutil.Process) -> list[psutil.Process]:
    return [each for each in service.children(recursive=True) if "ServeReplica" in " ".join(each.cmdline())]


def moves(config: str, overrides: list[str], service: psutil.Process, seconds: float) -> None:
    """What happens meanwhile; what each did is said with its time."""
    settings = load_config(config, overrides)
    registry = Registry(Storage.from_config(settings.storage), settings.name)
    present = registry.production()[0].version
    other = next(version.name for version in registry.versions() if version.name != present)
    start = time.monotonic()
    promote = [sys.executable, str(JOBS / "promote.py"), "--config", config, *overrides]
    for number, name in enumerate(("promotion", "SIGKILL", "rollback"), 1):
        time.sleep(max(0.0, start + seconds * number / 4 - time.monotonic()))
        print(f"{time.monotonic() - start:6.1f} s: {name}", flush=True)
        if name == "SIGKILL":
            replicas(service)[0].send_signal(signal.SIGKILL)
        else:
            how = ["--version", other, "--force"] if name == "promotion" else ["--rollback"]
            subprocess.run([*promote, *how], check=True, stdout=subprocess.DEVNULL)
    assert registry.production()[0].version == present


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--rate", type=float, default=100, help="requests per second")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    times: list[float] = []
    answers: Counter[str] = Counter()

    def ask(user: str, due: float) -> None:
        try:
            # Ten attempts: a replica that was killed is back after about ten seconds.
            answers[Client(url, attempts=10).recommend(user)["version"]] += 1
        except ClientError as error:
            answers[f"failed: {error}"] += 1
        times.append(time.perf_counter() - due)

    with on_ray_serve(arguments.config, arguments.overrides) as (url, service), ThreadPoolExecutor(THREADS) as pool:
        users = Client(url).call("GET", "/v1/users?k=1000")
        drawn, start = random.Random(0), time.perf_counter()
        happening = pool.submit(moves, arguments.config, arguments.overrides, service, arguments.seconds)
        for number in range(int(arguments.rate * arguments.seconds)):
            due = start + number / arguments.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            pool.submit(ask, drawn.choice(users), due)
        happening.result()
        pool.shutdown()
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1000
    failed = sum(count for answer, count in answers.items() if answer.startswith("failed"))
    print(*(f"{count:,} answers: {answer}" for answer, count in answers.items()), sep="\n")
    print(f"{len(times):,} requests, {failed} failed, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {max(times):.1f} s")
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
