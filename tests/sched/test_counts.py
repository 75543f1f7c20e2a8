"""What is counted when cores change hands, and for how long lanes stood still."""

from __future__ import annotations

from tenantdl.ids import CoreId, LaneId, RequestId
from tenantdl.sched.messages import BlockFinished, Launch, LaunchId
from tenantdl.sched.state import Counts, Lane
from tenantdl.units import Ns

ONE = RequestId(1)


def launch(
    number: int, *, begin: int, cores: int, ordered: int, wanted: int = 1, lane: int = 0
) -> Launch:
    return Launch(
        launch=LaunchId(number),
        lane=LaneId(lane),
        request=ONE,
        arena=0,
        begin=begin,
        ends=(begin + 1, begin + 2),
        preempt=True,
        earliest=Ns(ordered),
        latest=Ns(0),
        cores=tuple(CoreId(core) for core in range(cores)),
        variant=0,
        wanted=wanted,
    )


def run(
    counts: Counts, lane: Lane, before: Launch | None, *, begin: int, took: int, at: int
) -> None:
    running = lane.running
    assert running is not None
    done = BlockFinished(
        lane.id, running.launch, ONE, begin, begin + 1, Ns(took), Ns(at), running.launch
    )
    counts.block(lane, before, done)
    lane.ended = Ns(at)


def test_a_request_that_is_handed_over_resized_and_moved() -> None:
    counts, lane = Counts(), Lane(LaneId(0), 1)
    first = lane.running = launch(1, begin=0, cores=1, ordered=100, wanted=2)
    run(counts, lane, None, begin=0, took=50, at=157)  # ordered at 100, begun at 107
    assert (counts.handovers, counts.handovers_ns, counts.boundaries) == (1, 7, 0)
    run(counts, lane, first, begin=1, took=50, at=209)
    assert (counts.boundaries, counts.boundaries_ns) == (1, 2)
    assert (counts.launches, counts.conflicts, counts.conflicts_ns) == (1, 1, 100)

    lane.running = launch(2, begin=2, cores=2, ordered=190, wanted=2)  # said ahead
    run(counts, lane, first, begin=2, took=50, at=262)
    assert (counts.resizes, counts.resizes_ns, counts.handovers, counts.boundaries) == (1, 3, 1, 1)

    elsewhere = Lane(LaneId(1), 2, ended=Ns(300))
    elsewhere.running = launch(3, begin=3, cores=2, ordered=290, lane=1)
    run(counts, elsewhere, lane.running, begin=3, took=50, at=354)
    assert (counts.migrations, counts.migrations_ns, counts.resizes) == (1, 4, 1)
    assert (counts.launches, counts.handovers, counts.boundaries) == (3, 1, 1)


def test_a_new_request_is_neither_resized_nor_moved() -> None:
    counts, lane = Counts(), Lane(LaneId(0), 1)
    lane.running = launch(1, begin=0, cores=2, ordered=5)
    run(counts, lane, launch(9, begin=0, cores=1, ordered=0), begin=0, took=5, at=12)
    assert (counts.resizes, counts.migrations, counts.handovers) == (0, 0, 1)
