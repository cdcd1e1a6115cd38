"""From the bytes of pictures to squares of pixels, by Pillow alone: a process that only decodes is ready at once."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def squares(pictures: Sequence[bytes], size: int, middle: float = 1.0) -> NDArray[np.uint8]:
    """The middle of each picture, `[n, size, size, 3]` RGB."""
    found = np.empty((len(pictures), size, size, 3), np.uint8)
    for place, picture in zip(found, pictures, strict=True):
        place[:] = np.asarray(_square(opened(picture), size, middle))
    return found


def opened(picture: bytes) -> Image.Image:
    """A picture in RGB."""
    with Image.open(io.BytesIO(picture)) as image:
        return image.convert("RGB")


def _square(image: Image.Image, size: int, middle: float) -> Image.Image:
    """A square in the middle of the picture, `middle` of its shorter side, brought to `size`."""
    side = min(image.size) * middle
    left, top = ((length - side) / 2 for length in image.size)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
