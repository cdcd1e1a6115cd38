"""What fewer users to learn from are worth: a picture, a table, and the page of a data curve."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rich.table import Table
from rich.text import Text

from ray_app.config import Config
from ray_app.report.charts import Record
from ray_app.report.curves import draw
from ray_app.report.parts import curves, header, html_page, origin, section
from ray_app.report.results import best_methods, html_table, name_of


def data_curve_table(curve: dict[str, Any]) -> Table:
    """A row for each method, a column for each share of the users, in bold who is best with it.

    Args:
        curve: what `tasks.data_curve.data_curve` gave.
    """
    metric, points = curve["metric"], curve["points"]
    table = Table(title="What fewer users to learn from are worth", caption=f"{metric} of all users on the test part")
    table.add_column("learned from")
    for point in points:
        table.add_column(f"{point['share']:.0%}\n{point['users']:,} users", justify="right")
    best = [best_methods(point["metrics"], metric) for point in points]
    for name in _methods(curve):
        told = [f"{point['metrics'][name][metric]['mean']:.4f}" for point in points]
        cells = [Text(cell, "bold" if name in leaders else "") for cell, leaders in zip(told, best, strict=True)]
        table.add_row(Text(name), *cells)
    return table


def data_curve_section(curve: dict[str, Any]) -> str:
    """The part of a page about it: models and the best baseline as lines, and all methods in a table."""
    metric, protocol = curve["metric"], curve["protocol"]
    text = (
        f"<p>Each model was trained on a part of the users, and {protocol['users']:,} users are asked about, the same "
        "at every point: of those that were not drawn the history is read, and nothing was learned from it. Counts, "
        "baselines and the choice of the epoch know the drawn users alone. Intervals are over users; one draw, one "
        f"training each. An epoch has {protocol['min_steps']} steps, or as many as with all users, by smaller batches."
        "</p>"
    )
    picture = draw(_lines(curve), "users to learn from", f"{name_of(metric)} on test")
    figure = f'<figure class="card scroll" tabindex="0">{picture}</figure>'
    return section("How much there is to learn from", f"{text}{figure}{_table(curve)}")


def data_curve_report(
    curve: dict[str, Any],
    config: Config,
    records: Mapping[str, Sequence[Record]],
    versions: Mapping[str, str | None],
) -> str:
    """The same as a page of its own, with every training.

    Args:
        curve: as `data_curve_table`.
        config: the configuration of all trainings.
        records: name of each training -> one record per epoch.
        versions: packages, commit: whatever pins the run down.
    """
    metric, main, points = curve["metric"], curve["main"], curve["points"]
    tiles = [
        (f"{point['metrics'][main][metric]['mean']:.4f}", f"{name_of(metric)} of {main} from {point['users']:,} users")
        for point in points
    ]
    made = {f"{name}, {point['share']:.0%}": told for point in points for name, told in point["methods"].items()}
    sections = [
        header("Data curve", config.name, f"Question: {curve['protocol']['question']}.", tiles),
        data_curve_section(curve),
        curves(records, metric),
        origin({"methods": made}, config.to_yaml(), versions),
    ]
    return html_page(f"{escape(config.name)}: data curve", sections)


def _methods(curve: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for point in curve["points"] for name in point["metrics"]))


def _lines(curve: dict[str, Any]) -> dict[str, list[tuple[float, float, float, float]]]:
    """Models, and the baseline that is best in the end: more lines than these cannot be told apart."""
    metric, last = curve["metric"], curve["points"][-1]
    is_model = {name: last["methods"][name]["kind"] == "model" for name in last["metrics"]}
    baselines = [name for name, model in is_model.items() if not model]
    best = sorted(baselines, key=lambda name: last["metrics"][name][metric]["mean"])[-1:]
    drawn: dict[str, list[tuple[float, float, float, float]]] = {}
    for name in (*best, *(name for name, model in is_model.items() if model)):
        estimates = [(point["users"], point["metrics"][name][metric]) for point in curve["points"]]
        drawn[name] = [(users, one["low"], one["mean"], one["high"]) for users, one in estimates]
    return drawn


def _table(curve: dict[str, Any]) -> str:
    metric, main, points = curve["metric"], curve["main"], curve["points"]
    best = [best_methods(point["metrics"], metric) for point in points]
    rows = []
    for name in _methods(curve):
        cells = []
        for point, leaders in zip(points, best, strict=True):
            found = point["metrics"][name][metric]
            mean = f"<b>{found['mean']:.4f}</b>" if name in leaders else f"{found['mean']:.4f}"
            cells.append(f"{mean}<small>{found['low']:.4f}&ndash;{found['high']:.4f}</small>")
        kind = "main" if name == main else points[0]["methods"][name]["kind"]
        rows.append(_row(escape(name), cells, kind))
    for other in (name for name in ("scratch", "pretrained") if name in points[0]["differences"]):
        leads = [point["differences"][other][metric] for point in points]
        cells = [f"{one['mean']:+.4f}<small>{one['low']:+.4f} to {one['high']:+.4f}</small>" for one in leads]
        rows.append(_row(f"{escape(main)} minus {other}", cells, ""))
    titles = "".join(
        f'<th scope="col">{point["share"]:.0%}<small>{point["users"]:,} users</small></th>' for point in points
    )
    caption = f"{name_of(metric)} on test with its 95% interval, the best mean in bold"
    return html_table(caption, f"<th scope='col'>Learned from</th>{titles}", rows)


def _row(name: str, cells: Sequence[str], kind: str) -> str:
    told = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr class="{kind}"><th scope="row">{name}</th>{told}</tr>'
