"""Checkpoint folders: what was sealed is verified, and what is none is told in a sentence."""

import json
from pathlib import Path

import pytest

from ray_app.checkpoint import CheckpointError, fetched, read_config, read_manifest, seal, verify
from ray_app.storage import Storage


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "sealed"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "deep" / "state.bin").write_bytes(b"state")
    seal(folder, {"name": "shop"}, role="finetune")
    return folder


def test_what_was_sealed_is_verified(sealed: Path) -> None:
    manifest = verify(sealed)
    assert set(manifest["files"]) == {"model.bin", "deep/state.bin", "config.json"}
    assert manifest["role"] == "finetune"
    assert read_manifest(Storage(), str(sealed)) == manifest
    assert read_config(sealed) == {"name": "shop"}


def test_other_bytes_and_missing_files_are_named(sealed: Path) -> None:
    (sealed / "model.bin").write_bytes(b"Weights")
    with pytest.raises(CheckpointError, match=r"model\.bin: its bytes differ"):
        verify(sealed)
    (sealed / "model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"model\.bin: missing"):
        verify(sealed)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_damaged_json_is_named(sealed: Path, text: str) -> None:
    for name, read in (("config.json", read_config), ("manifest.json", verify)):
        (sealed / name).write_text(text)
        with pytest.raises(CheckpointError, match=rf"{name}: damaged"):
            read(sealed)
        (sealed / name).unlink()
        with pytest.raises(CheckpointError, match=rf"not a checkpoint, it has no {name}"):
            read(sealed)


def test_the_manifest_of_something_else_is_none(sealed: Path) -> None:
    """A prepared dataset has a manifest too: named as a checkpoint, it ended in a KeyError."""
    (sealed / "manifest.json").write_text(json.dumps({"parts": []}))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        verify(sealed)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_manifest(Storage(), str(sealed))


def test_a_fetched_checkpoint_is_called_by_its_own_name(sealed: Path) -> None:
    """Errors named the local copy, which was gone when they were read."""
    (sealed / "model.bin").write_bytes(b"Weights")
    with pytest.raises(CheckpointError) as caught, fetched(Storage(), str(sealed)) as folder:
        verify(folder)
    assert str(caught.value).startswith(f"{sealed}/model.bin: ")
