"""The shared model against cases worked out by hand; what all models have in common."""

from __future__ import annotations

import msgspec
import pytest

from tenantdl.ids import CoreId
from tenantdl.sched.config import one_core_plan
from tenantdl.sched.costs import PlanCosts
from tenantdl.sim.contention import CONTENTION, Demand, Running, Shared, slowdowns
from tenantdl.sim.footprints import demand, footprints, places
from tenantdl.sim.machines import load_machine
from tenantdl.sim.profiles import frontier, profile
from tenantdl.units import MS, Ns

# 16 MiB for 4 cores, 100 GB/s for all.
MACHINE = msgspec.structs.replace(load_machine("64-core"), bandwidth_gbs=100.0)
MIB = 1024**2
COSTS = PlanCosts(one_core_plan((1000,)), Ns(MS), 64)


def launch(first: int, cores: int, what: Demand) -> Running:
    group = [CoreId(core) for core in range(first, first + cores)]
    return Running(COSTS, 0, 0, cores, places(group, 64), places(group, 4), what)


def test_alone_nobody_is_slowed_down() -> None:
    greedy = launch(0, 4, Demand(80.0, 300.0, 8.0 * MIB, 0.7))
    assert slowdowns(MACHINE, [greedy]) == [pytest.approx(1.0)]


@pytest.mark.parametrize("wait", [1.0, 0.5])
def test_two_streams_that_each_fill_the_bus_take_twice_as_long(wait: float) -> None:
    """Each asks for all of it and gets half, however much of its time it waits."""
    both = [launch(at, 4, Demand(100.0, 0.0, 0.0, wait)) for at in (0, 4)]
    assert slowdowns(MACHINE, both) == pytest.approx([2.0, 2.0], rel=1e-3)


def test_a_modest_neighbour_leaves_the_streaming_one_what_it_does_not_need() -> None:
    """100 + 20 on a bus of 100: b solves 100/b + 20/(0.5 + 0.5·b·1.5/1.02) = 100."""
    first = launch(0, 4, Demand(100.0, 0.0, 0.0, 1.0))
    # Alone it uses a fifth of the bus: queue 1 + 0.2²/2 = 1.02.
    second = launch(4, 4, Demand(20.0, 0.0, 0.0, 0.5))
    slow = slowdowns(MACHINE, [first, second])
    bus = slow[0]  # queue 1.5 with and without the neighbour
    assert slow[1] == pytest.approx(0.5 + 0.5 * bus * 1.5 / 1.02, rel=1e-3)
    assert 100 / slow[0] + 20 / slow[1] == pytest.approx(100, rel=1e-3)


def test_below_saturation_the_queue_grows_with_the_square() -> None:
    """25 of 100 alone: 1 + 0.25²/2; 50 together: 1 + 0.5²/2."""
    both = [launch(at, 4, Demand(25.0, 0.0, 0.0, 1.0)) for at in (0, 4)]
    assert slowdowns(MACHINE, both) == pytest.approx([1.125 / 1.03125] * 2)


def test_working_sets_that_do_not_fit_together_miss() -> None:
    """Twice 16 MiB in a cache of 16: half is kept, the rest takes three times as long, so waiting
    doubles; 0.4 of the time was waiting. Next door nothing changes."""
    what = Demand(0.0, 1e-6, 8.0 * MIB, 0.4)
    slow = slowdowns(MACHINE, [launch(0, 2, what), launch(2, 2, what), launch(4, 2, what)])
    assert slow == pytest.approx([1.4, 1.4, 1.0], rel=1e-5)


def test_what_misses_goes_to_the_bus() -> None:
    """Half of 100 bytes/ns misses twice: 100 in all, and the queue is at its longest, 1.5. Waiting
    is (0.5 + 0.5·3·1.5) = 2.75 times what it was alone."""
    what = Demand(0.0, 100.0, 8.0 * MIB, 0.1)
    slow = slowdowns(MACHINE, [launch(0, 2, what), launch(2, 2, what)])
    assert slow == pytest.approx([0.9 + 0.1 * 2.75] * 2, rel=1e-3)


def test_leaving_undoes_entering() -> None:
    machine = Shared(MACHINE)
    what = Demand(100.0, 0.0, 0.0, 1.0)
    one, two = launch(0, 4, what), launch(4, 4, what)
    machine.enter(one)
    assert machine.slowdown(one) == 1000
    machine.enter(two)
    assert machine.slowdown(one) == pytest.approx(2000, rel=1e-3)
    machine.leave(two)
    assert machine.slowdown(one) == 1000


@pytest.mark.parametrize("name", sorted(CONTENTION))
def test_idle_launches_disturb_nobody(name: str) -> None:
    machine = CONTENTION[name](MACHINE)
    group = [launch(at, 4, Demand(0.0, 0.0, 0.0, 0.0)) for at in range(0, 64, 4)]
    for running in group:
        machine.enter(running)
    assert {machine.slowdown(running) for running in group} == {1000}


def test_modest_versions_are_slower_alone_and_suffer_less() -> None:
    """On a full machine of ResNet-50s."""
    plan = profile("resnet50")
    slow = []
    for version, print_ in enumerate(footprints("resnet50")):
        times = [sum(costs) for costs in plan.variants[version].costs]
        what = demand(print_, times[plan.variants[0].cores.index(8)], times[0])
        slow.append(slowdowns(MACHINE, [launch(at, 8, what) for at in range(0, 64, 8)])[0])
    assert slow == sorted(slow, reverse=True)
    assert slow[0] > 1.2 * slow[-1] > 1.2
    alone = [version.alone for version in frontier()]
    assert alone == sorted(alone)


def test_frontiers_of_any_number_of_versions_share_their_ends() -> None:
    assert frontier(1) == frontier(7)[:1]
    assert frontier(2) == (frontier(5)[0], frontier(5)[-1])
    assert len(footprints("googlenet", 7)) == len(frontier(7)) == 7
