"""The page and the table of a search: every trial, what was found in words, pictures that can be read."""

import io
from typing import cast
from xml.etree import ElementTree

import pytest
from pages import EVIL, Page
from rich.console import Console

from ray_app.config import apply_overrides, load_config, parse_config
from ray_app.data.dataset import Dataset
from ray_app.report import trials_table, winning_config, write_search
from ray_app.report.search_charts import best_so_far, importance_bars, parallel_coordinates
from ray_app.tune_config import Strategy, Value
from ray_app.tuning.findings import Importance, importances, sentences
from ray_app.tuning.search import Search
from ray_app.tuning.trials import Trial, best_of

HEAD, RATE, L2_SP = "schedule.phases.0.learning_rate", "schedule.phases.1.learning_rate", "schedule.phases.1.l2_sp"
CONFIG = parse_config({"name": "shop", "model": {"start_from": "s3://b/start"}, "tune": {}})
SEARCH = Search.begin(CONFIG, cast(Dataset, None), "s3://b/start")


def trial(
    number: int,
    strategy: Strategy,
    score: float | None,
    epochs: int = 9,
    reused: int = 0,
    state: str = "finished",
    error: str | None = None,
    **values: Value,
) -> Trial:
    paths = {"rate": RATE, "l2_sp": L2_SP, "head": HEAD}
    found = {"values": {paths[name]: value for name, value in values.items()}, "key": str(number), "error": error}
    progress = {"score": score, "epochs": epochs, "reused": reused, "state": state}
    return Trial.model_validate({"number": number, "strategy": strategy, **found, **progress})


TRIALS = [
    trial(0, "configured", 0.15, 20),
    trial(1, "linear_probe", 0.14, 5),
    trial(2, "full", 0.152, 12, rate=1e-3),
    trial(3, "configured", 0.156, 25, 5, rate=2e-3, l2_sp=0.01, head=1e-3),
    trial(4, "scratch", 0.12, 3, state="stopped"),
    trial(5, "configured", None, 0, state="failed", error=EVIL, rate=5e-4, l2_sp=0.9),
    trial(6, "without_l2_sp", 0.151, 15, 5, rate=2e-3, head=1e-3),
    trial(7, "configured", 0.1555, 15, 5, state="stopped", rate=1.5e-3, l2_sp=0.1, head=1e-3),
]


def test_the_ranking_is_told_in_words() -> None:
    told = sentences(SEARCH.space, TRIALS, "ndcg@10")
    assert told[0] == (
        "Trial 3 is best: ndcg@10 0.1560 on validation by the configured phases, +0.0060 against trial 0, which has "
        "the configured settings."
    )
    assert told[1].startswith(
        "Best of each strategy: configured 0.1560 (4 trials), full 0.1520 (1 trial), without_l2_sp"
    )
    assert "Training the head before the rest was worth +0.0040." in told
    assert "Holding the backbone to its pretrained weights was worth +0.0050." in told
    assert "Beginning with pretrained weights was worth +0.0360." in told
    assert told[-1] == (
        "80 epochs were trained; 15 more (16%) were shared between trials instead, and up to 152 were spared by ending "
        "2 trials early."
    )
    assert sentences(SEARCH.space, [TRIALS[5]], "ndcg@10") == []


def test_settings_that_were_changed_one_at_a_time_are_told_in_words() -> None:
    planned = [
        trial(0, "full", 0.150),
        trial(1, "full", 0.153, rate=3e-4),
        trial(2, "full", 0.152, rate=3e-4, l2_sp=0.5),
        trial(3, "full", 0.9, rate=1e-4, l2_sp=0.9, head=1e-3),
    ]
    steps = [one.model_copy(update={"is_planned": one.number < 3}) for one in planned]
    told = sentences(SEARCH.space, steps, "ndcg@10")
    assert (
        "By full, one setting after another, kept where it was better: full.learning_rate 0.0003 +0.0030, "
        "full.l2_sp 0.5 -0.0010." in told
    )
    assert not any("one setting" in sentence for sentence in sentences(SEARCH.space, planned, "ndcg@10"))


