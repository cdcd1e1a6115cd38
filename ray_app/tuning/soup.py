"""The soup of a search: the weights of its best trials, averaged as long as validation says so, published like a run.

Final weights are kept for as many trials as may go into it; those of the others are deleted as the search goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from pydantic import BaseModel, ConfigDict

from ray_app.config import fingerprint
from ray_app.models.device import device_of
from ray_app.storage import join
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.soup import Weights, greedy_soup
from ray_app.training.validation import validate
from ray_app.training.world import World
from ray_app.tuning.prefixes import forget, longest_prefix
from ray_app.tuning.search import Search
from ray_app.tuning.trials import Trial, best_of, finished

SOUP_FILE = "soup.json"


class Recipe(BaseModel):
    """What came of averaging the best trials."""

    model_config = ConfigDict(frozen=True)

    members: tuple[int, ...]
    """Numbers of the trials in it, the best first; a single one where no other helped."""
    score: float
    tried: int
    """Trials whose weights might have gone into it."""

    def is_better(self, trials: Sequence[Trial]) -> bool:
        """Whether it beats every trial."""
        best = best_of(trials)
        return len(self.members) > 1 and best is not None and self.score > (best.score or 0.0)


@dataclass(frozen=True)
class SoupRun(Run):
    """The run of its first member, ending with other weights."""

    members: tuple[str, ...] = ()
    """Keys of the runs whose weights it is the mean of."""

    @cached_property
    def key(self) -> str:
        """Hash of what is in it."""
        return fingerprint(*self.members)


def soup_run(search: Search, trials: Sequence[Trial], recipe: Recipe) -> SoupRun:
    """The run that the soup is published as."""
    by_number = {trial.number: trial for trial in trials}
    runs = [search.run_of(by_number[number].candidate) for number in recipe.members]
    first = runs[0]
    keys = tuple(run.key for run in runs)
    return SoupRun(first.role, first.config, first.schedule, first.dataset, first.start_from, keys)


def make_soup(search: Search, trials: Sequence[Trial]) -> None:
    """Average the best trials that were fine-tuned to their end, and publish what is better than all of them.

    Nothing comes of it where fewer than two have kept weights of one shape.
    """
    found = _ingredients(search, trials)
    if len(found) < 2:
        return
    _, run, snapshot = found[0]
    torch.set_num_threads(run.config.train.cpus_per_worker)
    world = World.current(device_of(run.config.train.use_gpu))
    task = run.begin(world, keep=True)

    def judge(weights: Weights) -> float:
        task.model.load_state_dict(weights)
        return validate(task, world)[f"val/{search.metric}"]

    scores = [trial.score or 0.0 for trial, _, _ in found]
    soup = greedy_soup([one.model for _, _, one in found], scores, judge)
    members = tuple(found[number][0].number for number in soup.members)
    recipe = Recipe(members=members, score=soup.score, tried=len(found))
    if recipe.is_better(trials):
        soup_run(search, trials, recipe).publish(replace(snapshot, model=soup.weights))
    search.storage.write_bytes(join(search.uri, SOUP_FILE), recipe.model_dump_json().encode())


def read_recipe(search: Search) -> Recipe | None:
    """What `make_soup` found, the last time; None where there was nothing to average."""
    uri = join(search.uri, SOUP_FILE)
    return Recipe.model_validate_json(search.storage.read_bytes(uri)) if search.storage.exists(uri) else None


def forget_beaten(search: Search, trials: Sequence[Trial], new: Trial) -> None:
    """Delete the final weights of who is not among the best any more: `new`, or the one that it took the place of.

    Those stay that are the first phases of others: linear probes, and who may have children.
    """
    rest = finished(trials)[search.tune.soup :]
    for trial in rest:
        if (trial.number == new.number or trial is rest[0]) and trial.strategy not in ("linear_probe", "population"):
            forget(search.storage, search.prefixes_uri, search.run_of(trial.candidate))


def _ingredients(search: Search, trials: Sequence[Trial]) -> list[tuple[Trial, Run, Snapshot]]:
    """The best trials with weights of one shape that began with the same ones; others are not one valley's."""
    found: list[tuple[Trial, Run, Snapshot]] = []
    for trial in finished(trials)[: search.tune.soup]:
        run = search.run_of(trial.candidate)
        snapshot = longest_prefix(search.storage, search.prefixes_uri, run) if run.role == "finetune" else None
        if snapshot is None or snapshot.progress.phase < len(run.schedule.phases):
            continue
        if not found or _shapes(snapshot) == _shapes(found[0][2]):
            found.append((trial, run, snapshot))
    return found


def _shapes(snapshot: Snapshot) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in snapshot.model.items()}
