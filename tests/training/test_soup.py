"""Which models are better together."""

import pytest
import torch
from regression import EVERYTHING, Regression, schedule, weights
from torch import Tensor

from ray_app.errors import TrainingError
from ray_app.schedule import Phase
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.soup import Soup, Weights, greedy_soup
from ray_app.training.world import World


def model(*values: float) -> dict[str, Tensor]:
    return {"weight": torch.tensor(values), "index": torch.tensor([3])}


def nearness(weights: Weights) -> float:
    return -float((weights["weight"] - torch.tensor([1.0, 1.0])).square().sum())


def stirred(*models: Weights) -> Soup:
    return greedy_soup(models, [nearness(one) for one in models], nearness)


def test_a_soup_is_the_mean_of_those_that_help() -> None:
    """Two that err to opposite sides help each other, and those that are far off another way are left out."""
    soup = stirred(model(9.0, 1.0), model(2.0, 1.0), model(0.2, 1.0), model(1.0, 2.5))
    assert soup.members == [2, 1]
    torch.testing.assert_close(soup.weights["weight"], torch.tensor([1.1, 1.0]))
    assert soup.weights["index"].item() == 3
    assert soup.score == nearness(soup.weights)


def test_the_best_model_stays_alone_where_none_helps() -> None:
    best = model(1.0, 1.0)
    soup = stirred(model(5.0, 1.0), best, model(1.0, 7.0))
    assert soup.members == [1]
    assert torch.equal(soup.weights["weight"], best["weight"])


def test_models_that_were_trained_alike_make_no_worse_a_soup() -> None:
    task, found = Regression(), []
    for seed in range(3):
        tuned = Regression()
        phase = Phase(name="full", epochs=6, learning_rate=0.03, groups=EVERYTHING)
        fit(tuned, schedule(phase), LoopSettings(seed=seed), World.current(), lambda *_: None)
        found.append(weights(tuned))

    def judge(candidate: Weights) -> float:
        task.model.load_state_dict(candidate)
        return task.validate()["r"][0]

    task.model.eval()
    scores = [judge(one) for one in found]
    soup = greedy_soup(found, scores, judge)
    assert soup.score >= max(scores)
    assert soup.score == judge(soup.weights)


def test_a_soup_is_of_one_network() -> None:
    with pytest.raises(TrainingError, match="model 1 differs from model 0 in weight"):
        greedy_soup([model(1.0), model(1.0, 2.0)], [0.1, 0.2], nearness)
