"""Applications of a workload file: several models joined to a DAG, with one end-to-end target.

The daemon serves each as one model under its name; the planner plans it.

profiles = ["profiles.json"]     # tables of measured latency; bundles' own figures come after

[[application]]
name = "ocr"
slo_ms = 900
rate = 2                         # requests a second
glue = "ocr"                     # what happens between the models (`tenantdl.glue`)

[[application.module]]
name = "detect"
model = "ppocr_det"              # in a profile table; or bundle = "ppocr_det.bundle"

[[application.module]]
name = "read"
model = "ppocr_rec"
after = ["detect"]
fan_out = 6                      # mean calls for one request of the application
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from tenantdl.errors import UserError
from tenantdl.load.sections import Digest

Positive = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=65536)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
MODULES_MAX = 16


class ModuleSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model of an application. `after`: the modules whose results it takes; `fan_out`: its mean
    calls for one request of the application, `fan_out_max`: the most. Served: `calls_max` calls of
    all requests are under way at once, `arenas` of them begun."""

    name: Name
    model: Name | None = None
    bundle: str | None = None
    after: tuple[Name, ...] = ()
    fan_out: Positive = 1.0
    fan_out_max: Count = 256
    calls_max: Count = 16
    arenas: Annotated[int, Meta(ge=1, le=64)] = 2

    @property
    def bundle_name(self) -> str:
        """The bundle's folder: `model` stands for the bundle of that name."""
        return self.bundle or f"{self.model}.bundle"


class ApplicationSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An application: `rate` requests a second, each to be answered within `slo_ms`. Served: `glue`
    joins the models; `queue_max` requests are inside at once; `timeout_ms`, `priority`,
    `token_sha256` and `shared_memory` are those of a tenant."""

    name: Name
    slo_ms: Positive
    rate: Positive
    glue: str = "pass"
    queue_max: Count = 16
    timeout_ms: Positive | None = None
    priority: Annotated[int, Meta(ge=0, le=100)] = 1
    token_sha256: tuple[Digest, ...] = ()
    shared_memory: bool = False
    module: Annotated[tuple[ModuleSection, ...], Meta(min_length=1, max_length=MODULES_MAX)]

    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (before, after) of module numbers."""
        numbers = {module.name: number for number, module in enumerate(self.module)}
        return tuple(
            (numbers[before], number)
            for number, module in enumerate(self.module)
            for before in module.after
        )


class PlanSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Present where the daemon is to follow a plan (`tenantdl plan` shows it). Rates are looked at
    every `period_s`, and planned for anew when they are off by more than the share `drift`.
    `margin`: for so much more than the rates is planned (`tenantdl plan --hold` finds out how
    much chance takes)."""

    period_s: Positive = 10.0
    drift: Annotated[float, Meta(gt=0, le=10)] = 0.2
    margin: Annotated[float, Meta(ge=0, le=10)] = 0.0


def check_applications(applications: tuple[ApplicationSection, ...], where: str) -> None:
    """Check what types cannot say: names, references, cycles. Raises UserError, in one line."""
    names = [application.name for application in applications]
    for index, application in enumerate(applications):
        key = f"application[{index}]"
        if names.index(application.name) != index:
            raise UserError(f"{key}.name: {application.name!r} is there twice", where=where)
        _check_modules(application, key, where)


def _check_modules(application: ApplicationSection, key: str, where: str) -> None:
    names = [module.name for module in application.module]
    for index, module in enumerate(application.module):
        at = f"{key}.module[{index}]"
        if names.index(module.name) != index:
            raise UserError(f"{at}.name: {module.name!r} is there twice", where=where)
        if (module.model is None) == (module.bundle is None):
            raise UserError(f"{at}: give model or bundle, one of them", where=where)
        for before in module.after:
            if before not in names:
                raise UserError(f"{at}.after: there is no module {before!r}", where=where)
        if len(set(module.after)) < len(module.after):
            raise UserError(f"{at}.after: a module is there twice", where=where)
    left = {module.name: set(module.after) for module in application.module}
    while ready := [name for name, before in left.items() if not before]:
        left = {
            name: before.difference(ready) for name, before in left.items() if name not in ready
        }
    if left:
        raise UserError(f"{key}: modules wait for each other: {', '.join(left)}", where=where)
