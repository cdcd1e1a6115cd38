"""The likeliest labels of the test part, as parquet with the retailer's own keys and names."""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.progress import Progress

from ray_app.checkpoint import MANIFEST_FILE
from ray_app.config import Config, fingerprint
from ray_app.data.picture_set import PictureSet
from ray_app.schema import LABELS_SCHEMA
from ray_app.storage import join
from ray_app.tasks.answers import answers_of

MANIFEST, PART = "manifest.json", "part-00000.parquet"


def labels_uri(pictures: PictureSet, model_uri: str, config: Config) -> str:
    """A folder of its own for these inputs; a model or set that was copied elsewhere is still the same."""
    manifest = pictures.storage.read_bytes(join(model_uri, MANIFEST_FILE))
    inputs = (hashlib.sha256(manifest).hexdigest(), pictures.manifest.fingerprint, _width(pictures, config))
    return join(pictures.storage.root(config.name), "predictions", fingerprint(*inputs))


def predict_labels(
    pictures: PictureSet, model_uri: str, config: Config, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the `predict.k` likeliest labels of the whole test part (`schema.LABELS_SCHEMA`), and `manifest.json` last.

    Returns:
        The manifest: counts, and what they were made from.

    Raises:
        CheckpointError: the model is incomplete, damaged, or does not fit.
    """
    storage, folder = pictures.storage, labels_uri(pictures, model_uri, config)
    path = join(folder, MANIFEST)
    if storage.exists(path):
        found: dict[str, Any] = json.loads(storage.read_bytes(path))
        return found
    answers = answers_of(pictures, model_uri, config, "test", progress)
    table = likeliest(answers.keys, answers.probabilities, pictures.manifest.classes, _width(pictures, config))
    storage.write_table(join(folder, PART), table)
    counts = {pictures.kind: len(answers.keys), "rows": table.num_rows}
    manifest = {"model": model_uri, "dataset": pictures.uri, **counts, "parts": [PART]}
    storage.write_bytes(path, json.dumps(manifest, indent=1).encode())
    return manifest


def likeliest(keys: list[str], probabilities: NDArray[np.float32], classes: list[str], k: int) -> pa.Table:
    """The first `k` classes of each picture, the likeliest first, equal ones in the order of the classes."""
    first = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    columns = [
        pa.array(keys, pa.string()).take(pa.array(np.repeat(np.arange(len(keys)), first.shape[1]))),
        pa.array(classes, pa.string()).take(pa.array(first.ravel())),
        pa.array(np.take_along_axis(probabilities, first, axis=1).ravel()),
        pa.array(np.tile(np.arange(1, first.shape[1] + 1, dtype=np.int32), len(keys))),
    ]
    return pa.table(columns, schema=LABELS_SCHEMA)


def _width(pictures: PictureSet, config: Config) -> int:
    return min(config.predict.k, pictures.num_classes)
