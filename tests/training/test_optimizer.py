"""Which parameters move, and how fast."""

import pytest
import torch
from torch import nn

from ray_app.errors import TrainingError
from ray_app.models.sequence import SequenceModel, SequenceShape
from ray_app.schedule import ParamGroup, Phase
from ray_app.training.optimizer import assign_rates

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
    with pytest.raises(ValueError, match=r"from 0 or more to 1 at most, got 0\.5 and 0\.5"):
        ParamGroup(match=".*", depth=(0.5, 0.5))
