"""Where a model begins: at popularity, and at what a pretrained model knows of the items both catalogues have."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from ray_app.checkpoint import CONFIG_FILE, CheckpointError
from ray_app.config import dump
from ray_app.tasks.beginning import build_model, complete, fitted_to
from ray_app.tasks.recommender import ITEMS_FILE, MODEL_FILE, TrainedModel, check_encoder, load_model
from ray_app.train_config import ModelConfig

CONFIG = ModelConfig(dim=8, feedforward_dim=16, max_history_len=5)


def catalog(**counts: int) -> pa.Table:
    return pa.table({"item_id": list(counts), "train_count": list(counts.values())})


def trained(**counts: int) -> TrainedModel:
    items = catalog(**counts)
    model = build_model(CONFIG, items, 3)[0]
    torch.nn.init.normal_(model.head.bias)
    return TrainedModel(model, items)


def test_biases_begin_at_the_log_of_popularity() -> None:
    model, reference = build_model(CONFIG, catalog(a=7, b=0, c=2), 0)
    expected = torch.tensor([7.5, 0.5, 2.5]) / 10.5
    torch.testing.assert_close(model.head.bias.detach(), expected.log())
    assert reference == {}
    zero = build_model(CONFIG.model_copy(update={"bias_init": "zero"}), catalog(a=7, b=0), 0)[0]
    assert not zero.head.bias.any()


def test_known_items_keep_their_vectors_and_new_ones_begin_near_the_mean() -> None:
    source = trained(x=1, b=5, a=2)
    model, reference = build_model(CONFIG, catalog(a=1, new=1, b=1), 0, source)
    theirs = source.model.table()
    table = model.table()
    torch.testing.assert_close(table[[0, 2]], theirs[[2, 1]])
    assert (table[1] - theirs[[2, 1]].mean(0)).abs().max() < 0.2
    assert model.num_known == 2
    assert torch.equal(reference["backbone.items.weight"], model.backbone.items.weight)
    assert all(name.startswith("backbone.") for name in reference)


def test_what_is_popular_here_comes_before_what_was_popular_there() -> None:
    """Biases of the source kept as they are held a region to the whole chain's bestsellers."""
    source = trained(a=900, b=100)
    source.model.head.bias.data.copy_(torch.tensor([0.9, 0.1]).log())
    model, _ = build_model(CONFIG, catalog(a=100, b=900), 0, source)
    assert model.head.bias[1] > model.head.bias[0] + 2
    unseen, _ = build_model(CONFIG, catalog(a=0, b=0), 0, source)
    torch.testing.assert_close(unseen.head.bias.detach().exp(), torch.tensor([0.9, 0.1]), atol=0.01, rtol=0.01)


def test_other_sizes_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"model.dim: pretrained 8, asked for 16"):
        build_model(CONFIG.model_copy(update={"dim": 16}), catalog(a=1), 0, trained(a=1))
    with pytest.raises(CheckpointError, match=r"model.temperature: pretrained None, asked for 0.05"):
        build_model(CONFIG.model_copy(update={"temperature": 0.05}), catalog(a=1), 0, trained(a=1))
    with pytest.raises(CheckpointError, match=r"model.mark_clicks: pretrained False, asked for True"):
        build_model(CONFIG.model_copy(update={"mark_clicks": True}), catalog(a=1), 0, trained(a=1))


