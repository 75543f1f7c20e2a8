"""The execution model: how long a block takes. The only place that knows.

    time = profile(segments, variant, cores) · slowdown · span · noise + overheads

`slowdown` follows, moment by moment, from what runs beside it (`contention`). `span`: a group on
two sockets shares its data across the link between them. `overheads`: handing a launch to an idle
lane; the end of a block; coming to be short of cores, once until a request has what it should;
going on with another number of cores, or in another lane. A block's overheads are slowed down with
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenantdl.ids import ModelId
from tenantdl.predict.footprint import Footprint
from tenantdl.sched.config import PlanSpec, SchedulerConfig
from tenantdl.sched.costs import UNDISTURBED, PlanCosts
from tenantdl.sched.messages import Launch
from tenantdl.sim.contention import CONTENTION, IDLE, Contention, Demand, Running
from tenantdl.sim.footprints import demand, places
from tenantdl.sim.machines import MachineFile
from tenantdl.units import US

# A group on two sockets takes this much longer, in 1/1000.
SPAN = 1150


class ExecutionModel:
    """One machine and the models on it. `noise` is drawn by the caller, once a block. `footprints`
    of models' variants (of their first plans), where `contention` goes by them."""

    def __init__(
        self,
        machine: MachineFile,
        config: SchedulerConfig,
        contention: str = "linear",
        footprints: Mapping[ModelId, Sequence[Footprint]] | None = None,
    ) -> None:
        self.machine = machine
        self._contention = CONTENTION[contention]
        self._footprints = footprints or {}
        self._demands: dict[tuple[ModelId, int, int, int], Demand] = {}
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

    def contention(self) -> Contention:
        """A machine on which nothing runs yet."""
        return self._contention(self.machine)

    def running(self, model: ModelId, plan: int, launch: Launch) -> Running:
        """`launch` of a plan as contention sees it."""
        costs, cores = self._truth[model, plan], len(launch.cores)
        return Running(
            costs,
            launch.variant,
            costs.exerts(launch.variant, cores),
            cores,
            places(launch.cores, self.machine.socket_cores),
            places(launch.cores, self.machine.domain_cores),
            self._demand(model, plan, launch.variant, cores),
        )

    def _demand(self, model: ModelId, plan: int, variant: int, cores: int) -> Demand:
        known = self._footprints.get(model)
        if known is None or plan:
            return IDLE
        key = (model, plan, variant, cores)
        if key not in self._demands:
            table = self._truth[model, plan].row(variant)
            time = self._truth[model, plan].at(variant, cores).remaining(0)
            self._demands[key] = demand(known[variant], time, table[0].remaining(0))
        return self._demands[key]

    def work(self, running: Running, begin: int, end: int, noise: float) -> int:
        """Undisturbed ns of segments [begin, end)."""
        time: int = running.costs.at(running.variant, running.cores).between(begin, end)
        if len(running.sockets) > 1:
            time = time * SPAN // UNDISTURBED
        return max(1, round(time * noise))

    def overhead(self, launch: Launch, before: Launch | None, *, first: bool, idle: bool) -> int:
        """Ns spent around a block of `launch`, which is its `first` one or not; `before`: the
        request's last launch; `idle`: whether the lane had to be woken."""
        if not first:
            return self._boundary
        total: int = self._handover if idle else self._boundary
        if _short(launch) and not (launch.begin and before is not None and _short(before)):
            total += self._conflict
        if before is not None and launch.begin:
            total += self._resize if len(before.cores) != len(launch.cores) else 0
            total += self._migrate if before.lane != launch.lane else 0
        return total


def _short(launch: Launch) -> bool:
    return len(launch.cores) < launch.wanted
