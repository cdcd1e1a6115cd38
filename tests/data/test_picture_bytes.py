"""Pictures of every kind that a retailer's folder may hold."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from ray_app.data.picture_bytes import RefusedPictureError, normal
from ray_app.data.quarantine import Reason

LIMITS = {"stored_side": 64, "max_pixels": 1_000_000}


def encoded(image: Image.Image, form: str, **settings: object) -> bytes:
    sink = BytesIO()
    image.save(sink, form, **settings)
    return sink.getvalue()


def scene(width: int = 48, height: int = 32) -> Image.Image:
    """Red on the left, blue on the right, darker toward the bottom."""
    pixels = np.zeros((height, width, 3), np.uint8)
    shade = np.linspace(250, 90, height)[:, None]
    pixels[:, : width // 2, 0] = shade
    pixels[:, width // 2 :, 2] = shade
    return Image.fromarray(pixels)


def decoded(data: bytes) -> np.ndarray:
    """As the network will see it."""
    image = Image.open(BytesIO(data))
    assert image.mode == "RGB"
    assert image.format in ("JPEG", "PNG")
    assert image.getexif().get(0x0112, 1) == 1
    return np.asarray(image).astype(int)


def close(data: bytes, expected: Image.Image, tolerance: float = 6) -> bool:
    found = decoded(data)
    return found.shape == np.asarray(expected).shape and np.abs(found - np.asarray(expected)).mean() < tolerance


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_bytes_that_are_as_wanted_stay(form: str):
    data = encoded(scene(), form)
    assert normal(data, **LIMITS) is data


@pytest.mark.parametrize("form", ["WEBP", "BMP", "TIFF", "PPM"])
def test_other_formats_are_written_anew(form: str):
    assert close(normal(encoded(scene(), form), **LIMITS), scene())


def test_large_pictures_become_smaller():
    large = scene(640, 320)
    found = decoded(normal(encoded(large, "JPEG"), **LIMITS))
    assert found.shape == (64, 128, 3)
    assert np.abs(found - np.asarray(large.resize((128, 64), Image.Resampling.BOX)).astype(int)).mean() < 4


def test_a_fine_pattern_does_not_alias():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    found = decoded(normal(encoded(Image.fromarray(stripes), "PNG"), **LIMITS))
    assert found.min() > 110
    assert found.max() < 145


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright(form: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
    assert expected.size == ((48, 32) if orientation < 5 else (32, 48))
    assert close(normal(data, **LIMITS), expected)


def test_cmyk():
    assert close(normal(encoded(scene().convert("CMYK"), "JPEG", quality=95), **LIMITS), scene())


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of three channels with 16 bits each, which Pillow cannot write; `[height, width, 3]`."""
    height, width, _ = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines))]
    found = b"\x89PNG\r\n\x1a\n"
    for name, data in [*chunks, (b"IEND", b"")]:
        found += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return found


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_gray_of_16_bits_is_scaled_and_not_clipped(form: str):
    ramp = np.tile(np.linspace(0, 65_535, 48).astype(np.uint16), (32, 1))
    found = decoded(normal(encoded(Image.fromarray(ramp), form), **LIMITS))
    assert np.abs(found[..., 0] - ramp / 257).mean() < 3
    assert np.abs(found[..., 0] - found[..., 2]).max() == 0
    dark = np.full((32, 32), 2570, np.uint16)  # stays dark
    assert np.abs(decoded(normal(encoded(Image.fromarray(dark), form), **LIMITS)) - 10).max() <= 1


def test_colors_of_16_bits_are_scaled_and_stored_in_8():
    values = np.asarray(scene()).astype(np.uint16) * 257
    data = png_of_16_bits(values)
    stored = normal(data, **LIMITS)
    assert stored != data
    assert close(stored, scene())


