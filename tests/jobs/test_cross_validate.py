"""Cross-validation of a classifier by the job: folds side by side, features once, and what is finished found again."""

import csv
import json
import re

import cross_validate
import numpy as np
import pytest
from pages import Page
from pictures import COLORS, picture
from safetensors.torch import save_file

from ray_app.config import Config, apply_overrides, load_config
from ray_app.data.folds import held_out_groups
from ray_app.errors import ConfigError
from ray_app.models.backbones import build_backbone
from ray_app.storage import Storage, join
from ray_app.tasks.classifier import load_classifier
from ray_app.tuning.room import room_for
from ray_app.tuning.side_by_side import train_side_by_side

BACKBONE = "torchvision:resnet18"
STORES = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Three colors in six stores, by a table that names the files."""
    folder = tmp_path_factory.mktemp("cross_validate")
    with (folder / "pictures.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "store", "key"])
        for number, (name, color) in enumerate(COLORS.items()):
            for row in range(20):
                path = folder / f"{name}-{row}.png"
                path.write_bytes(picture(color, 100 * number + row))
                table.writerow([path.name, name, f"store {row % STORES}", f"{name}-{row}"])
    save_file(build_backbone(BACKBONE).network.state_dict(), folder / "weights.safetensors")
    return load_config(
        None,
        [
            "name=colors",
            "task.kind=classify",
            "pictures={columns: {fold_by: store}}",
            f"classifier={{backbone: '{BACKBONE}', weights: {folder}/weights.safetensors, size: 32, batch_size: 8}}",
            f"data.events={folder}/pictures.csv",
            f"storage.path={folder}/runs",
            "schedule.phases.0.epochs=3",
            "schedule.phases.1.epochs=1",
            "evaluate={scratch: false, bootstrap_samples: 100}",
            "cross_validation={folds: 3, kind: grouped}",
        ],
    )


def etags(storage: Storage, folder: str) -> dict[str, str]:
    return {file.uri: file.etag for file in storage.list_files(folder)}


@pytest.mark.cluster
def test_folds_are_trained_side_by_side_and_found_again(
    ray_cluster: None, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    cross_validate.main(config)
    said = capsys.readouterr().out
    assert "3 of 3 folds, 3 at a time, each one process with 1 CPU" in said
    storage = Storage.from_config(config.storage)
    root = storage.root("colors")
    [metrics_uri] = [uri for uri in etags(storage, root) if uri.endswith("metrics.json")]
    metrics = json.loads(storage.read_bytes(metrics_uri))
    sizes = [fold["held_out"] for fold in metrics["folds"]]
    assert sum(sizes) == metrics["protocol"]["pictures"] == 42
    assert [fold["train"] for fold in metrics["folds"]] == [42 - size for size in sizes]
    assert metrics["mean"]["top1"] == pytest.approx(np.mean([fold["metrics"]["top1"] for fold in metrics["folds"]]))
    assert metrics["pooled"]["top1"]["mean"] > 0.8
    assert metrics["protocol"]["interval"] == f"95% bootstrap percentile over {STORES} groups, models as they are"
    # What was written is what the published model of each fold says of the stores that it never saw.
    table = storage.read_table(metrics_uri.replace("metrics.json", "out_of_fold.parquet")).to_pylist()
    first = {row["key"]: row for row in table if row["rank"] == 1}
    assert len(first) == 42
    pictures = cross_validate.target_dataset(config)
    assert config.cross_validation is not None
    folds = cross_validate.folds_of(pictures, config.cross_validation)
    stores = [int(row["key"].rpartition("-")[2]) % STORES for row in table if row["rank"] == 1]
    assert held_out_groups(folds).tolist() == stores
    for fold, told in zip(folds, metrics["folds"], strict=True):
        model = load_classifier(storage, told["model"])
        for file in fold.files("test"):
            rows = storage.read_table(join(fold.uri, file.path)).take(file.rows).to_pylist()
            sure = model.probabilities([row["image"] for row in rows])
            for row, one in zip(rows, sure, strict=True):
                assert first[row["key"]]["label"] == model.classes[one.argmax()]
                assert first[row["key"]]["probability"] == pytest.approx(one.max(), abs=1e-5)
    page = Page(storage.read_bytes(metrics_uri.replace("metrics.json", "report.html")).decode())
    assert {f"{fold['metrics']['top1']:.4f}" for fold in metrics["folds"]} <= set(re.findall(r"\d\.\d{4}", page.text))
    assert f"interval {metrics['pooled']['top1']['low']:.4f} to" in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 3
    features = [uri for uri in etags(storage, pictures.uri) if "/features/" in uri]
    assert features
    assert {uri.rpartition("/")[2].partition("-")[0] for uri in features} == {"train", "validation"}
    before = etags(storage, root)
    cross_validate.main(config)
    assert etags(storage, root) == before
    # As if it had been killed while the second fold was trained: the others are not touched.
    storage.delete_tree(metrics["folds"][1]["model"])
    storage.delete_tree(metrics_uri.removesuffix("/metrics.json"))
    capsys.readouterr()
    cross_validate.main(config)
    said = capsys.readouterr().out
    assert "1 of 3 folds, 1 at a time" in said
    after = etags(storage, root)
    lost = (metrics["folds"][1]["model"], metrics_uri.removesuffix("/metrics.json"), f"{root}/answers")
    assert {uri: tag for uri, tag in after.items() if not uri.startswith(lost)} == {
        uri: tag for uri, tag in before.items() if not uri.startswith(lost)
    }
    assert json.loads(storage.read_bytes(metrics_uri)) == metrics


@pytest.mark.cluster
def test_a_fold_may_have_several_workers(ray_cluster: None, config: Config) -> None:
    settings = ["train.num_workers=2", "cross_validation={folds: 2, kind: stratified}", "schedule.phases.0.epochs=1"]
    config = apply_overrides(config, settings)
    pictures = cross_validate.target_dataset(config)
    assert config.cross_validation is not None
    fold = cross_validate.folds_of(pictures, config.cross_validation)[0]
    cross_validate.features_stage(config, cross_validate.without_test(pictures))
    room = room_for(config.train, {"CPU": 4.0}, 2)
    assert room.at_once == 1
    [run] = train_side_by_side([cross_validate.begun_run(config, fold)], room)
    assert run.is_published()
    assert [record["phase"] for record in run.records()] == ["start", "head", "full"]


def test_a_column_that_no_file_has_is_named(config: Config) -> None:
    assert config.pictures is not None
    other = config.pictures.columns.model_copy(update={"fold_by": "shop"})
    wrong = config.model_copy(update={"pictures": config.pictures.model_copy(update={"columns": other})})
    with pytest.raises(Exception, match=r"no column 'shop' \(pictures\.columns\.fold_by\); there are: .*store"):
        cross_validate.main(wrong)


def test_without_folds_there_is_nothing_to_do(config: Config) -> None:
    with pytest.raises(ConfigError, match="cross_validation: unset"):
        cross_validate.main(config.model_copy(update={"cross_validation": None}))
