"""What a search leaves for a person: a page, a table in the terminal, and a configuration to go on with."""

from collections.abc import Sequence
from html import escape

from rich.table import Table
from rich.text import Text

from ray_app.config import Config
from ray_app.report.parts import html_page, section
from ray_app.report.results import html_table
from ray_app.report.search_charts import best_so_far, importance_bars, parallel_coordinates
from ray_app.tuning.findings import importances, sentences, soup_sentence
from ray_app.tuning.search import Search
from ray_app.tuning.soup import Recipe
from ray_app.tuning.space import Space
from ray_app.tuning.strategies import MEANING
from ray_app.tuning.trials import Trial, best_of

STATES = {"finished": "", "stopped": "ended early", "failed": "failed", "open": "open"}


def trials_table(space: Space, trials: Sequence[Trial], metric: str, recipe: Recipe | None = None) -> Table:
    """All trials, the best score first; those that failed with their reason; above them what is better than all."""
    best = best_of(trials)
    table = Table(title="Trials", caption=f"{metric} on the validation part; epochs that others trained in brackets")
    for name, justify in (("trial", "right"), ("strategy", "left"), (metric, "right"), ("epochs", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("settings", overflow="fold")
    if recipe is not None and recipe.is_better(trials):
        table.add_row(*(Text(cell) for cell in ("", "soup", f"{recipe.score:.4f}", "", _mixed(recipe))), style="bold")
        best = None
    for trial in _in_order(trials):
        cells = [str(trial.number), trial.strategy, _score(trial), _epochs(trial), _told(space, trial)]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if trial is best else None)
    return table


def write_search(search: Search, trials: Sequence[Trial], metric: str, recipe: Recipe | None = None) -> str:
    """The page as text."""
    space, name = search.space, escape(search.config.name)
    is_mixed = recipe is not None and recipe.is_better(trials)
    best = None if is_mixed else best_of(trials)
    rows = [_row(space, trial, is_best=trial is best) for trial in _in_order(trials)]
    if recipe is not None and is_mixed:
        rows.insert(0, _html_row(("", "soup", f"{recipe.score:.4f}", "", _mixed(recipe)), "main"))
    titles = {"Trial": "", "Strategy": "text", escape(metric): "", "Epochs": "", "Settings": "text"}
    head = "".join(f'<th scope="col" class="{kind}">{title}</th>' for title, kind in titles.items())
    found = [*sentences(space, trials, metric), *([soup_sentence(recipe, trials)] if recipe else [])]
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in found)
    used = {trial.strategy for trial in trials}
    meanings = "".join(f"<dt>{key}</dt><dd>{escape(text)}</dd>" for key, text in MEANING.items() if key in used)
    matters = importance_bars(space, importances(space, trials)) or "<p>Too few trials to tell.</p>"
    pictures = "".join(f'<figure class="card">{one}</figure>' for one in (best_so_far(trials, metric), matters))
    parts = [
        f'<header><p class="eyebrow">Schedule search</p><h1>{name}</h1></header>',
        section("What was found", f"<ul>{told}</ul><p class='muted'>{_CAUTION}</p><dl>{meanings}</dl>"),
        section("Settings and scores", parallel_coordinates(space, trials, metric)),
        section("How it went, and what mattered", f'<p>{_MATTERS}</p><div class="grid">{pictures}</div>'),
        section("Trials", html_table("The best first; epochs that other trials had trained in brackets", head, rows)),
        section("How it was made", f"<pre>{escape(search.config.to_yaml())}</pre>"),
    ]
    return html_page(f"{name}: schedule search", parts)


_CAUTION = (
    "Scores are those of the validation part, with one seed. The best of many trials looks better there than it is: "
    "the test part is asked by the evaluation alone."
)
_MATTERS = (
    "Bars: share of the spread of scores that a setting explains among the trials that have it (functional analysis of "
    "variance). Trials that were ended early count with the score they had."
)


def winning_config(search: Search, best: Trial, metric: str) -> str:
    """The configuration that `finetune` makes the best trial's model with, as YAML."""
    config: Config = search.config_of(best.candidate)
    return (
        f"# The best of a schedule search: trial {best.number}, {MEANING[best.strategy]}.\n"
        f"# {metric} {best.score:.4f} on the validation part after {best.epochs} epochs.\n#\n"
        f"#   python jobs/finetune.py --config schedule.yaml\n{config.to_yaml()}"
    )


def _in_order(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0), trial.number))


def _row(space: Space, trial: Trial, *, is_best: bool) -> str:
    cells = (str(trial.number), trial.strategy, _score(trial), _epochs(trial), _told(space, trial))
    return _html_row(cells, "main" if is_best else "other")


def _html_row(cells: tuple[str, str, str, str, str], kind: str) -> str:
    number, strategy, score, epochs, told = map(escape, cells)
    return (
        f'<tr class="{kind}"><th scope="row">{number}</th><td>{strategy}</td><td class="number">{score}</td>'
        f'<td class="number">{epochs}</td><td>{told}</td></tr>'
    )


def _mixed(recipe: Recipe) -> str:
    return f"mean of the weights of trials {', '.join(map(str, recipe.members))}"


def _score(trial: Trial) -> str:
    return "" if trial.score is None else f"{trial.score:.4f}"


def _epochs(trial: Trial) -> str:
    return f"{trial.spent} (+{trial.reused})" if trial.reused else str(trial.spent)


def _told(space: Space, trial: Trial) -> str:
    """Settings that differ from the configured ones; the reason of a failure."""
    fate = f"{STATES[trial.state]}: {trial.error}" if trial.error else STATES[trial.state]
    settings = ", ".join(f"{space.label(path)} {value}" for path, value in trial.values.items())
    return "; ".join(part for part in (fate, settings or "as configured") if part)
