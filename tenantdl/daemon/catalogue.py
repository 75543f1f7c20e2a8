"""What is served: the models of a workload's bundles and the tenants that share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from tenantdl.bundle.load import read_manifest
from tenantdl.bundle.manifest import Padding, Plan, Tensor, short_digest
from tenantdl.bundle.select import Fit, Selector
from tenantdl.daemon.stages import ServedApplication, open_applications
from tenantdl.errors import UserError
from tenantdl.exec.lane_memory import ModelLayout, lay_out
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.protocol import Array, datatype, datatype_of
from tenantdl.load.workload import TenantSection, Workload
from tenantdl.predict.tables import ModelTables, read_tables, tabled
from tenantdl.sched.config import RESERVE, LaneSpec, ModelSpec, SchedulerConfig, TenantSpec
from tenantdl.sched.plans import compiled_batches, compiled_plan, core_load, narrowed
from tenantdl.units import MS, Ns, from_ms

VERSION = "1"
PLATFORM = "tenantdl_bundle"
# Room for the JSON around binary tensors, and for a number written out in JSON.
_JSON_BYTES, _NUMBER_BYTES = 256 * 1024, 32
# Of a model, for all its tenants together.
_SLOTS_MAX, _ARENAS_MAX = 4096, 64
# For orders and reports to come to their turn.
_BATCH_SLACK = Ns(2 * MS)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version of a model as clients see it. `id`: what scheduler and engine call it; it is never
    used again when the same version is loaded anew. `tenants`: who may use it, the first by
    default."""

    id: ModelId
    name: str
    bundle: str
    plans: tuple[Plan, ...]
    tenants: tuple[TenantId, ...]
    version: str = VERSION
    padding: Padding | None = None
    _selector: Selector = field(init=False, repr=False, compare=False)
    # What every request needs: dtypes of inputs, the longest body without and with binary data.
    _dtypes: Mapping[str, np.dtype[Any]] = field(init=False, repr=False, compare=False)
    _bytes_max: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in self.plans[0].inputs}
        sizes = [[_sizes(tensor) for tensor in plan.inputs] for plan in self.plans]
        listed = max(sum(count * _NUMBER_BYTES for _, count in each) for each in sizes)
        binary = max(sum(size for size, _ in each) for each in sizes)
        object.__setattr__(self, "_selector", Selector(self.plans, self.padding))
        object.__setattr__(self, "_dtypes", dtypes)
        object.__setattr__(self, "_bytes_max", (listed + _JSON_BYTES, binary + _JSON_BYTES))

    def body_bytes_max(self, *, binary: bool) -> int:
        """The longest body that a valid request can have."""
        return self._bytes_max[binary]

    def output_names(self) -> list[str]:
        """Names of all outputs."""
        return [tensor.name for tensor in self.plans[0].outputs]

    def plan_for(self, inputs: Mapping[str, Array]) -> int:
        """The number of the plan that takes `inputs`. Raises UserError that names what is off."""
        dtypes = self._dtypes
        for name in inputs:
            if name not in dtypes:
                raise UserError(f"unknown input {name!r}; model {self.name} has {sorted(dtypes)}")
        for name, dtype in dtypes.items():
            if name not in inputs:
                raise UserError(f"input {name!r} is missing")
            if inputs[name].dtype != dtype:
                given, needed = datatype_of(inputs[name]), datatype(dtype.name)
                raise UserError(f"input {name!r} has datatype {given}, needs {needed}")
        fit = self._fit(inputs)
        if fit is not None:
            return fit.plan
        given_shapes = {name: list(array.shape) for name, array in inputs.items()}
        known = [{t.name: list(t.shape) for t in plan.inputs} for plan in self.plans]
        raise UserError(f"no plan for input shapes {given_shapes}; model {self.name} has {known}")

    def cut(self, inputs: Mapping[str, Array], outputs: dict[str, Array]) -> dict[str, Array]:
        """Of the outputs of the plan for `inputs`, what belongs to these: some plans are longer."""
        fit = self._fit(inputs)
        return self._selector.cut(fit, outputs) if fit else outputs

    def _fit(self, inputs: Mapping[str, Array]) -> Fit | None:
        return self._selector.find({name: array.shape for name, array in inputs.items()})

    def metadata(self) -> dict[str, Any]:
        """The answer to GET /v2/models/M. A dimension in which plans differ is -1."""
        return {
            "name": self.name,
            "versions": [self.version],
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
            "version_policy": {"specific": {"versions": [int(self.version)]}},
        }

    def _merged(self, side: str) -> list[Tensor]:
        merged: list[Tensor] = []
        for same in zip(*(getattr(plan, side) for plan in self.plans), strict=True):
            shapes = zip(*(tensor.shape for tensor in same), strict=True)
            shape = tuple(s[0] if len(set(s)) == 1 else -1 for s in shapes)
            merged.append(Tensor(same[0].name, same[0].dtype, shape, 0))
        return merged


