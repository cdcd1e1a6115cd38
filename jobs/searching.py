"""The stage of the pipeline that searches the schedule."""

import tempfile
from collections.abc import Callable
from dataclasses import replace

import ray
from rich.console import Console

from ray_app.config import Config
from ray_app.data.dataset import Dataset, thinned
from ray_app.data.picture_set import PictureSet
from ray_app.errors import TrainingError
from ray_app.report import trials_table, winning_config, write_search
from ray_app.storage import join
from ray_app.training.run import Run
from ray_app.tuning.findings import sentences, soup_sentence
from ray_app.tuning.prefixes import longest_prefix
from ray_app.tuning.room import Room, room_for
from ray_app.tuning.search import Search
from ray_app.tuning.soup import forget_beaten, make_soup, read_recipe, soup_run
from ray_app.tuning.space import Space
from ray_app.tuning.trackers import Tracker, trackers_of
from ray_app.tuning.trials import Trial, Trials, best_of
from ray_app.tuning.tuner import build_tuner, is_over

SEARCH_FILE, SCHEDULE_FILE = "search.html", "schedule.yaml"


def check_search(config: Config) -> None:
    """Refuse, before anything is trained, a search that cannot begin.

    Raises:
        ConfigError: a strategy that the configuration has no use for.
        TrainingError: the cluster has no room for a single trial.
    """
    assert config.tune is not None
    Space(config)
    room_for(config.train, ray.cluster_resources(), config.tune.most_at_once)


def tuned_run(config: Config, target: Dataset | PictureSet, start: str | None, console: Console) -> Run:
    """The run of the best schedule that a search finds, or the mean of its best where that is better.

    An earlier session of the same search is gone on with.

    Raises:
        TrainingError: no trial came to a score, or the cluster has no room for a single one.
        UserError: a tracker cannot be used.
    """
    search = Search.begin(config, _searched(config, target), start)
    trials = search.trials()
    verb = "found" if is_over(search, trials) else "wrote"
    if verb == "wrote":
        _go_on(search, trials, console)
    best = best_of(trials.over())
    if best is None:
        first = trials.all()[0]
        raise TrainingError(f"none of {len(trials.all())} trials came to a score; the first: {first.error}")
    run, storage = replace(search.run_of(best.candidate), dataset=target), search.storage
    is_whole = search.dataset is target
    snapshot = longest_prefix(storage, search.prefixes_uri, run) if is_whole and not run.is_published() else None
    if snapshot is not None and snapshot.progress.phase == len(run.schedule.phases):
        run.publish(snapshot)  # with one worker, the weights that training it again would give
    recipe, metric = read_recipe(search), search.metric
    storage.write_bytes(join(search.uri, SCHEDULE_FILE), winning_config(search, best, metric).encode())
    storage.write_bytes(join(search.uri, SEARCH_FILE), write_search(search, trials.all(), metric, recipe).encode())
    if is_over(search, trials):
        storage.delete_tree(search.prefixes_uri)
    console.print(trials_table(search.space, trials.all(), metric, recipe))
    told = sentences(search.space, trials.all(), metric)
    for sentence in [*told, *([soup_sentence(recipe, trials.all())] if recipe else [])]:
        console.print(sentence, highlight=False)
    console.print(f"tune: {verb} {search.uri}", highlight=False, soft_wrap=True)
    if recipe is not None and recipe.is_better(trials.over()):
        soup = soup_run(search, trials.all(), recipe)
        return soup if soup.is_published() else run
    return run


def _searched(config: Config, target: Dataset | PictureSet) -> Dataset | PictureSet:
    """What trials train on: all of it, or a share of the users."""
    assert config.tune is not None
    return thinned(target, config.tune.data_share) if isinstance(target, Dataset) else target


def _go_on(search: Search, trials: Trials, console: Console) -> None:
    """Try what is left to be tried, then average the best."""
    trackers, cluster = trackers_of(search), ray.cluster_resources()
    room = room_for(search.config.train, cluster, search.tune.most_at_once)
    over = f"; {len(trials.over())} are over" if trials.over() else ""
    console.print(
        f"tune: {room.describe(f'up to {search.tune.num_trials} trials', cluster)}{over}",
        highlight=False,
        soft_wrap=True,
    )

    def tell(trial: Trial) -> None:
        _say(console, search.metric, trial)
        forget_beaten(search, trials.over(), trial)
        _track(trackers, trial, console)

    with tempfile.TemporaryDirectory() as folder:
        build_tuner(search, trials, room, folder, tell).fit()
    if room.workers == 1 and search.tune.soup > 1 and search.tune.data_share == 1:
        console.print("tune: tries means of the weights of the best trials", highlight=False)
        ray.get(_on_a_worker(make_soup, room).remote(search, trials.over()))


def _on_a_worker(work: Callable[..., None], room: Room) -> ray.remote_function.RemoteFunction:
    """Where a trial has its place: the job may run on a node that has none."""
    return ray.remote(work).options(num_cpus=room.wanted["CPU"], num_gpus=room.wanted.get("GPU", 0))


def _track(trackers: list[Tracker], trial: Trial, console: Console) -> None:
    """A tracker that fails is told of, and not asked again: the search goes on."""
    for tracker in tuple(trackers):
        try:
            tracker.add(trial)
        except Exception as error:
            trackers.remove(tracker)
            reason = f"{type(error).__name__}: {error}"
            console.print(f"tune: {type(tracker).__name__} is given up ({reason})", highlight=False, soft_wrap=True)


def _say(console: Console, metric: str, trial: Trial) -> None:
    score = f"val {metric} {trial.score:.4f}" if trial.score is not None else trial.error
    reused = f", {trial.reused} of them shared" if trial.reused else ""
    line = f"trial {trial.number} {trial.strategy} {trial.state}  {score}  {trial.epochs} epochs{reused}"
    console.print(line, highlight=False, soft_wrap=True)
