"""A classifier is as sure as it may be, and says the same."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pictures import COLORS, picture_set
from scipy.special import log_softmax, softmax

from ray_app.checkpoint import read_manifest
from ray_app.config import Config, parse_config
from ray_app.errors import TrainingError
from ray_app.tasks.calibration import RANGE, calibrated, sharpness
from ray_app.tasks.classifier import TrainedClassifier, begin_classifier, load_classifier
from ray_app.tasks.classify import build_task
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot


def config(**classifier: object) -> Config:
    given = {"backbone": "torchvision:shufflenet_v2_x0_5", "weights": None, "size": 32, **classifier}
    return parse_config({"task": {"kind": "classify"}, "pictures": {}, "classifier": given})


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_factor_by_which_answers_were_drawn_is_found(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)).astype(np.float32)
    chances = softmax(true * logits, axis=1)
    labels = (chances.cumsum(1) > rng.random((4000, 1))).argmax(1)
    assert sharpness(logits, labels) == pytest.approx(true, rel=0.08)


def test_a_few_right_answers_do_not_ask_for_certainty() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    sure = softmax(sharpness(logits, np.array([0, 1, 2, 0])) * logits, axis=1).max()
    assert 0.8 < sure < 0.95
    assert sharpness(-logits, np.array([0, 1, 2, 0])) == pytest.approx(RANGE[0], rel=1e-6)


def test_what_says_nothing_stays_and_what_is_no_number_is_told() -> None:
    assert sharpness(np.ones((5, 3), np.float32), np.zeros(5, np.int64)) == 1
    with pytest.raises(TrainingError, match="infinite or no numbers: lower learning_rate"):
        sharpness(np.array([[1, np.nan], [0, 1]], np.float32), np.array([0, 1]))


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_is_published_answers_alike_and_as_sure_as_validation_says(tmp_path, mirrored: bool) -> None:
    settings = {"batch_size": 5, "test_mirrored": mirrored}
    pictures, of, plain = picture_set(tmp_path, held_out=12), config(**settings), config(**settings, calibrate=False)
    torch.manual_seed(0)
    model = build_task(of, pictures).model
    torch.nn.init.normal_(model.head.out.weight, std=5e3)  # what a network sees without training is faint
    torch.nn.init.normal_(model.head.out.bias)
    runs = {name: Run("finetune", one, one.schedule, pictures) for name, one in (("before", plain), ("after", of))}
    for run in runs.values():
        run.publish(Snapshot.take(model, None, {}, Progress()))
    assert "sharpness" not in read_manifest(pictures.storage, runs["before"].uri)
    factor = read_manifest(pictures.storage, runs["after"].uri)["sharpness"]
    assert RANGE[0] * 1.01 < factor < 0.5, "it was too sure"
    before, after = (load_classifier(pictures.storage, run.uri) for run in runs.values())
    sharper = after.model.state_dict()
    for name, value in before.model.state_dict().items():
        assert torch.equal(sharper[name], value * factor if name.startswith("head.out.") else value), name
    [file] = pictures.uris("validation")
    rows = pictures.storage.read_table(file)
    contents, labels = rows["image"].to_pylist(), rows["label"].to_numpy().astype(np.int64)
    said, sure = before.logits(contents), after.probabilities(contents)
    np.testing.assert_allclose(sure, softmax(said * factor, axis=1), atol=1e-5)
    np.testing.assert_array_equal(sure.argmax(1), before.probabilities(contents).argmax(1))

    def likelihood(by: float) -> float:
        return log_softmax(said * by, axis=1)[np.arange(len(labels)), labels].mean()

    assert likelihood(factor) > likelihood(1) + 0.1
    assert sharpness(said, labels) == pytest.approx(factor, rel=1e-6)


def test_so_many_are_asked_at_most_and_nobody_without_validation(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ray_app.tasks.calibration.ENOUGH", 7)
    monkeypatch.setattr("ray_app.tasks.calibration._BATCH", 3)
    of = config().classifier
    assert of is not None
    pictures = picture_set(tmp_path, held_out=11, per_file=4)
    rows = pa.concat_tables(pictures.storage.read_table(uri) for uri in pictures.uris("validation"))
    label_of = dict(zip(rows["image"].to_pylist(), rows["label"].to_pylist(), strict=True))
    trained = TrainedClassifier(begin_classifier(of, len(COLORS), 0, pictures.storage), list(COLORS), of)
    asked: list[bytes] = []

    class Watched(TrainedClassifier):
        def logits(self, inputs, device=None):  # certain, and right
            asked.extend(inputs)
            return np.eye(3, dtype=np.float32)[[label_of[one] for one in inputs]]

    tensors = trained.model.state_dict()
    changed, factor = calibrated(tensors, Watched(trained.model, trained.classes, of), pictures)
    assert len(set(asked)) == len(asked) == 7
    assert len({label_of[one] for one in asked}) == 3
    every = np.array([label_of[one] for one in asked])
    assert factor == sharpness(np.eye(3, dtype=np.float32)[every], every) > 1, "each beside its own label"
    assert set(changed) == set(tensors)
    nobody = picture_set(tmp_path / "other", held_out=0)
    assert calibrated(tensors, trained, nobody) == (tensors, 1.0)
