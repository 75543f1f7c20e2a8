"""Values on the command line that are more than a word: shapes, lists of numbers, core groups."""

from __future__ import annotations

from collections.abc import Sequence

from tenantdl.errors import UserError

SHAPE_RANK_MAX = 16
EXTENT_MAX = 2**31
EXTENTS_MAX = 64


def shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=1x3x224x224`, repeatable, as name → shape. A scalar input is `NAME=`."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        if not equals or not name:
            raise UserError(f"{text!r} is not NAME=1x3x224x224", where="--shape")
        if name in found:
            raise UserError(f"input {name!r} is given twice", where="--shape")
        extents = dims.lower().split("x") if dims else []
        if len(extents) > SHAPE_RANK_MAX or not all(_is_extent(extent) for extent in extents):
            raise UserError(f"{dims!r} is not a shape such as 1x3x224x224", where="--shape")
        found[name] = tuple(int(extent) for extent in extents)
    return found


def numbers(text: str, option: str, *, least: int = 0) -> tuple[int, ...]:
    """`1,2` as distinct whole numbers of at least `least`, in the order given."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UserError(f"{text!r} is not a list of numbers such as 1,2", where=option)
    values = tuple(int(part) for part in parts)
    if min(values) < least:
        raise UserError(f"{min(values)} is too small: at least {least}", where=option)
    if len(set(values)) != len(values):
        raise UserError(f"{text!r} names a number twice", where=option)
    return values


def buckets(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=16,32,64` or `NAME=80:960:80` (both ends belong to it), repeatable, as name → extents
    in ascending order; `NAME=auto` as none."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, values = text.rpartition("=")
        if not equals or not name or name in found:
            raise UserError(
                f"{text!r} is not NAME=16,32,64, NAME=80:960:80 or NAME=auto", where="--bucket"
            )
        if values == "auto":
            found[name] = ()
            continue
        bounds = values.split(":")
        if len(bounds) == 3:
            first, last, step = (numbers(bound, "--bucket", least=1)[0] for bound in bounds)
            extents = range(first, last + 1, step)
        else:
            extents = numbers(values, "--bucket", least=1)  # type: ignore[assignment]
        if not 0 < len(extents) <= EXTENTS_MAX:
            raise UserError(f"{text!r}: 1 to {EXTENTS_MAX} extents", where="--bucket")
        found[name] = tuple(sorted(extents))
    return found


def factors(text: str, option: str) -> tuple[float, ...]:
    """`2,5` or `1.5` as numbers above 0; an empty text is none."""
    try:
        values = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UserError(f"{text!r} is not a list of numbers such as 2,5", where=option) from None
    if not all(0 < value <= 1000 for value in values):
        raise UserError(f"{text!r}: numbers above 0, up to 1000", where=option)
    return values


def words(text: str, option: str, *, known: Sequence[str]) -> tuple[str, ...]:
    """`a,b` as distinct words out of `known`; an empty text is no word."""
    values = tuple(part.strip() for part in text.split(",") if part.strip())
    for value in values:
        if value not in known:
            raise UserError(f"unknown {value!r}: choose from {', '.join(known)}", where=option)
    return tuple(dict.fromkeys(values))


def _is_extent(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12 and 0 < int(text) < EXTENT_MAX
