"""Small pictures of tests: classes that differ in color, as a prepared set."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from ray_app.config import StorageConfig
from ray_app.data.picture_set import (
    PICTURES_SCHEMA,
    PartName,
    PictureCounts,
    PictureFile,
    PictureManifest,
    PictureSet,
)
from ray_app.storage import Storage, join

COLORS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}


def picture(color: tuple[int, int, int], seed: int, side: int = 40) -> bytes:
    """PNG of a color under noise, a little wider than high."""
    noise = np.random.default_rng(seed).normal(0, 40, (side, side + 8, 3))
    pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def picture_set(
    folder: Path, train: int = 30, held_out: int = 9, per_file: int = 16, fold_by: Sequence[str | None] | None = None
) -> PictureSet:
    """Pictures of three colors, in files of `per_file`."""
    storage, uri = Storage.from_config(StorageConfig(path=str(folder))), str(folder / "set")
    files: list[PictureFile] = []
    sizes: dict[PartName, int] = {"train": train, "validation": held_out, "test": held_out}
    for part, size in sizes.items():
        labels = np.arange(size) % len(COLORS)
        colors = [list(COLORS.values())[label] for label in labels]
        images = [picture(color, len(files) * 1000 + row) for row, color in enumerate(colors)]
        keys, hashes = (
            [f"{part}/{row}" for row in range(size)],
            [hashlib.blake2b(i, digest_size=16).digest() for i in images],
        )
        said = pa.array(fold_by if fold_by and part == "train" else [None] * size, pa.string())
        table = pa.table(
            [keys, images, pa.array(labels, pa.int32()), pa.array(hashes, pa.binary(16)), said], schema=PICTURES_SCHEMA
        )
        for start in range(0, size, per_file):
            rows = table.slice(start, per_file)
            path = f"images/{part}-{start:05d}.parquet"
            storage.write_table(join(uri, path), rows)
            files.append(PictureFile(path=path, part=part, pictures=len(rows)))
    manifest = PictureManifest(
        schema_version=1,
        fingerprint="colors",
        pictures={},
        sources=[],
        counts=PictureCounts(pictures_in=sum(sizes.values()), quarantined={}, **sizes),
        classes=list(COLORS),
        groups=None,
        group_of_class=None,
        train_counts=np.bincount(np.arange(train) % len(COLORS)).tolist(),
        notes=[],
        files=files,
    )
    return PictureSet(storage, uri, manifest)
