import io
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import COLORS, picture, picture_set
from PIL import Image
from processes import run_two_workers
from safetensors.torch import load_file, save_file

from ray_app.checkpoint import CheckpointError
from ray_app.config import Config, parse_config
from ray_app.content.picture_features import Encoding, Features, cached_features
from ray_app.content.pretrained import as_shown, evaluation_views, weights_key
from ray_app.data.picture_set import PictureSet
from ray_app.data.picture_shard import Range, contents_of
from ray_app.errors import ConfigError, DataError
from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.tasks.classifier import TrainedClassifier, begin_classifier
from ray_app.tasks.classify import METRIC, ClassifyTask, build_task
from ray_app.training.kinds import KINDS
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World

FROZEN = (ParamGroup(match="^backbone", rate="frozen"), ParamGroup(match="^head"))
HEAD = Phase(name="head", epochs=8, learning_rate=0.03, groups=FROZEN)
FULL = Phase(name="full", epochs=2, learning_rate=1e-4, l2_sp=0.1, keep_statistics=True)


def weights_of(network: str, folder: Path) -> str:
    """A file of weights by torchvision's own names."""
    import torchvision

    torch.manual_seed(0)
    path = folder / f"{network}.safetensors"
    save_file(torchvision.models.get_model(network, weights=None).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a small network; what it sees without training is too faint to learn by."""
    return weights_of("shufflenet_v2_x0_5", tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return picture_set(tmp_path_factory.mktemp("pictures"))


def config(weights: str | None, train: dict[str, object] | None = None, **classifier: object) -> Config:
    given = {
        "backbone": "torchvision:shufflenet_v2_x0_5",
        "weights": weights,
        "size": 32,
        "batch_size": 10,
        **classifier,
    }
    return parse_config({"task": {"kind": "classify"}, "pictures": {}, "classifier": given, "train": train or {}})


def computed(pictures: PictureSet, of: Config) -> Features:
    """Features, made here as an actor makes them."""
    features = cached_features(pictures, of)
    assert features is not None
    encoding = Encoding(features, of)
    for file in pictures.manifest.files:
        if not pictures.storage.exists(features.uri(file.path)):
            assert [table["pictures"].to_pylist() for table in encoding(file.path)] == [[file.pictures]]
    return features


def run(task: ClassifyTask, *phases: Phase) -> list[dict[str, float | str]]:
    return fit(task, Schedule(phases=phases), LoopSettings(), World.current(), lambda *_: None).records


def test_two_phases_learn_colors(pictures: PictureSet, tmp_path: Path) -> None:
    of = config(weights_of("resnet18", tmp_path), backbone="torchvision:resnet18")
    task = build_task(of, pictures, computed(pictures, of))
    start, *records = run(task, HEAD, FULL)
    assert start["val/top1"] == pytest.approx(1 / 3)  # a new head knows nothing
    assert records[-1]["val/top1"] == 1
    assert records[-1]["train/loss"] < records[0]["train/loss"]


def test_a_frozen_backbone_is_read_from_what_was_computed_once(pictures: PictureSet, weights: str) -> None:
    of = config(weights)
    features = computed(pictures, of)
    cached, anew = build_task(of, pictures, features), build_task(of, pictures)
    for task in (cached, anew):
        run(task, HEAD.model_copy(update={"epochs": 1}))
    batch, plain = (next(task.batches(np.random.default_rng(0), 0)) for task in (cached, anew))
    assert (batch.is_features, plain.is_features) == (True, False)
    assert batch.inputs.shape == (10, 1024)
    first = next(file for file in pictures.manifest.files if file.part == "train")
    rows = contents_of(pictures, Range(first.path, 0, first.pictures))
    backbone = cached.model.backbone.eval()
    views = evaluation_views(backbone, of.classifier)
    with torch.no_grad():
        vectors = backbone(as_shown(backbone, views[rows.values.tolist(), 0], torch.device("cpu")))
    kept = features.read(Range(first.path, 0, first.pictures)).values[:, 0]
    assert np.allclose(kept, vectors.numpy(), atol=2e-3 * float(vectors.max()))
    anew.model.load_state_dict(cached.model.state_dict())
    assert cached.validate()["top1"] == anew.validate()["top1"]
    assert cached.validate()["log_likelihood"][0] == pytest.approx(anew.validate()["log_likelihood"][0], rel=1e-2)


def test_a_backbone_that_has_moved_is_asked_again(pictures: PictureSet, weights: str) -> None:
    of = config(weights)
    task = build_task(of, pictures, computed(pictures, of))
    run(task, FULL, HEAD.model_copy(update={"epochs": 1}))
    assert not next(task.batches(np.random.default_rng(0), 0)).is_features


def test_augmented_views_are_kept_beside_the_plain_one(pictures: PictureSet, weights: str) -> None:
    of = config(weights, cached_views=3)
    features = computed(pictures, of)
    train, held_out = (next(f for f in pictures.manifest.files if f.part == part) for part in ("train", "validation"))
    views = features.read(Range(train.path, 2, 9)).values
    assert views.shape == (7, 3, 1024)
    assert not np.allclose(views[:, 0], views[:, 1])
    assert not np.allclose(views[:, 1], views[:, 2])
    assert features.read(Range(held_out.path, 0, 4)).values.shape == (4, 1, 1024)
    task = build_task(of, pictures, features)
    run(task, HEAD.model_copy(update={"epochs": 1}))


@pytest.mark.parametrize("augment", [{}, {"mixup": 0.5, "cutmix": 1.0, "color": 0.3, "rand_augment": 9, "erase": 0.5}])
def test_an_epoch_is_the_same_whoever_loads_it_and_wherever_it_begins(
    pictures: PictureSet, weights: str, augment: dict[str, object]
) -> None:
    def batches(first: int, processes: int) -> list[torch.Tensor]:
        of = config(weights, {"cpus_per_worker": processes}, augment=augment)
        found = list(build_task(of, pictures).batches(np.random.default_rng(5), first))
        for one in found:
            assert torch.allclose(one.targets.sum(1), torch.ones(len(one.targets)))
        return [part for one in found for part in (one.inputs, one.targets)]

    whole, rest = batches(0, 1), batches(1, 3)
    assert len(whole) == 2 * 3
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one, other)


def test_without_weights_nothing_is_pretrained(pictures: PictureSet) -> None:
    of = config(None)
    assert cached_features(pictures, of) is None
    assert build_task(of, pictures).reference == {}


def test_rare_labels_count_for_more_where_it_is_asked(tmp_path: Path, weights: str) -> None:
    pictures = picture_set(tmp_path, train=31)  # 11, 10, 10
    even, rare = (build_task(config(weights, balance=balance), pictures) for balance in (0.0, 1.0))
    totals = []
    for task in (even, rare):
        run(task, HEAD.model_copy(update={"epochs": 1}))
        totals.append(sum(batch.targets.sum(0) for batch in task.batches(np.random.default_rng(0), 0)))
    assert totals[0].tolist() == [11, 10, 10]
    assert torch.allclose(totals[1], torch.full((3,), 31 / 3))


def test_too_few_pictures_are_a_sentence(pictures: PictureSet, weights: str) -> None:
    with pytest.raises(DataError, match=r"30 training pictures for 16 workers.*train\.num_workers"):
        build_task(config(weights), pictures, world_size=16)


def test_a_transformer_that_sees_one_size_alone_is_a_sentence(pictures: PictureSet) -> None:
    of = config(None, backbone="torchvision:vit_b_16")
    with pytest.raises(ConfigError, match=r"classifier\.size: 32, but torchvision:vit_b_16 cannot see"):
        build_task(of, pictures)


def test_weights_in_other_formats_are_refused_with_the_remedy(tmp_path: Path, pictures: PictureSet) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"not a safetensors file.*save_file"):
        begin_classifier(config(str(path)).classifier, 3, 0, pictures.storage)


def test_weights_of_another_network_load_nothing(weights: str, pictures: PictureSet) -> None:
    of = config(weights, backbone="torchvision:shufflenet_v2_x1_0").classifier
    with pytest.raises(
        CheckpointError,
        match=r"(?s)does not fit torchvision:shufflenet_v2_x1_0, nothing was loaded.*where the network has",
    ):
        begin_classifier(of, 3, 0, pictures.storage)


def test_the_key_goes_by_the_bytes_of_the_weights(weights: str, tmp_path: Path, pictures: PictureSet) -> None:
    other = tmp_path / "elsewhere.safetensors"
    other.write_bytes(Path(weights).read_bytes())
    keys = [weights_key(config(path).classifier, pictures.storage) for path in (weights, str(other), None)]
    assert keys[0] == keys[1] != keys[2]


def test_the_classic_recipe_moves_the_backbone_in_its_second_phase_alone(tmp_path: Path) -> None:
    """ResNet-50: `fc` replaced, SGD with momentum 0.9 and cross-entropy, first frozen and then not."""
    given = weights_of("resnet50", tmp_path)
    of = config(given, {"cpus_per_worker": 1}, backbone="torchvision:resnet50", size=64, batch_size=4, cached_views=0)
    task = build_task(of, picture_set(tmp_path, train=4, held_out=3))
    loaded = {name: value.clone() for name, value in task.model.backbone.state_dict().items()}
    for name, value in load_file(given).items():
        assert name.startswith("fc.") or torch.equal(loaded[f"network.{name}"], value)
    head, full = (
        phase.model_copy(update={"epochs": 1, "optimizer": "sgd", "learning_rate": 0.01}) for phase in (HEAD, FULL)
    )
    before = task.model.head.out.weight.clone()
    run(task, head)
    assert not torch.equal(task.model.head.out.weight, before)
    assert all(torch.equal(loaded[name], value) for name, value in task.model.backbone.state_dict().items())
    run(task, full)
    for name, value in task.model.backbone.named_parameters():
        assert not torch.equal(loaded[name], value), name


def test_runs_go_by_the_metric_of_the_task() -> None:
    """Its name stands twice, since a run of logs does not import what reads pictures."""
    assert KINDS["classify"].metric == METRIC


def mirrored(image: bytes) -> bytes:
    sink = io.BytesIO()
    Image.open(io.BytesIO(image)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(sink, "PNG")
    return sink.getvalue()


def test_the_answer_may_be_the_mean_over_a_picture_and_its_mirror_image(weights: str, pictures: PictureSet) -> None:
    plain, both = (config(weights, test_mirrored=wanted).classifier for wanted in (False, True))
    model = begin_classifier(plain, 3, 0, pictures.storage)
    torch.nn.init.normal_(model.head.out.weight, std=1e3)  # what a network sees without training is faint
    images = [picture(color, 7, side=32) for color in COLORS.values()]
    answer = TrainedClassifier(model, list(COLORS), plain).probabilities
    here, there = answer(images), answer([mirrored(image) for image in images])
    assert np.abs(here - there).max() > 1e-3
    said = TrainedClassifier(model, list(COLORS), both).probabilities(images)
    np.testing.assert_allclose(said, (here + there) / 2, atol=1e-3)


def test_resumed_anywhere_a_network_of_convolutions_ends_with_the_same_weights(
    pictures: PictureSet, weights: str, tmp_path: Path
) -> None:
    """Moments came back in another order in memory than fused AdamW pairs them by, and dropout drew other numbers."""
    of = config(weights, head={"dropout": 0.5})
    schedule = Schedule(phases=(FULL.model_copy(update={"learning_rate": 0.01}),))
    settings, saved = LoopSettings(checkpoint_every_steps=2), []

    def save(_: object, snapshot: Snapshot) -> None:
        saved.append(tmp_path / str(len(saved)))
        saved[-1].mkdir()
        snapshot.save(saved[-1])

    whole = build_task(of, pictures)
    fit(whole, schedule, settings, World.current(), save)
    assert len(saved) == 4  # inside and at the end of both epochs
    for folder in saved:
        resumed = build_task(of, pictures)
        fit(resumed, schedule, settings, World.current(), lambda *_: None, Snapshot.load(folder))
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, resumed.model.state_dict()[name]), (folder.name, name)


def test_a_worker_without_validation_pictures_tells_what_the_others_tell(pictures: PictureSet, weights: str) -> None:
    of, few = config(weights), pictures.size("validation")
    workers = [build_task(of, pictures, rank=rank, world_size=few + 1) for rank in range(few + 1)]
    for worker in workers:
        worker.model.eval()
    told = [worker.validate() for worker in workers]
    assert {tuple(one) for one in told} == {("top1", "top5", "log_likelihood")}
    assert sorted(count for one in told for _, count in one.values())[:3] == [0, 0, 0]
    assert sum(one["top1"][1] for one in told) == few


@pytest.mark.parametrize("train", [31, 5])
def test_no_batch_has_one_picture_alone(train: int, weights: str, tmp_path: Path) -> None:
    task = build_task(config(weights, batch_size=2), picture_set(tmp_path, train=train))
    sizes = [len(batch.targets) for batch in task.batches(np.random.default_rng(0), 0)]
    assert sum(sizes) == train
    assert min(sizes) >= 2
    task.loss(next(task.batches(np.random.default_rng(0), 0)))[0].backward()
    with pytest.raises(ConfigError, match=r"classifier\.batch_size"):
        config(weights, batch_size=1)


def _one_of_two(rank: int, folder: Path, pictures: PictureSet, weights: str) -> None:
    of = config(weights, backbone="torchvision:mobilenet_v3_small", head={"kind": "conv", "hidden": 8})
    task = build_task(of, pictures, None, rank, 2)
    run(task, FULL.model_copy(update={"epochs": 1}))
    save_file({name: value.contiguous() for name, value in task.model.state_dict().items()}, folder / f"{rank}.st")


def test_two_workers_train_on_maps_of_a_network_that_has_layers_behind_them(
    pictures: PictureSet, tmp_path: Path
) -> None:
    """They waited for gradients of those layers, and torch ended the training."""
    weights = weights_of("mobilenet_v3_small", tmp_path)
    run_two_workers(_one_of_two, tmp_path, pictures, weights)
    first, second = (load_file(tmp_path / f"{rank}.st") for rank in (0, 1))
    begun = {f"backbone.network.{name}": value for name, value in load_file(weights).items()}
    of_worker = [name for name in first if ".running_" in name]
    assert all(torch.equal(value, second[name]) for name, value in first.items() if name not in of_worker)
    behind = "backbone.network.classifier.0.weight"
    assert torch.equal(first[behind], begun[behind])
    before = "backbone.network.features.12.0.weight"  # the last one that makes the map
    assert not torch.equal(first[before], begun[before])
