"""Units. Time inside the project is integer nanoseconds (`Ns`): floats lose determinism.

Convert at the edges only: milliseconds in configs and reports, seconds in libraries.
"""

from __future__ import annotations

from typing import NewType

Ns = NewType("Ns", int)

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000


def from_ms(ms: float) -> Ns:
    """Milliseconds, rounded to whole nanoseconds."""
    return Ns(round(ms * MS))


def from_seconds(seconds: float) -> Ns:
    """Seconds, rounded to whole nanoseconds."""
    return Ns(round(seconds * SECOND))


def to_ms(time: int) -> float:
    """Nanoseconds as milliseconds, for people and reports."""
    return time / MS


def to_seconds(time: int) -> float:
    """Nanoseconds as seconds, for libraries that sleep."""
    return time / SECOND