def test_what_decides_the_score_is_found_to_matter() -> None:
    tried = [
        trial(n, "configured", 0.1 + n % 4, rate=1e-4 * 2 ** (n % 4), l2_sp=10.0 ** (-n // 5), head=1e-3)
        for n in range(20)
    ]
    found = importances(SEARCH.space, tried)
    assert found[0].path == RATE
    assert found[0].share > 0.8
    assert found[0].trials == 20
    assert importances(SEARCH.space, tried[:5]) == []
    assert L2_SP not in {
        one.path for one in importances(SEARCH.space, [trial(n, "full", n, rate=1e-3) for n in range(3)])
    }


def test_the_page_tells_of_every_trial_and_needs_no_network() -> None:
    page = Page(write_search(SEARCH, TRIALS, "ndcg@10"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert EVIL in page.text
    for text in ("shop", "Trial 3 is best", "0.1560", "20 (+5)", "ended early", "full.l2_sp 0.01", "num_trials: 20"):
        assert text in page.text
    for tag, attributes in page.tags:
        assert not {"src", "href"} & attributes.keys()
        if tag == "svg":
            assert attributes["aria-label"]
    empty = Page(write_search(SEARCH, [TRIALS[5]], "ndcg@10"))
    assert "failed" in empty.text


def test_the_curve_never_falls_and_ends_at_the_best() -> None:
    svg = ElementTree.fromstring(best_so_far(TRIALS, "ndcg@10"))
    heights = [float(point.split(",")[1]) for point in svg.find("polyline").get("points").split()]  # type: ignore[union-attr]
    assert heights == sorted(heights, reverse=True)
    assert len(svg.findall("circle")) == 7
    assert svg.get("aria-label") == "best ndcg@10 of 7 trials after 80 epochs: 0.1560"
    assert best_so_far([TRIALS[5]], "ndcg@10") == ""


def test_lines_leave_out_settings_without_use() -> None:
    drawn = ElementTree.fromstring(parallel_coordinates(SEARCH.space, TRIALS, "ndcg@10"))
    lines = {line.findtext("title"): line.get("points", "").split() for line in drawn.iter("polyline")}
    assert len(lines) == 7
    [best] = [line for line in drawn.iter("polyline") if line.get("class") == "line"]
    assert best.findtext("title") == "trial 3: 0.1560"
    below = {point.split(",")[1] for point in lines["trial 4: 0.1200"][2:-1]}
    assert below == {"280.0"}  # what belongs to the schedule of fine-tuning
    assert "280.0" not in {point.split(",")[1] for point in lines["trial 3: 0.1560"][2:]}


def test_bars_are_as_long_as_their_share() -> None:
    svg = ElementTree.fromstring(importance_bars(SEARCH.space, [Importance("a", 0.75, 9), Importance("b<", 0.25, 8)]))
    assert [bar.get("width") for bar in svg.findall("rect")] == ["105.0", "35.0"]
    assert importance_bars(SEARCH.space, []) == ""


def test_the_terminal_shows_the_best_first_and_why_others_failed() -> None:
    console = Console(width=150, file=io.StringIO(), record=True)
    console.print(trials_table(SEARCH.space, TRIALS, "ndcg@10"))
    lines = console.export_text().splitlines()
    first = next(number for number, line in enumerate(lines) if "0.1560" in line)
    assert all("0.15" not in line and "0.14" not in line for line in lines[:first])
    failed = next(line for line in lines if "failed" in line)
    assert EVIL[:20] in failed


@pytest.mark.parametrize("number", [3, 4])
def test_the_winning_configuration_makes_the_winners_run(number: int, tmp_path: object) -> None:
    path = tmp_path / "schedule.yaml"  # type: ignore[operator]
    path.write_text(winning_config(SEARCH, TRIALS[number], "ndcg@10"))
    found = load_config(path)
    run = SEARCH.run_of(TRIALS[number].candidate)
    is_scratch = TRIALS[number].strategy == "scratch"
    assert (found.evaluate.scratch_schedule if is_scratch else found.schedule) == run.schedule
    assert found.model.start_from == run.start_from
    assert (found.tune, found.pretrain) == (None, None)
    assert found.model.model_copy(update={"start_from": None}) == run.config.model.model_copy(
        update={"start_from": None}
    )
    assert best_of(TRIALS) is TRIALS[3]
    assert apply_overrides(found, ["train.seed=1"]).train.seed == 1
