"""A classifier is as sure as it may be, and says the same."""

import numpy as np
import pytest
import torch
from pictures import COLORS, picture_set
from scipy.special import softmax

from ray_app.config import Config, parse_config
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


def test_what_is_published_answers_alike_and_as_sure_as_validation_says(tmp_path) -> None:
    pictures, of = picture_set(tmp_path, held_out=12), config(batch_size=5)
    plain = config(batch_size=5, calibrate=False)
    torch.manual_seed(0)
    model = build_task(of, pictures).model
    torch.nn.init.normal_(model.head.out.weight, std=5e3)  # what a network sees without training is faint
    published = {}
    for name, one in (("calibrated", of), ("plain", plain)):
        run = Run("finetune", one, one.schedule, pictures)
        run.publish(Snapshot.take(model, None, {}, Progress()))
        published[name] = load_classifier(pictures.storage, run.uri)
    before, after = (published[name].model.state_dict() for name in ("plain", "calibrated"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.out.weight"}  # its bias is zero
    factor = float((after["head.out.weight"] / before["head.out.weight"]).mean())
    told = [part for part in pictures.manifest.files if part.part == "validation"]
    rows = pictures.storage.read_table(f"{pictures.uri}/{told[0].path}")
    contents, labels = rows["image"].to_pylist(), rows["label"].to_numpy().astype(np.int64)
    chances = {name: one.probabilities(contents) for name, one in published.items()}
    likelihood = {name: np.log(one[np.arange(len(labels)), labels]).mean() for name, one in chances.items()}
    assert likelihood["calibrated"] > likelihood["plain"] + 0.1
    assert RANGE[0] < factor < 0.5, "it was too sure"
    np.testing.assert_array_equal(*(one.argmax(1) for one in chances.values()))
    assert sharpness(np.log(chances["plain"].clip(1e-38)), labels) == pytest.approx(factor, rel=0.01)


def test_many_are_asked_at_even_distances_and_none_without_validation(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ray_app.tasks.calibration.ENOUGH", 5)
    of = config(batch_size=2).classifier
    assert of is not None
    pictures = picture_set(tmp_path, held_out=11, per_file=4)
    model = begin_classifier(of, len(COLORS), 0, pictures.storage)
    torch.nn.init.normal_(model.head.out.weight, std=1e3)
    asked: list[int] = []
    model.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    tensors = model.state_dict()
    changed = calibrated(tensors, TrainedClassifier(model, list(COLORS), of), pictures)
    assert sum(asked) == 4, "each third of eleven"
    assert not torch.equal(changed["head.out.weight"], tensors["head.out.weight"])
    nobody = picture_set(tmp_path / "other", held_out=0)
    assert calibrated(tensors, TrainedClassifier(model, list(COLORS), of), nobody) is tensors
