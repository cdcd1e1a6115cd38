"""Which parameters move, and how fast."""

import pytest
import torch
from torch import nn

from ray_app.errors import TrainingError
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.schedule import ParamGroup, Phase
from ray_app.training.optimizer import assign_rates, freeze

BACKBONE, HEAD = ParamGroup(match=r"^backbone\.", rate=0.5), ParamGroup(match=r"^head\.")


def model() -> nn.Module:
    """Three blocks: vectors of items, two of the transformer."""
    return SequenceModel(SequenceShape(8, 2, 1, 8, 5), torch.arange(6), 4)


def rates(**phase: object) -> dict[str, float | None]:
    return assign_rates(
        model(), Phase(name="full", epochs=1, learning_rate=0.1, **{"groups": (BACKBONE, HEAD)} | phase)
    )


def test_rates_fall_from_block_to_block_toward_the_input() -> None:
    found = rates(layer_decay=0.7)
    expected = {"items": 0.7**2, "positions": 0.7**2, "blocks.0": 0.7, "blocks.1": 1.0, "norm": 1.0}
    for place, factor in expected.items():
        of_place = {rate for name, rate in found.items() if name.startswith(f"backbone.{place}")}
        assert of_place == {0.5 * 0.1 * factor}
    assert {rate for name, rate in found.items() if name.startswith("head")} == {0.1}
    assert rates() == rates(layer_decay=1.0)


def test_a_group_may_be_some_of_the_depth() -> None:
    frozen = ParamGroup(match=r"^backbone\.", rate="frozen")
    for depth, free in (((0, 1 / 3), {"items", "positions"}), ((1 / 3, 1), {"blocks", "norm"})):
        found = rates(groups=(ParamGroup(match=r"^backbone\.", depth=depth), frozen, HEAD))
        trained = {name for name, rate in found.items() if rate is not None}
        assert {name.split(".")[1] for name in trained if name.startswith("backbone")} == free
    with pytest.raises(TrainingError, match=r"'\.\*' matches no parameter between depths 0 and 0\.1"):
        rates(groups=(ParamGroup(match=".*", depth=(0, 0.1)), frozen, HEAD))
    with pytest.raises(ValueError, match="depth goes up, from 0 or more to 1 at most"):
        ParamGroup(match=".*", depth=(0.5, 0.5))


class Pictures(nn.Module):
    """What networks for pictures have beside weights: statistics, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(*(self.block() for _ in range(2)))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4, affine=False))

    @staticmethod
    def block() -> nn.Module:
        norms = nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False)
        return nn.Sequential(nn.Linear(4, 4), *norms, nn.Dropout(0.5))


def ready(*groups: ParamGroup, keep_statistics: bool = False) -> Pictures:
    model, phase = Pictures().train(), Phase(name="x", epochs=1, groups=(*groups, ParamGroup(match=".*")))
    freeze(model, assign_rates(model, phase), keep_statistics=keep_statistics)
    return model


def test_a_frozen_backbone_gives_the_features_that_it_gives_in_use() -> None:
    """With dropout in it, a head learned on other features than a cache has."""
    model, pictures = ready(ParamGroup(match=r"^backbone\.", rate="frozen")), torch.randn(32, 4)
    features = model.backbone(pictures)
    assert torch.equal(features, model.backbone(pictures))
    assert torch.equal(features, model.eval().backbone(pictures))
    assert ready(ParamGroup(match=r"^backbone\.", rate="frozen")).head[1].training


def test_norm_layers_of_frozen_blocks_keep_their_statistics() -> None:
    model = ready(ParamGroup(match=r"^backbone\.", depth=(0, 0.5), rate="frozen"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.backbone(torch.randn(32, 4) + 1)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in moved} == {"backbone.1.1", "backbone.1.2"}
    assert [model.backbone[place][3].training for place in (0, 1)] == [True, True]


def test_a_backbone_that_is_trained_may_keep_its_statistics() -> None:
    model = ready(keep_statistics=True)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.head(model.backbone(torch.randn(32, 4) + 1)).square().sum().backward()
    moved = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[0] for name in moved} == {"head.2"}
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert [model.backbone[place][3].training for place in (0, 1)] == [True, True]  # dropout goes on
    model = ready()
    model.backbone(torch.randn(32, 4) + 1)
    assert not all(torch.equal(value, before[name]) for name, value in model.backbone.named_buffers("backbone"))


def test_a_frozen_sequence_model_keeps_its_dropout() -> None:
    """Its head is read through it: the vectors of new items are its inputs."""
    frozen = ParamGroup(match=r"^backbone\.", rate="frozen")
    found = model().train()
    freeze(found, assign_rates(found, Phase(name="x", epochs=1, groups=(frozen, HEAD))))
    assert found.backbone.training
    assert all(block.training for block in found.backbone.blocks)


def test_statistics_beside_adapters_are_those_of_pretraining() -> None:
    """Adapters make buffers of an encoder's scales and shifts, and a norm without parameters moved its statistics."""
    norm, plain = nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False)
    for name in ("weight", "bias"):
        value = getattr(norm, name).detach()
        delattr(norm, name)
        norm.register_buffer(name, value)
    one = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 3), norm, plain), "head": nn.Linear(3, 1)}).train()
    freeze(one, dict.fromkeys(dict(one.named_parameters()), 0.1))
    assert not norm.training
    assert plain.training
