"""What a line of text says: PP-OCR's pre- and post-processing of its direction classifier and its
recogniser (rapidocr 3.10.0, `ch_ppocr_cls` and `ch_ppocr_rec`; Apache-2.0).

Lines are resized to the models' height and padded to a compiled width: the narrowest with room,
or squeezed into the widest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from tenantdl.glue.ocr_detect import Image
from tenantdl.glue.work import Array

TURNED, TURNED_SCORE_LEAST = 1, 0.9  # of the classes "0" and "180"
BLANK = 0


class Line(NamedTuple):
    """What was read, and the mean probability of its characters."""

    text: str
    score: float


def fit_line(image: Image, height: int, widths: Sequence[int]) -> Array:
    """The line as [1, 3, height, W] in −1..1, W one of `widths`; 0 behind it."""
    wanted = math.ceil(height * image.shape[1] / image.shape[0])
    room = min((width for width in widths if width >= wanted), default=max(widths))
    own = min(wanted, room)
    tensor = np.zeros((1, 3, height, room), np.float32)
    pixels = cv2.resize(image, (own, height)).transpose(2, 0, 1)
    np.multiply(pixels, np.float32(2 / 255), out=tensor[0, :, :, :own])
    tensor[0, :, :, :own] -= 1
    return tensor


def is_turned(probabilities: Array) -> bool:
    """Whether the classifier's [1, 2] says that the line stands on its head."""
    best = int(probabilities[0].argmax())
    return best == TURNED and float(probabilities[0, best]) > TURNED_SCORE_LEAST


def characters_of(text: str) -> list[str]:
    """The recogniser's classes, from its file's metadata: a blank, those listed, and a space."""
    return ["", *text.splitlines(), " "]


def decode(probabilities: Array, characters: Sequence[str]) -> Line:
    """Best path of connectionist temporal classification over [1, steps, classes]."""
    best = probabilities[0].argmax(axis=1)
    keep = best != BLANK
    keep[1:] &= best[1:] != best[:-1]
    steps = np.flatnonzero(keep)
    text = "".join(characters[index] for index in best[steps])
    score = float(probabilities[0, steps, best[steps]].mean()) if len(steps) else 0.0
    return Line(text, score)
