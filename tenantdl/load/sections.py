"""The sections of a workload file and their keys (`load.workload`)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tenantdl.sched.policies.names import DEFAULT

Positive = Annotated[float, Meta(ge=1e-6, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=65536)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: its keys are fields, others are errors."""


class MachineSection(Section, frozen=True):
    """`cores`: which to serve on (default: all usable). `lanes`: how they are grouped, a process
    each (default: a lane for every core)."""

    cores: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    lanes: tuple[tuple[Annotated[int, Meta(ge=0)], ...], ...] = ()


class ServerSection(Section, frozen=True):
    """Where to listen (port 0: any free one; no `grpc_port`, no gRPC). Beyond loopback only with
    TLS (`tls_cert` and `tls_key`, PEM files) or `insecure`. `repository`: a folder of NAME/VERSION
    bundles, served as well. `operator_sha256`: of the tokens that may do everything.
    `request_s_max`: how long a request may take to arrive. `body_mb_max`: bytes of requests being
    read at once, in all. `journal_mb_max`: where the journal stops."""

    host: str = "127.0.0.1"
    port: Port = 8000
    grpc_port: Port | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool = False
    repository: str | None = None
    operator_sha256: tuple[Digest, ...] = ()
    request_s_max: Positive = 20
    connections_max: Count = 1024
    body_mb_max: Positive = 256
    journal_mb_max: Positive = 256


class ObserveSection(Section, frozen=True):
    """What the daemon tells about itself. `log`: lines for people (text) or for programs (json);
    `requests`: also a line for every request. `otlp`: where OpenTelemetry spans go
    (http://collector:4318/v1/traces); `sample`: share of the requests that are traced, where the
    client has not decided."""

    log: Literal["text", "json"] = "text"
    requests: bool = False
    otlp: str | None = None
    sample: Annotated[float, Meta(ge=0, le=1)] = 0.01


class SchedulerSection(Section, frozen=True):
    """`block_ms`: how long a block should run (longer than any model: whole ones; none: a tenth of
    the tightest target, 1.5 to 4 ms). `refuse_infeasible`: refuse at arrival what cannot be in
    time, and floods by tenant share. `hang_s`: a lane silent for so long, in a block or when asked,
    is killed and restarted. `interference`: a file of tables (`tenantdl profile --tables`).
    `cores`: the only core counts that launches may have (none: all that bundles have costs for)."""

    policy: str = DEFAULT
    interference: str | None = None
    cores: tuple[Annotated[int, Meta(ge=1, le=1024)], ...] = ()
    block_ms: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    blocks_max: Annotated[int, Meta(ge=1, le=48)] = 16
    refuse_infeasible: bool = False
    hang_s: Positive = 5.0


class LoadSection(Section, frozen=True):
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


class ModelSection(Section, frozen=True):
    """A model that several tenants may call, by `name`."""

    name: Name
    bundle: str


class TenantSection(Section, frozen=True):
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
    `profile_qos_ms` and `profile_share` for target and share.

    With `token_sha256` (`tenantdl token` makes one) nobody is the tenant without one of its tokens;
    `shared_memory` lets it name regions of the server's memory then. `rate_max`: requests a second
    taken in, after `burst` at once. `core_share`: of the machine's time that it is entitled to."""

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
    token_sha256: tuple[Digest, ...] = ()
    shared_memory: bool = False
    rate_max: Positive | None = None
    burst: Count = 8
    core_share: Annotated[float, Meta(gt=0, le=1)] | None = None
    inputs: str | None = None
    in_flight_max: Count | None = None
    onnx: str | None = None
    profile: Name | None = None
    profile_qos_ms: Positive | None = None
    profile_share: Positive | None = None