Served = ServedModel | ServedApplication


@dataclass(slots=True)
class Catalogue:
    """What is served now: models by id, tenants by name; applications, which are models to clients
    and tenants of models to the scheduler, by id. `cores`: the only numbers of cores that launches
    may have, if any are named; `interference`: tables by the names in manifests."""

    models: dict[ModelId, ServedModel]
    tenants: dict[TenantId, TenantSection]
    applications: dict[ModelId, ServedApplication] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    interference: Mapping[str, ModelTables] = field(default_factory=dict)
    # What was asked for lately, by name and version.
    _found: dict[tuple[str, str], Served] = field(default_factory=dict, init=False, repr=False)

    def add(self, model: ServedModel) -> None:
        """Serve `model`."""
        self.models[model.id] = model
        self._found.clear()

    def remove(self, model: ServedModel) -> None:
        """Serve it no more. Idempotent."""
        self.models.pop(model.id, None)
        self._found.clear()

    def all(self) -> list[Served]:
        """Everything that clients can call."""
        return [*self.models.values(), *self.applications.values()]

    def find(self, name: str, version: str = "") -> Served | None:
        """A model or application by what clients call it; without `version` the newest."""
        known = self._found.get((name, version))
        if known is not None:
            return known
        everything: Iterator[Served] = chain(self.models.values(), self.applications.values())
        found = [m for m in everything if m.name == name and version in ("", m.version)]
        # Of a version that is being replaced, the one that came last.
        newest = max(reversed(found), key=lambda model: int(model.version), default=None)
        if newest is not None:
            self._found[name, version] = newest
        return newest

    def label(self, model: ModelId) -> tuple[str, str]:
        """Name and version that clients know a model by; its id where it is gone."""
        served = self.models.get(model) or self.applications.get(model)
        return (served.name, served.version) if served else (model, "")

    def mostly(self, name: TenantId) -> ServedModel | None:
        """The newest version of the model that a tenant mostly calls."""
        first = self.tenants[name].models[:1]
        served = [m for m in self.models.values() if name in m.tenants]
        return max(reversed(served), key=lambda m: (m.name in first, int(m.version)), default=None)

    def layout(self, model: ServedModel) -> ModelLayout:
        """Memory for all that the model's tenants may have inside and under way at once."""
        users = [self.tenants[name] for name in model.tenants]
        slots = min(_SLOTS_MAX, sum(user.queue_max for user in users))
        arenas = min(_ARENAS_MAX, sum(user.arenas for user in users))
        return lay_out(model.bundle, model.plans, slots, arenas)

    def model_spec(self, model: ServedModel) -> ModelSpec:
        """What the scheduler is told about a model."""
        users = [self.tenants[name] for name in model.tenants]
        arenas = min(_ARENAS_MAX, sum(user.arenas for user in users))
        plans = [narrowed(compiled_plan(plan), self.cores) for plan in model.plans]
        if self.interference:
            manifest = read_manifest(Path(model.bundle))
            tables = self.interference.get(manifest.name)
            if tables is not None and tables.digest == short_digest(manifest):
                plans[0] = tabled(plans[0], tables)
        return ModelSpec(model.id, tuple(plans), arenas, compiled_batches(model.plans))


