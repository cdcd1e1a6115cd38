import numpy as np
import pytest
from ragged import ragged

from ray_app.evidence.features import FEATURES, GRAPH_RECENCY, TEXT_RECENCY, features
from ray_app.evidence.memory import Memory
from ray_app.evidence.pairs import Pairs, read_memory

HISTORIES = [[1, 4, 1, 2], [3], []]


@pytest.fixture
def described(memory: Memory) -> tuple[Pairs, dict[str, np.ndarray]]:
    """Every item for each of three users."""
    histories = ragged(*HISTORIES)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 6)).astype(np.float32)
    scores[:, 0] = np.finfo(np.float32).min
    vectors = rng.normal(size=(6, 4)).astype(np.float32)
    vectors[0] = 0
    pairs = Pairs(np.repeat(np.arange(3), 5), np.tile(np.arange(1, 6), 3))
    found = features(pairs, scores, vectors, read_memory(memory, histories), memory, histories)
    shares = np.exp(scores[:, 1:]) / np.exp(scores[:, 1:]).sum(1, keepdims=True)
    assert found["log_share"].reshape(3, 5) == pytest.approx(np.log(shares), abs=1e-5)
    places = np.argsort(np.argsort(-scores[:, 1:], axis=1), axis=1)
    assert np.expm1(found["place"]).reshape(3, 5) == pytest.approx(places, abs=1e-5)
    expected = vectors[2] @ vectors[3]
    assert found["vector_0"][2] == pytest.approx(
        expected, abs=1e-5
    )  # user 0 ended with item 2; the third pair is item 3
    return pairs, found


def test_every_feature_is_a_finite_number_for_each_pair(described):
    pairs, found = described
    assert tuple(found) == FEATURES
    for name, column in found.items():
        assert column.shape == pairs.items.shape, name
        assert column.dtype == np.float32, name
        assert np.isfinite(column).all(), name


def test_the_graph_is_that_of_the_baseline(described, memory: Memory):
    _, found = described
    last = [2, 1, 4]
    graph = sum(weight * memory.forward[item, 3] for weight, item in zip(GRAPH_RECENCY, last, strict=True))
    words = memory.words.toarray()
    text = sum(weight * words[item] @ words[3] for weight, item in zip(TEXT_RECENCY, last, strict=True))
    assert found["graph"][2] == pytest.approx(graph)
    assert found["graph_text"][2] == pytest.approx(graph + text)


def test_habits(described):
    """Item 1 was had three and one events ago, twice in four."""
    _, found = described
    assert np.expm1(found["had"][:5]) == pytest.approx([2, 1, 0, 1, 0], abs=1e-6)
    assert found["had_share"][:5] == pytest.approx([0.5, 0.25, 0, 0.25, 0])
    assert found["had_age"][:5] == pytest.approx([np.log1p(1), 0, -1, np.log1p(2), -1])
    assert found["had_overdue"][0] == pytest.approx(1 / 2)  # it comes every second event, and the last was one ago
    assert not found["had"][10:].any()


def test_a_short_history_has_no_earlier_items(described):
    _, found = described
    assert not found["forward_1"][5:].any()
    assert not found["words_0"][10:].any()
    assert found["history"][10:].tolist() == [0] * 5
