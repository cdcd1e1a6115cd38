"""The blocks of networks that other people wrote, and of ours."""

from itertools import chain

import pytest
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, T5Config, T5EncoderModel

from ray_app.models.blocks import blocks_of
from ray_app.models.items import LabelRows
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape


def places(backbone: nn.Module) -> list[set[str]]:
    """What lies in each block, by the first names on the way to it; every parameter lies in one block."""
    blocks = blocks_of(backbone)
    assert sorted(chain(*blocks)) == sorted(name for name, _ in backbone.named_parameters())
    return [{".".join(name.split(".")[:2]) for name in names} for names in blocks]


def headless(name: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = getattr(torchvision.models, name)()
    for head in ("fc", "classifier", "heads"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
    return model


def test_resnet_has_a_stem_and_residual_blocks() -> None:
    stem, *blocks = places(headless("resnet18"))
    assert stem == {"conv1.weight", "bn1.weight", "bn1.bias"}
    assert blocks == [{f"layer{stage}.{block}"} for stage in (1, 2, 3, 4) for block in (0, 1)]


@pytest.mark.parametrize(
    ("name", "number", "top"),
    [
        ("efficientnet_b0", 18, {"features.8"}),
        ("vit_b_16", 13, {"encoder.layers", "encoder.ln"}),
        ("convnext_tiny", 22, {"features.7"}),
        ("densenet121", 8, {"features.denseblock4", "features.norm5"}),
        ("vgg11", 8, {"features.18"}),
    ],
)
def test_picture_networks(name: str, number: int, top: set[str]) -> None:
    found = places(headless(name))
    assert len(found) == number
    assert found[-1] == top


def test_transformers_have_embeddings_and_layers() -> None:
    tiny = {"vocab_size": 10, "num_hidden_layers": 3, "num_attention_heads": 2}
    bert = blocks_of(BertModel(BertConfig(hidden_size=8, intermediate_size=8, **tiny)))
    assert all(name.startswith("embeddings.") for name in bert[0])
    for number, names in enumerate(bert[1:]):
        assert {name for name in names if not name.startswith(f"encoder.layer.{number}.")} == (
            {"pooler.dense.weight", "pooler.dense.bias"} if number == 2 else set()
        )
    config = {"bos_token_id": None, "eos_token_id": None, "vocab_size": 10}
    gpt = places(GPT2Model(GPT2Config(n_embd=8, n_layer=3, n_head=2, n_positions=8, **config)))
    assert gpt == [{"wte.weight", "wpe.weight"}, {"h.0"}, {"h.1"}, {"h.2", "ln_f.weight", "ln_f.bias"}]


def test_tied_parameters_are_named_once() -> None:
    tied = T5EncoderModel(T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2))
    assert [{"shared.weight"}, {"encoder.block"}] == places(tied)[:2]


def test_the_sequence_model_reads_content_at_its_input() -> None:
    shape = SequenceShape(8, 2, 1, 8, 5, content_dim=4, picture_dim=3, labels=True)
    labels = LabelRows(torch.zeros(6, 1, dtype=torch.int64), 2, 0)
    content = {"content": torch.randn(6, 4), "pictures": torch.randn(6, 3), "labels": labels}
    backbone = SequenceModel(shape, torch.arange(6), 4, **content).backbone
    found = places(backbone)
    assert found == [
        {"items.weight", "positions.weight", "content.project", "content_image.project", "labels.weight"},
        {"blocks.0"},
        {"blocks.1", "norm.weight", "norm.bias"},
    ]


def test_a_network_without_stacks_goes_layer_by_layer() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3))
    assert places(net) == [{"0.weight", "0.bias", "1.weight", "1.bias"}, {"3.weight", "3.bias"}]
    assert places(nn.Linear(2, 2)) == [{"weight", "bias"}]
