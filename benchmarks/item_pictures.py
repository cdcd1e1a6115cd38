"""Vectors of items' pictures (`content.image`): what they cost, and whether like pictures are near, as JSON lines.

    python benchmarks/item_pictures.py --data FOLDER --weights FILE [--network timm:tf_efficientnet_lite0] [--size 224]

FOLDER holds Grocery Store (`train.parquet`: bytes of pictures, `fine_name`, `coarse_name`), of which every picture
becomes an item of a shop; without Ray, on one thread. `near` is how often the item with the nearest vector is of the
same class, which the network never heard of, and `chance` how often any other item is.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ray_app.config import StorageConfig
from ray_app.content.features import with_content
from ray_app.content.vectors import item_pictures
from ray_app.content_config import ContentConfig
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data_config import DataConfig
from ray_app.storage import Storage
from ray_app.train_config import TrainConfig

CLASSES = ("fine_name", "coarse_name")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--network", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    content = ContentConfig(image=args.network, image_weights=args.weights, image_size=args.size)
    table = pq.read_table(args.data / "train.parquet")
    with tempfile.TemporaryDirectory() as folder:
        dataset = shop(Path(folder), table)
        for run in ("encoded", "found again"):
            began, spent = time.perf_counter(), time.process_time()
            found = with_content(dataset, content, TrainConfig(cpus_per_worker=1))
            cost = {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(time.process_time() - spent, 1)}
            print(
                json.dumps({"run": run, "pictures": len(table), **cost, "notes": found.manifest.notes[1:]}), flush=True
            )
        vectors = item_pictures(found)
    assert vectors is not None
    print(json.dumps({"dim": vectors.shape[1]} | {name: near(vectors, table[name].to_pylist()) for name in CLASSES}))


def shop(folder: Path, table: pa.Table) -> Dataset:
    """Two users who had everything, and a catalogue that holds the pictures."""
    items = pa.array(np.arange(len(table)))
    pq.write_table(pa.table({"item_id": items, "image": table["image"]}), folder / "items.parquet")
    log = {"user_id": np.repeat([0, 1], len(table)), "item_id": np.tile(items, 2), "timestamp": np.tile(items, 2)}
    pq.write_table(pa.table(log), folder / "events.parquet")
    paths = {"events": str(folder / "events.parquet"), "items": str(folder / "items.parquet")}
    data = DataConfig.model_validate({**paths, "timestamp_unit": "order", "split": {"kind": "leave_one_out"}})
    return prepare(Storage.from_config(StorageConfig(path=str(folder))), "shop", data)


def near(vectors: np.ndarray, classes: list[str]) -> dict[str, float]:
    """Share of items whose nearest is of the same class, and of all pairs that are."""
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.fill_diagonal(cosines, -np.inf)
    names = np.unique(classes, return_inverse=True)[1]
    same = np.bincount(names)
    chance = (same * (same - 1)).sum() / (len(names) * (len(names) - 1))
    return {"near": round(float((names[cosines.argmax(1)] == names).mean()), 3), "chance": round(float(chance), 3)}


if __name__ == "__main__":
    main()
