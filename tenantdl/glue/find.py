"""Glue by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points

from tenantdl.errors import UserError
from tenantdl.glue.work import Glue, Maker, Module

ENTRY_POINTS = "tenantdl.glue"
DEFAULT = "pass"
BUILT_IN = {DEFAULT: "tenantdl.glue.passing:make", "ocr": "tenantdl.glue.ocr:make"}


def make_glue(name: str, modules: Mapping[str, Module]) -> Glue:
    """The glue called `name`, for an application of `modules`.

    A name is one of `BUILT_IN`, of an installed entry point in the group `tenantdl.glue`, or
    `MODULE:FUNCTION`. Raises UserError if there is none or it does not suit the modules.
    """
    glue = _find(name)(modules)
    missing = sorted(set(modules).symmetric_difference(glue.stages))
    if missing:
        raise UserError(f"glue {name!r} is for modules {sorted(glue.stages)}: {missing} differ")
    return glue


def _find(name: str) -> Maker:
    place = BUILT_IN.get(name)
    if place is None:
        named = entry_points(group=ENTRY_POINTS, name=name)
        place = next((entry.value for entry in named), name)
    module, colon, attribute = place.partition(":")
    if not colon:
        raise UserError(f"unknown glue {name!r}; known: {', '.join(BUILT_IN)}, or MODULE:FUNCTION")
    try:
        made: Maker = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"glue {name!r} cannot be loaded: {error}") from error
    return made
