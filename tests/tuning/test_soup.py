"""The mean of the best trials: made of weights that are kept, published where validation is better for it."""

import io
from dataclasses import replace

import torch
from plain_loop import plain
from rich.console import Console
from torch import Tensor
from tuning_log import MakeSearch

from ray_app.report import trials_table, write_search
from ray_app.storage import join
from ray_app.tasks.recommender import load_trained
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.validation import validate
from ray_app.training.world import World
from ray_app.tuning.findings import soup_sentence
from ray_app.tuning.prefixes import keep_prefix, longest_prefix
from ray_app.tuning.search import Search
from ray_app.tuning.soup import forget_beaten, make_soup, read_recipe, soup_run
from ray_app.tuning.space import Candidate
from ray_app.tuning.trials import Trial

RATE = "schedule.phases.1.learning_rate"


def ended(search: Search, number: int, model: dict[str, Tensor] | None = None, **candidate: object) -> Trial:
    """A trial that ended with these weights, scored as they are."""
    found = Candidate(**{"strategy": "configured", "values": {RATE: 0.01 + number / 1000}, **candidate})  # type: ignore[arg-type]
    run = search.run_of(found)
    trained = plain(run)
    trained = replace(trained, model=model or trained.model)
    trained.progress.epoch = 0
    keep_prefix(search.storage, search.prefixes_uri, run, trained)
    key = search.space.key(found)
    values = dict(found.values)
    return Trial(
        number=number, strategy=found.strategy, values=values, key=key, state="finished", score=score(run, trained)
    )


def score(run: Run, snapshot: Snapshot) -> float:
    task = run.begin(World.current())
    task.model.load_state_dict(snapshot.model)
    return validate(task, World.current())["val/ndcg@10"]


def aside(search: Search, sign: float) -> dict[str, Tensor]:
    """Good weights, moved so far that little is left of them; the other way, they come back."""
    model = plain(search.run_of(Candidate("configured"))).model
    generator = torch.Generator().manual_seed(0)
    return {
        name: value + sign * 2 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in model.items()
    }


def test_what_is_better_together_is_published(make_search: MakeSearch) -> None:
    search = make_search("soup", "tune.soup=3")
    trials = [ended(search, n, aside(search, sign)) for n, sign in enumerate((1.0, -1.0), start=1)]
    make_soup(search, trials)
    recipe = read_recipe(search)
    assert recipe is not None
    assert set(recipe.members) == {1, 2}
    assert recipe.score > max(trial.score or 0 for trial in trials) + 0.1
    run = soup_run(search, trials, recipe)
    good = plain(search.run_of(Candidate("configured"))).model
    published = load_trained(search.storage, run.uri).model.state_dict()
    for name, value in good.items():
        torch.testing.assert_close(published[name], value, atol=1e-5, rtol=1e-4)
    assert run.records()
    assert run.key not in {search.run_of(trial.candidate).key for trial in trials}
    console = Console(width=150, file=io.StringIO(), record=True)
    console.print(trials_table(search.space, trials, "ndcg@10", recipe))
    for text in (console.export_text(), write_search(search, trials, "ndcg@10", recipe)):
        assert f"mean of the weights of trials {recipe.members[0]}, {recipe.members[1]}" in text
        assert f"{recipe.score:.4f}" in text
    told = soup_sentence(recipe, trials)
    assert told.startswith(
        f"The mean of the weights of trials {recipe.members[0]} and {recipe.members[1]} was worth +0"
    )


def test_the_best_trial_is_published_where_none_helps(make_search: MakeSearch) -> None:
    search = make_search("no_soup")
    trials = [ended(search, 1), ended(search, 2, aside(search, 1.0)), ended(search, 3, strategy="scratch", values={})]
    make_soup(search, trials)
    recipe = read_recipe(search)
    assert recipe is not None
    assert (recipe.members, recipe.tried) == ((1,), 2)
    assert not soup_run(search, trials, recipe).is_published()
    assert "No mean of the weights of the best 2 trials was better" in soup_sentence(recipe, trials)


def test_weights_are_kept_for_as_many_trials_as_may_go_into_it(make_search: MakeSearch) -> None:
    search = make_search("bounded", "tune.soup=2")
    trials: list[Trial] = []
    kept = []
    for number, value in enumerate((0.2, 0.4, 0.3, 0.1)):
        trials.append(ended(search, number).model_copy(update={"score": value}))
        forget_beaten(search, trials, trials[-1])
        runs = [search.run_of(trial.candidate) for trial in trials]
        ends = [longest_prefix(search.storage, search.prefixes_uri, run) is not None for run in runs]
        kept.append([number for number, is_kept in enumerate(ends) if is_kept])
    assert kept == [[0], [0, 1], [1, 2], [1, 2]]
    probe = ended(search, 4, strategy="linear_probe", values={}).model_copy(update={"score": 0.05})
    forget_beaten(search, [*trials, probe], probe)  # others go on from it
    assert longest_prefix(search.storage, search.prefixes_uri, search.run_of(probe.candidate)) is not None
    make_soup(search, [trials[0]])
    assert read_recipe(search) is None
    assert not search.storage.exists(join(search.uri, "soup.json"))


def test_a_soup_is_no_other_search(make_search: MakeSearch) -> None:
    assert make_search("same", "tune.soup=1").key == make_search("same", "tune.trackers=[tensorboard]").key
    assert make_search("same").key != make_search("same", "tune.seed=1").key


def test_another_network_is_left_out(make_search: MakeSearch) -> None:
    search = make_search("shapes")
    trials = [ended(search, n, aside(search, sign)) for n, sign in enumerate((1.0, -1.0), start=1)]
    other = {name: torch.zeros(16, 16) for name in ("a", "b")}
    found = Candidate("configured", {RATE: 0.5})
    run = search.run_of(found)
    last = longest_prefix(search.storage, search.prefixes_uri, search.run_of(trials[0].candidate))
    assert last is not None
    keep_prefix(search.storage, search.prefixes_uri, run, replace(last, model=other))
    stranger = Trial(
        number=9, strategy="configured", values={RATE: 0.5}, key=search.space.key(found), state="finished", score=0.0
    )
    make_soup(search, [*trials, stranger])
    recipe = read_recipe(search)
    assert recipe is not None
    assert recipe.tried == 2
