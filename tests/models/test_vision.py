import json
import re
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from encoders import SETTINGS, SMALL, tiny
from safetensors.torch import load_file, save_file

from ray_app.models.backbones import IMAGENET, UnknownBackboneError, WeightsError
from ray_app.models.blocks import blocks_of
from ray_app.models.encoders import build_encoder

PICTURES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Other tensors in the folder's file; None: not there."""
    path = folder / "model.safetensors"
    save_file({n: t for n, t in {**load_file(path), **tensors}.items() if t is not None}, path, {"format": "pt"})


@pytest.mark.parametrize("family", SETTINGS)
def test_vectors_are_those_of_the_library_and_blocks_stand_in_order(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path)
    backbone = build_encoder(tmp_path, pretrained=True).eval()
    with torch.no_grad():
        vectors, expected = backbone(PICTURES), model(PICTURES).pooler_output.flatten(1)
    assert torch.equal(vectors, expected)
    assert vectors.shape == (2, backbone.dim) == (2, 16)
    assert vectors.std() > 0
    backbone(PICTURES).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())  # DDP would wait for it
    blocks = blocks_of(backbone)
    assert sorted(chain(*blocks)) == sorted(name for name, _ in backbone.named_parameters())
    assert len(blocks) == 3
    assert all(name.startswith(("network.encoder.emb", "network.encoder.pre_")) for name in blocks[0])
    for number, names in enumerate(blocks[1:]):
        layers = {found[1] for name in names if (found := re.search(r"\.(\d)\.", name))}
        assert layers == {str(number)}


def test_of_a_classifier_the_class_token_is_read_since_its_pooler_was_never_trained(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(1)
    model = ViTForImageClassification(ViTConfig(**SMALL, num_labels=5)).eval()
    model.save_pretrained(tmp_path)
    backbone = build_encoder(tmp_path, pretrained=True).eval()
    with torch.no_grad():
        assert torch.allclose(model.classifier(backbone(PICTURES)), model(PICTURES).logits, atol=1e-6)
    assert not any("pooler" in name for name in backbone.state_dict())


def test_of_two_towers_that_of_pictures_is_taken(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {name: value for name, value in SMALL.items() if name not in ("image_size", "patch_size")}
    config = CLIPConfig(text_config={**text, "vocab_size": 20}, vision_config=SMALL, projection_dim=8)
    torch.manual_seed(1)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        found = build_encoder(tmp_path, pretrained=True).eval()(PICTURES)
        assert torch.equal(found, model.vision_model(PICTURES).pooler_output)


def test_weights_are_random_unless_they_are_asked_for(tmp_path: Path) -> None:
    tiny("vit", tmp_path)
    torch.manual_seed(0)
    first, other = (build_encoder(tmp_path).eval()(PICTURES) for _ in range(2))
    assert not torch.allclose(first, other)


def test_pictures_are_shown_as_the_preprocessor_says(tmp_path: Path) -> None:
    tiny("vit", tmp_path)
    assert build_encoder(tmp_path).shown == (*IMAGENET[:2], IMAGENET.middle)
    given = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 32, "width": 32}}
    for more, middle in (
        ({}, 1.0),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}, 0.8),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.875}, 0.875),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**given, **more}))
        assert build_encoder(tmp_path).shown == ((0.5,) * 3, (0.25,) * 3, middle)


def test_weights_that_do_not_fit_are_told_by_name_and_shape(tmp_path: Path) -> None:
    tiny("dinov2", tmp_path)
    change(tmp_path, **{"layernorm.bias": None, "embeddings.cls_token": torch.zeros(1, 1, 8)})
    with pytest.raises(WeightsError) as caught:
        build_encoder(tmp_path, pretrained=True)
    assert "layernorm.bias: missing" in str(caught.value)
    assert "embeddings.cls_token: [1, 1, 8] where the network has [1, 1, 16]" in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tiny("convnext", tmp_path)
    change(tmp_path, **{"layernorm.bias": torch.full((16,), torch.nan)})
    with pytest.raises(WeightsError, match=r"layernorm\.bias: holds numbers that are not finite"):
        build_encoder(tmp_path, pretrained=True)


def test_pickled_weights_are_refused_with_the_remedy(tmp_path: Path) -> None:
    model = tiny("vit", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UnknownBackboneError, match=r"no \*\.safetensors; other formats can run code.*save_pretrained"):
        build_encoder(tmp_path, pretrained=True)


def test_a_folder_without_an_encoder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackboneError, match="cannot be read as an encoder"):
        build_encoder(tmp_path)


def test_an_encoder_of_gray_pictures_is_a_sentence(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(**SMALL, num_channels=1)).save_pretrained(tmp_path)
    with pytest.raises(UnknownBackboneError, match="cannot see pictures of 32 x 32 pixels in color"):
        build_encoder(tmp_path, pretrained=True)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnknownBackboneError, match=r"pip install 'ray-retail-finetune\[text\]'"):
        build_encoder(tmp_path)


def test_a_masked_autoencoder_hides_nothing(tmp_path: Path) -> None:
    from transformers import ViTMAEConfig, ViTMAEModel

    ViTMAEModel(ViTMAEConfig(**SMALL)).save_pretrained(tmp_path)
    backbone = build_encoder(tmp_path, pretrained=True).eval()
    with torch.no_grad():
        assert torch.allclose(backbone(PICTURES), backbone(PICTURES), atol=1e-5)
        cut = PICTURES.clone()
        cut[:, :, 16:, 16:] = 0
        assert (backbone(cut) - backbone(PICTURES)).abs().max() > 1e-3
