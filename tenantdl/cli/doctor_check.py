"""One finding of `tenantdl doctor`, and how kernel files are read for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fail`: something will not work; `warn`: slower or less steady than need be."""

    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def told(path: Path) -> str | None:
    """What the kernel says in a file; None where it has no such file."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def cores_in(text: str) -> int:
    """How many numbers a list such as `0-3,8` has."""
    count = 0
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count
