"""The pipeline of a classifier of texts, from a catalogue to a registered version and its labels."""

import json
from pathlib import Path

import pipeline
import pytest
import stages
from encoders import tiny_reader
from plain_loop import plain
from texts import NOUNS, TITLES, text_config, write_catalogue

from ray_app.config import apply_overrides
from ray_app.registry import Registry
from ray_app.schema import LABELS_SCHEMA
from ray_app.storage import Storage, join


def test_from_a_catalogue_to_a_registered_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained without Ray: what Ray adds is that of pictures (test_classify.py)."""
    write_catalogue(tmp_path / "catalogue.csv")
    tiny_reader("gpt2", tmp_path / "encoder", TITLES)
    settings = [
        "schedule.phases.0.epochs=10",
        "schedule.phases.0.learning_rate=0.03",
        "schedule.phases.1.epochs=1",
        "schedule.phases.1.learning_rate=1e-4",
        "evaluate={scratch: false, bootstrap_samples: 100}",
    ]
    config = apply_overrides(text_config(tmp_path, tmp_path / "encoder"), settings)
    run = stages.finetune_run(config, stages.target_dataset(config))
    run.publish(plain(run))
    pipeline.main(config)
    storage = Storage.from_config(config.storage)
    [version] = Registry(storage, "titles").versions()
    assert (version.metric, version.main) == ("top1", "fine-tuned")
    metrics = json.loads(storage.read_bytes(join(version.uri, "metrics.json")))
    assert metrics["protocol"]["texts"] == 24
    assert metrics["protocol"]["question"] == "the label of each text of the test part"
    assert metrics["metrics"]["fine-tuned"]["top1"]["mean"] >= 0.9
    assert metrics["metrics"]["logistic_regression"]["top1"]["mean"] > 0.9
    page = storage.read_bytes(join(version.uri, "report.html")).decode()
    assert "test texts of 3 classes" in page
    assert "pictures" not in page.partition("</style>")[2].replace('class="pictures"', "").partition("Configuration")[0]
    assert sum(f">{title}</p>" in page for title in TITLES) >= 12
    [labels] = [file.uri for file in storage.list_files(join(storage.root("titles"), "predictions", "**", "*.parquet"))]
    table = storage.read_table(labels)
    assert table.schema.equals(LABELS_SCHEMA)
    assert table.num_rows == 24 * len(NOUNS)
    assert table["key"][0].as_py().isdigit()
    said = " ".join(capsys.readouterr().out.split())
    assert "120 of 120 texts, 3 classes" in said
    assert "Some texts" in said
