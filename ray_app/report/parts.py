"""What all reports are built of: the page in its style, tiles, the flow of the data, curves, and where it came from."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ray_app.report.charts import Record, learning_curves
from ray_app.report.results import name_of
from ray_app.schedule import WISE

Tile = tuple[str, str]
"""A number, and what it is."""


def html_page(title: str, sections: Sequence[str]) -> str:
    """A whole page in the style of all reports; `title` and sections are HTML."""
    style = files("ray_app.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(sections)}\n</main></body></html>\n"
    )


def header(eyebrow: str, title: str, text: str, tiles: Sequence[Tile]) -> str:
    """The top of a page with its most important numbers."""
    cards = "".join(
        f'<div class="card tile"><strong>{escape(value)}</strong><span>{escape(label)}</span></div>'
        for value, label in tiles
    )
    return (
        f'<header><p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(title)}</h1>'
        f'<p class="muted">{escape(text)}</p><div class="grid tiles">{cards}</div></header>'
    )


def main_tile(metrics: dict[str, Any]) -> Tile:
    """The main method by the main metric."""
    main, metric = metrics["main"], metrics["metric"]
    found = metrics["metrics"][main][metric]
    text = f"{name_of(metric)} of {main}, 95% interval {found['low']:.4f} to {found['high']:.4f}"
    return f"{found['mean']:.4f}", text


def lead_tiles(metrics: dict[str, Any]) -> list[Tile]:
    """The main method against the best other model and the best baseline, in percent."""
    main, metric, leads = metrics["main"], metrics["metric"], []
    for kind, words in (("model", "against"), ("baseline", "against the best baseline,")):
        others = [name for name, origin in metrics["methods"].items() if origin["kind"] == kind and name != main]
        if not others:
            continue
        best = max(others, key=lambda name: metrics["metrics"][name][metric]["mean"])
        theirs = metrics["metrics"][best][metric]["mean"]
        difference = metrics["differences"][best][metric]
        share = f"{difference['mean'] / theirs:+.1%}" if theirs else f"{difference['mean']:+.4f}"
        interval = f"{difference['low']:+.4f} to {difference['high']:+.4f}"
        leads.append((share, f"{name_of(metric)} {words} {best} ({interval})"))
    return leads


def flow(steps: Sequence[tuple[int, str]], quarantined: Mapping[str, int], notes: Sequence[str]) -> str:
    """The way of the data, with counts; what was refused, by reason; and what a person should know."""
    boxes = "".join(
        f'<li><div class="card"><strong>{number:,}</strong><span>{escape(label)}</span></div></li>'
        for number, label in steps
    )
    reasons = "".join(
        f'<tr><th scope="row">{escape(reason)}</th><td class="number">{number:,}</td></tr>'
        for reason, number in sorted(quarantined.items(), key=lambda pair: -pair[1])
    )
    table = (
        "<details><summary>What was put in quarantine, by reason</summary>"
        f'<div class="scroll"><table class="narrow"><tbody>{reasons}</tbody></table></div></details>'
    )
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return section(
        "The data", f'<ol class="flow">{boxes}</ol>{table if reasons else ""}' + (f"<ul>{said}</ul>" if said else "")
    )


def curves(records: Mapping[str, Sequence[Record]], metric: str) -> str:
    """Of each training run its validation metric and loss."""
    if not records:
        return ""
    cards = "".join(
        f'<figure class="card"><h3>{escape(name)}</h3>{learning_curves(name, run, metric)}{_way_back(run)}</figure>'
        for name, run in records.items()
        if run
    )
    return section("Training", f'<div class="grid">{cards}</div>')


def _way_back(run: Sequence[Record]) -> str:
    if run[-1]["phase"] != WISE:
        return ""
    alpha = float(run[-1]["alpha"])
    return f"<p>Ends at {alpha:g} of the way from the pretrained backbone to the trained one (WiSE-FT).</p>"


def origin(metrics: dict[str, Any], configuration: str, versions: Mapping[str, str | None]) -> str:
    """What pins the run down."""
    told = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(version))}</dd>"
        for name, version in versions.items()
        if version is not None
    )
    methods = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(origin['fitted_on'])}"
        + (f"<br><span class='muted'>{escape(origin['checkpoint'])}</span>" if "checkpoint" in origin else "")
        + "</dd>"
        for name, origin in metrics["methods"].items()
    )
    return section(
        "How it was made",
        f"<details><summary>What each method was fitted on</summary><dl>{methods}</dl></details>"
        f"<details><summary>Configuration</summary><pre>{escape(configuration)}</pre></details>"
        f"<details><summary>Versions</summary><dl>{told}</dl></details>",
    )


def section(title: str, body: str) -> str:
    """A part of a page under its heading."""
    return f"<section><h2>{title}</h2>{body}</section>"
