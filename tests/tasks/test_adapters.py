"""LoRA in encoders of texts and pictures: what it moves, and the published classifier, which has none."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import TEXT_SETTINGS, tiny, tiny_reader
from pictures import COLORS, picture, picture_set
from processes import run_two_workers
from safetensors.torch import load_file, save_file
from texts import TITLES, text_config, text_set

from ray_app.checkpoint import read_manifest
from ray_app.config import Config, parse_config
from ray_app.content.picture_features import cached_features, compute_here
from ray_app.content.pretrained import begin_backbone
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError, TrainingError
from ray_app.models.adapters import adapt
from ray_app.picture_config import LoraConfig
from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.tasks.classifier import TrainedClassifier, begin_classifier, load_classifier
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.optimizer import assign_rates
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World

LORA = {"r": 4, "lora_alpha": 8}
FROZEN = (ParamGroup(match="^backbone", rate="frozen"), ParamGroup(match="^head"))
HEAD = Phase(name="head", epochs=6, learning_rate=0.03, groups=FROZEN)
ADAPTERS = Phase(
    name="full", epochs=3, learning_rate=5e-3, groups=(ParamGroup(match="^backbone"), ParamGroup(match="^head"))
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return text_set(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module", params=TEXT_SETTINGS)
def of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp(request.param)
    tiny_reader(request.param, folder / "encoder", TITLES)
    return text_config(folder, folder / "encoder", lora=LORA)


def trained(run: Run) -> Snapshot:
    task = run.begin(World.current())
    progress = fit(task, run.schedule, LoopSettings(), World.current(), lambda *_: None)
    return Snapshot.take(task.model, None, {}, progress)


def test_adapters_are_all_that_moves_and_what_is_published_needs_none(
    texts: PictureSet, of: Config, tmp_path: Path
) -> None:
    features = cached_features(texts, of)
    assert features is not None
    compute_here(features, of)
    run = Run("finetune", of, Schedule(phases=(HEAD, ADAPTERS)), texts)
    end = trained(run)
    start, *records = end.progress.records
    assert records[-1]["val/top1"] > start["val/top1"] + 0.3
    pretrained = begin_backbone(of.classifier, texts.storage, "texts").state_dict()
    moved = {name for name, value in end.model.items() if ".lora_" in name and "lora_B" in name and value.any()}
    assert len(moved) == sum("lora_B" in name for name in end.model) > 0
    for name, value in end.model.items():
        plain = name.removeprefix("backbone.").replace("base_layer.", "")
        assert plain not in pretrained or torch.equal(value, pretrained[plain]), name

    run.publish(end)
    loaded = load_classifier(texts.storage, run.uri)
    assert set(loaded.model.backbone.state_dict()) == set(pretrained)
    titles = texts.storage.read_table(texts.uris("test")[0])["text"].to_pylist()
    said = loaded.probabilities(titles)
    with_adapters = begin_classifier(of.classifier, texts.num_classes, 0, texts.storage, "texts").eval()
    unmerged = TrainedClassifier(with_adapters, loaded.classes, loaded.config)
    with_adapters.head.load_state_dict(loaded.model.head.state_dict())
    assert not np.allclose(said, unmerged.probabilities(titles), atol=1e-2)  # nothing is learned yet
    with_adapters.load_state_dict(end.model)
    with_adapters.head.out.weight.data *= (sharpness := read_manifest(texts.storage, run.uri)["sharpness"])
    with_adapters.head.out.bias.data *= sharpness
    assert np.allclose(said, unmerged.probabilities(titles), atol=1e-5)


def test_a_run_with_adapters_goes_on_where_it_was(texts: PictureSet, of: Config, tmp_path: Path) -> None:
    run = Run("finetune", of, Schedule(phases=(ADAPTERS,)), texts)
    task, folders = run.begin(World.current()), list[Path]()

    def save(_: object, now: Snapshot) -> None:
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()
        now.save(folders[-1])

    fit(task, run.schedule, LoopSettings(), World.current(), save)
    resumed = run.begin(World.current())
    fit(resumed, run.schedule, LoopSettings(), World.current(), lambda *_: None, Snapshot.load(folders[0]))
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_layers_are_chosen_by_the_ends_of_their_names(texts: PictureSet, of: Config) -> None:
    def adapted(*targets: str) -> set[str]:
        backbone = begin_backbone(of.classifier, texts.storage, "texts")
        adapt(backbone, LoraConfig(target_modules=targets))
        return {name.partition(".lora_")[0].rpartition(".")[2] for name, _ in backbone.named_parameters()}

    one = "query" if "bert" in of.classifier.backbone else "c_attn"
    assert adapted(one) == {one}
    assert adapted() > adapted(one)
    for wrong in (("quary",), (one, "LayerNorm"), ("embeddings",)):
        with pytest.raises(ConfigError, match=rf"lora\.target_modules: '{wrong[-1]}' is no linear.*it has .*{one}"):
            adapted(*wrong)


def test_patterns_and_depths_go_by_adapters(texts: PictureSet, of: Config) -> None:
    model = begin_classifier(of.classifier, 3, 0, texts.storage, "texts")
    rates = assign_rates(model, ADAPTERS.model_copy(update={"layer_decay": 0.5}))
    assert {name for name in rates if ".lora_" not in name} == {"head.out.weight", "head.out.bias"}
    assert {rate for name, rate in rates.items() if ".lora_" in name} == {5e-3, 2.5e-3}
    with pytest.raises(TrainingError, match=r"pattern 'base_layer' matches no parameter"):
        assign_rates(model, Phase(name="x", epochs=1, groups=(ParamGroup(match="base_layer"), ParamGroup(match=""))))


def test_a_network_that_is_no_transformer_has_no_adapters(texts: PictureSet, of: Config, tmp_path: Path) -> None:
    given = {"task": {"kind": "classify"}, "pictures": {}, "name": "colors"}
    for classifier, schedule, sentence in (
        ({"lora": {}}, {}, r"classifier: lora adapts a pretrained transformer: it needs weights and backbone: hf:"),
        ({"lora": {}, "backbone": "hf:x", "weights": None}, {}, r"lora adapts a pretrained transformer"),
        ({"lora": {}, "backbone": "hf:x"}, {"wise": [0.5]}, r"schedule\.wise: part of the way of a product"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            parse_config({**given, "classifier": classifier, "schedule": schedule})
    pictures = picture_set(tmp_path / "pictures")
    for family in ("resnet", "vit"):
        tiny(family, tmp_path / family)
        network = {"backbone": f"hf:{tmp_path / family}", "size": 32, "lora": LORA}
        config = parse_config({**given, "classifier": network})
        if family == "resnet":
            with pytest.raises(ConfigError, match=r"classifier\.lora: adapts linear layers, and the encoder has none"):
                begin_classifier(config.classifier, 3, 0, pictures.storage)
    run = Run("finetune", config, Schedule(phases=(ADAPTERS,)), pictures)
    end = trained(run)
    run.publish(end)
    shutil.rmtree(tmp_path / "vit")
    loaded = load_classifier(pictures.storage, run.uri)
    assert np.ptp(loaded.probabilities([picture(color, 7) for color in COLORS.values()]), axis=0).max() > 1e-4
    assert config.classifier.from_scratch().lora is None


def _one_of_two(rank: int, folder: Path, run: Run) -> None:
    task = run.begin(World.current())
    fit(task, run.schedule, LoopSettings(), World.current(), lambda *_: None)
    adapters = {name: value.detach().clone() for name, value in task.model.backbone.named_parameters()}
    save_file(adapters, folder / f"{rank}.safetensors")


def test_two_workers_train_adapters_together(texts: PictureSet, tmp_path: Path) -> None:
    """One without a gradient would make them wait for ever."""
    tiny_reader("bert", tmp_path / "encoder", TITLES)
    of = text_config(tmp_path, tmp_path / "encoder", lora=LORA)
    phase = ADAPTERS.model_copy(update={"epochs": 1})
    run_two_workers(_one_of_two, tmp_path, Run("finetune", of, Schedule(phases=(phase,)), texts))
    one, other = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert all(value.any() and torch.equal(value, other[name]) for name, value in one.items())
