"""What is served: the models of a workload's bundles and the tenants that share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import Plan, Tensor
from tenantdl.errors import UserError
from tenantdl.exec.lane_memory import TenantLayout, lay_out
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.protocol import Array, datatype
from tenantdl.load.workload import TenantSection, Workload
from tenantdl.sched.config import LaneSpec, ModelSpec, SchedulerConfig, TenantSpec
from tenantdl.sched.plans import compiled_plan
from tenantdl.units import from_ms

VERSION = "1"
PLATFORM = "tenantdl_bundle"
# Room for the JSON around binary tensors, and for a number written out in JSON.
_JSON_BYTES, _NUMBER_BYTES = 256 * 1024, 32


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients see it. `tenants`: who may use it, the first by default."""

    name: ModelId
    bundle: str
    plans: tuple[Plan, ...]
    tenants: tuple[TenantId, ...]

    def body_bytes_max(self, *, binary: bool) -> int:
        """The longest body that a valid request can have."""
        most = 0
        for plan in self.plans:
            sizes = [_sizes(tensor) for tensor in plan.inputs]
            most = max(most, sum(s[0] if binary else s[1] * _NUMBER_BYTES for s in sizes))
        return most + _JSON_BYTES

    def plan_for(self, inputs: Mapping[str, Array]) -> int:
        """The number of the plan that takes `inputs`. Raises UserError that names what is off."""
        names = {tensor.name: tensor for tensor in self.plans[0].inputs}
        for name in inputs:
            if name not in names:
                raise UserError(f"unknown input {name!r}; model {self.name} has {sorted(names)}")
        for name, tensor in names.items():
            if name not in inputs:
                raise UserError(f"input {name!r} is missing")
            if inputs[name].dtype != tensor.dtype:
                given, needed = datatype(inputs[name].dtype.name), datatype(tensor.dtype)
                raise UserError(f"input {name!r} has datatype {given}, needs {needed}")
        for number, plan in enumerate(self.plans):
            if all(inputs[tensor.name].shape == tensor.shape for tensor in plan.inputs):
                return number
        given_shapes = {name: list(array.shape) for name, array in inputs.items()}
        known = [{t.name: list(t.shape) for t in plan.inputs} for plan in self.plans]
        raise UserError(f"no plan for input shapes {given_shapes}; model {self.name} has {known}")

    def metadata(self) -> dict[str, Any]:
        """The answer to GET /v2/models/M. A dimension in which plans differ is -1."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [_describe(t, "datatype", "shape") for t in self._merged("inputs")],
            "outputs": [_describe(t, "datatype", "shape") for t in self._merged("outputs")],
        }

    def config(self) -> dict[str, Any]:
        """The answer to GET /v2/models/M/config: shapes are whole, so `max_batch_size` is 0."""
        tensors = {
            key: [
                _describe(tensor, "data_type", "dims", prefix="TYPE_")
                for tensor in self._merged(f"{key}s")
            ]
            for key in ("input", "output")
        }
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "tenantdl",
            "max_batch_size": 0,
            **tensors,
            "version_policy": {"specific": {"versions": [int(VERSION)]}},
        }

    def _merged(self, side: str) -> list[Tensor]:
        merged: list[Tensor] = []
        for same in zip(*(getattr(plan, side) for plan in self.plans), strict=True):
            shapes = zip(*(tensor.shape for tensor in same), strict=True)
            shape = tuple(s[0] if len(set(s)) == 1 else -1 for s in shapes)
            merged.append(Tensor(same[0].name, same[0].dtype, shape, 0))
        return merged


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Models by name, tenants by name, and the tenants' memory in the lanes' order."""

    models: dict[ModelId, ServedModel]
    tenants: dict[TenantId, TenantSection]
    layouts: tuple[TenantLayout, ...]

    def first_programs(self) -> list[int]:
        """For each tenant, the number that lanes know its model's first plan by."""
        counts = [len(layout.programs) for layout in self.layouts]
        return [sum(counts[:index]) for index in range(len(counts))]


def open_catalogue(workload: Workload) -> Catalogue:
    """Read the manifests of a workload's bundles. Raises UserError."""
    models: dict[ModelId, ServedModel] = {}
    layouts: list[TenantLayout] = []
    for tenant in workload.tenant:
        path = workload.bundle_path(tenant)
        manifest = read_manifest(path)
        name = ModelId(tenant.model or manifest.name)
        known = models.get(name)
        if known and known.bundle != str(path):
            raise UserError(
                f"model {name} is served from {known.bundle} already: give one of them another"
                f" name with tenant.model",
                where=str(path),
            )
        users = (*known.tenants, TenantId(tenant.name)) if known else (TenantId(tenant.name),)
        models[name] = ServedModel(name, str(path), manifest.plans, users)
        layouts.append(lay_out(str(path), manifest.plans, tenant.queue_max, tenant.arenas))
    tenants = {TenantId(tenant.name): tenant for tenant in workload.tenant}
    return Catalogue(models, tenants, tuple(layouts))


def scheduler_config(
    workload: Workload, catalogue: Catalogue, lanes: Sequence[LaneSpec]
) -> SchedulerConfig:
    """What the scheduler is told about all this."""
    options, rates = workload.scheduler, workload.rates()
    return SchedulerConfig(
        policy=options.policy,
        lanes=tuple(lanes),
        models=tuple(
            ModelSpec(m.name, tuple(map(compiled_plan, m.plans))) for m in catalogue.models.values()
        ),
        tenants=tuple(
            TenantSpec(
                name,
                tenant.queue_max,
                tenant.arenas,
                model=next(m.name for m in catalogue.models.values() if name in m.tenants),
                qos=from_ms(tenant.qos_ms),
                requests_ks=round(1000 * rates[name]),
            )
            for name, tenant in catalogue.tenants.items()
        ),
        block_target=from_ms(options.block_ms),
        blocks_max=options.blocks_max,
        refuse_infeasible=options.refuse_infeasible,
    )


def _sizes(tensor: Tensor) -> tuple[int, int]:
    """Bytes and elements of a tensor."""
    elements = 1
    for extent in tensor.shape:
        elements *= extent
    return elements * np.dtype(tensor.dtype).itemsize, elements


def _describe(tensor: Tensor, kind: str, shape: str, prefix: str = "") -> dict[str, Any]:
    return {
        "name": tensor.name,
        kind: prefix + datatype(tensor.dtype),
        shape: list(tensor.shape),
    }
