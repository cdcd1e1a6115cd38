"""Pictures at their places -> vectors of length 1, by a pretrained network of torchvision, timm or transformers."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ray_app.config import fingerprint
from ray_app.content.pretrained import (
    as_shown,
    begin_backbone,
    evaluation_views,
    to_channels_last,
    weights_key,
)
from ray_app.content.vectors import text_hash
from ray_app.content_config import ContentConfig
from ray_app.data.picture_bytes import RefusedPictureError, normal
from ray_app.data.picture_places import pictures_at
from ray_app.data.pool import Shared
from ray_app.errors import ConfigError
from ray_app.models.backbones import Backbone
from ray_app.picture_config import ClassifierConfig, PicturesConfig
from ray_app.schema import Col, picture_features_schema
from ray_app.storage import Storage

BATCH = 32
MAX_PIXELS = PicturesConfig().max_pixels
_SAID = (Col.TEXT_HASH, Col.PICTURE_HASH, Col.REASON, Col.RAW)
_VERSION = 1
"""Raise it when the same network gives other vectors."""
_SETTINGS = {"backbone": "image", "weights": "image_weights", "size": "image_size", "test_size": "image_size"}
"""Of a classifier: what `content` has in their place."""


def picture_key(content: ContentConfig, storage: Storage) -> str:
    """The same for the same network with the same weights and size, wherever they lie."""
    with _settings_of_content():
        return fingerprint(_VERSION, weights_key(_network(content), storage), content.image_size)


@dataclass(frozen=True)
class PictureEncoder:
    """See `Encoder`; of pictures whose hashes are `known` no vector is made again."""

    storage: Storage
    content: ContentConfig
    known: Shared[frozenset[bytes]]

    def load(self, device: torch.device) -> "LoadedPictures":
        """The network in memory; raises as `begin_backbone`."""
        config = _network(self.content)
        with _settings_of_content():
            backbone = begin_backbone(config, self.storage)
        return LoadedPictures(
            self.storage, to_channels_last(backbone.to(device).eval()), config, device, self.known.get()
        )


class LoadedPictures:
    """Places of pictures to rows of `picture_features_schema`."""

    def __init__(
        self,
        storage: Storage,
        backbone: Backbone,
        config: ClassifierConfig,
        device: torch.device,
        known: frozenset[bytes],
    ) -> None:
        self._storage, self._backbone, self._device = storage, backbone, device
        self._views = evaluation_views(backbone, config)
        self._side = round(config.size / backbone.shown.middle)
        self._known = set(known)

    def __call__(self, places: Sequence[str]) -> pa.Table:
        """A row for each place: of equal pictures one has the vector."""
        found, rows = pictures_at(self._storage, places), list[dict[str, Any]]()
        while some := list(islice(found, BATCH)):
            rows += self._rows(some)
        schema = picture_features_schema(self._backbone.dim)
        missing = pa.array([Col.VECTOR not in row for row in rows])
        none = np.zeros(self._backbone.dim, np.float16)
        flat = np.concatenate([none[:0], *(row.pop(Col.VECTOR, none) for row in rows)])
        columns = {name: pa.array([row.get(name) for row in rows], schema.field(name).type) for name in _SAID}
        columns[Col.VECTOR] = pa.FixedSizeListArray.from_arrays(pa.array(flat), self._backbone.dim, mask=missing)
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _rows(self, some: Sequence[tuple[str, bytes | RefusedPictureError]]) -> list[dict[str, Any]]:
        rows, new = list[dict[str, Any]](), list[tuple[dict[str, Any], bytes]]()
        for place, data in some:
            rows.append({Col.TEXT_HASH: text_hash(place)})
            try:
                if isinstance(data, RefusedPictureError):
                    raise data
                rows[-1][Col.PICTURE_HASH] = digest = blake2b(data, digest_size=16).digest()
                if digest not in self._known:
                    new.append((rows[-1], normal(data, self._side, MAX_PIXELS)))
                    self._known.add(digest)
            except RefusedPictureError as error:
                rows[-1] |= {Col.REASON: str(error.reason), Col.RAW: str(error)}
        if new:
            for (row, _), vector in zip(new, self._vectors([picture for _, picture in new]), strict=True):
                row[Col.VECTOR] = vector
        return rows

    @torch.inference_mode()
    def _vectors(self, pictures: list[bytes]) -> NDArray[np.float16]:
        shown = as_shown(self._backbone, self._views[pictures, 0], self._device)
        return functional.normalize(self._backbone(shown).float(), dim=1).half().cpu().numpy()


def _network(content: ContentConfig) -> ClassifierConfig:
    """The settings of a classifier with the same backbone."""
    assert content.image is not None
    return ClassifierConfig(backbone=content.image, weights=content.image_weights, size=content.image_size)


@contextmanager
def _settings_of_content() -> Iterator[None]:
    """Faults of a classifier's settings under the names that they have here."""
    try:
        yield
    except ConfigError as error:
        faults = (
            re.sub(r"^classifier\.(\w+)", lambda found: f"content.{_SETTINGS[found[1]]}", f) for f in error.faults
        )
        raise ConfigError(list(faults)) from error
