"""The pipeline of a classifier, from folders of pictures to a registered version and its labels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pipeline
import pytest
import stages
from pictures import COLORS, picture
from safetensors.torch import save_file

from ray_app.config import Config, load_config
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError
from ray_app.models.backbones import build_backbone
from ray_app.registry import Registry
from ray_app.schema import LABELS_SCHEMA
from ray_app.storage import Storage, join
from ray_app.tasks.answers import PROBABILITIES, Answering, answers_of
from ray_app.tasks.outcomes import outcomes_of
from ray_app.tasks.promotion import beats_version

BACKBONE = "torchvision:resnet18"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Three colors in folders, one picture of them broken; a backbone with random weights, from a file."""
    folder = tmp_path_factory.mktemp("classify")
    for number, (name, color) in enumerate(COLORS.items()):
        (folder / "pictures" / name).mkdir(parents=True)
        for row in range(20):
            (folder / "pictures" / name / f"{row}.png").write_bytes(picture(color, 100 * number + row))
    (folder / "pictures" / "red" / "broken.png").write_bytes(picture((1, 2, 3), 9)[:300])
    network = build_backbone(BACKBONE).network
    save_file(network.state_dict(), folder / "weights.safetensors")
    settings = [
        "name=colors",
        "task.kind=classify",
        "pictures={}",
        f"classifier={{backbone: '{BACKBONE}', weights: {folder}/weights.safetensors, size: 32, batch_size: 8}}",
        f"data.events={folder}/pictures",
        f"storage.path={folder}/runs",
        "schedule.phases.0.epochs=3",
        "schedule.phases.1.epochs=1",
        "evaluate={scratch: false, bootstrap_samples: 100}",
        f"choose={{candidates: [{{backbone: '{BACKBONE}', weights: {folder}/weights.safetensors}}, "
        f"{{backbone: '{BACKBONE}', weights: {folder}/none.safetensors}}]}}",
    ]
    return load_config(None, settings)


@pytest.mark.cluster
def test_from_folders_to_a_registered_version(
    ray_cluster: None, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.main(config)
    storage = Storage.from_config(config.storage)
    [version] = Registry(storage, "colors").versions()
    assert (version.metric, version.main) == ("top1", "fine-tuned")
    assert list(version.baselines) == ["nearest_centroid", "knn", "logistic_regression"]
    metrics = json.loads(storage.read_bytes(join(version.uri, "metrics.json")))
    assert metrics["protocol"]["pictures"] == 12
    assert [one["name"] for one in metrics["classes"]] == sorted(COLORS)
    assert metrics["metrics"]["logistic_regression"]["top1"]["mean"] > 0.9
    page = storage.read_bytes(join(version.uri, "report.html")).decode()
    assert "Classifier report" in page
    assert page.count("data:image/jpeg") >= 12
    reached = metrics["metrics"]["fine-tuned"]["top1"]["mean"]
    assert "Backbones to choose from" in page
    assert f'<td class="number">{reached:.1%}</td>' in page
    [candidate, _] = config.choose.candidates if config.choose else []
    assert outcomes_of(stages.target_dataset(config), config, [candidate]) == {candidate: reached}
    [labels] = [file.uri for file in storage.list_files(join(storage.root("colors"), "predictions", "**", "*.parquet"))]
    table = storage.read_table(labels)
    assert table.schema.equals(LABELS_SCHEMA)
    assert table.num_rows == 12 * len(COLORS)
    said = " ".join(capsys.readouterr().out.split())
    assert "60 of 61 pictures, 3 classes" in said
    assert "Some pictures" in said
    assert f"cannot be judged: {BACKBONE}:" in said
    answers_for_other_classes(config, version.uri)
    before = {file.uri: file.etag for file in storage.list_files(storage.root("colors"))}
    pipeline.main(config)
    assert {file.uri: file.etag for file in storage.list_files(storage.root("colors"))} == before
    with pytest.raises(Exception, match=r"top1 \+0\.0000.*not better beyond the interval"):
        beats_version(storage, version, version, config)


def answers_for_other_classes(config: Config, model_uri: str) -> None:
    """A class that the model does not know has no probability, and one that the set does not have is left out."""
    pictures = stages.target_dataset(config)
    assert isinstance(pictures, PictureSet)
    own = answers_of(pictures, model_uri, config)
    others = pictures.manifest.model_copy(update={"classes": ["red", "kiwi", "blue"]})
    folder = join(pictures.storage.path, "other")
    actor = Answering(replace(pictures, manifest=others), model_uri, config, folder)
    for uri in pictures.uris("test"):
        list(actor(uri))
    files = pictures.storage.list_files(folder)
    found = np.array(
        [row for file in files for row in pictures.storage.read_table(file.uri)[PROBABILITIES].to_pylist()]
    )
    assert found[:, 1].max() == 0
    blue, red = (pictures.manifest.classes.index(name) for name in ("blue", "red"))
    assert found[:, [2, 0]] == pytest.approx(own.probabilities[:, [blue, red]], abs=1e-5)


def test_sections_for_recommenders_are_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="ranker: for recommenders alone"):
        stages.target_dataset(config.model_copy(update={"ranker": config.serve}))


def test_without_weights_the_network_is_trained_from_scratch(config: Config) -> None:
    target = stages.target_dataset(config)
    assert isinstance(target, PictureSet)
    assert config.classifier is not None
    unset = config.classifier.model_copy(update={"weights": None})
    assert stages.finetune_run(config.model_copy(update={"classifier": unset}), target).role == "scratch"


def test_weights_may_be_named_by_a_relative_path(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.classifier is not None
    path = Path(str(config.classifier.weights))
    monkeypatch.chdir(path.parent)
    near = config.classifier.model_copy(update={"weights": path.name})
    target = stages.target_dataset(config)
    relative = stages.finetune_run(config.model_copy(update={"classifier": near}), target)
    assert relative.key == stages.finetune_run(config, target).key
    assert relative.config.classifier is not None
    assert relative.config.classifier.weights == str(path)
