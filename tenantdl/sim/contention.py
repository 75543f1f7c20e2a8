"""Who slows whom down: contention as something launches enter and leave, exchangeable by name.

linear   Every launch exerts the pressure of its variant times its speed-up and is slowed down as
         its variant's table says at the sum of the others'. Caches and bandwidth are one.
shared   Caches and bandwidth apart (MODEL), from footprints; below.
none     Nobody disturbs anybody.

`shared`, for launches i with streams s, reuse r (bytes/ns undisturbed) and waiting share m:

    cache      what is kept of a working set in a domain: k = min(1, capacity / sum of all there)
    traffic    d = s + r·(1 − k)
    waiting    w(q) = D·s·q + r·(k + (1 − k)·D·q), D: memory's latency over the cache's
    slowdown   1 − m + m · w(q) / w alone
    latency    q = b · (1 + u²/2), u = min(1, Σd / bandwidth): queues grow as the bus fills
    bus        b ≥ 1 is the least with Σ d/slowdown ≤ bandwidth: nobody gets more than there is

The last line is a balance, not a formula: who is slowed down asks for less. `alone`: with nobody
else there, since a profile has what a launch does to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tenantdl.sched.costs import UNDISTURBED, PlanCosts
from tenantdl.sim.machines import MachineFile

# Latency of memory over that of the shared cache.
MEMORY_LATENCY = 3.0
# Rounds of halving when the balance of the bus is sought; relative error 2^-12.
_HALVINGS = 12
_MIB = 1024**2

# Cores in each place (a cache domain, a socket), by its number.
Parts = tuple[tuple[int, int], ...]


class Demand(NamedTuple):
    """What a launch asks of memory: `stream` and `reuse` in bytes/ns while undisturbed, `shared`
    bytes of working set a core, `wait`: the share of its undisturbed time that waits for memory."""

    stream: float
    reuse: float
    shared: float
    wait: float


IDLE = Demand(0.0, 0.0, 0.0, 0.0)


class Running(NamedTuple):
    """A launch as contention sees it: of its `cores`, how many are in which `sockets` and cache
    `domains`; the `pressure` it exerts (`PlanCosts.exerts`)."""

    costs: PlanCosts
    variant: int
    pressure: int
    cores: int
    sockets: Parts
    domains: Parts
    demand: Demand = IDLE


class Contention(Protocol):
    """The launches that run now."""

    def enter(self, running: Running) -> None:
        """`running` begins."""

    def leave(self, running: Running) -> None:
        """`running` ends."""

    def slowdown(self, running: Running) -> int:
        """How much slower than undisturbed `running` is, in 1/1000."""


class Nobody:
    """`none`."""

    def __init__(self, machine: MachineFile) -> None: ...

    def enter(self, running: Running) -> None:
        """Nothing changes."""

    def leave(self, running: Running) -> None:
        """Nothing changes."""

    def slowdown(self, running: Running) -> int:
        """None."""
        return UNDISTURBED


class Linear:
    """`linear`."""

    def __init__(self, machine: MachineFile) -> None:
        self._cores = machine.socket_cores
        self._exerted: dict[int, int] = {}

    def enter(self, running: Running) -> None:
        """Its pressure comes on."""
        for socket, part in running.sockets:
            own = running.pressure * part // running.cores
            self._exerted[socket] = self._exerted.get(socket, 0) + own

    def leave(self, running: Running) -> None:
        """Its pressure is off."""
        for socket, part in running.sockets:
            self._exerted[socket] -= running.pressure * part // running.cores

    def slowdown(self, running: Running) -> int:
        """By the table of the variant, at the pressure of all others in its sockets."""
        total = 0
        for socket, part in running.sockets:
            others = self._exerted[socket] - running.pressure * part // running.cores
            total += min(UNDISTURBED, others // self._cores) * part
        return running.costs.slowdown(running.variant, total // running.cores)


class Shared:
    """`shared`: caches and bandwidth."""

    def __init__(self, machine: MachineFile) -> None:
        self._machine = machine
        self._running: dict[int, Running] = {}
        self._numbers: dict[int, int] = {}
        self._count = 0
        self._slow: dict[int, int] | None = None
        self._alone: dict[tuple[Demand, Parts, Parts], float] = {}

    def enter(self, running: Running) -> None:
        """Its working set and traffic come on."""
        self._count += 1
        self._running[self._count] = running
        self._numbers[id(running)] = self._count
        self._slow = None

    def leave(self, running: Running) -> None:
        """They are gone."""
        del self._running[self._numbers.pop(id(running))]
        self._slow = None

    def slowdown(self, running: Running) -> int:
        """See the module."""
        if self._slow is None:
            slow = slowdowns(self._machine, list(self._running.values()), self._alone)
            self._slow = {
                id(r): max(1, round(UNDISTURBED * value))
                for r, value in zip(self._running.values(), slow, strict=True)
            }
        return self._slow[id(running)]


CONTENTION: dict[str, Callable[[MachineFile], Contention]] = {
    "linear": Linear,
    "shared": Shared,
    "none": Nobody,
}


def slowdowns(
    machine: MachineFile,
    running: Sequence[Running],
    known: dict[tuple[Demand, Parts, Parts], float] | None = None,
) -> list[float]:
    """How much slower than alone each of `running` is when all run together (`shared`). `known`
    keeps what launches wait alone."""
    known = {} if known is None else known
    kept = kept_parts(machine, running)
    waits = []
    for launch in running:
        key = (launch.demand, launch.sockets, launch.domains)
        if key not in known:
            known[key] = _wait_alone(machine, launch)
        waits.append(known[key])
    lines = [_line(launch.demand, kept[i], waits[i]) for i, launch in enumerate(running)]
    latency = _latencies(machine, running, kept, lines)
    return [
        fixed + rate * _mean(launch.sockets, latency)
        for launch, (fixed, rate) in zip(running, lines, strict=True)
    ]


def kept_parts(machine: MachineFile, running: Sequence[Running]) -> list[float]:
    """What part of the working set of each the caches keep."""
    filled: dict[int, float] = {}
    for launch in running:
        for domain, cores in launch.domains:
            filled[domain] = filled.get(domain, 0.0) + launch.demand.shared * cores
    capacity = machine.cache_mb * _MIB
    shares = {d: min(1.0, capacity / total) if total else 1.0 for d, total in filled.items()}
    return [_mean(launch.domains, shares) for launch in running]


def _mean(parts: Parts, values: Mapping[int, float]) -> float:
    if len(parts) == 1:
        return values[parts[0][0]]
    cores = total = 0.0
    for place, count in parts:
        cores += count
        total += values[place] * count
    return total / cores


def traffic(demand: Demand, kept: float) -> float:
    """Bytes/ns to memory while a part of the working set is `kept`."""
    return demand.stream + demand.reuse * (1 - kept)


def _wait(demand: Demand, kept: float, latency: float) -> float:
    return traffic(demand, kept) * MEMORY_LATENCY * latency + demand.reuse * kept


def _line(demand: Demand, kept: float, alone: float) -> tuple[float, float]:
    """(fixed, rate): at latency q a launch is slowed down by fixed + rate · q."""
    if alone <= 0:
        return 1.0, 0.0
    part = demand.wait / alone
    memory = traffic(demand, kept) * MEMORY_LATENCY
    return 1 - demand.wait + part * demand.reuse * kept, part * memory


def _wait_alone(machine: MachineFile, launch: Running) -> float:
    """What a launch waits on an empty machine."""
    kept = kept_parts(machine, [launch])
    queues = {
        socket: _queue(
            sum(_loads(machine, [launch], kept, socket).values()) / machine.bandwidth_gbs
        )
        for socket, _ in launch.sockets
    }
    return _wait(launch.demand, kept[0], _mean(launch.sockets, queues))


def _queue(used: float) -> float:
    return 1 + min(1.0, used) ** 2 / 2


def _loads(
    machine: MachineFile, running: Sequence[Running], kept: Sequence[float], socket: int
) -> dict[int, float]:
    """Bytes/ns of each launch in a socket, undisturbed: never more than there is."""
    return {
        i: min(machine.bandwidth_gbs, traffic(launch.demand, kept[i])) * part / launch.cores
        for i, launch in enumerate(running)
        for place, part in launch.sockets
        if place == socket
    }


def _latencies(
    machine: MachineFile,
    running: Sequence[Running],
    kept: Sequence[float],
    lines: Sequence[tuple[float, float]],
) -> dict[int, float]:
    """Memory's latency in every socket, over that of an idle bus."""
    found: dict[int, float] = {}
    for socket in sorted({socket for launch in running for socket, _ in launch.sockets}):
        loads = _loads(machine, running, kept, socket)
        queue = _queue(sum(loads.values()) / machine.bandwidth_gbs)
        terms = [(load, lines[i][0], lines[i][1] * queue) for i, load in loads.items()]

        def asked(bus: float, terms: list[tuple[float, float, float]] = terms) -> float:
            return sum([load / (fixed + rate * bus) for load, fixed, rate in terms])

        found[socket] = queue * _balance(asked, machine.bandwidth_gbs)
    return found


def _balance(asked: Callable[[float], float], bandwidth: float) -> float:
    """The least b ≥ 1 with asked(b) ≤ bandwidth; `asked` falls. What does not wait for memory
    cannot be slowed down by it: then the bus is as slow as it gets."""
    if asked(1.0) <= bandwidth:
        return 1.0
    low, high = 1.0, 2.0
    while asked(high) > bandwidth and high < 64.0:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if asked(middle) > bandwidth else (low, middle)
    return high
