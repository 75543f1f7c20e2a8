"""Synthetic signals that resemble real ones: pictures, printed digits, speech, source code.

Random noise would exercise the same kernels, but no detector finds text in it: outputs would say
nothing about whether a compiled model still works.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rng = np.random.Generator

# A 5×7 dot-matrix font, a row in the low five bits of a number.
_DIGITS = (
    (0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E),
    (0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E),
    (0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F),
    (0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E),
    (0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02),
    (0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E),
    (0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E),
    (0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08),
    (0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E),
    (0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C),
)
_FORMANTS_HZ = np.array([[700, 1200, 2600], [300, 2300, 3000], [400, 800, 2500]])
_SAMPLE_RATE = 16_000


def picture(rng: Rng, height: int, width: int) -> Array:
    """A photograph's statistics: noise at all scales, coarse ones strongest.

    float32 [3,`height`,`width`] in 0..1, deviation about a quarter.
    """
    image = np.zeros((3, height, width), dtype=np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        coarse = rng.standard_normal((3, cells + 1, cells + 1), dtype=np.float32)
        image += _enlarge(coarse, height, width) / np.float32(cells**0.5)
    return (1 / (1 + np.exp(-2 * image))).astype(np.float32)


def _enlarge(grid: Array, height: int, width: int) -> Array:
    """Bilinear interpolation of [C,h,w] to [C,height,width]."""
    rows = np.linspace(0, grid.shape[1] - 1, height, dtype=np.float32)
    columns = np.linspace(0, grid.shape[2] - 1, width, dtype=np.float32)
    top = np.minimum(rows.astype(int), grid.shape[1] - 2)
    left = np.minimum(columns.astype(int), grid.shape[2] - 2)
    down, right = (rows - top)[:, None], columns - left
    upper = grid[:, top] * (1 - down) + grid[:, top + 1] * down
    image: Array = upper[:, :, left] * (1 - right) + upper[:, :, left + 1] * right
    return image


def digits(rng: Rng, count: int) -> Array:
    """`count` decimal digits, int64."""
    return rng.integers(0, 10, count)


def printed(rng: Rng, height: int, width: int, text: Array | None = None) -> Array:
    """A line of black digits on white filling the width. float32 [3,`height`,`width`], 0..1."""
    dot = max(1, height // 12)
    margin = (height - 7 * dot) // 2
    count = max(0, width - 2 * margin + dot) // (6 * dot)
    text = digits(rng, count) if text is None else text
    line = np.ones((height, width), dtype=np.float32)
    for index, digit in enumerate(text[:count]):
        rows = np.array(_DIGITS[digit])[:, None]
        bits = (rows >> np.arange(4, -1, -1) & 1).astype(np.float32)
        left = margin + index * 6 * dot
        glyph = np.kron(bits, np.ones((dot, dot), dtype=np.float32))
        line[margin : margin + 7 * dot, left : left + 5 * dot] -= np.float32(0.9) * glyph
    return np.stack([line] * 3)


def audio(rng: Rng, samples: int) -> Array:
    """Speech-like sound at 16 kHz: voiced pulses through three formants, syllables at 4 Hz.

    float32 [`samples`], within -1..1.
    """
    time = np.arange(samples) / _SAMPLE_RATE
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / _SAMPLE_RATE
    vowel = (time * 4 + rng.integers(0, 3)).astype(int) % len(_FORMANTS_HZ)
    wave = np.zeros(samples)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        distance = (frequency[:, None] - _FORMANTS_HZ[vowel]) / 120
        loudness = (1 / (1 + distance**2)).sum(axis=1) + 0.02
        wave += loudness * np.sin(harmonic * phase)
    syllable = 0.15 + np.abs(np.sin(np.pi * 4 * time)) ** 0.7
    wave = wave * syllable + 0.02 * rng.standard_normal(samples)
    loudest = float(np.abs(wave).max())
    return (0.5 / loudest * wave).astype(np.float32)


def source_text(rng: Rng, length: int) -> bytes:
    """About `length` bytes of Python source, never padded with spaces at its ends."""
    lines = ["import sys"]
    while sum(map(len, lines)) + len(lines) < length:
        a, b = rng.integers(0, 100, 2)
        lines += [
            f"def f{a}(x, y={b}):",
            f"    if x > {b}:",
            f"        return x + {a}",
            "    return y",
        ]
    return "\n".join(lines).strip().encode()
