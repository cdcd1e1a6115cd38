"""What content says of a prepared dataset's items: vectors of texts and pictures, encoded once, and labels.

Each distinct text and each distinct picture is encoded once, whoever has it: what any dataset of the same project holds
of the same encoder is taken over, so that tomorrow's log costs its new items alone. Killed in the middle, it goes on
with what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from rich.progress import Progress

from ray_app.baselines.neighbors import item_texts
from ray_app.content.encoder import TextEncoder, encoder_folder, encoder_key, load_encoder
from ray_app.content.encoding import VECTORS, Vectors, by_hash, encode, finish, known_vectors
from ray_app.content.labels import label_names
from ray_app.content.model_folder import absolute, absolute_weights
from ray_app.content.vectors import features_table, text_hash
from ray_app.content_config import ContentConfig
from ray_app.data.dataset import FEATURES, Dataset
from ray_app.errors import DataError
from ray_app.schema import Col
from ray_app.storage import Storage, join
from ray_app.train_config import TrainConfig

TEXTS_PER_PART = 2048
"""What a killed run loses of each actor, at most."""


def with_content(
    dataset: Dataset, content: ContentConfig | None, train: TrainConfig, progress: Progress | None = None
) -> Dataset:
    """The dataset with what is read of its items, which is found or made; where there is no content, as it is.

    Raises:
        ConfigError: there is no such encoder, or no library to read it.
        CheckpointError: weights of an encoder of pictures that are those of another network.
        DataError: the encoder cannot be read, or no item has a text, a picture or a label.
    """
    if content is None:
        return dataset
    content = settled(content)
    if content.text is not None:
        dataset = _with_texts(dataset, content, train, progress)
    if content.image is not None:
        from ray_app.content.picture_vectors import with_pictures  # noqa: PLC0415 (seconds, for pictures alone)

        dataset = with_pictures(dataset, content, train, progress)
    if content.labels and not any(label_names(dataset.items(), content.labels)):
        raise DataError(
            f"{dataset.uri}: no item has a {' or '.join(content.labels)}; look at data.items and data.item_columns, or "
            "leave content.labels out"
        )
    return replace(dataset, labels=content.labels)


def settled(content: ContentConfig) -> ContentConfig:
    """With absolute paths to local networks and weights: actors have a working directory of their own."""
    changes: dict[str, object] = {}
    if content.text is not None:
        changes["text"] = absolute(content.text)
    if content.image is not None:
        changes |= {"image": absolute(content.image), "image_weights": absolute_weights(content.image_weights)}
    return content.model_copy(update=changes)


def _with_texts(dataset: Dataset, content: ContentConfig, train: TrainConfig, progress: Progress | None) -> Dataset:
    storage = dataset.storage
    with encoder_folder(storage, content) as folder:
        key = encoder_key(folder, content.max_tokens)
        uri = join(dataset.uri, FEATURES, key)
        found = replace(dataset, features=join(uri, VECTORS))
        if storage.exists(join(uri, VECTORS)):
            return found
        texts = {text_hash(text): text for text in item_texts(dataset.items()) if text}
        if not texts:
            raise DataError(
                f"{dataset.uri}: no item has a title, description, brand or category, so there is nothing to encode; "
                "look at data.items and data.item_columns, or leave content.text out"
            )
        known = known_vectors(dataset, key, Col.TEXT_HASH)
        missing = [text for digest, text in texts.items() if digest not in known]
        if missing:
            load_encoder(folder, content, torch.device("cpu"))  # a sentence here, a dead actor there
            known |= _encode(dataset, uri, missing, content, train, progress)
    finish(storage, uri, features_table(list(texts), np.stack([known[digest] for digest in texts])))
    return found


@dataclass(frozen=True)
class ItemTexts:
    """See `Encoder`."""

    storage: Storage
    content: ContentConfig

    def load(self, device: torch.device) -> "LoadedTexts":
        """The encoder in memory."""
        with encoder_folder(self.storage, self.content) as folder:
            return LoadedTexts(load_encoder(folder, self.content, device))


@dataclass(frozen=True)
class LoadedTexts:
    """Texts to rows of `features_schema`."""

    encoder: TextEncoder

    def __call__(self, texts: Sequence[str]) -> pa.Table:
        """A row for each."""
        return features_table([text_hash(text) for text in texts], self.encoder.encode(texts))


def _encode(
    dataset: Dataset, uri: str, texts: list[str], content: ContentConfig, train: TrainConfig, progress: Progress | None
) -> Vectors:
    texts = sorted(texts, key=len, reverse=True)  # like lengths together
    parts = [texts[start : start + TEXTS_PER_PART] for start in range(0, len(texts), TEXTS_PER_PART)]
    encoder, found = ItemTexts(dataset.storage, content), Vectors()
    for table in encode(dataset.storage, uri, parts, encoder, train, "texts", progress):
        found |= by_hash(table, Col.TEXT_HASH)
    return found
