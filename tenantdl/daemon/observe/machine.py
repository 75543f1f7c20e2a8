"""Blocks in numbers: who used which core for how long, in which variant, and how far predictions of
block times were off. Plain integers; times in ns."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tenantdl.daemon.observe.ended import Ended
from tenantdl.daemon.observe.window import Window
from tenantdl.ids import CoreId, LaneId, TenantId
from tenantdl.load.status import Block
from tenantdl.sched.messages import Event, LaneLost, LaneReady
from tenantdl.units import Ns

# Of a model and a tenant: name, version, tenant.
Key = tuple[str, str, TenantId]

# Actual over expected time of a block.
RATIO_BOUNDS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)


@dataclass(slots=True)
class ModelBlocks:
    """A model's blocks. `ratios`: actual over expected, up to each of RATIO_BOUNDS and beyond."""

    variants: Counter[int] = field(default_factory=Counter)
    actual: int = 0
    expected: int = 0
    ratios: list[int] = field(default_factory=lambda: [0] * (len(RATIO_BOUNDS) + 1))
    ratio_sum: float = 0.0


class MachineUse:
    """All of it. `core_busy`, `tenant_busy`: ns in blocks since the start (a tenant's, of all cores
    together); `core_window`: the same by core, lately; `models`: by name and version;
    `batches`: executions by how many requests ran in them; `lost`: deaths of lanes."""

    def __init__(self) -> None:
        self.core_busy: Counter[CoreId] = Counter()
        self.tenant_busy: Counter[TenantId] = Counter()
        self.core_window: defaultdict[CoreId, Window] = defaultdict(Window)
        self.tenant_window: defaultdict[TenantId, Window] = defaultdict(Window)
        self.models: defaultdict[tuple[str, str], ModelBlocks] = defaultdict(ModelBlocks)
        self.batches: defaultdict[Key, Counter[int]] = defaultdict(Counter)
        self.ready: set[LaneId] = set()
        self.lost: Counter[LaneId] = Counter()

    def ran(self, ended: Ended, label: tuple[str, str]) -> None:
        """A request ended. An execution counts with the first of its requests to be answered."""
        if ended.reason is None and not ended.ran.counted:
            ended.ran.counted = True
            name, version = label
            self.batches[name, version, ended.live.tenant][ended.ran.size or 1] += 1

    def lanes(self, event: Event) -> None:
        """Keep account of lanes that come and go."""
        match event:
            case LaneReady():
                self.ready.add(event.lane)
            case LaneLost():
                self.ready.discard(event.lane)
                self.lost[event.lane] += 1
            case _:
                pass

    def add(self, block: Block, label: tuple[str, str], now: Ns) -> None:
        """`block` of the model with `label` was heard of at `now`."""
        for core in block.cores:
            self.core_busy[core] += block.elapsed
            self.core_window[core].at(now).busy += block.elapsed
        together = block.elapsed * len(block.cores)
        self.tenant_busy[block.tenant] += together
        self.tenant_window[block.tenant].at(now).busy += together
        model = self.models[label]
        model.variants[block.variant] += 1
        if block.expected:
            model.actual += block.elapsed
            model.expected += block.expected
            ratio = block.elapsed / block.expected
            model.ratios[bisect_left(RATIO_BOUNDS, ratio)] += 1
            model.ratio_sum += ratio
