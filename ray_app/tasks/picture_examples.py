"""Some test pictures or texts for a person to look at, with what the classifier says of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ray_app.data.picture_set import Content, PictureSet
from ray_app.storage import join
from ray_app.tasks.answers import Answers

SIDE = 132
"""Pixels of a picture on a page, its longer side."""
JPEG_QUALITY = 80


@dataclass(frozen=True)
class PictureExample:
    """One picture or text; classes by name."""

    key: str
    shown: Content
    """A small JPEG, or the text."""
    label: str
    said: str
    probability: float
    """Of what is said."""

    @property
    def is_right(self) -> bool:
        """Whether what is said is the label."""
        return self.label == self.said


@dataclass(frozen=True)
class PictureExamples:
    """Three kinds of them."""

    right: list[PictureExample]
    wrong: list[PictureExample]
    """Drawn at random, like those that are right."""
    sure: list[PictureExample]
    """The mistakes with the highest probability, the highest first."""


def pick_pictures(pictures: PictureSet, answers: Answers, seed: int, count: int = 12) -> PictureExamples:
    """Up to `count` of each kind of the test part."""
    first = answers.probabilities.argmax(axis=1)
    right = np.flatnonzero(first == answers.labels)
    wrong = np.flatnonzero(first != answers.labels)
    rng = np.random.default_rng(seed)
    surest = wrong[np.argsort(-answers.probabilities[wrong, first[wrong]], kind="stable")[:count]]
    chosen = [rng.permutation(right)[:count], rng.permutation(wrong)[:count], surest]
    contents = dict(_contents(pictures, np.unique(np.concatenate(chosen))))
    names = pictures.manifest.classes

    def example(row: int) -> PictureExample:
        said, label = int(first[row]), int(answers.labels[row])
        probability = float(answers.probabilities[row, said])
        return PictureExample(answers.keys[row], _shown(contents[row]), names[label], names[said], probability)

    return PictureExamples(*([example(row) for row in rows.tolist()] for rows in chosen))


def _contents(pictures: PictureSet, rows: NDArray[np.int64]) -> Iterator[tuple[int, Content]]:
    """Some pictures or texts of the test part, each file read once."""
    start, name = 0, pictures.column
    for file in (file for file in pictures.manifest.files if file.part == "test"):
        count = file.pictures
        inside = rows[(rows >= start) & (rows < start + count)]
        if len(inside):
            column = pictures.storage.read_table(join(pictures.uri, file.path), [name])[name]
            yield from ((int(row), column[int(row) - start].as_py()) for row in inside)
        start += count


def _shown(content: Content) -> Content:
    if isinstance(content, str):
        return content
    with Image.open(BytesIO(content)) as image:
        image.thumbnail((SIDE, SIDE))
        sink = BytesIO()
        image.convert("RGB").save(sink, "JPEG", quality=JPEG_QUALITY)
    return sink.getvalue()
