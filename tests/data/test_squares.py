import io
import subprocess
import sys

import numpy as np
from PIL import Image

from ray_app.data.squares import squares


def framed(mode: str = "RGB") -> bytes:
    """Wide and white, with a black square in the middle that is half as high."""
    pixels = np.full((40, 80, 3), 255, np.uint8)
    pixels[10:30, 30:50] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "PNG")
    return out.getvalue()


def test_squares_show_the_middle() -> None:
    whole, half = squares([framed()], 8)[0], squares([framed("L")], 8, middle=0.4)[0]
    assert whole.shape == half.shape == (8, 8, 3)
    assert whole[0].min() == 255
    assert whole[3:5, 3:5].max() == 0
    assert half.max() == 0


def test_who_only_decodes_needs_no_torch() -> None:
    code = "import sys, ray_app.data.squares; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
