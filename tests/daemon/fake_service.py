"""The front ends over HTTP and gRPC with a fake engine and a fake repository behind them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette

from tenantdl.bundle.manifest import Plan, Segment, Tensor
from tenantdl.daemon.calls import Call, Refused
from tenantdl.daemon.catalogue import Catalogue, ServedModel
from tenantdl.daemon.door import Door
from tenantdl.daemon.observe import routes as observe
from tenantdl.daemon.observe.observer import Observer
from tenantdl.daemon.protocol.access import Access
from tenantdl.daemon.protocol.control import Control
from tenantdl.daemon.protocol.grpc_server import GrpcServer
from tenantdl.daemon.protocol.http import for_operators, make_app
from tenantdl.daemon.protocol.http2 import Limits
from tenantdl.daemon.protocol.http_connection import connection_class
from tenantdl.daemon.protocol.inference import Gate
from tenantdl.daemon.statistics import Statistics, Timing
from tenantdl.errors import UserError
from tenantdl.ids import CoreId, LaneId, ModelId, TenantId
from tenantdl.load.protocol import DATATYPES
from tenantdl.load.workload import TenantSection
from tenantdl.sched.config import LaneSpec, SchedulerConfig, TenantSpec
from tenantdl.sched.messages import Reason
from tenantdl.sched.scheduler import Scheduler
from tenantdl.sched.state import Counts
from tenantdl.units import Ns

BODY_BYTES_MAX = 8 * 1024**2


def plan(batch: int) -> Plan:
    inputs = (Tensor("x", "float32", (batch, 3), 0), Tensor("k", "int64", (1,), 64))
    outputs = (Tensor("y", "float32", (batch, 3), 0), Tensor("n", "int64", (1,), 64))
    return Plan(batch, 128, inputs, outputs, (), (Segment(0, 1, 1000),), "estimated")


def echo_plan(dtype: str, shape: tuple[int, ...] = (2, 2)) -> Plan:
    x, y = Tensor("x", dtype, shape, 0), Tensor("y", dtype, shape, 0)
    return Plan(1, 128, (x,), (y,), (), (Segment(0, 1, 1000),), "estimated")


class FakeEngine:
    """Adds k to x, echoes single inputs, and refuses as it is told."""

    def __init__(self, digests: dict[str, tuple[str, ...]]) -> None:
        models = {"add": ((plan(1), plan(4)), ("alice", "bob"))}
        for name in DATATYPES.values():
            models[f"echo_{name}"] = ((echo_plan(name),), (f"echo_{name}",))
        models["echo_empty"] = ((echo_plan("float32", (0, 2)),), ("alice",))
        models["echo_large"] = ((echo_plan("float32", (1, 3, 224, 224)),), ("alice",))
        users = dict.fromkeys(t for _, tenants in models.values() for t in tenants)
        self.catalogue = Catalogue(
            {
                ModelId(name): ServedModel(
                    ModelId(name), name, name, plans, tuple(TenantId(t) for t in tenants)
                )
                for name, (plans, tenants) in models.items()
            },
            {
                TenantId(t): TenantSection(
                    name=t, qos_ms=1000, bundle="b", token_sha256=digests.get(t, ())
                )
                for t in users
            },
        )
        counts = {TenantId(t): 3 for t in users}
        self.statistics = Statistics(self.catalogue.label, lambda: counts)
        config = SchedulerConfig(
            policy="tenantdl",
            lanes=(LaneSpec(LaneId(0), (CoreId(0),)),),
            models=(),
            tenants=tuple(
                TenantSpec(TenantId(t), queue_max=8, arenas=1, qos=Ns(10**9)) for t in users
            ),
        )
        self.door = Door(Scheduler(config).book, {})
        self.observer = Observer(config, self.statistics, Counts, started=Ns(time.monotonic_ns()))
        self.ready = True
        self.reason: Reason | None = None
        self.error: Exception | None = None
        self.calls: list[Call] = []
        self.hold = False
        self.cancelled = threading.Event()

    def stir(self) -> None:
        pass

    async def infer(self, call: Call) -> tuple[dict[str, np.ndarray], Timing]:
        self.calls.append(call)
        del self.calls[:-100]
        if self.error:
            raise self.error
        if self.reason:
            raise Refused(self.reason)
        if self.hold:
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        timing = Timing(call.tenant, call.model, total=10**6, queue=10, compute_infer=500)
        self.statistics.answered(timing, Ns(time.monotonic_ns()))
        x = call.inputs["x"]
        if "k" not in call.inputs:
            return {"y": x.copy()}, timing
        k = call.inputs["k"]
        return {"y": x + k.astype(np.float32), "n": k + 1}, timing


class FakeRepository:
    """Knows "add" as served; "broken" cannot be loaded."""

    def __init__(self) -> None:
        self.ready = True
        self.done: list[tuple[str, str, str | None]] = []

    def index(self, *, ready: bool) -> list[dict[str, str]]:
        found = [{"name": "add", "version": "1", "state": "READY", "reason": ""}]
        other = {"name": "new", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded"}
        return found if ready else [*found, other]

    async def load(self, name: str, config: str | None) -> None:
        if name == "broken":
            raise UserError("failed to load 'broken', digest differs")
        self.done.append(("load", name, config))

    async def unload(self, name: str) -> None:
        self.done.append(("unload", name, None))


class FakeServer:
    """Both front ends on free ports. `digests`: of tenants' tokens; `operator`: the operator's."""

    def __init__(
        self,
        digests: dict[str, tuple[str, ...]] | None = None,
        operator: tuple[str, ...] = (),
        request_s_max: float = 20,
    ) -> None:
        self.engine = FakeEngine(digests or {})
        self.repository = FakeRepository()
        access = Access(self.engine.catalogue.tenants, operator)
        self.gate = Gate(self.engine, access, BODY_BYTES_MAX)
        self.http = self.grpc = ""
        self._control = Control(self.gate, self.repository)
        self._request_s_max = request_s_max

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeServer]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.http = "{}:{}".format(*listener.getsockname())
        up = threading.Event()

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            limits = Limits(connections=1024, patience_s=self._request_s_max)
            server = GrpcServer(self.gate, self._control, BODY_BYTES_MAX, limits)
            port = await server.start("127.0.0.1", 0, None)
            self.grpc = f"127.0.0.1:{port}"
            up.set()
            yield
            await server.stop(grace_s=0.1)

        routes = for_operators(self.gate, observe.routes(self.engine))
        more: Any = [*routes, *observe.pages()]
        config = uvicorn.Config(
            make_app(self.gate, self._control, more, lifespan),
            http=connection_class(self.gate, self._request_s_max),
            log_level="warning",
            lifespan="on",
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert up.wait(30)
            yield self
        finally:
            running.should_exit = True
            thread.join()
            listener.close()
