"""What a search costs: the epochs of TPE with successive halving and shared phases, against the whole grid.

    PYTHONPATH=jobs python benchmarks/search.py --config jobs/configs/demo.yaml --demo FOLDER [key=value ...]

Prepares both logs and pretrains once (as `sparse_data.py` does), then trains without Ray Tune, one trial after another
by the same proposals, stopping and shared phases: first every point of a grid to its end, then the search of `tune`.
One JSON line per trial; at the end the best on validation and the epochs of each. Trials are kept: run again, it goes
on where it was. Epochs of the grid are counted as if no trial shared any.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import torch
from sparse_data import demo_paths, prepared

from ray_app.config import apply_overrides, load_config
from ray_app.data.prepare import prepare
from ray_app.training.run import Run
from ray_app.tuning.search import Search
from ray_app.tuning.stopping import build_scheduler
from ray_app.tuning.trials import Trial, best_of
from ray_app.tuning.tuner import Proposals
from ray_app.tuning.worker import train_trial

GRID = {
    "schedule.phases.0.learning_rate": (0.3, 1.0, 3.0),
    "schedule.phases.1.learning_rate": (0.1, 0.3, 1.0, 3.0),
}
"""Factors on the configured rates; with four pulls toward the pretrained weights, 48 points."""
PULLS = [0.0, 0.01, 0.1, 1.0]


class Ended(Exception):  # noqa: N818 (no fault)
    """The scheduler ends a trial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--demo", type=Path, help="folder for the logs of make demo and all that is made of them")
    parser.add_argument(
        "--points", type=int, default=48, help="of the grid (the linear probe comes besides); fewer are its first ones"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    paths = demo_paths(args.demo) if args.demo else []
    config = load_config(args.config, [*paths, *args.overrides], section="tune")
    assert config.pretrain is not None
    target, _ = prepared(config)
    source = prepare(target.storage, config.name, config.pretrain.data)
    start = Run("pretrain", config, config.pretrain.schedule, source).uri
    rates = dict(zip(GRID, (phase.learning_rate for phase in config.schedule.phases), strict=True))
    space = {path: {"choice": [rates[path] * factor for factor in factors]} for path, factors in GRID.items()}
    space["schedule.phases.1.l2_sp"] = {"choice": PULLS}
    whole = {"search": "grid", "scheduler": "none", "strategies": ["configured"], "space": space}
    grid = apply_overrides(config, [f"tune={json.dumps({**whole, 'num_trials': args.points + 1})}"])
    results = {name: walk(Search.begin(one, target, start), name) for name, one in (("grid", grid), ("search", config))}
    costs = {"grid": sum(trial.epochs for trial in results["grid"]), "search": sum(t.spent for t in results["search"])}
    for name, trials in results.items():
        best = best_of(trials)
        assert best is not None
        shared = sum(trial.reused for trial in trials)
        told = {"trials": len(trials), "best": best.score, "best trial": best.number, "epochs": costs[name]}
        print(json.dumps({"what": name, **told, "shared": shared, "of the grid": costs[name] / costs["grid"]}))


def walk(search: Search, name: str) -> list[Trial]:
    """Every trial of the search, in this process."""
    trials = search.trials()
    scheduler, proposals = build_scheduler(search, trials.over()), Proposals(search, trials)
    while (trial := proposals.next()) is not None:
        proposals.suggest("")
        began = time.perf_counter()
        done = trained(search, trial, scheduler)
        trials.keep(done)
        line = {"what": name, "trial": done.number, "strategy": done.strategy, "state": done.state, "score": done.score}
        seconds = round(time.perf_counter() - began, 1)
        print(
            json.dumps({**line, "epochs": done.epochs, "reused": done.reused, "s": seconds, **done.values}), flush=True
        )
    return trials.over()


def trained(search: Search, trial: Trial, scheduler: object) -> Trial:
    """The trial when it is over."""
    now = [trial]

    class Running:
        trial_id, config = str(trial.number), {"number": trial.number}

    running = Running()

    def report(result: dict[str, object]) -> None:
        now.append(Trial.model_validate_json(str(result["trial"])))
        if scheduler.on_trial_result(None, running, result) == "STOP":  # type: ignore[attr-defined]
            raise Ended

    scheduler.on_trial_add(None, running)  # type: ignore[attr-defined]
    try:
        train_trial(search, trial, report)
    except Ended:
        return now[-1] if now[-1].state == "finished" else now[-1].model_copy(update={"state": "stopped"})
    return now[-1]


if __name__ == "__main__":
    main()
