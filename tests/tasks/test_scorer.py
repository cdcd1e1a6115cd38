import numpy as np
import pyarrow as pa
import pytest
import torch
from ragged import ragged

from ray_app.data.batches import pad_histories
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.tasks.beginning import fitted_to
from ray_app.tasks.recommender import TrainedModel
from ray_app.tasks.scorer import ModelScorer

CPU = torch.device("cpu")


def catalogue(*ids):
    return pa.table({"item_id": list(ids), "train_count": [1] * len(ids)})


@pytest.fixture
def trained() -> TrainedModel:
    torch.manual_seed(0)
    model = SequenceModel(SequenceShape(8, 1, 2, 16, 5), torch.arange(3), 0)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.1, 0.4, 0.3]))
    return TrainedModel(model, catalogue("a", "b", "c"))


def test_an_empty_history_is_scored_by_the_bias(trained: TrainedModel):
    scores = ModelScorer(trained.model, CPU).scores(ragged([], [1, 2]))
    assert scores[0].tolist() == pytest.approx([-np.inf, 0.1, 0.4, 0.3])
    assert not np.array_equal(scores[0], scores[1])


@pytest.mark.parametrize("temperature", [None, 0.05])
def test_a_model_is_scored_as_it_scores_itself(temperature: float | None):
    torch.manual_seed(0)
    model = SequenceModel(SequenceShape(8, 1, 2, 16, 5, temperature=temperature), torch.randperm(9), 4).eval()
    for parameter in model.parameters():
        parameter.data.normal_()
    scorer, known = ModelScorer(model, CPU), ragged([1, 2, 9], [4])
    items, lengths, _ = pad_histories(known, 5)
    with torch.no_grad():
        expected = model.scores(items, lengths).numpy()
    np.testing.assert_allclose(scorer.scores(known), expected, rtol=1e-4, atol=1e-4)
    queries = scorer.queries(known)
    np.testing.assert_allclose(queries @ scorer.table().T + scorer.bias(), expected[:, 1:], rtol=1e-4, atol=1e-4)
    some = scorer.scores_of(np.array([9, 2]), known.slice(0, 1), queries[0])
    np.testing.assert_allclose(some, expected[0, [9, 2]], rtol=1e-4, atol=1e-4)


def test_a_model_of_its_own_catalogue_is_taken_as_it_is(trained: TrainedModel):
    assert fitted_to(trained, catalogue("a", "b", "c"), seed=0) is trained.model


def test_a_model_of_another_catalogue_keeps_what_it_knows_of_the_items_that_it_shares(trained: TrainedModel):
    """Items go by their id: index 1 was a, and is c now."""
    fitted = fitted_to(trained, catalogue("c", "new", "a"), seed=0)
    before = ModelScorer(trained.model, CPU).scores(ragged([1, 3]))[0]  # of a, then c
    after = ModelScorer(fitted, CPU).scores(ragged([3, 1]))[0]
    assert after[[3, 1]].tolist() == pytest.approx(before[[1, 3]].tolist(), abs=1e-6)
    assert np.isfinite(after[2])
    assert not fitted.training
