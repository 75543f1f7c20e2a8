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

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tenantdl.errors import UserError, nearest
from tenantdl.ids import CoreId
from tenantdl.load.applications import ApplicationSection, PlanSection, check_applications
from tenantdl.load.arrivals import ARRIVALS
from tenantdl.load.explain import explain
from tenantdl.sched.batching.policies import policy as find_batching
from tenantdl.sched.policies import DEFAULT, POLICIES, find_policy

WORKLOAD_BYTES_MAX = 1024**2

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=65536)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class MachineSection(_Section, frozen=True):
    """`cores`: which to serve on (default: all usable). `lanes`: how they are grouped, a process
    each (default: a lane for every core)."""

    cores: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    lanes: tuple[tuple[Annotated[int, Meta(ge=0)], ...], ...] = ()


class ServerSection(_Section, frozen=True):
    """Where to listen (loopback unless told otherwise; port 0: any free one). `body_mb_max`: bytes
    of requests being read at once, in all. `journal_mb_max`: where the journal stops."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    connections_max: Count = 1024
    body_mb_max: Positive = 256
    journal_mb_max: Positive = 256


class ObserveSection(_Section, frozen=True):
    """What the daemon tells about itself. `log`: lines for people (text) or for programs (json);
    `requests`: also a line for every request. `otlp`: where OpenTelemetry spans go
    (http://collector:4318/v1/traces); `sample`: share of the requests that are traced, where the
    client has not decided."""

    log: Literal["text", "json"] = "text"
    requests: bool = False
    otlp: str | None = None
    sample: Annotated[float, Meta(ge=0, le=1)] = 0.01


class SchedulerSection(_Section, frozen=True):
    """`block_ms`: how long a block should run. `refuse_infeasible`: refuse at arrival what cannot
    be in time, and floods by tenant share. `hang_s`: a lane silent for so long in one block is
    killed and restarted."""

    policy: str = DEFAULT
    block_ms: Annotated[float, Meta(gt=0, le=100)] = 1.5
    blocks_max: Annotated[int, Meta(ge=1, le=48)] = 16
    refuse_infeasible: bool = False
    hang_s: Positive = 5.0


class LoadSection(_Section, frozen=True):
    """What the bench drives. `burstiness`: coefficient of variation of gamma gaps. `trace`: a file
    of arrival times in seconds, one a line. `pace`: how the rate steps, as relative rates of equal
    parts of the run. `in_flight_max`: the client drops what is beyond. `profile_rate`: the rate
    where published profiles stand for the bundles."""

    rate: Positive = 10.0
    profile_rate: Positive | None = None
    arrivals: str = "poisson"
    burstiness: Positive = 2.0
    trace: str | None = None
    pace: Annotated[tuple[Annotated[float, Meta(ge=0)], ...], Meta(max_length=1024)] = ()
    duration_s: Positive = 30.0
    seed: Annotated[int, Meta(ge=0)] = 1
    in_flight_max: Count = 512


class ModelSection(_Section, frozen=True):
    """A model that several tenants may call, by `name`."""

    name: Name
    bundle: str


class TenantSection(_Section, frozen=True):
    """One tenant. `models`: which it may call, mostly the first; or, for short, its own `bundle`,
    served under the name `model` (default: the bundle's own). `share` of the load's rate, or its
    own `rate`. Lower `priority` goes first. `queue_max`: requests inside at once; `arenas`: of them
    under way at once; `timeout_ms`: after so long an unfinished request is refused (default: 10
    times its QoS, at least 1 s). `inputs`: an .npz for the load (default: seeded random).
    `in_flight_max`: of its own requests, the client drops what is beyond. `batching`: how requests
    are batched where the bundle has plans for several at once: auto, off, or a policy such as
    deferred, eager, timeout(2); `batch_max`: how many at most. `onnx`: what the bundle was compiled
    from, a file or a name of the zoo, for peers (default: the bundle's name). `profile`: which
    published profile stands for the bundle in a simulation (default: its own segments), with
    `profile_qos_ms` and `profile_share` for target and share."""

    name: Name
    qos_ms: Positive
    bundle: str | None = None
    model: Name | None = None
    models: Annotated[tuple[Name, ...], Meta(max_length=256)] = ()
    share: Positive | UnsetType = UNSET
    rate: Positive | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=0, le=100)] = 1
    queue_max: Count = 64
    arenas: Annotated[int, Meta(ge=1, le=64)] = 4
    batching: str = "auto"
    batch_max: Annotated[int, Meta(ge=1, le=64)] = 16
    timeout_ms: Positive | None = None
    inputs: str | None = None
    in_flight_max: Count | None = None
    onnx: str | None = None
    profile: Name | None = None
    profile_qos_ms: Positive | None = None
    profile_share: Positive | None = None


class Workload(_Section, frozen=True):
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
        named = {model.name: model.bundle for model in self.model}
        return named[tenant.models[0]] if tenant.bundle is None else tenant.bundle

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


def load_workload(path: str | Path) -> Workload:
    """Read a workload file. Raises UserError with the file and the key."""
    file = Path(path)
    try:
        if file.stat().st_size > WORKLOAD_BYTES_MAX:
            raise UserError("workload is too large", where=str(file))
        workload = parse_workload(file.read_bytes(), where=str(file))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from error
    folder = file.resolve().parent
    trace = workload.load.trace
    return msgspec.structs.replace(
        workload,
        bundles=str(folder / workload.bundles),
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


def parse_workload(text: bytes | str, where: str = "workload") -> Workload:
    """Check a workload's TOML; paths stay as they are. Raises UserError."""
    try:
        workload = msgspec.toml.decode(text, type=Workload)
    except msgspec.ValidationError as error:
        raise UserError(explain(str(error), Workload), where=where) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not TOML: {error}", where=where) from error
    check_workload(workload, where)
    return workload


def json_schema() -> dict[str, Any]:
    """JSON schema of the workload file, for editors (docs/workload.schema.json)."""
    schema = msgspec.json.schema(Workload)
    for kind in schema["$defs"].values():
        kind["description"] = " ".join(kind.get("description", "").split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def check_workload(workload: Workload, where: str = "workload") -> None:
    """Check what types cannot say: names, policies, arrivals. Raises UserError."""
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
        if (tenant.bundle is None) != bool(tenant.models):
            raise UserError(f"{key}: give bundle or models, one of them", where=where)
        if tenant.batching != "off":
            _named(find_batching, tenant.batching, f"{key}.batching", where)
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
