"""Training speed beside RecTools and RecBole, all in one run: one log, one core, the same torch.

    python benchmarks/throughput.py --data FOLDER --envs OUTSIDE [--budget-factor 10]

FOLDER has interactions.parquet (user_id, position, item_id from 1). The peers get environments of their own in OUTSIDE,
made with uv when they are not there. Two numbers each: target positions per CPU-second of training, and CPU seconds
until NDCG@10 on validation (second to last event, full catalogue, seen items excluded) reaches --until. Validation is
computed by the same code for all and its time is left out. A peer is stopped when it has spent --budget-factor times
our CPU seconds. Prints a markdown table; progress goes to the error stream.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
# One torch for all: the versions of a peer that are not pinned by itself are the newest that it runs with.
COMMON = ("torch==2.13.0", "numpy<2", "pyarrow<22")
PEERS = {
    "RecTools 0.19.0 SASRec, sampled softmax 256": ("rectools_sasrec.py", ("rectools[torch]==0.19.0",)),
    "RecBole 1.2.1 SASRec, full cross-entropy": ("recbole_sasrec.py", ("recbole==1.2.1", "pandas<2.3", "scipy<1.14")),
}
OURS = "this project, SASRec, sampled softmax"


class Outcome(NamedTuple):
    """How far a system came."""

    positions: int
    cpu_s: float
    best: float
    reached_s: float | None
    """CPU seconds when the aim was reached."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--envs", type=Path, required=True, help="folder for the peers' environments")
    parser.add_argument("--config", default="jobs/configs/amazon_beauty.yaml", help="our configuration")
    parser.add_argument("--until", type=float, default=0.045, help="validation NDCG@10 to reach")
    parser.add_argument("--budget-factor", type=float, default=10.0, help="CPU time of a peer, in units of ours")
    parser.add_argument("--budget-s", type=float, help="CPU time of a peer, in seconds")
    parser.add_argument("overrides", nargs="*", help="of our configuration")
    args = parser.parse_args()
    ours = [sys.executable, str(HERE / "train_plain.py"), "--data", str(args.data), "--config", args.config]
    overrides = ["evaluate.scratch_schedule.validate_every=1", *args.overrides]
    outcomes = {OURS: measure([*ours, "--until", str(args.until), *overrides], args.until, per_epoch=True)}
    budget_s = args.budget_s or args.budget_factor * (outcomes[OURS].reached_s or outcomes[OURS].cpu_s)
    for name, (script, packages) in PEERS.items():
        python = environment(args.envs / Path(script).stem, (*packages, *COMMON))
        command = [str(python), str(HERE / "peers" / script), "--data", str(args.data), "--until", str(args.until)]
        outcomes[name] = measure([*command, "--budget-s", str(budget_s)], args.until)
    print_table(outcomes, args.until)


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """The interpreter of an environment that holds `packages`."""
    python = folder / "bin" / "python"
    done = folder / "packages.json"
    if not done.exists() or json.loads(done.read_text()) != list(packages):
        venv.create(folder, clear=True)
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
        done.write_text(json.dumps(packages))
    return python


def measure(command: list[str], until: float, per_epoch: bool = False) -> Outcome:
    """Run one system on one core and read its JSON lines; `per_epoch` says that they count targets by the epoch."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    settings = os.environ | threads | quiet | {"PYTHONPATH": str(HERE.parent)}
    positions, cpu_s, best, reached_s = 0, 0.0, 0.0, None
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            record = json.loads(line)
            if "targets" not in record:
                continue
            print(f"{Path(command[1]).stem}: {line.rstrip()}", file=sys.stderr, flush=True)
            positions = positions + record["targets"] if per_epoch else record["targets"]
            cpu_s = record["train_cpu_s"]
            best = max(best, record.get("val/ndcg@10", 0.0))
            reached_s = cpu_s if reached_s is None and best >= until else reached_s
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Outcome(positions, cpu_s, best, reached_s)


def print_table(outcomes: dict[str, Outcome], until: float) -> None:
    ours = outcomes[OURS]
    print(f"| system | target positions per cpu-s | we / it | cpu-s to NDCG@10 {until:g} | it / we | best NDCG@10 |")
    print("|---|---|---|---|---|---|")
    for name, outcome in outcomes.items():
        speed = outcome.positions / outcome.cpu_s
        if outcome.reached_s is not None:
            spent, ratio = f"{outcome.reached_s:.0f}", f"{outcome.reached_s / (ours.reached_s or ours.cpu_s):.1f}"
        else:
            spent = f"not within {outcome.cpu_s:.0f}"
            ratio = f"> {outcome.cpu_s / (ours.reached_s or ours.cpu_s):.1f}"
        faster = ours.positions / ours.cpu_s / speed
        print(f"| {name} | {speed:,.0f} | {faster:.1f} | {spent} | {ratio} | {outcome.best:.4f} |")


if __name__ == "__main__":
    main()
