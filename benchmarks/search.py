"""What a search costs: the epochs of `tune` until it is as good on validation as a full grid, and its test result.

    PYTHONPATH=jobs python benchmarks/search.py --config jobs/configs/amazon_scientific.yaml --data SCIENTIFIC \
        --source BEAUTY --source SPORTS --vectors DIR --results DIR [key=value ...]
    PYTHONPATH=jobs python benchmarks/search.py --config jobs/configs/demo.yaml --demo FOLDER --results DIR
    PYTHONPATH=jobs python benchmarks/search.py --config jobs/configs/grocery.yaml --share 0.15 --results DIR \
        data.events='FOLDER/[!c]*.parquet' classifier.weights=FILE [key=value ...]

Logs, pretraining and the share of users are those of `sparse_data.py`, the options of the logs those of
`target_logs.py`; the share of pictures is that of each product. Without Ray Tune, one trial after another by the same
proposals, stopping, shared phases and training: first all 48 points of a grid (the head first or everything at once,
rates, the pull toward the pretrained weights) to their end, then the search of `tune`, once for each seed of its
proposals, with `--budget` of the grid's epochs (`tune.max_epochs`). Epochs of the grid are counted as if no point
shared any; those of the search as they were trained. Test is
NDCG@10 against the configured schedule's, with the paired 95% bootstrap interval over users: of all users, most of whom
are new, and of those who were learned from, by whom validation chooses too. Of pictures it is top-1 on the test part.

One JSON line per trial and one per search. Trials are kept: run again, it goes on where it was.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import accumulate

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
from numpy.typing import NDArray
from search_fields import LogField, PictureField
from target_logs import log_arguments

from ray_app.config import Config, apply_overrides
from ray_app.errors import UserError
from ray_app.metrics import paired_difference
from ray_app.training.loop import fit
from ray_app.training.trainer import loop_settings
from ray_app.training.world import World
from ray_app.tuning.prefixes import longest_prefix
from ray_app.tuning.search import Search
from ray_app.tuning.soup import forget_beaten
from ray_app.tuning.stopping import Budget, build_scheduler
from ray_app.tuning.trials import Trial, best_of
from ray_app.tuning.tuner import Proposals
from ray_app.tuning.worker import train_trial

STRATEGIES = ("configured", "full")
FACTORS, PULLS, SHARES = (0.1, 0.3, 1.0, 3.0), (1e-3, 3e-2, 1.0), (1.0, 0.1)
PULLS_OF_PICTURES, LAYER_DECAYS = (1e-2, 1e-1, 1.0), (1.0, 0.8)
"""The grid: the head first or everything at once, factors on the configured rate of the last phase, its `l2_sp`, and
the backbone's share of the rate (of pictures: what of it each lower layer has)."""


