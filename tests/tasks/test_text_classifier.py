"""BERT and GPT-2 from their folders to published classifiers of titles, in this process."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import TEXT_SETTINGS, tiny, tiny_reader
from texts import NOUNS, TITLES, text_config, text_set

from ray_app.config import Config
from ray_app.content.picture_features import Encoding, Features, cached_features
from ray_app.data.picture_set import PictureSet
from ray_app.data.picture_shard import Range
from ray_app.errors import ConfigError
from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.tasks.answers import Answering, Answers
from ray_app.tasks.classification import picture_scoreboard
from ray_app.tasks.classifier import load_classifier
from ray_app.tasks.classify import build_task
from ray_app.tasks.picture_examples import pick_pictures
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.world import World

FROZEN = (ParamGroup(match="^backbone", rate="frozen"), ParamGroup(match="^head"))
HEAD = Phase(name="head", epochs=10, learning_rate=0.03, groups=FROZEN)
FULL = Phase(name="full", epochs=4, learning_rate=5e-4, l2_sp=0.01)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return text_set(tmp_path_factory.mktemp("texts"))


def computed(texts: PictureSet, of: Config) -> Features:
    """Features, made here as an actor makes them."""
    features = cached_features(texts, of)
    assert features is not None
    for file in texts.manifest.files:
        list(Encoding(features, of)(file.path))
    return features


@pytest.mark.parametrize("family", TEXT_SETTINGS)
def test_two_phases_learn_categories_of_titles_never_seen(family: str, texts: PictureSet, tmp_path: Path) -> None:
    tiny_reader(family, tmp_path / "encoder", TITLES)
    of = text_config(tmp_path, tmp_path / "encoder")
    task = build_task(of, texts, computed(texts, of))
    assert next(task.batches(np.random.default_rng(0), 0)).inputs.dtype == torch.int64  # nothing is frozen yet
    schedule = Schedule(phases=(HEAD, FULL))
    start, *records = fit(task, schedule, LoopSettings(), World.current(), lambda *_: None).records
    assert start["val/top1"] == pytest.approx(1 / 3, abs=0.2)
    assert records[-1]["val/top1"] >= 0.9
    assert records[-1]["train/loss"] < records[0]["train/loss"]


def test_a_frozen_encoder_is_read_from_what_was_computed_once(texts: PictureSet, tmp_path: Path) -> None:
    tiny_reader("bert", tmp_path / "encoder", TITLES)
    of = text_config(tmp_path, tmp_path / "encoder")
    features = computed(texts, of)
    cached, anew = build_task(of, texts, features), build_task(of, texts)
    for task in (cached, anew):
        fit(task, Schedule(phases=(HEAD,)), LoopSettings(), World.current(), lambda *_: None)
    assert next(cached.batches(np.random.default_rng(0), 0)).is_features
    anew.model.load_state_dict(cached.model.state_dict())
    found, expected = cached.validate(), anew.validate()
    assert found["top1"] == expected["top1"]
    assert found["log_likelihood"][0] == pytest.approx(expected["log_likelihood"][0], rel=1e-2)
    file = next(file for file in texts.manifest.files if file.part == "test")
    assert features.read(Range(file.path, 0, 2)).values.shape == (2, 1, 32)
    longer = text_config(tmp_path, tmp_path / "encoder", max_tokens=17)
    assert cached_features(texts, longer).key != features.key  # type: ignore[union-attr]


@pytest.mark.parametrize("family", TEXT_SETTINGS)
def test_a_published_classifier_reads_titles_when_the_folder_is_gone(
    family: str, texts: PictureSet, tmp_path: Path
) -> None:
    tiny_reader(family, tmp_path / "encoder", TITLES)
    of = text_config(tmp_path, tmp_path / "encoder")
    computed(texts, of)
    run = Run("finetune", of, Schedule(phases=(HEAD, FULL)), texts)
    task = run.begin(World.current())
    fit(task, run.schedule, LoopSettings(), World.current(), lambda *_: None)
    trained = task.model.eval()
    run.publish(Snapshot(trained.state_dict(), trained.state_dict(), {}, Progress()))
    shutil.rmtree(tmp_path / "encoder")
    loaded = load_classifier(texts.storage, run.uri)
    uris = texts.uris("test")
    table = texts.storage.read_table(uris[0])
    said = loaded.probabilities(table["text"].to_pylist())
    labels = table["label"].to_numpy().astype(np.int64)
    assert loaded.classes == sorted(NOUNS)
    board = picture_scoreboard({"fine-tuned": said}, labels, texts, 100, 0)
    assert board["metrics"]["fine-tuned"]["top1"]["mean"] >= 0.9
    assert said.sum(axis=1) == pytest.approx(1, abs=1e-5)
    shown = pick_pictures(texts, Answers(table["key"].to_pylist(), labels, said), 0, 3).right
    assert [TITLES[str(one.shown)] for one in shown] == [one.label for one in shown]
    list(Answering(texts, run.uri, of, str(tmp_path))(uris[0]))
    kept = texts.storage.read_table(str(tmp_path / Path(uris[0]).name))["probabilities"].to_pylist()
    assert np.allclose(kept, said, atol=1e-6)


def test_what_cannot_serve_is_a_sentence(texts: PictureSet, tmp_path: Path) -> None:
    tiny_reader("bert", tmp_path / "bert", TITLES)
    tiny("vit", tmp_path / "vit")
    for given, sentence in (
        (text_config(tmp_path, tmp_path / "vit"), r"hf:.*vit is for pictures, not for texts; name a BERT"),
        (text_config(tmp_path, tmp_path / "bert", max_tokens=33), r"classifier\.max_tokens: 33, but .* cannot read so"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            build_task(given, texts)
    with pytest.raises(ConfigError, match="texts are read by an encoder of the transformers library"):
        text_config(tmp_path, "x", backbone="torchvision:resnet18")
    for setting in ({"augment": {"mixup": 0.2}}, {"cached_views": 2}, {"head": {"kind": "conv"}}):
        with pytest.raises(ConfigError, match="are for pictures alone"):
            text_config(tmp_path, tmp_path / "bert", **setting)
