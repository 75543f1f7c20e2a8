"""The execution model: how long a block takes. The only place that knows.

    time = profile(segments, variant, cores) · slowdown · span · noise + overheads

`slowdown` follows, moment by moment, from what runs beside it (`CONTENTION`). `span`: a group on
two sockets shares its data across the link between them. `overheads`: handing a launch to an idle
lane; the end of a block; starting with fewer cores than wanted; going on with another number of
cores, or in another lane. A block's overheads are slowed down with it.

Contention is pluggable: a function from the pressures that each socket is under to a slowdown. In
`linear`, every launch exerts the pressure of its variant times its speed-up, and is slowed down as
its variant's table says at the sum of the others'. Caches and bandwidth are not told apart: the
tables stand for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tenantdl.ids import ModelId
from tenantdl.sched.config import PlanSpec, SchedulerConfig
from tenantdl.sched.costs import UNDISTURBED, PlanCosts
from tenantdl.sched.messages import Launch
from tenantdl.sim.machines import MachineFile
from tenantdl.units import US

# A group on two sockets takes this much longer, in 1/1000.
SPAN = 1150


class Running(NamedTuple):
    """A launch as contention sees it: `parts[s]`: of its cores in socket s; the `pressure` it
    exerts (`PlanCosts.exerts`)."""

    costs: PlanCosts
    variant: int
    pressure: int
    cores: int
    parts: tuple[int, ...]


# (machine, pressure exerted in every socket, launch) → slowdown in 1/1000.
Contention = Callable[[MachineFile, list[int], Running], int]


def linear(machine: MachineFile, exerted: list[int], running: Running) -> int:
    """Slowdown by the table of the variant, at the pressure of all others in its sockets."""
    total = 0
    for socket, part in enumerate(running.parts):
        if part:
            others = exerted[socket] - running.pressure * part // running.cores
            total += min(UNDISTURBED, others // machine.socket_cores) * part
    return running.costs.slowdown(running.variant, total // running.cores)


def none(machine: MachineFile, exerted: list[int], running: Running) -> int:
    """Nobody disturbs anybody."""
    return UNDISTURBED


CONTENTION: dict[str, Contention] = {"linear": linear, "none": none}


class ExecutionModel:
    """One machine and the models on it. `noise` is drawn by the caller, once a block."""

    def __init__(
        self, machine: MachineFile, config: SchedulerConfig, contention: str = "linear"
    ) -> None:
        self.machine = machine
        self.contention = CONTENTION[contention]
        self.sockets = -(-machine.cores // machine.socket_cores)
        # Tables that nobody's estimates touch: what is true in this world.
        self._truth = {
            (model.model, number): self._costs(plan, config)
            for model in config.models
            for number, plan in enumerate(model.plans)
        }
        told = machine.overheads()
        self._handover, self._resize, self._migrate = told.handover, told.resize, told.migrate
        self._boundary = round(machine.boundary_us * US)
        self._conflict = round(machine.conflict_us * US)

    def _costs(self, plan: PlanSpec, config: SchedulerConfig) -> PlanCosts:
        return PlanCosts(plan, config.block_target, self.machine.cores)

    def costs(self, model: ModelId, plan: int) -> PlanCosts:
        """What the plan costs in truth."""
        return self._truth[model, plan]

    def running(self, costs: PlanCosts, launch: Launch) -> Running:
        """`launch` as contention sees it."""
        parts = [0] * self.sockets
        for core in launch.cores:
            parts[core // self.machine.socket_cores] += 1
        pressure = costs.exerts(launch.variant, len(launch.cores))
        return Running(costs, launch.variant, pressure, len(launch.cores), tuple(parts))

    def work(self, running: Running, begin: int, end: int, noise: float) -> int:
        """Undisturbed ns of segments [begin, end)."""
        time: int = running.costs.at(running.variant, running.cores).between(begin, end)
        if sum(part > 0 for part in running.parts) > 1:
            time = time * SPAN // UNDISTURBED
        return max(1, round(time * noise))

    def overhead(self, launch: Launch, before: Launch | None, *, first: bool, idle: bool) -> int:
        """Ns spent around a block of `launch`, which is its `first` one or not; `before`: the
        request's last launch; `idle`: whether the lane had to be woken."""
        if not first:
            return self._boundary
        total: int = self._handover if idle else self._boundary
        total += self._conflict if len(launch.cores) < launch.wanted else 0
        if before is not None and launch.begin:
            total += self._resize if len(before.cores) != len(launch.cores) else 0
            total += self._migrate if before.lane != launch.lane else 0
        return total
