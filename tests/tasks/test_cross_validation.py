"""The outcome of a cross-validation, on fractions worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from pictures import picture_set
from rich.table import Table

from ray_app.config import parse_config
from ray_app.data.folds import folds_of
from ray_app.report.folds import folds_table
from ray_app.schema import LABELS_SCHEMA, SCHEMA_VERSION
from ray_app.tasks.answers import Answers
from ray_app.tasks.cross_validation import cross_validated, out_of_fold

CONFIG = parse_config(
    {
        "task": {"kind": "classify"},
        "pictures": {},
        "classifier": {},
        "cross_validation": {"folds": 2, "kind": "time_series"},
        "evaluate": {"bootstrap_samples": 100},
    }
)
TIMES = [str(2000 + row // 10) for row in range(30)]
"""Three moments, of which the last two are held out."""


def answers(name: str, labels: list[int], said: list[int]) -> Answers:
    keys = [f"{name}/{row}" for row in range(len(labels))]
    return Answers(keys, np.array(labels), np.eye(3, dtype=np.float32)[said] * 0.7 + np.float32(0.1))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict:
    pictures = picture_set(tmp_path_factory.mktemp("pictures"), fold_by=TIMES)
    assert CONFIG.cross_validation is not None
    folds = folds_of(pictures, CONFIG.cross_validation)
    groups = {"groups": ["dark", "light"], "group_of_class": [0, 0, 1]}
    pictures, *folds = (replace(one, manifest=one.manifest.model_copy(update=groups)) for one in (pictures, *folds))
    found = [answers("a", [0, 1, 2, 0], [0, 0, 2, 0]), answers("b", [1, 2], [0, 1])]
    return cross_validated(pictures, folds, ["uri/a", "uri/b"], found, CONFIG)


def test_folds_their_mean_and_their_spread(outcome: dict) -> None:
    first, second = outcome["folds"]
    assert (first["fold"], first["train"], first["held_out"], first["model"]) == (1, 10, 10, "uri/a")
    assert second["train"] == 20
    assert first["metrics"] == pytest.approx({"top1": 3 / 4, "macro_recall": 2 / 3, "group": 1, "ece": 0.05})
    assert second["metrics"] == pytest.approx({"top1": 0, "macro_recall": 0, "group": 1 / 2, "ece": 0.8})
    assert outcome["mean"]["top1"] == pytest.approx(3 / 8)
    assert outcome["std"]["top1"] == pytest.approx(np.std([0.75, 0], ddof=1))


def test_all_that_was_held_out_is_one_sample(outcome: dict) -> None:
    pooled = outcome["pooled"]
    assert {name: one["mean"] for name, one in pooled.items()} == pytest.approx(
        {"top1": 3 / 6, "macro_recall": (2 / 2 + 0 / 2 + 1 / 2) / 3, "group": 5 / 6, "ece": 0.3}
    )
    assert pooled["top1"]["low"] < 0.5 < pooled["top1"]["high"]
    assert outcome["schema_version"] == SCHEMA_VERSION
    assert outcome["protocol"]["pictures"] == 6
    assert (outcome["protocol"]["folds"], outcome["protocol"]["kind"]) == (2, "time_series")


def test_the_table_has_a_row_for_each_fold(outcome: dict) -> None:
    table = folds_table(outcome)
    assert isinstance(table, Table)
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns["fold"] == ["1", "2", "mean", "together"]
    one = outcome["pooled"]["top1"]
    assert columns["Top-1"] == ["0.7500", "0.0000", "0.3750 ± 0.5303", f"0.5000 ({one['low']:.4f}-{one['high']:.4f})"]
    assert columns["held out"] == ["10", "10", "", "6"]


def test_the_likeliest_labels_of_all_are_kept() -> None:
    table = out_of_fold([answers("a", [0], [2]), answers("b", [1], [0])], ["x", "y", "z"], 20)
    assert table.schema.equals(LABELS_SCHEMA)
    assert [(row["key"], row["label"]) for row in table.to_pylist() if row["rank"] == 1] == [("a/0", "z"), ("b/0", "x")]
    assert table.num_rows == 6
