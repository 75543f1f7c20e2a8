"""Orloj's batcher: events in, batches and drops out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantdl.errors import InvariantError
from tenantdl.ids import RequestId
from tenantdl.sched.batching.messages import (
    Arrived,
    Batch,
    BatchId,
    Cancelled,
    Command,
    Drop,
    Finished,
    QueueId,
    Request,
    SlotId,
    Tick,
    Why,
)
from tenantdl.sched.batching.orloj import DynamicQueue, Orloj, OrlojConfig
from tenantdl.units import Ns

# A batch of k takes 10 + k·(the longest alone) / 2.
QUEUE = DynamicQueue("q", Ns(10), 0.5, (Ns(100),), (1, 2, 4))


def config(*, queues: int = 1, slots: int = 1, ranking: str = "argmax") -> OrlojConfig:
    return OrlojConfig((QUEUE,) * queues, slots, Ns(50), ranking)


def arrived(number: int, deadline: int, queue: int = 0, group: int = 0) -> Arrived:
    return Arrived(QueueId(queue), (Request(RequestId(number), Ns(0), Ns(deadline), group),))


def finished(batch: int, *works: int, elapsed: int = 60) -> Finished:
    return Finished(
        SlotId(0), BatchId(batch), Ns(0), Ns(elapsed), tuple(Ns(work) for work in works)
    )


def batches(commands: list[Command]) -> list[list[int]]:
    return [[r.id for r in c.requests] for c in commands if isinstance(c, Batch)]


def dropped(commands: list[Command]) -> list[int]:
    return [c.request.id for c in commands if isinstance(c, Drop)]


@pytest.mark.parametrize("ranking", ["argmax", "hull"])
def test_without_variance_the_order_is_that_of_latest_starts(ranking: str) -> None:
    orloj = Orloj(config(ranking=ranking))
    assert batches(orloj.handle(arrived(0, 1000), Ns(0))) == [[0]]
    deadlines = {1: 205, 2: 390, 3: 150, 4: 270}
    for number, deadline in deadlines.items():
        assert orloj.handle(arrived(number, deadline), Ns(1)) == []
    served, now = [], 0
    for batch in range(1, 5):
        now += 60
        served += batches(orloj.handle(finished(batch, 100), Ns(now)))
    # Each alone: two at once (110 ns) would be late for the earliest deadline every time.
    assert served == [[3], [1], [4], [2]]


def test_the_largest_batch_that_is_in_time_for_the_earliest_deadline() -> None:
    for deadline, size in ((700, 4), (269, 2), (169, 1)):
        orloj = Orloj(config())
        orloj.handle(arrived(0, 1000), Ns(0))
        for number in range(1, 6):
            orloj.handle(arrived(number, deadline + number - 1), Ns(0))
        assert [len(b) for b in batches(orloj.handle(finished(1), Ns(60)))] == [size]


def test_what_cannot_be_in_time_is_dropped_at_the_next_choice() -> None:
    orloj = Orloj(config())
    assert dropped(orloj.handle(arrived(0, 59), Ns(0))) == [0]
    orloj.handle(arrived(1, 1000), Ns(0))
    orloj.handle(arrived(2, 119), Ns(0))
    orloj.handle(arrived(3, 120), Ns(0))
    commands = orloj.handle(finished(1), Ns(60))
    assert (dropped(commands), batches(commands)) == ([2], [[3]])


def test_groups_are_told_apart_once_they_are_known() -> None:
    orloj = Orloj(config())
    for number in range(40):  # group 0 takes 20 alone, group 1 takes 200
        orloj.handle(arrived(number, 10**6, group=number % 2), Ns(number))
        orloj.handle(finished(number + 1, 200 if number % 2 else 20), Ns(number))
    assert orloj.handle(arrived(50, 10**6), Ns(100)) != []
    # Both have 150 left at 200: too little for group 1, plenty for group 0.
    orloj.handle(arrived(51, 300, group=1), Ns(100))
    orloj.handle(arrived(52, 300, group=0), Ns(100))
    commands = orloj.handle(finished(41, 20), Ns(200))
    assert (dropped(commands), batches(commands)) == ([51], [[52]])


def test_the_queue_that_would_lose_more_goes_first() -> None:
    orloj = Orloj(config(queues=2))
    orloj.handle(arrived(0, 1000), Ns(0))
    orloj.handle(arrived(1, 400, queue=0), Ns(0))
    orloj.handle(arrived(2, 150, queue=1), Ns(0))
    assert batches(orloj.handle(finished(1), Ns(60))) == [[2]]


def test_cancelling_and_impossible_events() -> None:
    orloj = Orloj(config())
    orloj.handle(arrived(0, 1000), Ns(0))
    event = arrived(1, 1000)
    orloj.handle(event, Ns(0))
    cancelled = Cancelled(QueueId(0), event.requests[0])
    assert orloj.handle(cancelled, Ns(1)) == [Drop(QueueId(0), event.requests[0], Why.CANCELLED)]
    assert orloj.handle(cancelled, Ns(1)) == orloj.handle(Tick(), Ns(1)) == []
    assert orloj.next_wakeup() is None
    with pytest.raises(InvariantError):
        orloj.handle(finished(2), Ns(60))
    with pytest.raises(InvariantError):
        Orloj(config(ranking="sorted"))
    with pytest.raises(TypeError):
        orloj.handle("tick", Ns(60))  # type: ignore[arg-type]


LIVES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(20, 500), st.integers(0, 2), st.integers(5, 300)),
    max_size=60,
)


@given(LIVES, st.integers(1, 2))
@settings(max_examples=60)
def test_both_rankings_live_alike_and_lose_nobody(
    life: list[tuple[int, int, int, int]], slots: int
) -> None:
    """`life`: gap, time to the deadline, group, time alone."""
    stories = [_story(ranking, life, slots) for ranking in ("argmax", "hull")]
    assert stories[0] == stories[1]
    answered = [
        r for c in stories[0] for r in (c.requests if isinstance(c, Batch) else [c.request])
    ]
    assert sorted(r.id for r in answered) == list(range(len(life)))


def _story(ranking: str, life: list[tuple[int, int, int, int]], slots: int) -> list[Command]:
    orloj = Orloj(config(slots=slots, ranking=ranking))
    running: list[tuple[int, int, Finished]] = []
    story: list[Command] = []
    starts = [0]
    for gap, *_ in life:
        starts.append(starts[-1] + gap)
    assert all(a <= b for a, b in pairwise(starts))

    def advance(until: int) -> None:
        while running and min(running)[0] <= until:
            entry = min(running)
            running.remove(entry)
            note(orloj.handle(entry[2], Ns(entry[0])), entry[0])

    def note(commands: list[Command], now: int) -> None:
        story.extend(commands)
        for c in commands:
            if isinstance(c, Batch):
                works = tuple(Ns(life[r.id][3]) for r in c.requests)
                elapsed = 10 + len(works) * max(works) // 2
                report = Finished(c.slot, c.batch, Ns(now), Ns(elapsed), works)
                running.append((now + elapsed, c.batch, report))

    for number, (at, (_, slo, group, _)) in enumerate(zip(starts[1:], life, strict=True)):
        advance(at)
        note(orloj.handle(arrived(number, at + slo, group=group), Ns(at)), at)
    advance(10**9)
    return story
