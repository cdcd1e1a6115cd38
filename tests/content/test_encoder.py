"""The text encoder against the library that its weights were published for, and what a wrong one is told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_app.config import StorageConfig
from ray_app.content.encoder import TextEncoder, encoder_folder, encoder_key, load_encoder
from ray_app.content_config import ContentConfig
from ray_app.errors import ConfigError, DataError
from ray_app.storage import Storage

TEXTS = ["lip balm", "A shampoo for dry hair, with argan oil and without sulfates", "nail polish remover", "é"]
CPU = torch.device("cpu")


def test_vectors_are_those_of_the_library_the_encoder_was_made_with(minilm: Path):
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(minilm)(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    found = TextEncoder(minilm, 128, CPU).encode(TEXTS)
    assert found.dtype == np.float16
    assert (found.astype(np.float32) * expected).sum(1) == pytest.approx(1, abs=2e-3)


def test_a_text_has_the_same_vector_in_any_company(minilm: Path):
    encoder = TextEncoder(minilm, 128, CPU)
    alone = encoder.encode(TEXTS[:1]).astype(np.float32)[0]
    among = encoder.encode(TEXTS[::-1]).astype(np.float32)
    assert among[-1] @ alone == pytest.approx(1, abs=2e-3)
    assert (among[:-1] @ alone).max() < 0.9


def test_of_a_long_text_the_beginning_is_read(minilm: Path):
    encoder = TextEncoder(minilm, 8, CPU)
    one, other = encoder.encode(["one two three four five six seven", "one two three four five six eight nine ten"])
    assert np.array_equal(one, other)


def test_the_key_follows_the_files_and_the_settings(minilm: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(minilm, copy)
    assert encoder_key(copy, 128) == encoder_key(minilm, 128) != encoder_key(minilm, 64)
    (copy / "vocab.txt").write_text("other")
    assert encoder_key(copy, 128) != encoder_key(minilm, 128)


def test_a_folder_without_an_encoder_is_named(tmp_path: Path):
    content = ContentConfig(text=f"hf:{tmp_path}")
    with pytest.raises(DataError, match=rf"hf:{tmp_path}: cannot be read as a text encoder"):
        load_encoder(tmp_path, content, CPU)


def test_what_is_neither_folder_nor_hub_id_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    storage = Storage.from_config(StorageConfig())
    with (
        pytest.raises(ConfigError, match=r"content.text: 'no/such/folder' is no folder, and the hub did not give it"),
        encoder_folder(storage, ContentConfig(text="hf:no/such/folder")),
    ):
        pass
