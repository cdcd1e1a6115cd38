"""Ways to fine-tune a classifier of pictures, compared on the same pictures: what to use when.

    python benchmarks/strategies.py --config jobs/configs/grocery.yaml --shares 0.15 1.0 --seeds 0 1 2 \
        data.events='FOLDER/[!c]*.parquet' classifier.weights=FILE [key=value ...]

Plain loop, one process, no Ray. Whatever trains the backbone is tried at each of `--rates` times the configured rate,
and the one that validation likes best is reported, so that each strategy is compared at its own best; so is the linear
probe with several weight decays, since a head that is to be trained further may be held smaller than one that is not.
`plain` trains
everything at once with batch norms in training, as is usual elsewhere; all others keep the statistics of pretraining
where the configuration says so, `full` too. `wise` and `soup` are made of what `two_phase_l2_sp` trained: the best
point between its backbone and the pretrained one, and the greedy soup of its rates. One JSON line per strategy:
accuracy on the test part, by label and by group, and the CPU seconds of that training (of a soup: of all that might
have gone into it), features included.
`--cache` instead times one epoch on a frozen backbone, from the cache and without it.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ray_app.classification_metrics import group_accuracy
from ray_app.config import Config, load_config, with_values
from ray_app.content.picture_features import cached_features, compute
from ray_app.content.pretrained import settled
from ray_app.data.picture_set import PictureSet
from ray_app.data.picture_shard import PictureShard, contents_of, share_of
from ray_app.data.pictures import prepare_pictures
from ray_app.models.classifier import Classifier
from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.storage import Storage
from ray_app.tasks.calibration import calibrated
from ray_app.tasks.classifier import TrainedClassifier
from ray_app.tasks.classify import ClassifyTask, build_task
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.soup import Weights, greedy_soup
from ray_app.training.validation import validate
from ray_app.training.wise import backbone_state, interpolate
from ray_app.training.world import World
from ray_app.tune_config import Strategy
from ray_app.tuning.strategies import schedule_of

BACKBONE = r"^backbone\."
PROBE, HELD, WISE, SOUP = "linear_probe", "two_phase_l2_sp", "wise", "soup"
PROBE_DECAYS = (1.0, 0.1, 0.01, 0.001, 0.0001)
"""Factors on the weight decay of the head's phase, of which the linear probe takes the best on validation."""
ALPHAS = (1.0, 0.9, 0.7, 0.5, 0.3)
"""Of `wise`, shares of the way from the pretrained backbone: of equally good ones the longest."""
DIVIDED: tuple[Strategy, ...] = ("gradual", "surgical_first", "surgical_middle", "surgical_last")
"""Those that freeze a part of the backbone."""
NAMES = {PROBE, "plain", "full", "two_phase", HELD, *DIVIDED, "scratch", WISE, SOUP}


@dataclass(frozen=True)
class Outcome:
    """What came of one training."""

    task: ClassifyTask
    validation: float
    cpu_s: float


def strategies(config: Config, rates: list[float]) -> dict[str, list[tuple[Config, Schedule]]]:
    """By name, the trainings among which validation chooses."""
    schedule = config.schedule
    head, full = schedule.phases[0], schedule.phases[-1]
    free = schedule.model_copy(update={"phases": (head, full.model_copy(update={"l2_sp": 0.0}))})
    scratch = with_values(config, {"classifier.weights": None})
    everything = Phase(name="scratch", epochs=full.epochs, learning_rate=full.learning_rate, decay="cosine")
    of_batches = {"l2_sp": 0.0, "keep_statistics": False}
    probes = [
        schedule.model_copy(update={"phases": (head.model_copy(update={"weight_decay": head.weight_decay * factor}),)})
        for factor in PROBE_DECAYS
    ]
    thawed: dict[str, Schedule] = {
        "plain": _only(full.model_copy(update=of_batches)),
        "full": _only(full.model_copy(update={"l2_sp": 0.0})),
        "two_phase": free,
        HELD: schedule,
        **{name: schedule_of(name, config) for name in DIVIDED},
    }
    return {
        PROBE: [(config, probe) for probe in probes],
        **{name: [(config, _at(rate, one)) for rate in rates] for name, one in thawed.items()},
        "scratch": [(scratch, _at(rate, _only(everything))) for rate in rates],
    }


def _at(factor: float, schedule: Schedule) -> Schedule:
    """With the rates of all phases but those of a frozen backbone."""
    phases = [
        phase if _is_probe(phase) else phase.model_copy(update={"learning_rate": phase.learning_rate * factor})
        for phase in schedule.phases
    ]
    return schedule.model_copy(update={"phases": tuple(phases)})


def _is_probe(phase: Phase) -> bool:
    """Whether all of the backbone is frozen."""
    first = phase.groups[0]
    return phase.is_whole or (first.match == BACKBONE and first.depth is None and first.rate == "frozen")


def _only(phase: Phase) -> Schedule:
    return Schedule(phases=(phase,))


def train(pictures: PictureSet, config: Config, schedule: Schedule) -> Outcome:
    """One training with the plain loop."""
    began = time.process_time()
    features = cached_features(pictures, config)
    if features is not None:
        compute(features, config)
    task = build_task(config, pictures, features)
    settings = LoopSettings(seed=config.train.seed, bf16=config.train.precision == "bf16")
    progress = fit(task, schedule, settings, World.current(), lambda *_: None)
    last = progress.best if progress.best is not None else task.validate()["top1"][0] / pictures.size("validation")
    return Outcome(task, last, time.process_time() - began)


