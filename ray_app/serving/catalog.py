"""The items of a version by id, what is said of them, and which of them a filter lets through."""

import math
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_app.schema import PAD, Col
from ray_app.serving.ids import Ids
from ray_app.serving.schemas import Filters, Item, ItemBody, ItemId
from ray_app.serving.texts import Texts

Mask = NDArray[np.bool_]
NOTHING = -1
Kind = TypeVar("Kind", bound=Item)


class Catalog:
    """Items have the indices of the model, from 1; items that were added since follow behind them."""

    def __init__(self, items: pa.Table) -> None:
        self._ids = Ids(items[Col.ITEM])
        self._texts = {name: Texts(items[name]) for name in (Col.TITLE, Col.DESCRIPTION)}
        self._images: dict[int, str] = {}
        prices = items[Col.PRICE].cast(pa.float64()).fill_null(np.nan).to_numpy()
        self._price = np.concatenate([[np.nan], prices])
        coded = {name: items[name].combine_chunks().dictionary_encode() for name in (Col.BRAND, Col.CATEGORY)}
        self._labels: dict[str, list[str]] = {name: one.dictionary.to_pylist() for name, one in coded.items()}
        self._codes = {name: {label: code for code, label in enumerate(all_)} for name, all_ in self._labels.items()}
        self._coded = {
            name: np.concatenate([[NOTHING], one.indices.fill_null(NOTHING).to_numpy()]).astype(np.int32)
            for name, one in coded.items()
        }
        self._available = np.ones(1 + len(self._ids), np.bool_)
        self._available[PAD] = False

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def available(self) -> Mask:
        """Whether each item can be bought now, `[items + 1]`; may be written to."""
        return self._available[: 1 + len(self._ids)]

    def find(self, item: ItemId) -> int:
        """Index of an item, `PAD` if there is none with this id."""
        try:
            return self._ids.find(self.own(item))
        except ValueError:
            return PAD

    def find_all(self, items: Iterable[ItemId]) -> NDArray[np.int64]:
        """Indices of those that there are, in their order."""
        found = (self.find(item) for item in items)
        return np.array([item for item in found if item != PAD], np.int64)

    def text(self, item: int) -> str:
        """All that is written of an item."""
        written = [column[item] for column in self._texts.values()]
        return " ".join(text for text in [*written, *(self._label(name, item) for name in self._codes)] if text)

    def title(self, item: int) -> str:
        """Its title, or else category, brand and id, as far as they are known."""
        if title := self._texts[Col.TITLE][item]:
            return str(title)
        parts = (self._label(Col.CATEGORY, item), self._label(Col.BRAND, item), str(self._ids[item]))
        return " · ".join(part for part in parts if part)

    def describe(self, item: int) -> Item:
        """As answers show it."""
        return self.describe_as(Item, item)

    def describe_as(self, kind: type[Kind], item: int, **more: Any) -> Kind:
        """As answers show it, with what a kind of them says besides."""
        price = self._price.item(item)
        return kind(
            item_id=self._ids[item],
            title=self.title(item),
            brand=self._label(Col.BRAND, item),
            category=self._label(Col.CATEGORY, item),
            price=None if math.isnan(price) else price,
            image=self._images.get(item),
            **more,
        )

    def mask(self, filters: Filters) -> Mask:
        """Which indices pass, `[items + 1]`; `PAD` never does."""
        passed = self.available.copy() if filters.in_stock else np.ones(1 + len(self._ids), np.bool_)
        for name, wanted in ((Col.CATEGORY, filters.category), (Col.BRAND, filters.brand)):
            if wanted is not None:
                passed &= self.labelled(name, wanted)
        if filters.price_min is not None:
            passed &= self._price[: len(passed)] >= filters.price_min
        if filters.price_max is not None:
            passed &= self._price[: len(passed)] <= filters.price_max
        if filters.allow is not None:
            allowed = np.zeros(1 + len(self._ids), np.bool_)
            allowed[self.find_all(filters.allow)] = True
            passed &= allowed
        passed[self.find_all(filters.deny)] = False
        passed[PAD] = False
        return passed

    def labelled(self, column: str, labels: Iterable[str]) -> Mask:
        """Items with one of these brands or categories."""
        codes = self._codes[column]
        wanted = np.zeros(len(codes) + 1, np.bool_)  # the last for items without a label
        wanted[[codes[label] for label in labels if label in codes]] = True
        found: Mask = wanted[self._coded[column][: 1 + len(self._ids)]]
        return found

    def put(self, item: ItemId, body: ItemBody) -> int:
        """Describe an item, which is added if there is none with this id; its index.

        Raises:
            ValueError: the catalogue's ids are numbers, and this is none.
        """
        if (index := self.find(item)) == PAD:
            index = self._ids.add(self.own(item))
            if index == len(self._price):
                self._grow()
        for name in self._texts:
            self._texts[name][index] = getattr(body, name)
        self._price[index] = np.nan if body.price is None else body.price
        for name in self._codes:
            self._coded[name][index] = self._code(name, getattr(body, name))
        if body.image is not None:
            self._images[index] = body.image
        return index

    def own(self, item: ItemId) -> ItemId:
        """The id in the catalogue's own type.

        Raises:
            ValueError: the catalogue's ids are numbers, and this is none.
        """
        if not self._ids.are_numbers:
            return str(item)
        if isinstance(item, int) and -(2**63) <= item < 2**63:
            return item
        if not re.fullmatch(r"0|-?[1-9]\d{0,18}", str(item), re.ASCII) or not -(2**63) <= int(item) < 2**63:
            raise ValueError(f"item ids of this catalogue are whole numbers, and {str(item)[:40]!r} is none")
        return int(item)

    def _grow(self) -> None:
        """Room for as many items again, so that adding one by one copies little."""
        more = len(self._price)
        self._price = np.concatenate([self._price, np.full(more, np.nan)])
        self._coded = {name: np.concatenate([codes, np.full(more, NOTHING)]) for name, codes in self._coded.items()}
        self._available = np.concatenate([self._available, np.ones(more, np.bool_)])

    def _label(self, column: str, item: int) -> str | None:
        code = self._coded[column].item(item)
        return None if code == NOTHING else self._labels[column][code]

    def _code(self, name: str, label: str | None) -> int:
        """Number of a label, which is kept once."""
        if label is None:
            return NOTHING
        if (code := self._codes[name].setdefault(label, len(self._labels[name]))) == len(self._labels[name]):
            self._labels[name].append(label)
        return code
