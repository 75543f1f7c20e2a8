"""What is wrong with a config file, in our words: the key first, a misspelt one with the nearest
known."""

from __future__ import annotations

import re
from typing import Any, get_args, get_type_hints

import msgspec

from tenantdl.errors import nearest

_AT = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*?)`")


def explain(message: str, top: type[msgspec.Struct]) -> str:
    """msgspec's `message` about a document of type `top`, as one line."""
    place = _AT.search(message)
    path = place.group(1) if place else ""
    text = _AT.sub("", message).replace("`", "")
    unknown = _UNKNOWN.search(message)
    if not unknown:
        return f"{path}: {text[:1].lower()}{text[1:]}" if path else text
    known = [field.name for field in msgspec.structs.fields(_section(top, path))]
    key = ".".join(part for part in (path, unknown.group(1)) if part)
    return f"{key}: unknown key{nearest(unknown.group(1), known)}"


def _section(top: type[msgspec.Struct], path: str) -> type[msgspec.Struct]:
    """The type of the table at `path`, such as `tenant[0]`."""
    for part in filter(None, re.sub(r"\[.*?\]", "", path).split(".")):
        top = _struct_in(get_type_hints(top).get(part)) or top
    return top


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """The struct that a hint is made of: itself, or the elements of a tuple."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next((found for part in get_args(hint) if (found := _struct_in(part))), None)
