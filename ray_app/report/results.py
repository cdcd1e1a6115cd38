"""The numbers of an evaluation as HTML tables."""

from html import escape
from typing import Any

from ray_app.report.charts import interval_bar

COLUMNS = {
    "ndcg@10": "NDCG@10",
    "hit_rate@10": "HR@10",
    "recall@10": "Recall@10",
    "mrr": "MRR",
    "coverage@10": "Coverage@10",
    "novelty@10": "Novelty@10",
    "diversity@10": "Diversity@10",
    "popularity_lift@10": "Popularity lift@10",
    "top1": "Top-1",
    "top5": "Top-5",
    "macro_recall": "Mean recall of classes",
    "group": "Group right",
    "ece": "Calibration error",
}
NOT_ACCURACY = ("coverage", "novelty", "diversity", "popularity_lift", "ece")
"""Metrics of which more is not better in itself: nobody is best in them."""
OF_THEIR_OWN_SCALE = ("novelty", "diversity", "popularity_lift")
"""Metrics in bits or as a ratio, told to two digits; all others are shares, told to four."""
SLICE_METRIC = "ndcg@10"

Metrics = dict[str, dict[str, dict[str, float]]]
"""By method and metric: mean, low, high."""


def name_of(metric: str) -> str:
    """What a table calls a metric."""
    return COLUMNS.get(metric, metric)


def best_methods(metrics: Metrics, name: str) -> set[str]:
    """Who has the highest mean; nobody where more is not better, nor where nobody found anything."""
    means = {method: found[name]["mean"] for method, found in metrics.items() if name in found}
    if name.startswith(NOT_ACCURACY) or not means:
        return set()
    return {method for method, mean in means.items() if mean == max(means.values()) > 0}


def results_table(results: dict[str, Any]) -> str:
    """Methods by metrics: mean, interval, and the main metric also as a bar."""
    metrics: Metrics = results["metrics"]
    main = results["metric"]
    upper = max(found[main]["high"] for found in metrics.values())
    columns = [name for name in COLUMNS if all(name in found for found in metrics.values())]
    head = "".join(f'<th scope="col">{COLUMNS[name]}</th>' for name in columns)
    rows = []
    for method, found in metrics.items():
        cells = []
        for name in columns:
            bar = interval_bar(found[name], upper) if name == main else ""
            cells.append(_cell(name, found[name], best=method in best_methods(metrics, name), extra=bar))
        rows.append(_row(method, results, "".join(cells)))
    return html_table("Test part; mean and 95% interval, best mean in bold", f"<th scope='col'>Method</th>{head}", rows)


def all_metrics_table(results: dict[str, Any]) -> str:
    """Every metric at every cutoff."""
    metrics: Metrics = results["metrics"]
    names = list(next(iter(metrics.values())))
    head = "<th scope='col'>Metric</th>" + "".join(f'<th scope="col">{escape(method)}</th>' for method in metrics)
    rows = []
    for name in names:
        best = best_methods(metrics, name)
        cells = "".join(_cell(name, found[name], best=method in best) for method, found in metrics.items())
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return html_table("All metrics", head, rows)


def differences_table(results: dict[str, Any]) -> str:
    """How far the main method is ahead of each other one."""
    rows, metric = [], results["metric"]
    for other, found in results["differences"].items():
        estimate = found[metric]
        style, verdict = "open", "not told apart"
        if estimate["low"] > 0 or estimate["high"] < 0:
            style = verdict = "ahead" if estimate["low"] > 0 else "behind"
        interval = f"{estimate['low']:+.4f} to {estimate['high']:+.4f}"
        rows.append(
            f'<tr><th scope="row">{escape(other)}</th><td class="number">{estimate["mean"]:+.4f}</td>'
            f'<td class="number">{interval}</td><td><span class="verdict {style}">{verdict}</span></td></tr>'
        )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Against", name_of(metric), "95% interval", ""))
    asked = next(name for name in ("pictures", "texts", "users") if name in results["protocol"])
    caption = f"{escape(results['main'])} minus each other method, the same {asked} on both sides"
    return html_table(caption, head, rows)


def slice_table(results: dict[str, Any], kind: str, caption: str, unit: str) -> str:
    """Methods by slices, `unit` telling what the slice counts (users or targets)."""
    slices = [one for one in results["slices"][kind] if one["users"]]
    head = "<th scope='col'>Method</th>" + "".join(
        f'<th scope="col">{escape(one["name"])}<small>{one[unit]:,} {unit}</small></th>' for one in slices
    )
    best = [best_methods(one["metrics"], SLICE_METRIC) for one in slices]
    rows = []
    for method in results["metrics"]:
        cells = "".join(
            _cell(SLICE_METRIC, one["metrics"][method][SLICE_METRIC], best=method in leaders)
            for one, leaders in zip(slices, best, strict=True)
        )
        rows.append(_row(method, results, cells))
    return html_table(caption, head, rows)


def _row(method: str, results: dict[str, Any], cells: str) -> str:
    origin = results["methods"][method]
    kind = "main" if method == results["main"] else origin["kind"]
    return f'<tr class="{escape(kind)}"><th scope="row">{escape(method)}</th>{cells}</tr>'


def _cell(name: str, estimate: dict[str, float], *, best: bool, extra: str = "") -> str:
    digits = 2 if name.startswith(OF_THEIR_OWN_SCALE) else 4
    mean = f"{estimate['mean']:.{digits}f}"
    if "low" in estimate:
        extra += f"<small>{estimate['low']:.{digits}f}&ndash;{estimate['high']:.{digits}f}</small>"
    return f'<td class="number">{f"<b>{mean}</b>" if best else mean}{extra}</td>'


def html_table(caption: str, head: str, rows: list[str]) -> str:
    """A table that scrolls sideways on its own where the page is narrow; `caption` is HTML."""
    return (
        f'<figure class="table"><figcaption>{caption}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></figure>"
    )