def test_what_is_not_the_result_of_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model": dump(CONFIG)}))
    save_file(trained(a=1, b=2).model.state_dict(), tmp_path / MODEL_FILE)
    with pytest.raises(CheckpointError, match=r"has no items\.parquet, so it is not the published result of a run"):
        load_model(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model": {"size": 8}}))
    with pytest.raises(CheckpointError, match="configuration is that of another version"):
        load_model(tmp_path)


def described(seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(40, 12))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_items_without_train_events_are_lent_to_when_training_is_over() -> None:
    counts = {f"i{n}": n % 4 for n in range(40)}  # every fourth was never seen
    items, content = catalog(**counts), described()
    model = build_model(CONFIG, items, 0, content=content)[0]
    unseen = torch.arange(0, 40, 4)
    assert not model.own_table()[unseen].any()
    finished = complete(model.state_dict(), CONFIG, items)
    assert not torch.equal(finished["head.items.weight"][unseen], model.head.items.weight[unseen])
    seen = torch.tensor([n for n in range(40) if n % 4])
    assert torch.equal(finished["head.items.weight"][seen], model.head.items.weight[seen])
    assert torch.equal(finished["head.bias"], model.head.bias)
    ids_alone = build_model(CONFIG, items, 0)[0].state_dict()
    assert complete(ids_alone, CONFIG, items) is ids_alone


def test_a_catalogue_that_shares_no_item_begins_at_its_content() -> None:
    theirs = catalog(**{f"s{n}": 1 for n in range(40)})
    source = TrainedModel(build_model(CONFIG, theirs, 3, content=described())[0], theirs)
    mine = catalog(**{f"t{n}": n for n in range(40)})
    model, reference = build_model(CONFIG, mine, 0, source, described(1))
    assert model.content is not None
    center = torch.from_numpy(described(1)).float().mean(0)
    torch.testing.assert_close(model.backbone.content.center, center)  # not that of the source
    source.model.backbone.content.center.copy_(center)
    torch.testing.assert_close(model.table(), source.model.content_vectors(model.content))
    assert "backbone.content.project.weight" in reference
    with pytest.raises(CheckpointError, match=r"model.content_dim: pretrained 12, asked for 0"):
        build_model(CONFIG, mine, 0, source)


def test_likeness_begins_anew_in_another_catalogue_and_goes_on_in_the_same() -> None:
    config = CONFIG.model_copy(update={"likeness_dim": 6})
    theirs = catalog(**{f"s{n}": 1 for n in range(40)})
    source = TrainedModel(build_model(config, theirs, 3, content=described())[0], theirs)
    torch.nn.init.normal_(source.model.head.likeness.gate)
    other = build_model(config, catalog(**{f"t{n}": n for n in range(40)}), 0, source, described(1))[0]
    assert not other.head.likeness.gate.any()
    same = build_model(config, theirs, 0, source, described())[0]
    torch.testing.assert_close(same.head.likeness.gate, source.model.head.likeness.gate)
    torch.testing.assert_close(same.eval().table(), source.model.eval().table())
    without = build_model(CONFIG, theirs, 0, source, described())[0]  # which needs no other pretraining
    assert without.head.likeness is None


@pytest.mark.parametrize("likeness_dim", [0, 6])
def test_a_model_published_with_content_is_read_back(likeness_dim: int, tmp_path: Path) -> None:
    items, config = catalog(**{f"i{n}": 1 for n in range(40)}), CONFIG.model_copy(update={"likeness_dim": likeness_dim})
    model = build_model(config, items, 0, content=described())[0].eval()
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model": dump(config)}))
    (tmp_path / "manifest.json").write_text(json.dumps({"encoder": "abc"}))
    save_file(model.state_dict(), tmp_path / MODEL_FILE)
    pq.write_table(items, tmp_path / ITEMS_FILE)
    found = load_model(tmp_path)
    assert found.encoder == "abc"
    torch.testing.assert_close(found.model.table(), model.table())


def test_a_model_that_marks_clicks_is_read_back_and_moves_to_another_catalogue(tmp_path: Path) -> None:
    items, config = catalog(a=1, b=2), CONFIG.model_copy(update={"mark_clicks": True})
    model = build_model(config, items, 0)[0].eval()
    assert model.backbone.click is not None
    torch.nn.init.normal_(model.backbone.click)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model": dump(config)}))
    save_file(model.state_dict(), tmp_path / MODEL_FILE)
    pq.write_table(items, tmp_path / ITEMS_FILE)
    found = load_model(tmp_path)
    histories, lengths = torch.tensor([[1, 2]]), torch.tensor([2])
    clicks = torch.tensor([[True, False]])
    queries = found.model.queries(histories, lengths, clicks)
    torch.testing.assert_close(queries, model.queries(histories, lengths, clicks))
    assert not torch.allclose(queries, found.model.queries(histories, lengths))
    other = fitted_to(found, catalog(b=1, a=1, c=1), 0)
    torch.testing.assert_close(other.queries(torch.tensor([[2, 1]]), lengths, clicks), queries)


def labelled(**brands: str | None) -> pa.Table:
    items = catalog(**dict.fromkeys(brands, 1))
    return items.append_column("brand", pa.array(list(brands.values()), pa.string()))


def test_labels_are_found_again_by_name_in_another_catalogue() -> None:
    theirs = labelled(a="Ada", b="Bo", c="Ada", d=None)
    source = TrainedModel(build_model(CONFIG, theirs, 3, labels=("brand",))[0].eval(), theirs)
    assert not source.model.label_table().any()  # they say nothing yet
    ada, bo = torch.nn.init.normal_(source.model.head.labels.weight)
    mine = labelled(x="New", y="Bo", z="Ada", w=None)
    model, reference = build_model(CONFIG, mine, 0, source, labels=("brand",))
    torch.testing.assert_close(model.eval().table(), torch.stack([torch.zeros(8), bo, ada, torch.zeros(8)]))
    torch.testing.assert_close(reference["backbone.labels.weight"], torch.stack([ada, bo]))
    assert model.head.labels.weight.shape == (1, 8)
    # And once more, from a model that has known and new ones, back to the first.
    torch.nn.init.constant_(model.head.labels.weight, 7)
    back, _ = build_model(CONFIG, labelled(p="Bo", q="New"), 0, TrainedModel(model, mine), labels=("brand",))
    torch.testing.assert_close(back.eval().table(), torch.stack([bo, torch.full((8,), 7.0)]))
    with pytest.raises(CheckpointError, match=r"model\.labels: pretrained True, asked for False"):
        build_model(CONFIG, mine, 0, source)


@pytest.mark.parametrize("known", [False, True])
def test_a_model_of_all_parts_is_read_back_and_completed(tmp_path: Path, known: bool) -> None:
    items = labelled(**{f"i{n}": ("Ada", "Bo", None)[n % 3] for n in range(40)})
    given = {"content": described(), "pictures": np.ascontiguousarray(described(1)[:, :7]), "labels": ("brand",)}
    model = build_model(CONFIG, items, 0, **given)[0]
    if known:
        model = build_model(CONFIG, items, 0, TrainedModel(model, items), **given)[0]
    torch.nn.init.normal_(model.backbone.labels.weight)
    torch.nn.init.normal_(model.head.labels.weight)
    tensors = complete(model.state_dict(), CONFIG, items)
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model": dump(CONFIG)}))
    save_file(tensors, tmp_path / MODEL_FILE)
    pq.write_table(items, tmp_path / ITEMS_FILE)
    found = load_model(tmp_path).model
    torch.testing.assert_close(found.table(), model.eval().table())
    assert (found.num_known, len(found.backbone.labels.weight)) == ((40, 2) if known else (0, 0))


def test_items_without_train_events_are_lent_to_by_their_labels_alone() -> None:
    items = labelled(a="Ada", b="Bo", new="Bo", odd=None).set_column(1, "train_count", pa.array([3, 3, 0, 0]))
    model = build_model(CONFIG, items, 0, labels=("brand",))[0].eval()
    torch.nn.init.normal_(model.head.labels.weight)
    model.head.items.weight.data[:2] = torch.eye(8)[:2]
    finished = complete(model.state_dict(), CONFIG, items)["head.items.weight"]
    assert finished[2].argmax() == 1
    assert finished[2].norm().item() == pytest.approx(1, rel=1e-4)
    assert not finished[3].any()


def test_what_a_checkpoint_of_texts_alone_holds_is_what_it_held_before_there_were_pictures_and_labels() -> None:
    """Older checkpoints must be read."""
    held = build_model(CONFIG, catalog(a=1, b=1), 0, content=described()[:2])[0].state_dict()
    assert {name for name in held if not name.startswith("backbone.blocks")} == {
        *("row_of_item", "content", "backbone.content.center", "backbone.content.project.weight"),
        *("backbone.items.weight", "backbone.positions.weight", "backbone.norm.weight", "backbone.norm.bias"),
        *("head.items.weight", "head.bias"),
    }


def test_a_model_that_reads_other_labels_is_refused() -> None:
    source = TrainedModel(trained(a=1).model, catalog(a=1), "abc+brand")
    dataset = SimpleNamespace(encoder="abc+brand+price", uri="here")
    with pytest.raises(CheckpointError, match=r"reads abc\+brand, and here has abc\+brand\+price: content must be the"):
        check_encoder(source, dataset)


def test_what_ids_added_freely_may_be_held_within_a_bound_afterwards() -> None:
    """A checkpoint without the bound was refused, as if it were a size."""
    theirs = catalog(**{f"s{n}": 1 for n in range(40)})
    source = TrainedModel(build_model(CONFIG, theirs, 3, content=described())[0], theirs)
    torch.nn.init.normal_(source.model.head.items.weight)
    bounded = CONFIG.model_copy(update={"delta_norm": 0.1})
    model, _ = build_model(bounded, theirs, 0, source, described())
    assert model.content is not None
    added = model.eval().table() - model.content_vectors(model.content)
    torch.testing.assert_close(added.norm(dim=1), torch.full((40,), 0.1))
    held = TrainedModel(model, theirs)
    with pytest.raises(CheckpointError, match=r"model\.delta_norm: pretrained 0\.1, asked for 0\.3"):
        build_model(CONFIG.model_copy(update={"delta_norm": 0.3}), theirs, 0, held, described())
