"""The page and the table of a data curve."""

import io
import re

import pytest
from pages import EVIL, Page
from rich.console import Console

from ray_app.config import parse_config
from ray_app.report.data_curve import data_curve_report, data_curve_table


def estimate(mean: float) -> dict[str, dict[str, float]]:
    return {"ndcg@10": {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}}


def point(share: float, users: int, **means: float) -> dict[str, object]:
    named = {name.replace("_", "-"): mean for name, mean in means.items()}
    models = {name: {"kind": "model", "fitted_on": "train part", "checkpoint": f"s3://b/{name}"} for name in named}
    main, *others = named
    return {
        "share": share,
        "users": users,
        "train_events": 5 * users,
        "methods": {**models, EVIL: {"kind": "baseline", "fitted_on": "train part"}, "popular": {"kind": "baseline"}},
        "metrics": {name: estimate(mean) for name, mean in named.items()}
        | {EVIL: estimate(0.1), "popular": estimate(0.05)},
        "differences": {other: estimate(named[main] - named[other]) for other in others},
    }


@pytest.fixture(scope="module")
def curve() -> dict[str, object]:
    return {
        "protocol": {"question": f"the next order {EVIL}", "users": 900, "min_steps": 8},
        "main": "fine-tuned",
        "metric": "ndcg@10",
        "points": [
            point(0.1, 100, fine_tuned=0.2, scratch=0.12),
            point(1.0, 1000, fine_tuned=0.25, scratch=0.26),
        ],
    }


def test_the_page_has_a_line_for_each_model_and_for_the_best_baseline(curve: dict[str, object]) -> None:
    points = curve["points"]
    assert isinstance(points, list)
    for one in points:
        one["methods"]["popular"]["fitted_on"] = "train part"
    page = Page(data_curve_report(curve, parse_config({"name": "shop"}), {}, {"ray": "2.60.0"}))
    assert "script" not in {tag for tag, _ in page.tags}
    assert len([tag for tag, _ in page.tags if tag == "polyline"]) == 3
    [picture] = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert "fine-tuned from 0.2000 to 0.2500" in picture["aria-label"]
    assert f"{EVIL} from 0.1000 to 0.1000" in picture["aria-label"]
    assert "popular" not in picture["aria-label"]
    for text in ("900 users are asked about", "100 users", "fine-tuned minus scratch", "+0.0800", "-0.0100", "2.60.0"):
        assert text in page.text


def test_the_table_says_who_is_best_at_each_share(curve: dict[str, object]) -> None:
    out = io.StringIO()
    Console(file=out, width=160, force_terminal=True, color_system="standard").print(data_curve_table(curve))
    bold = re.findall(r"\x1b\[1m\s*(0\.\d+)\s*\x1b\[0m", out.getvalue())
    assert bold == ["0.2000", "0.2600"]
    assert "10%" in out.getvalue()
    assert "100 users" in out.getvalue()
