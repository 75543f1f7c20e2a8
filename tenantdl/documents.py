"""Files that are read and written whole: bounded, versioned, never half-written."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from tenantdl.errors import UserError


class Versioned(Protocol):
    """What a versioned document says of itself."""

    @property
    def format(self) -> int:
        """The version of its form."""


V = TypeVar("V", bound=Versioned)


def write_document(path: Path, body: bytes) -> None:
    """Write `body` to `path`, aside and then renamed; folders are made. Raises UserError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(body)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error


def read_bounded(path: Path, bytes_max: int, name: str) -> bytes:
    """All of the regular file at `path`; others may have no end. `name` is what people call such a
    file. Raises UserError for one that is too large, OSError when it cannot be read."""
    try:
        found = path.stat()
    except ValueError as error:
        raise UserError(f"is no path: {error}", where=str(path)) from error
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"is not a file, so no {name}", where=str(path))
    if found.st_size > bytes_max:
        raise UserError(f"is too large for a {name}", where=str(path))
    with path.open("rb") as file:
        return file.read(bytes_max)


def indented_json(value: object) -> bytes:
    """`value` as JSON for people: indented, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def read_document(path: Path, kind: type[V], name: str, *, format: int, bytes_max: int) -> V:
    """The JSON document at `path`. `name` is what people call such a file ("result file"); its
    first word names the format. Raises UserError for one that is too large, cannot be read, is
    something else, or has another format."""
    try:
        document = msgspec.json.decode(read_bounded(path, bytes_max, name), type=kind)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except msgspec.MsgspecError as error:
        raise UserError(f"is not a {name}: {error}", where=str(path)) from error
    if document.format != format:
        raise UserError(
            f"{name.split()[0]} format {document.format}, this tenantdl reads {format}",
            where=str(path),
        )
    return document