def test_gray_of_32_bits_and_floats():
    ramp = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (32, 1))
    expected = np.round(ramp * 255)
    for values in (ramp, ramp * 65_535, (ramp * 65_535).astype(np.int32), (ramp * 255).astype(np.int32)):
        found = decoded(normal(encoded(Image.fromarray(values), "TIFF"), **LIMITS))
        assert np.abs(found[..., 1] - expected).mean() < 3
    assert decoded(normal(encoded(Image.fromarray(0 * ramp), "TIFF"), **LIMITS)).max() == 0


def test_transparency_is_laid_on_white():
    clear = scene().convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 16, axis=0).repeat(48, axis=1)))
    expected = Image.new("RGB", clear.size, "white")
    expected.paste(clear, mask=clear)
    assert close(normal(encoded(clear, "PNG"), **LIMITS), expected)
    assert close(normal(encoded(clear.convert("LA"), "PNG"), **LIMITS), expected.convert("L").convert("RGB"))
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(0, (0, 0, 16, 32))
    shown = decoded(normal(encoded(palette, "PNG", transparency=0), **LIMITS))
    assert np.abs(shown[:, :14] - 255).max() < 12
    assert np.abs(shown[:, 18:] - [200, 100, 50]).max() < 12
    one_color = encoded(Image.new("RGB", (32, 32), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert decoded(normal(one_color, **LIMITS)).min() == 255


def test_gray_black_and_white_and_palette():
    for mode in ("L", "1", "P"):
        expected = scene().convert(mode)
        assert close(normal(encoded(expected, "PNG"), **LIMITS), expected.convert("RGB"))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(form: str):
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "green")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    stored = normal(data, **LIMITS)
    assert np.abs(decoded(stored) - [255, 0, 0]).mean() < 4
    assert not getattr(Image.open(BytesIO(stored)), "is_animated", False)


def refusal(data: bytes, **limits: int) -> Reason:
    with pytest.raises(RefusedPictureError) as refused:
        normal(data, **(LIMITS | limits))
    assert str(refused.value)
    return refused.value.reason


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_cut_pictures_are_refused(form: str):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8))
    data = encoded(noise, form)
    assert refusal(data[: len(data) // 2]) in (Reason.TRUNCATED_PICTURE, Reason.CORRUPT_PICTURE, Reason.NOT_A_PICTURE)
    if form in ("JPEG", "PNG"):
        assert refusal(data[: len(data) // 2]) == Reason.TRUNCATED_PICTURE


def test_what_is_no_picture_is_refused():
    assert refusal(b"") == Reason.NOT_A_PICTURE
    assert refusal(b"<html>404</html>") == Reason.NOT_A_PICTURE
    assert refusal(bytes(1000)) == Reason.NOT_A_PICTURE
    for form in ("PNG", "WEBP"):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8))
        data = bytearray(encoded(noise, form))
        third = len(data) // 3
        data[third : 2 * third] = b"\xff" * third
        assert refusal(bytes(data)) in (Reason.CORRUPT_PICTURE, Reason.TRUNCATED_PICTURE, Reason.NOT_A_PICTURE)


def test_bombs_are_refused_by_their_header():
    """Ten gigapixels in a hundred bytes: decoding them would take 30 GB."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n"
    for name, data in [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]:
        bomb += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    assert refusal(bomb) == Reason.TOO_MANY_PIXELS
    assert refusal(encoded(scene(), "PNG"), max_pixels=48 * 32 - 1) == Reason.TOO_MANY_PIXELS
    normal(encoded(scene(), "PNG"), stored_side=64, max_pixels=48 * 32)


def test_broken_tags_cost_no_picture():
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03")
    assert normal(data, **LIMITS) is data


def test_pictures_longer_than_a_jpeg_can_be():
    found = Image.open(BytesIO(normal(encoded(Image.new("L", (70_000, 2)), "PNG"), **LIMITS)))
    assert (found.format, found.mode, found.size) == ("PNG", "RGB", (70_000, 2))
