"""Candidates of random weights, and one of none, judged on pictures of three colors."""

import json
from pathlib import Path

import choose
import pytest
import stages
import torch
from encoders import tiny_reader
from pages import Page
from pictures import picture_set
from pydantic import ValidationError
from safetensors.torch import save_file
from texts import TITLES, text_config, text_set

from ray_app.checkpoint import MANIFEST_FILE
from ray_app.config import Config, fingerprint, parse_config
from ray_app.content.candidates import Judgement, judge, with_candidate
from ray_app.content.picture_features import probe_features
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError, DataError
from ray_app.models.backbones import build_backbone
from ray_app.picture_config import Candidate
from ray_app.registry import REPORT_FILE
from ray_app.report.candidates import advice, agreement, candidates_section
from ray_app.storage import join
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.training.world import World
from ray_app.transferability import h_score, logme

SEEING, OTHER = "torchvision:resnet18", "torchvision:squeezenet1_1"


def weights_of(backbone: str, path: Path, scale: float = 1.0) -> Candidate:
    torch.manual_seed(0)
    values = build_backbone(backbone).network.state_dict()
    save_file({name: value * scale if value.is_floating_point() else value for name, value in values.items()}, path)
    return Candidate(backbone=backbone, weights=str(path))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return picture_set(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def config() -> Config:
    classifier = {"backbone": SEEING, "weights": None, "size": 32, "batch_size": 16}
    return parse_config({"task": {"kind": "classify"}, "pictures": {}, "classifier": classifier})


def kept(pictures: PictureSet) -> dict[str, tuple[str, dict[str, float]]]:
    files = pictures.storage.list_files(f"{pictures.uri}/choices/*.json")
    return {file.uri: (file.etag, json.loads(pictures.storage.read_bytes(file.uri))) for file in files}


def test_candidates_are_ranked_by_what_they_see(
    pictures: PictureSet, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = weights_of(SEEING, tmp_path / "blind.safetensors", scale=0.0)
    seeing = weights_of(SEEING, tmp_path / "seeing.safetensors")
    other = weights_of(OTHER, tmp_path / "other.safetensors")
    missing = Candidate(backbone=OTHER, weights=str(tmp_path / "missing.safetensors"))
    candidates = (blind, missing, seeing, other)
    choose.rank_candidates(config, candidates, pictures)
    said = capsys.readouterr().out
    assert f"cannot be judged: {OTHER}: {missing.weights}: does not exist" in said
    found = kept(pictures)
    assert len(found) == 3
    of_seeing = probe_features(pictures, with_candidate(config, seeing)).part("train")
    judged = [one for _, one in found.values()]
    [ours] = [one for one in judged if one["logme"] == logme(*of_seeing)]
    best = max(judged, key=lambda one: one["logme"])
    [worst] = [one for one in judged if one["h_score"] == 0]
    assert worst["knn"] == pytest.approx(1 / 3)
    assert worst["logme"] == min(one["logme"] for one in judged) < ours["logme"]
    assert ours["h_score"] == h_score(*of_seeing)
    assert (ours["dim"], ours["num_parameters"]) == (512, 11_176_512)
    assert ours["knn"] > 0.6
    assert 0 < ours["picture_s"] < 5
    order = [said.index(f"{one['logme']:.4f}") for one in sorted(judged, key=lambda one: -one["logme"])]
    assert order == sorted(order)
    named = seeing if best is ours else other
    assert f"take classifier.backbone={named.backbone} classifier.weights={named.weights}\n" in said
    choose.rank_candidates(config, candidates, pictures)
    assert capsys.readouterr().out == said
    assert kept(pictures) == found


def test_a_choice_that_is_added_comes_into_the_report(pictures: PictureSet, config: Config, tmp_path: Path) -> None:
    """The evaluation of before was found, and told nothing of the candidates."""
    first, second, third = (
        weights_of(SEEING, tmp_path / f"{name}.safetensors", scale)
        for name, scale in (("a", 1), ("b", 0.9), ("c", 0.8))
    )
    begun = with_candidate(parse_config(config.model_dump() | {"evaluate": {"bootstrap_samples": 100}}), first)
    run = Run("finetune", begun, begun.schedule, pictures)
    run.publish(Snapshot.take(run.begin(World.current()).model, None, {}, Progress()))

    def report(candidates: tuple[Candidate, ...]) -> tuple[str, str]:
        choice = {"choose": {"candidates": [one.model_dump() for one in candidates]} if candidates else None}
        asked = parse_config(begun.model_dump() | choice)
        folder = stages.evaluate_stage(asked, pictures, {"fine-tuned": run}, {"fine-tuned": run.uri})
        return folder, pictures.storage.read_bytes(join(folder, REPORT_FILE)).decode()

    none, two, three = report(()), report((first, second)), report((first, second, third))
    manifest = pictures.storage.read_bytes(join(run.uri, MANIFEST_FILE)).decode()
    key = fingerprint(pictures.manifest.fingerprint, begun.evaluate, begun.train.seed, ["fine-tuned"], [manifest])
    assert none[0].endswith(key)  # as before there was a choice
    assert [str(second.weights) in page for _, page in (none, two, three)] == [False, True, True]
    assert [str(third.weights) in page for _, page in (none, two, three)] == [False, False, True]
    assert report(()) == none
    assert report((first, second)) == two


def test_none_that_can_be_judged_is_an_error_of_the_user(pictures: PictureSet, config: Config, tmp_path: Path) -> None:
    wrong = weights_of(OTHER, tmp_path / "wrong.safetensors").model_copy(update={"backbone": SEEING})
    unknown = Candidate(backbone="torchvision:resnet19")
    with pytest.raises(ConfigError) as caught:
        choose.rank_candidates(config, (wrong, unknown), pictures)
    first, *reasons = caught.value.faults
    assert (first, len(reasons)) == ("choose.candidates: none is left", 2)
    assert f"{SEEING}: {wrong.weights}: does not fit" in reasons[0]
    assert "torchvision has no classifier 'resnet19'" in reasons[1]


def test_features_that_overflow_are_no_ground_to_judge_by(pictures: PictureSet, config: Config, tmp_path: Path) -> None:
    loud = weights_of(OTHER, tmp_path / "loud.safetensors", scale=50.0)
    with pytest.raises(DataError, match="not finite in 16 bits"):
        judge(pictures, with_candidate(config, loud))


@pytest.mark.parametrize("given", [None, {}, {"candidates": [{"backbone": OTHER}] * 2}])
def test_a_choice_needs_two(config: Config, given: object) -> None:
    asked = parse_config(config.model_dump() | {"choose": given})
    with pytest.raises(ConfigError, match=r"choose\.candidates: name at least two"):
        choose.main(asked)


def test_what_came_of_those_that_were_trained() -> None:
    first, second, third = (Candidate(backbone=SEEING, weights=name) for name in ("a", "<b>", "c"))
    one = Judgement(logme=3, h_score=1, knn=0.5, picture_s=1, num_parameters=1, dim=1)
    judged = {
        second: one.model_copy(update={"logme": 2, "h_score": 3}),
        first: one,
        third: one.model_copy(update={"logme": 1, "h_score": 2, "knn": 0.4}),
    }
    assert "once two of them" in agreement(judged, {first: 0.5})
    assert "once two of them" in agreement(judged, {first: 0.5, second: 0.5})
    outcomes = {first: 0.6, second: 0.7, third: 0.5}
    told = "Pairs of which both were fine-tuned: 3; in the right order by LogME 2, H-score 2, kNN 2."
    assert agreement(judged, outcomes) == told
    page = Page(candidates_section(judged, {first: 0.61, third: 0.52}))
    assert page.text.index("61.0%") < page.text.index("<b>") < page.text.index("52.0%")
    assert "both were fine-tuned: 1;" in page.text


def test_neighbors_that_disagree_are_told() -> None:
    first, second = Candidate(backbone=SEEING), Candidate(backbone=OTHER)
    one = Judgement(logme=1, h_score=1, knn=0.5, picture_s=1, num_parameters=1, dim=1)
    other = one.model_copy(update={"logme": 0.5, "knn": 0.6})
    assert advice({second: other, first: one}).splitlines() == [
        f"take classifier.backbone={SEEING} classifier.weights=pretrained",
        f"note: {OTHER} is ahead by nearest neighbors: train both before you settle",
    ]
    assert "note" not in advice({second: other.model_copy(update={"knn": 0.5}), first: one})


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_encoders_of_texts_are_candidates(family: str, tmp_path: Path) -> None:
    tiny_reader(family, tmp_path / "encoder", TITLES)
    of = text_config(tmp_path, tmp_path / "encoder")
    found = judge(text_set(tmp_path), with_candidate(of, Candidate(backbone=f"hf:{tmp_path / 'encoder'}")))
    assert found.dim == 32
    assert found.picture_s > 0


def test_a_candidate_that_is_an_encoder_has_its_weights_with_it() -> None:
    with pytest.raises(ValidationError, match="weights of an hf: backbone are those in its folder"):
        Candidate(backbone="hf:/somewhere", weights="/elsewhere.safetensors")
