"""One picture: whatever its format and colors, as upright RGB in JPEG or PNG, or a reason why it is none."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ray_app.data.quarantine import Reason

JPEG_QUALITY = 95
_LONGEST_JPEG = 65_500
_MAX_OF_16_BITS = 65_535
_ORIENTATION = 0x0112
"""The tag of EXIF; 1 is upright."""
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_PNG_DEPTH = 24
"""Where a PNG says how many bits its values have."""


class RefusedPictureError(Exception):
    """A picture that is none, or none that can be shown; the message is what the decoder said."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def normal(data: bytes, stored_side: int, max_pixels: int) -> bytes:
    """The picture upright, in RGB of 8 bits, its shorter side no longer than `stored_side`.

    The given bytes are returned where they are that already, as JPEG or PNG. Otherwise it is made smaller (antialiased)
    and written anew, as JPEG. Transparency is laid on white, values of 16 bits are scaled, and of an animation there is
    the first frame.

    Raises:
        RefusedPictureError: it cannot be decoded to its end, or claims more than `max_pixels`, which is told before
            anything is decoded.
    """
    with _warnings_and_limits_of_our_own():
        try:
            image = Image.open(BytesIO(data))
        except UnidentifiedImageError:
            raise RefusedPictureError(Reason.NOT_A_PICTURE, "not of a format that is known") from None
        except Exception as error:
            raise RefusedPictureError(Reason.CORRUPT_PICTURE, str(error)) from error
        width, height = image.size
        if width * height > max_pixels:
            raise RefusedPictureError(Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels")
        try:
            return _normal(image, data, stored_side)
        except Exception as error:  # each decoder has its own ways to fail
            cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
            reason = Reason.TRUNCATED_PICTURE if cut else Reason.CORRUPT_PICTURE
            raise RefusedPictureError(reason, f"{type(error).__name__}: {error}") from error


def _normal(image: Image.Image, data: bytes, side: int) -> bytes:
    small = min(image.size) <= side
    if not small:
        image.draft(None, (2 * side, 2 * side))  # lets a JPEG be decoded at a half, a quarter, an eighth of its size
    image.load()  # before anybody asks for tags: that loads too, and TIFF is turned as it is loaded
    if small and _is_plain(image, data):
        return data
    upright, turn = _as_rgb(image), _TO_UPRIGHT.get(_orientation(image))
    upright = upright if turn is None else upright.transpose(turn)
    if (shorter := min(upright.size)) > side:
        width, height = (max(1, round(length * side / shorter)) for length in upright.size)
        upright = upright.resize((width, height), Image.Resampling.BICUBIC)
    sink = BytesIO()
    upright.info.clear()  # colors and tags of the original would be written along
    form = "JPEG" if max(upright.size) <= _LONGEST_JPEG else "PNG"
    upright.save(sink, form, quality=JPEG_QUALITY, subsampling=0)
    return sink.getvalue()


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether the bytes may stay as they are, but for their size."""
    if image.mode != "RGB" or "transparency" in image.info or _orientation(image) != 1:
        return False
    if image.format == "PNG":
        return data[_PNG_DEPTH] == 8 and getattr(image, "n_frames", 1) == 1
    return image.format == "JPEG"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken tags are no reason to lose a picture
        return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _scaled(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Gray values of more than 8 bits, or of floats, as 8 bits: by the range that their type or their largest says."""
    values = np.nan_to_num(np.asarray(image, np.float64)).clip(min=0)
    highest = values.max(initial=0)
    if image.mode.startswith("I;16"):
        top = float(_MAX_OF_16_BITS)
    else:
        tops = (*((1.0,) if image.mode == "F" else ()), 255.0, float(_MAX_OF_16_BITS))
        top = next((top for top in tops if highest <= top), highest)
    return Image.fromarray((values * (255 / (top or 1))).round().astype(np.uint8))


@contextmanager
def _warnings_and_limits_of_our_own() -> Iterator[None]:
    """Pillow warns of odd files, which are none of its callers' business, and has a limit of pixels of its own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
