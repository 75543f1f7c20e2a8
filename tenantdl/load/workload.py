"""The workload: one TOML file that says who is served, how fast, on which cores. The only config.

`tenantdl serve` reads the machine, server, scheduler and tenants; `tenantdl bench qos` also the
load. Units are in the names: milliseconds, seconds, requests a second. Paths are relative to the
file. Unknown keys are errors that name the nearest known one.

    bundles = "../out/bundles"

    [load]
    rate = 40                 # requests a second, all tenants together

    [[tenant]]
    name = "search"
    bundle = "minilm_l6.bundle"
    qos_ms = 120
    share = 0.25              # of the rate; or rate = 10
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, UnsetType

from tenantdl.errors import UserError, nearest
from tenantdl.ids import CoreId
from tenantdl.load.applications import ApplicationSection, PlanSection, check_applications
from tenantdl.load.arrivals import ARRIVALS
from tenantdl.load.explain import explain
from tenantdl.load.sections import LoadSection as LoadSection
from tenantdl.load.sections import MachineSection as MachineSection
from tenantdl.load.sections import ModelSection, Section
from tenantdl.load.sections import ObserveSection as ObserveSection
from tenantdl.load.sections import SchedulerSection as SchedulerSection
from tenantdl.load.sections import ServerSection as ServerSection
from tenantdl.load.sections import TenantSection as TenantSection
from tenantdl.sched.batching.policies import policy as find_batching
from tenantdl.sched.policies.names import POLICIES, find_policy
from tenantdl.units import Ns, from_ms

WORKLOAD_BYTES_MAX = 1024**2
# Ends of blocks cost a lane about 0.1 ms, so longer ones carry more; beyond the most, nothing more.
_BLOCK_LEAST_MS, _BLOCK_MOST_MS = 1.5, 4.0


class Workload(Section, frozen=True):
    """A checked workload file. `format` is always 1. `application`: models joined to a DAG, see
    `load.applications`; `profiles`: tables of measured latency to plan with."""

    model: Annotated[tuple[ModelSection, ...], Meta(max_length=256)] = ()
    tenant: Annotated[tuple[TenantSection, ...], Meta(max_length=256)] = ()
    application: Annotated[tuple[ApplicationSection, ...], Meta(max_length=256)] = ()
    profiles: tuple[str, ...] = ()
    format: Literal[1] = 1
    name: str = "workload"
    bundles: str = "."
    machine: MachineSection = MachineSection()
    server: ServerSection = ServerSection()
    observe: ObserveSection = ObserveSection()
    scheduler: SchedulerSection = SchedulerSection()
    load: LoadSection = LoadSection()
    plan: PlanSection | None = None

    def bundle_of(self, tenant: TenantSection) -> str:
        """The bundle that the tenant mostly calls, as the file names it."""
        if tenant.bundle is not None:
            return tenant.bundle
        for model in self.model:
            if model.name in tenant.models[:1]:
                return model.bundle
        raise UserError(f"tenant {tenant.name} names no bundle")

    def bundle_path(self, tenant: TenantSection) -> Path:
        """Where that bundle is; `load_workload` has made `bundles` absolute."""
        return Path(self.bundles) / self.bundle_of(tenant)

    def model_paths(self) -> dict[str, Path]:
        """Where the bundles of the models with a section of their own are, by name."""
        return {model.name: Path(self.bundles) / model.bundle for model in self.model}

    def rates(self, rate: float | None = None) -> dict[str, float]:
        """Requests a second of every tenant, where `rate` (default: the file's) is shared out
        among those without a rate of their own, by `share` (default 1)."""
        total = self.load.rate if rate is None else rate
        fixed = {t.name: t.rate for t in self.tenant if not isinstance(t.rate, UnsetType)}
        shares = {t.name: _share(t) for t in self.tenant if t.name not in fixed}
        whole = sum(shares.values())
        return {
            t.name: fixed[t.name] if t.name in fixed else total * shares[t.name] / whole
            for t in self.tenant
        }

    def block_target(self, ahead: bool) -> Ns:
        """How long a block should run: `scheduler.block_ms`, or what suits lanes that are dear to
        hand over (`ahead`): whoever comes waits a tenth of its target for the end of a block."""
        tightest = min((t.qos_ms for t in self.tenant), default=0.0) if ahead else 0.0
        most = min(max(tightest / 10, _BLOCK_LEAST_MS), _BLOCK_MOST_MS)
        return from_ms(self.scheduler.block_ms or most)

    def lane_cores(self, usable: tuple[CoreId, ...]) -> tuple[tuple[CoreId, ...], ...]:
        """The core group of every lane. Raises UserError for a core that is not `usable`."""
        cores = tuple(CoreId(core) for core in self.machine.cores) or usable
        groups = tuple(tuple(CoreId(core) for core in lane) for lane in self.machine.lanes)
        groups = groups or tuple((core,) for core in cores)
        taken = [core for group in groups for core in group]
        for core in taken:
            if core not in usable:
                raise UserError(f"core {core} is not usable here; usable: {list(usable)}")
            if core not in cores or taken.count(core) > 1:
                raise UserError(f"core {core} of a lane is not in cores, or in two lanes")
        return groups


def _share(tenant: TenantSection) -> float:
    return 1.0 if isinstance(tenant.share, UnsetType) else tenant.share


def load_workload(path: str | Path, *, partial: bool = False) -> Workload:
    """Read a workload file. Raises UserError with the file and the key. A `partial` one is not
    checked as a whole: `serving` does that."""
    file = Path(path)
    try:
        with file.open("rb") as stream:  # a pipe will do
            text = stream.read(WORKLOAD_BYTES_MAX + 1)
        if len(text) > WORKLOAD_BYTES_MAX:
            raise UserError("workload is too large", where=str(file))
        workload = _decode(text, str(file))
        if not partial:
            check_workload(workload, str(file))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from error
    folder = file.resolve().parent
    trace = workload.load.trace
    return msgspec.structs.replace(
        workload,
        bundles=str(folder / workload.bundles),
        server=msgspec.structs.replace(
            workload.server,
            **{
                key: value and str(folder / value)
                for key in ("tls_cert", "tls_key", "repository")
                if (value := getattr(workload.server, key)) is not None
            },
        ),
        profiles=tuple(str(folder / table) for table in workload.profiles),
        load=msgspec.structs.replace(workload.load, trace=trace and str(folder / trace)),
        tenant=tuple(
            msgspec.structs.replace(
                t,
                inputs=t.inputs and str(folder / t.inputs),
                onnx=str(folder / t.onnx) if t.onnx and t.onnx.endswith(".onnx") else t.onnx,
            )
            for t in workload.tenant
        ),
    )


def serving(workload: Workload | None, server: Mapping[str, Any]) -> Workload:
    """`workload` with the keys of `server` that are not None in its server section. Without one:
    a single tenant that may call every model of the repository. Raises UserError."""
    if workload is None:
        if server.get("repository") is None:
            raise UserError("give a workload file, --model-repository DIR, or both")
        workload = Workload(tenant=(TenantSection(name="default", qos_ms=1000, queue_max=256),))
    given = {key: value for key, value in server.items() if value is not None}
    section = msgspec.structs.replace(workload.server, **given)
    workload = msgspec.structs.replace(workload, server=section)
    check_workload(workload)
    return workload


def parse_workload(text: bytes | str, where: str = "workload") -> Workload:
    """Check a workload's TOML; paths stay as they are. Raises UserError."""
    workload = _decode(text, where)
    check_workload(workload, where)
    return workload


def _decode(text: bytes | str, where: str) -> Workload:
    try:
        return msgspec.toml.decode(text, type=Workload)
    except msgspec.ValidationError as error:
        raise UserError(explain(str(error), Workload), where=where) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not TOML: {error}", where=where) from error


def json_schema() -> dict[str, Any]:
    """JSON schema of the workload file, for editors (docs/workload.schema.json)."""
    schema = msgspec.json.schema(Workload)
    for kind in schema["$defs"].values():
        kind["description"] = " ".join(kind.get("description", "").split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def check_workload(workload: Workload, where: str = "workload") -> None:
    """Check what types cannot say: names, policies, arrivals. Raises UserError."""
    if (workload.server.tls_cert is None) != (workload.server.tls_key is None):
        raise UserError("server.tls_cert: goes with server.tls_key", where=where)
    if not workload.tenant and not workload.application:
        raise UserError("object missing required field tenant (or application)", where=where)
    check_applications(workload.application, where)
    models = [model.name for model in workload.model]
    for index, model in enumerate(workload.model):
        if models.index(model.name) != index:
            raise UserError(f"model[{index}].name: {model.name!r} is there twice", where=where)
    names = [tenant.name for tenant in workload.tenant]
    for index, tenant in enumerate(workload.tenant):
        key = f"tenant[{index}]"
        if names.index(tenant.name) != index:
            raise UserError(f"{key}.name: {tenant.name!r} is there twice", where=where)
        if not isinstance(tenant.rate, UnsetType) and not isinstance(tenant.share, UnsetType):
            raise UserError(f"{key}: give rate or share, not both", where=where)
        if tenant.arenas > tenant.queue_max:
            raise UserError(f"{key}.arenas: more than queue_max is no use", where=where)
        if tenant.bundle is not None and tenant.models:
            raise UserError(f"{key}: give bundle or models, not both", where=where)
        if tenant.batching != "off":
            _named(find_batching, tenant.batching, f"{key}.batching", where)
        if workload.server.repository is not None:
            continue  # any name may come to be there, and without names a tenant may call them all
        if tenant.bundle is None and not tenant.models:
            raise UserError(f"{key}: give bundle or models, one of them", where=where)
        for index_of, name in enumerate(tenant.models):
            _known(f"{key}.models[{index_of}]", name, models, where)
    policy = workload.scheduler.policy
    _known("scheduler.policy", policy.partition("(")[0], sorted(POLICIES), where)
    _named(find_policy, policy, "scheduler.policy", where)
    _known("load.arrivals", workload.load.arrivals, sorted(ARRIVALS), where)
    if workload.load.pace and not any(workload.load.pace):
        raise UserError("load.pace: one of the rates at least must be above 0", where=where)
    if (workload.load.arrivals == "trace") != (workload.load.trace is not None):
        raise UserError('load.trace: a file, if and only if arrivals = "trace"', where=where)


def _named(find: Callable[[str], object], name: str, key: str, where: str) -> None:
    """Have `find` refuse a bad name, and say where it is."""
    try:
        find(name)
    except UserError as error:
        raise UserError(f"{key}: {error.what}", where=where) from error


def _known(key: str, value: str, known: list[str], where: str) -> None:
    if value not in known:
        raise UserError(f"{key}: {value!r} is unknown{nearest(value, known)}", where=where)
