"""Applications as the daemon knows them: each module is a tenant of its model, the whole looks like
a model to clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import Manifest, Plan
from tenantdl.errors import UserError
from tenantdl.glue.find import make_glue
from tenantdl.glue.work import Glue, Module, Port
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.applications import ApplicationSection, ModuleSection
from tenantdl.load.protocol import Array, datatype
from tenantdl.load.workload import TenantSection, Workload
from tenantdl.units import Ns, from_ms

VERSION = "1"
PLATFORM = "tenantdl_application"
# Room for the JSON around binary tensors, and for a number written out in JSON.
_JSON_BYTES, _NUMBER_BYTES = 256 * 1024, 32
# What the modules behind one take at most of the target, whatever their costs say.
_TAIL_MAX = 0.8


@dataclass(frozen=True, slots=True)
class Stage:
    """A module served: the tenant that its calls belong to. `tail`: what comes behind it takes so
    long by the bundles' costs, so that its own deadline is that much before the application's."""

    section: ModuleSection
    tenant: TenantId
    model: str
    tail: Ns


@dataclass(frozen=True, slots=True)
class ServedApplication:
    """An application as clients see it: the interface of `catalogue.ServedModel`."""

    name: str
    section: ApplicationSection
    glue: Glue
    stages: Mapping[str, Stage]
    version: str = VERSION

    @property
    def id(self) -> ModelId:
        """What engine and statistics call it."""
        return ModelId(self.name)

    @property
    def tenants(self) -> tuple[TenantId, ...]:
        """Who may use it: one tenant of its own name."""
        return (TenantId(self.name),)

    def body_bytes_max(self, *, binary: bool) -> int:
        """The longest body that a valid request can have."""
        return self.glue.bytes_max * (1 if binary else _NUMBER_BYTES) + _JSON_BYTES

    def output_names(self) -> list[str]:
        """Names of all outputs."""
        return [port.name for port in self.glue.outputs]

    def plan_for(self, inputs: Mapping[str, Array]) -> int:
        """0, if the inputs fit. Raises UserError that names what is off."""
        ports = {port.name: port for port in self.glue.inputs}
        for name in inputs:
            if name not in ports:
                raise UserError(f"unknown input {name!r}; model {self.name} has {sorted(ports)}")
        for name, port in ports.items():
            if name not in inputs:
                raise UserError(f"input {name!r} is missing")
            array = inputs[name]
            if array.dtype != port.dtype:
                given, needed = datatype(array.dtype.name), datatype(port.dtype)
                raise UserError(f"input {name!r} has datatype {given}, needs {needed}")
            if not _fits(array.shape, port.shape):
                raise UserError(
                    f"input {name!r} has shape {list(array.shape)}, needs {list(port.shape)}"
                    " (-1: any extent)"
                )
        size, most = sum(array.nbytes for array in inputs.values()), self.glue.bytes_max
        if size > most:
            raise UserError(f"inputs of {size} bytes; model {self.name} takes {most}")
        return 0

    def metadata(self) -> dict[str, Any]:
        """The answer to GET /v2/models/M."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [_describe(port, "datatype", "shape") for port in self.glue.inputs],
            "outputs": [_describe(port, "datatype", "shape") for port in self.glue.outputs],
        }

    def config(self) -> dict[str, Any]:
        """The answer to GET /v2/models/M/config; the graph of models as Triton's ensembles have
        it."""
        ports = {"input": self.glue.inputs, "output": self.glue.outputs}
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "tenantdl",
            "max_batch_size": 0,
            **{
                side: [_describe(port, "data_type", "dims", "TYPE_") for port in each]
                for side, each in ports.items()
            },
            "version_policy": {"specific": {"versions": [int(VERSION)]}},
            "ensemble_scheduling": {
                "step": [
                    {"model_name": stage.model, "model_version": -1}
                    for stage in self.stages.values()
                ]
            },
        }


