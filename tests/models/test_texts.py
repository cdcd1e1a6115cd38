import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import TEXT_SETTINGS, tiny_reader
from torch import Tensor

from ray_app.models.backbones import UnknownBackboneError
from ray_app.models.blocks import blocks_of
from ray_app.models.encoders import build_encoder
from ray_app.models.texts import PADDING, pooled

TEXTS = ["red wine", "sparkling mineral water from the alps", "ham"]


def by_the_library(model: Any, tokens: Tensor) -> Tensor:
    """Of one text alone."""
    with torch.no_grad():
        hidden: Tensor = model(input_ids=tokens).last_hidden_state[0]
    return hidden


@pytest.mark.parametrize("family", TEXT_SETTINGS)
def test_a_text_has_the_vector_of_its_tokens_whatever_stands_beside_it(family: str, tmp_path: Path) -> None:
    model = tiny_reader(family, tmp_path, TEXTS)
    backbone = build_encoder(tmp_path, pretrained=True).eval()
    assert backbone.reader is not None
    tokens = backbone.reader(TEXTS, 32)
    lengths = (tokens != PADDING).sum(1).tolist()
    assert len(set(lengths)) == 3
    assert tokens.shape == (3, max(lengths))
    with torch.no_grad():
        vectors = backbone(tokens)
    for row, length in enumerate(lengths):
        hidden = by_the_library(model, tokens[row : row + 1, :length])
        expected = hidden[-1] if family == "gpt2" else hidden.mean(0)
        assert torch.allclose(vectors[row], expected, atol=1e-5)
    assert vectors.shape == (3, backbone.dim)
    assert vectors.std(0).min() > 1e-3


@pytest.mark.parametrize("family", TEXT_SETTINGS)
def test_every_parameter_is_trained_and_blocks_stand_in_order(family: str, tmp_path: Path) -> None:
    tiny_reader(family, tmp_path, TEXTS)
    backbone = build_encoder(tmp_path, pretrained=True)
    assert backbone.reader is not None
    backbone(backbone.reader(TEXTS, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())  # DDP would wait for it
    assert not any("pooler" in name for name in backbone.state_dict())
    blocks = blocks_of(backbone)
    assert sorted(chain(*blocks)) == sorted(name for name, _ in backbone.named_parameters())
    assert len(blocks) == 3
    assert all("emb" in name or "wte" in name or "wpe" in name for name in blocks[0])


@pytest.mark.parametrize(
    ("said", "place"), [({"pooling_mode_cls_token": True}, 0), ({"pooling_mode_lasttoken": True}, -1)]
)
def test_the_folder_may_say_which_token_speaks_for_the_text(said: dict[str, bool], place: int, tmp_path: Path) -> None:
    model = tiny_reader("bert", tmp_path, TEXTS)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said | {"pooling_mode_mean_tokens": False}))
    backbone = build_encoder(tmp_path, pretrained=True).eval()
    assert backbone.reader is not None
    tokens = backbone.reader(TEXTS[:1], 32)
    with torch.no_grad():
        assert torch.allclose(backbone(tokens)[0], by_the_library(model, tokens)[place], atol=1e-5)


def test_vectors_by_hand() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [8.0]], [[2.0], [9.0], [9.0]]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    assert pooled(hidden, mask, "first").tolist() == [[1], [2]]
    assert pooled(hidden, mask, "mean").tolist() == [[4], [2]]
    assert pooled(hidden, mask, "last").tolist() == [[8], [2]]


def test_of_a_long_text_the_beginning_is_read_and_of_nothing_something(tmp_path: Path) -> None:
    tiny_reader("gpt2", tmp_path, TEXTS)
    reader = build_encoder(tmp_path).reader
    assert reader is not None
    whole = reader(TEXTS[1:2], 32)
    assert torch.equal(reader(TEXTS[1:2], 3), whole[:, :3])
    assert reader([""], 8).tolist() == [[0]]  # <|endoftext|>


def test_weights_are_random_unless_they_are_asked_for(tmp_path: Path) -> None:
    tiny_reader("bert", tmp_path, TEXTS)
    torch.manual_seed(0)
    first, other = (build_encoder(tmp_path).state_dict() for _ in range(2))
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_a_folder_without_safetensors_is_refused_with_the_remedy(tmp_path: Path) -> None:
    model = tiny_reader("bert", tmp_path, TEXTS)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UnknownBackboneError, match=r"no \*\.safetensors; other formats can run code.*save_pretrained"):
        build_encoder(tmp_path, pretrained=True)


def test_a_tokenizer_that_is_missing_or_of_another_network_is_a_sentence(tmp_path: Path) -> None:
    model = tiny_reader("bert", tmp_path, TEXTS)
    model.resize_token_embeddings(20)
    model.save_pretrained(tmp_path)
    with pytest.raises(UnknownBackboneError, match=r"its tokenizer has \d+ tokens, and the network knows 20"):
        build_encoder(tmp_path, pretrained=True)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UnknownBackboneError, match="its tokenizer cannot be read"):
        build_encoder(tmp_path, pretrained=True)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UnknownBackboneError, match="the folder has no tokenizer"):
        build_encoder(tmp_path, pretrained=True)


def test_what_reads_and_writes_is_no_encoder(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    tiny_reader("bert", tmp_path, TEXTS)
    T5Model(T5Config(vocab_size=200, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(UnknownBackboneError, match="cannot read texts"):
        build_encoder(tmp_path, pretrained=True)