def open_catalogue(workload: Workload) -> Catalogue:
    """Read the manifests of a workload's bundles (`stages.with_stages` comes before). Raises
    UserError."""
    paths = dict(workload.model_paths())
    users: dict[str, list[TenantId]] = {name: [] for name in paths}
    for tenant in workload.tenant:
        names = list(tenant.models)
        if tenant.bundle is not None:
            path = workload.bundle_path(tenant)
            name = tenant.model or read_manifest(path).name
            if paths.setdefault(name, path) != path:
                raise UserError(
                    f"model {name} is served from {paths[name]} already: give one of them another"
                    f" name with tenant.model",
                    where=str(path),
                )
            names = [name]
        for name in names:
            users.setdefault(name, []).append(TenantId(tenant.name))
    models = {
        ModelId(name): open_model(ModelId(name), name, path, users[name])
        for name, path in paths.items()
        if users[name]
    }
    tenants = {TenantId(tenant.name): tenant for tenant in workload.tenant}
    used = {user: model.name for model in models.values() for user in model.tenants}
    options = workload.scheduler
    told = read_tables(Path(options.interference)) if options.interference else {}
    return Catalogue(models, tenants, open_applications(workload, used), options.cores, told)


def open_model(
    number: ModelId, name: str, path: Path, users: Sequence[TenantId], version: str = VERSION
) -> ServedModel:
    """The model whose bundle is at `path`. Raises UserError."""
    manifest = read_manifest(path)
    bundle, plans, padding = str(path), manifest.plans, manifest.padding
    return ServedModel(number, name, bundle, plans, tuple(users), version, padding)


def scheduler_config(
    workload: Workload, catalogue: Catalogue, lanes: Sequence[LaneSpec]
) -> SchedulerConfig:
    """What the scheduler is told about all this."""
    options = workload.scheduler
    return SchedulerConfig(
        policy=options.policy,
        lanes=tuple(lanes),
        models=tuple(map(catalogue.model_spec, catalogue.models.values())),
        tenants=tuple(tenant_spec(workload, catalogue, name) for name in catalogue.tenants),
        block_target=workload.block_target(ahead=True),
        blocks_max=options.blocks_max,
        refuse_infeasible=options.refuse_infeasible,
        batch_slack=_BATCH_SLACK,
        reserve=RESERVE,
    )


def tenant_spec(workload: Workload, catalogue: Catalogue, name: TenantId) -> TenantSpec:
    """What the scheduler is told about a tenant."""
    tenant = catalogue.tenants[name]
    main, rate = catalogue.mostly(name), workload.rates()[name]
    claims = not tenant.share is tenant.rate is UNSET
    return TenantSpec(
        name,
        tenant.queue_max,
        tenant.arenas,
        share=round(1000 * (tenant.core_share or 0)),
        load=core_load(rate, compiled_plan(main.plans[0])) if main and claims else 0,
        model=main.id if main else None,
        qos=from_ms(tenant.qos_ms),
        requests_ks=round(1000 * rate),
        batching="" if tenant.batching == "off" else tenant.batching,
        batch_max=tenant.batch_max,
    )


def _sizes(tensor: Tensor) -> tuple[int, int]:
    """Bytes and elements of a tensor."""
    elements = 1
    for extent in tensor.shape:
        elements *= extent
    return elements * np.dtype(tensor.dtype).itemsize, elements


def _describe(tensor: Tensor, kind: str, shape: str, prefix: str = "") -> dict[str, Any]:
    # Triton's configurations call strings by another name than its protocol.
    name = "STRING" if prefix and tensor.dtype == "object" else datatype(tensor.dtype)
    return {"name": tensor.name, kind: prefix + name, shape: list(tensor.shape)}