def with_stages(workload: Workload) -> Workload:
    """The workload with a tenant for every module of its applications. Raises UserError for a name
    that is taken."""
    stages = [
        _stage_tenant(application, module)
        for application in workload.application
        for module in application.module
    ]
    taken = {tenant.name for tenant in workload.tenant}
    for stage in stages:
        if stage.name in taken:
            raise UserError(f"tenant {stage.name} has the name of an application's module")
    return msgspec.structs.replace(workload, tenant=(*workload.tenant, *stages))


def open_applications(
    workload: Workload, models: Mapping[TenantId, str]
) -> dict[ModelId, ServedApplication]:
    """The applications of a workload, whose modules' tenants use `models`; none, where the workload
    is without stages. Raises UserError."""
    found: dict[ModelId, ServedApplication] = {}
    for section in workload.application:
        name = section.name
        if any(stage_name(name, module.name) not in models for module in section.module):
            continue
        if name in models.values():
            raise UserError(f"application {name} has the name of a model")
        if TenantId(section.name) in models:
            raise UserError(f"application {name} has the name of a tenant")
        manifests = {
            module.name: read_manifest(Path(workload.bundles) / module.bundle_name)
            for module in section.module
        }
        try:
            glue = make_glue(
                section.glue,
                {m.name: _glued(m, manifests[m.name]) for m in section.module},
            )
        except UserError as error:
            raise UserError(error.what, where=f"application {name}") from error
        tails = _tails(workload, section, manifests)
        tenants = {m.name: stage_name(section.name, m.name) for m in section.module}
        stages = {
            m.name: Stage(m, tenants[m.name], models[tenants[m.name]], tails[m.name])
            for m in section.module
        }
        found[ModelId(name)] = ServedApplication(name, section, glue, stages)
    return found


def stage_name(application: str, module: str) -> TenantId:
    """The tenant that a module's calls belong to."""
    return TenantId(f"{application}.{module}")


def _stage_tenant(application: ApplicationSection, module: ModuleSection) -> TenantSection:
    return TenantSection(
        name=stage_name(application.name, module.name),
        bundle=module.bundle_name,
        qos_ms=application.slo_ms,
        rate=application.rate * module.fan_out,
        priority=application.priority,
        queue_max=module.calls_max,
        arenas=min(module.arenas, module.calls_max),
        timeout_ms=application.timeout_ms,
    )


def _glued(module: ModuleSection, manifest: Manifest) -> Module:
    return Module(module.name, module.after, manifest.plans, manifest.metadata)


def _tails(
    workload: Workload, application: ApplicationSection, manifests: Mapping[str, Manifest]
) -> dict[str, Ns]:
    """What comes behind each module, by the longest way: mean calls × costs, spread over lanes."""
    lanes = max(len(workload.machine.lanes or workload.machine.cores), 1)
    own = {
        module.name: _cost(manifests[module.name].plans)
        * max(module.fan_out / min(lanes, max(module.fan_out, 1)), 1)
        for module in application.module
    }
    behind = {
        module.name: [m.name for m in application.module if module.name in m.after]
        for module in application.module
    }

    def tail(name: str) -> float:
        return max((own[after] + tail(after) for after in behind[name]), default=0.0)

    slo = from_ms(application.slo_ms)
    return {name: Ns(round(min(tail(name), _TAIL_MAX * slo))) for name in own}


def _cost(plans: tuple[Plan, ...]) -> float:
    """Mean cost of a request in ns over the plans, on one core."""
    costs = [sum(segment.cost_ns for segment in plan.segments) / plan.batch for plan in plans]
    return sum(costs) / len(costs)


def _fits(shape: tuple[int, ...], pattern: tuple[int, ...]) -> bool:
    return len(shape) == len(pattern) and all(
        extent == wanted or (wanted < 0 and extent > 0)
        for extent, wanted in zip(shape, pattern, strict=True)
    )


def _describe(port: Port, kind: str, shape: str, prefix: str = "") -> dict[str, Any]:
    name = "STRING" if prefix and port.dtype == "object" else datatype(port.dtype)
    return {"name": port.name, kind: prefix + name, shape: list(port.shape)}
