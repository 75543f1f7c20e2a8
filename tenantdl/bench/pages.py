"""Pages of text to read, rendered from a seed, so that the right answer is known. Pillow and the
DejaVu fonts that matplotlib brings along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf")
_TEXT = (
    "order account balance chapter delivery engine forward garden harbour invoice journey kernel "
    "ledger market number office payment quarter report schedule tenant uniform village window "
    "yellow amount before customer during eastern figure general history important because"
)
WORDS = tuple(_TEXT.split())
SIZES = ((960, 736), (736, 960), (736, 736))  # width, height
_LINES = (4, 12)
_FONT_PIXELS = (26, 40)
_MARGIN, _GAP = 40, 1.7  # pixels; heights of a line
_TONES = ((255, 0), (240, 30), (250, 60), (20, 235))  # paper, ink


@dataclass(frozen=True, slots=True)
class Page:
    """`image` [H, W, 3] uint8 RGB shows `lines`, from top to bottom."""

    image: NDArray[np.uint8]
    lines: tuple[str, ...]


def page(seed: int, number: int) -> Page:
    """Page `number` of a seed: a few lines of words and figures in one font, size and tone."""
    rng = np.random.default_rng((seed, number))
    width, height = SIZES[number % len(SIZES)]
    pixels = int(rng.integers(*_FONT_PIXELS))
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", FONTS[int(rng.integers(len(FONTS)))])
    font = ImageFont.truetype(str(file), pixels)
    paper, ink = _TONES[int(rng.integers(len(_TONES)))]
    image = Image.new("RGB", (width, height), (paper,) * 3)
    draw = ImageDraw.Draw(image)
    room = int((height - 2 * _MARGIN) / (pixels * _GAP))
    lines = []
    for row in range(min(int(rng.integers(*_LINES)), room)):
        line = _line(rng, lambda text: draw.textlength(text, font) <= width - 2 * _MARGIN)
        draw.text((_MARGIN, _MARGIN + row * pixels * _GAP), line, font=font, fill=(ink,) * 3)
        lines.append(line)
    return Page(np.asarray(image), tuple(lines))


def _line(rng: np.random.Generator, fits: Callable[[str], bool]) -> str:
    """Two to six words, as many as fit; the first one with a capital, some figures among them."""
    line = ""
    for _ in range(int(rng.integers(2, 7))):
        figure = rng.random() < 0.2 and line
        word = str(rng.integers(100, 99999)) if figure else WORDS[int(rng.integers(len(WORDS)))]
        longer = f"{line} {word}" if line else word.capitalize()
        if not fits(longer):
            break
        line = longer
    return line