def test_answers(
    pictures: PictureSet, model: Classifier, config: Config
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities and labels of the test part, of a model as sure as it would be published."""
    assert config.classifier is not None
    trained = TrainedClassifier(copy.deepcopy(model), pictures.manifest.classes, config.classifier)
    if config.classifier.calibrate:  # the group of the highest sum of probabilities depends on it
        trained.model.load_state_dict(calibrated(model.state_dict(), trained, pictures)[0])
    shard = PictureShard(share_of(pictures, "test", 0, 1), lambda rows: contents_of(pictures, rows))
    rows = list(shard.in_order(256))
    said = np.concatenate([trained.probabilities(one.values.tolist()) for one in rows])
    return said, np.concatenate([one.labels for one in rows])


def test_accuracy(pictures: PictureSet, outcome: Outcome, config: Config) -> dict[str, float]:
    """Of the test part, by label and by group."""
    said, labels = test_answers(pictures, outcome.task.model, config)
    found = {"top1": float(np.mean(said.argmax(1) == labels))}
    if pictures.manifest.group_of_class is not None:
        group = np.array(pictures.manifest.group_of_class)
        found["group"] = float(group_accuracy(said, labels, group).mean())
    return found


def compare(config: Config, shares: list[float], seeds: list[int], names: list[str], rates: list[float]) -> None:
    """Print a line for each share, seed and strategy."""
    storage = Storage.from_config(config.storage)
    for share, seed in ((share, seed) for share in shares for seed in seeds):
        of = with_values(config, {"pictures.train_share": share, "train.seed": seed})
        pictures = prepare_pictures(storage, of.name, of)

        def tell(name: str, outcome: Outcome, config: Config, **more: object) -> None:
            if names and name not in names:
                return
            record = {"share": share, "seed": seed, "strategy": name, "pictures": pictures.size("train")}  # noqa: B023
            record |= test_accuracy(pictures, outcome, config)  # noqa: B023
            print(json.dumps(record | {"validation": outcome.validation, "cpu_s": outcome.cpu_s} | more), flush=True)

        for name, trainings in strategies(of, rates).items():
            if names and not {name, *((WISE, SOUP) if name == HELD else ())} & set(names):
                continue
            outcomes = [train(pictures, *training) for training in trainings]
            number, best = max(enumerate(outcomes), key=lambda pair: pair[1].validation)
            chosen = trainings[number][0]
            setting = "weight_decay" if name == PROBE else "learning_rate"
            values = [getattr(schedule.phases[-1], setting) for _, schedule in trainings]
            tried = dict(zip(values, (one.validation for one in outcomes), strict=True))
            tell(name, best, chosen, **{setting: values[number]}, tried=tried)
            if name == HELD:
                soup, members = souped(outcomes)
                tell(SOUP, soup, chosen, members=[values[member] for member in members])
                wise, alpha = held_back(outcomes[number], build_task(of, pictures, cached_features(pictures, of)).model)
                tell(WISE, wise, chosen, alpha=alpha)


def souped(outcomes: list[Outcome]) -> tuple[Outcome, list[int]]:
    """The greedy soup of all outcomes, and which of them are in it."""
    *_, last = outcomes
    kept = [{name: value.clone() for name, value in one.task.model.state_dict().items()} for one in outcomes]
    task = copy.copy(last.task)
    task.model = copy.deepcopy(last.task.model)

    def judge(weights: Weights) -> float:
        task.model.load_state_dict(weights)
        return validate(task, World.current())["val/top1"]

    soup = greedy_soup(kept, [one.validation for one in outcomes], judge)
    task.model.load_state_dict(soup.weights)
    return Outcome(task, soup.score, sum(one.cpu_s for one in outcomes)), soup.members


def held_back(outcome: Outcome, pretrained: Classifier) -> tuple[Outcome, float]:
    """The best point on the way from the pretrained backbone to the outcome's, put in its place, and its share."""
    model, start, end = outcome.task.model, backbone_state(pretrained), backbone_state(outcome.task.model)
    found = {}
    for alpha in ALPHAS:
        interpolate(model, start, end, alpha)
        found[alpha] = validate(outcome.task, World.current())["val/top1"]
    best = max(found, key=lambda alpha: found[alpha])
    interpolate(model, start, end, best)
    return replace(outcome, validation=found[best]), best


def time_epochs(config: Config) -> None:
    """CPU seconds of one epoch of the head on a frozen backbone, from the cache and without it."""
    pictures = prepare_pictures(Storage.from_config(config.storage), config.name, config)
    features = cached_features(pictures, config)
    assert features is not None
    compute(features, config)
    seconds = {}
    for name, kept in (("cached", features), ("naive", None)):
        task = build_task(config, pictures, kept)
        head = Phase(name="head", epochs=1, groups=(ParamGroup(match=BACKBONE, rate="frozen"), ParamGroup(match=".*")))
        seconds[name] = min(_timed(lambda task=task, head=head: _epoch(task, head, config)) for _ in range(2))
    print(json.dumps({"cpu_s": seconds, "ratio": seconds["naive"] / seconds["cached"]}))


def _epoch(task: ClassifyTask, phase: Phase, config: Config) -> None:
    fit(task, _only(phase), LoopSettings(bf16=config.train.precision == "bf16"), World.current(), lambda *_: None)


def _timed(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.15, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", default=[])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--cache", action="store_true")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    if unknown := sorted({*args.strategies} - NAMES):
        parser.error(f"--strategies: {', '.join(unknown)}; there are {', '.join(sorted(NAMES))}")
    config = settled(load_config(args.config, args.overrides))
    torch.set_num_threads(config.train.cpus_per_worker)
    if args.cache:
        time_epochs(config)
    else:
        compare(config, args.shares, args.seeds, args.strategies, args.rates)


if __name__ == "__main__":
    main()