class Ended(Exception):  # noqa: N818 (no fault)
    """The scheduler ends a trial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    log_arguments(parser)
    parser.add_argument("--share", type=float, default=0.2, help="of the target's users or pictures, to learn from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the search's proposals")
    parser.add_argument("--budget", type=float, default=0.25, help="epochs of a search, as a share of the grid's")
    args = parser.parse_args()
    if args.results is None:
        parser.error("--results says where trials are kept")
    field = LogField.read(args) if args.data or args.demo else PictureField.read(args)
    config = field.config

    def walked(name: str, **changes: object) -> tuple[Search, list[Trial]]:
        changed = apply_overrides(config, [f"tune.{key}={json.dumps(value)}" for key, value in changes.items()])
        search = field.search(changed)
        return search, walk(search, name)

    def tell(name: str, search: Search, trials: list[Trial], epochs: list[int]) -> None:
        best, spent = best_of(trials), [total / of_grid for total in accumulate(epochs)]
        until = [share for share, trial in zip(spent, trials, strict=True) if (trial.score or 0) >= mark]
        found = {"trials": len(trials), "best": best.score, "best trial": best.number, "epochs": sum(epochs)}
        costs = {"of the grid": spent[-1], "as good after": until[0] if until else None}
        shared = sum(trial.reused for trial in trials)
        line = {"what": name, **found, **costs, "shared": shared / (sum(epochs) + shared)}
        for who, test in tested(field, search, best).items():
            gain = paired_difference(test, default[who], config.evaluate.bootstrap_samples, config.train.seed)
            line |= {f"test, {who}": test.mean(), f"minus configured, {who}": gain}
        print(json.dumps(line), flush=True)

    grid, trials = walked("grid", **whole_grid(config))
    points = [trial for trial in trials if trial.key in {grid.space.key(point) for point in grid.space.grid}]
    of_grid, mark = sum(trial.epochs for trial in points), best_of(points).score
    default = tested(field, grid, trials[0])
    tell("grid", grid, points, [trial.epochs for trial in points])
    for seed in args.seeds:
        name = f"search {seed}"
        search, trials = walked(name, seed=seed, max_epochs=int(args.budget * of_grid))
        tell(name, search, trials, [trial.spent for trial in trials])


def whole_grid(config: Config) -> dict[str, object]:
    """What `tune` says for the grid."""
    *early, last = config.schedule.phases
    path, rates = f"schedule.phases.{len(early)}", [float(f"{last.learning_rate * factor:.4g}") for factor in FACTORS]
    if config.task.kind == "classify":
        values = {"learning_rate": rates, "l2_sp": PULLS_OF_PICTURES, "layer_decay": LAYER_DECAYS}
    else:
        rated = [number for number, group in enumerate(last.groups) if group.rate != "frozen"]
        [backbone] = [number for number in rated if "backbone" in last.groups[number].match]
        values = {"learning_rate": rates, "l2_sp": PULLS, f"groups.{backbone}.rate": SHARES}
    space = {f"{path}.{name}": {"choice": found} for name, found in values.items()}
    return {"search": "grid", "scheduler": "none", "strategies": STRATEGIES, "space": space, "num_trials": 99}


def tested(field: LogField | PictureField, search: Search, trial: Trial) -> dict[str, NDArray[np.float64]]:
    """The test of a trial's model, which is trained to its end where it was ended early."""
    run, world = search.run_of(trial.candidate), World.current()
    task, start = run.begin(world), longest_prefix(search.storage, search.prefixes_uri, run)
    if start is not None and start.progress.phase == len(run.schedule.phases):
        task.model.load_state_dict(start.model)
    else:
        fit(task, run.schedule, loop_settings(run, world.device), world, lambda *_: None, start)
    return field.tested(task, run.config)


def walk(search: Search, name: str) -> list[Trial]:
    """Every trial of the search, in this process."""
    trials = search.trials()
    scheduler, proposals = build_scheduler(search, trials.over()), Proposals(search, trials)
    budget = Budget(trials, search.tune.max_epochs or sys.maxsize)

    def is_last(now: Trial) -> bool:
        trials.update(now)
        return budget.stop_all()

    while (trial := proposals.next()) is not None:
        proposals.suggest("")
        began = time.process_time()
        done = trained(search, trial, scheduler, is_last)
        seconds = round(time.process_time() - began, 1)
        trials.keep(done.model_copy(update={"seconds": seconds}))
        forget_beaten(search, trials.over(), done)
        line = {"what": name, "trial": done.number, "strategy": done.strategy, "state": done.state, "score": done.score}
        costs = {"epochs": done.epochs, "reused": done.reused, "cpu_s": seconds}
        print(json.dumps({**line, **costs, **done.values}), flush=True)
    return trials.over()


def trained(search: Search, trial: Trial, scheduler: object, is_last: Callable[[Trial], bool]) -> Trial:
    """The trial when it is over; `is_last` says after each epoch whether the search ends there."""
    now = [trial]

    class Running:
        trial_id, config = str(trial.number), {"number": trial.number}

    running = Running()

    def report(result: dict[str, object]) -> None:
        now.append(Trial.model_validate_json(str(result["trial"])))
        if scheduler.on_trial_result(None, running, result) == "STOP" or is_last(now[-1]):  # type: ignore[attr-defined]
            raise Ended

    scheduler.on_trial_add(None, running)  # type: ignore[attr-defined]
    try:
        train_trial(search, trial, report)
    except Ended:
        return now[-1] if now[-1].state == "finished" else now[-1].model_copy(update={"state": "stopped"})
    except UserError as error:
        return now[-1].model_copy(update={"state": "failed", "error": str(error), "score": None})
    return now[-1]


if __name__ == "__main__":
    main()
