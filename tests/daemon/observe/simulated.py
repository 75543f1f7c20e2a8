"""An observer that has watched a workload in virtual time: the same figures on every machine."""

from __future__ import annotations

from tenantdl.daemon.observe.observer import Observer
from tenantdl.daemon.statistics import Statistics, Timing
from tenantdl.ids import RequestId
from tenantdl.load.status import Status
from tenantdl.load.workload import parse_workload
from tenantdl.sched.messages import (
    BlockFinished,
    Command,
    Complete,
    Event,
    LaneReady,
    Reject,
    RequestArrived,
)
from tenantdl.sched.state import Counts
from tenantdl.sim.machines import load_machine
from tenantdl.sim.simulate import Scenario, run, scheduler_config
from tenantdl.units import Ns

WORKLOAD = """
name = "city"
[[tenant]]
name = "search"
bundle = "b"
profile = "googlenet"
qos_ms = 15
share = 0.5
[[tenant]]
name = "photos"
bundle = "b"
profile = "mobilenet_v2"
qos_ms = 10
share = 0.8
[[tenant]]
name = "street-cameras"
bundle = "b"
profile = "tiny_yolov2"
qos_ms = 40
share = 0.4
queue_max = 16
[[tenant]]
name = "night-batch"
bundle = "b"
profile = "ssd_resnet34"
qos_ms = 400
share = 0.06
"""


class Watched:
    """A daemon whose clock stands still; `observer` is a real one."""

    ready = True

    def __init__(self, *, rate: float = 105.0, requests: int = 1500) -> None:
        scenario = Scenario(
            parse_workload(WORKLOAD), load_machine("16-core"), "tenantdl", rate, 1, requests
        )
        config = scheduler_config(scenario)
        inside = {spec.tenant: 2 for spec in config.tenants}
        self._statistics = Statistics(lambda model: (model, "1"), lambda: inside)
        self._counts = Counts()
        self._arrived: dict[RequestId, tuple[Ns, RequestArrived]] = {}
        self._computed: dict[RequestId, int] = {}
        self.now, self._last, self._over = Ns(0), requests - 10, False
        self.observer = Frozen(
            config, self._statistics, lambda: self._counts, name="city", started=Ns(0)
        )
        self.observer.watched = self
        for lane in config.lanes:
            self.observer.note(Ns(0), LaneReady(lane.lane), [])
        result = run(scenario, observer=self._note)
        self._counts = result.outcome.counts

    def _note(self, now: Ns, event: Event, commands: list[Command]) -> None:
        if self._over:
            return
        self.now = now
        if isinstance(event, RequestArrived):
            self._arrived[event.request] = now, event
            self._over = event.request == self._last
        if isinstance(event, BlockFinished):
            taken = self._computed.get(event.request, 0) + event.elapsed
            self._computed[event.request] = taken
            # As a scheduler would that is one part in twenty too hopeful.
            self._counts.expected = Ns(event.elapsed * 20 // 21)
        self.observer.note(now, event, commands)
        for command in commands:
            if isinstance(command, Complete | Reject):
                at, arrived = self._arrived.pop(command.request)
                computed = self._computed.pop(command.request, 0)
                timing = Timing(arrived.tenant, arrived.model, total=now - at)
                timing.late = now > arrived.deadline
                timing.compute_infer = computed
                timing.queue = max(0, now - at - computed)
                if isinstance(command, Complete):
                    self._statistics.answered(timing, now)
                else:
                    self._statistics.refused(timing, command.reason.value, now)


class Frozen(Observer):
    """Asked at any time, speaks of the moment at which the run ended."""

    watched: Watched

    def status(self, now: Ns, *, ready: bool, since: int | None = None) -> Status:
        return super().status(self.watched.now, ready=ready, since=since)
