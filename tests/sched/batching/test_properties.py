"""Random lives of a batcher: nothing is lost, doubled or planned late; drops as in the paper."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantdl.ids import RequestId
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.config import BatchingConfig, Network, QueueSpec
from tenantdl.sched.batching.messages import (
    Arrived,
    Batch,
    Command,
    Drop,
    Finished,
    QueueId,
    Request,
    Tick,
)
from tenantdl.sched.batching.policies import POLICIES, window_drop
from tenantdl.sched.batching.queue import Queue
from tenantdl.units import Ns

TIMES = st.lists(st.integers(0, 12), min_size=1, max_size=6).map(
    lambda steps: tuple(Ns(5 + sum(steps[: i + 1])) for i in range(len(steps)))
)
# Gap to the previous arrival, queue, time to the deadline.
ARRIVALS = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2), st.integers(1, 60)))


class Life(NamedTuple):
    batches: list[Batch]
    drops: list[Drop]


def live(batcher: Batcher, arrivals: list[tuple[int, int, int]], stretch: int) -> Life:
    """Run to the end; batches take `stretch` ns longer than planned."""
    finishing: list[tuple[int, int, Finished]] = []
    life, now, place, due = Life([], []), 0, 0, 0
    free: dict[int, int] = {}
    for _ in range(10_000):
        arrival = due + arrivals[place][0] if place < len(arrivals) else 1 << 60
        tick = batcher.next_wakeup()
        nexts = [arrival, 1 << 60 if tick is None else tick]
        nexts.append(min(finishing)[0] if finishing else 1 << 60)
        assert min(nexts) >= now
        now = min(nexts)
        commands: list[Command] = []
        if now == 1 << 60:
            assert batcher.waiting() == []
            return life
        if now == nexts[2]:
            first = min(finishing)
            finishing.remove(first)
            commands = batcher.handle(first[2], Ns(now))
        elif now == arrival:
            due = arrival
            _, queue, slo = arrivals[place]
            request = Request(RequestId(place), Ns(now), Ns(now + slo))
            place += 1
            commands = batcher.handle(Arrived(QueueId(queue), (request,)), Ns(now))
        else:
            commands = batcher.handle(Tick(), Ns(now))
        for command in commands:
            if isinstance(command, Batch):
                life.batches.append(command)
                began = max(command.earliest, free.get(command.slot, 0))
                end = began + command.planned + stretch
                free[command.slot] = end
                report = Finished(command.slot, command.batch, Ns(began), Ns(end - began))
                finishing.append((end, command.batch, report))
            else:
                life.drops.append(command)
    raise AssertionError("no end")


@pytest.mark.parametrize("policy", [*POLICIES, "timeout(0.00001)"])
@given(TIMES, ARRIVALS, st.integers(1, 3), st.booleans(), st.integers(0, 3))
@settings(max_examples=40)
def test_every_request_is_served_in_time_or_dropped_once(
    policy: str,
    times: tuple[Ns, ...],
    arrivals: list[tuple[int, int, int]],
    slots: int,
    remote: bool,
    stretch: int,
) -> None:
    network = Network(Ns(2), Ns(1), Ns(3)) if remote else Network()
    config = BatchingConfig((QueueSpec("q", times, Ns(50)),) * 3, slots, policy, network=network)
    batcher = Batcher(config)
    life = live(batcher, arrivals, stretch)
    served = [request.id for batch in life.batches for request in batch.requests]
    assert sorted(served + [drop.request.id for drop in life.drops]) == list(range(len(arrivals)))
    tally = batcher.tally()
    assert (tally.arrived, tally.served, tally.dropped) == (
        len(arrivals),
        len(served),
        len(life.drops),
    )
    if policy != "fcfs":
        assert all(batch.earliest <= batch.latest for batch in life.batches)
        for batch in life.batches:
            first = min(request.deadline for request in batch.requests)
            assert batch.latest + batch.planned + network.response == first
    else:
        assert life.drops == []


def by_the_text(deadlines: list[int], times: tuple[Ns, ...], now: int, target: int) -> list[int]:
    """Window-drop as Symphony §3 words it: the deadlines of the batch."""

    def length(size: int) -> int:
        return times[size - 1]

    tails = [k for k in range(1, min(len(times), len(deadlines)) + 1)]
    fitting = [k for k in tails if now + length(k) <= deadlines[-k]]
    size = max(min(target, max(fitting, default=0)), 1)
    kept = list(deadlines)
    while kept and now + length(size) > kept[0]:
        kept.pop(0)
    size = min(size, len(kept))
    while size and size < min(len(kept), len(times)) and now + length(size + 1) <= kept[0]:
        size += 1
    return kept[:size]


@given(TIMES, st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(1, 6))
@settings(max_examples=300)
def test_window_drop_is_that_of_the_paper(
    times: tuple[Ns, ...], deadlines: list[int], target: int
) -> None:
    queue = Queue(QueueSpec("q", times, Ns(50)), Network())
    queue.push(tuple(Request(RequestId(i), Ns(0), Ns(d)) for i, d in enumerate(deadlines)), 0)
    queue.target = min(target, len(times))
    drops: list[Command] = []
    size = window_drop(0, queue, 0, 0, drops)
    expected = by_the_text(sorted(deadlines), times, 0, queue.target)
    assert [request.deadline for request in queue.pop(size)] == expected
