"""Events in, batches and drops out. l(b) = b + 4 ms throughout, unless a test says otherwise."""

from __future__ import annotations

import pytest

from tenantdl.errors import InvariantError
from tenantdl.ids import RequestId
from tenantdl.sched.batching.batcher import Batcher
from tenantdl.sched.batching.config import BatchingConfig, Network, QueueSpec
from tenantdl.sched.batching.latency import linear
from tenantdl.sched.batching.messages import (
    Arrived,
    Batch,
    BatchId,
    Cancelled,
    Command,
    Finished,
    Pressure,
    QueueId,
    Request,
    Retimed,
    SlotId,
    Tick,
    Why,
)
from tenantdl.units import MS, Ns, from_ms

SLO = 20


def config(
    policy: str = "deferred", *, queues: int = 1, slots: int = 2, size_max: int = 8, **more: object
) -> BatchingConfig:
    spec = QueueSpec("q", linear(Ns(MS), Ns(4 * MS), size_max), Ns(SLO * MS))
    return BatchingConfig((spec,) * queues, slots, policy, **more)  # type: ignore[arg-type]


def arrived(number: int, at: float, queue: int = 0, slo: float = SLO) -> Arrived:
    request = Request(RequestId(number), from_ms(at), from_ms(at + slo))
    return Arrived(QueueId(queue), (request,))


def finished(batch: int, slot: int, began: float, elapsed: float) -> Finished:
    return Finished(SlotId(slot), BatchId(batch), from_ms(began), from_ms(elapsed))


def shown(commands: list[Command]) -> list[tuple[object, ...]]:
    """(queue, slot, requests) of batches, (request, why) of drops."""
    return [
        (c.queue, c.slot, tuple(r.id for r in c.requests))
        if isinstance(c, Batch)
        else (c.request.id, c.why)
        for c in commands
    ]


def due(batcher: Batcher) -> float | None:
    wakeup = batcher.next_wakeup()
    return None if wakeup is None else wakeup / MS


def test_a_batch_starts_at_frontrun() -> None:
    batcher = Batcher(config())
    assert batcher.handle(arrived(1, 0), Ns(0)) == []
    assert due(batcher) == 20 - 6  # one more could join until then
    assert batcher.handle(arrived(2, 1), from_ms(1)) == []
    assert due(batcher) == 20 - 7
    assert batcher.handle(Tick(), from_ms(12)) == []
    commands = batcher.handle(Tick(), from_ms(13))
    assert shown(commands) == [(0, 0, (1, 2))]
    batch = commands[0]
    assert isinstance(batch, Batch)
    assert (batch.earliest, batch.latest, batch.planned) == (13 * MS, 14 * MS, 6 * MS)
    assert due(batcher) is None


def test_starts_of_the_ablations() -> None:
    starts = {"latest": 15.0, "target-batch": 14.0, "timeout(2.5)": 2.5, "timeout(90)": 14.0}
    for policy, start in starts.items():
        batcher = Batcher(config(policy))
        assert batcher.handle(arrived(1, 0), Ns(0)) == []
        assert due(batcher) == start, policy
        assert shown(batcher.handle(Tick(), from_ms(start))) == [(0, 0, (1,))]
    for policy in ("eager", "eager-window", "fcfs"):
        assert shown(Batcher(config(policy)).handle(arrived(1, 0), Ns(0))) == [(0, 0, (1,))]


def test_a_full_batch_starts_at_once() -> None:
    batcher = Batcher(config(size_max=2))
    assert batcher.handle(arrived(1, 0), Ns(0)) == []
    assert shown(batcher.handle(arrived(2, 1), from_ms(1))) == [(0, 0, (1, 2))]


def test_the_lowest_idle_slot_is_taken() -> None:
    batcher = Batcher(config("eager", slots=3))
    slots = [shown(batcher.handle(arrived(i, 0), Ns(0)))[0][1] for i in range(3)]
    assert slots == [0, 1, 2]
    batcher.handle(finished(3, 2, 0, 5), from_ms(5))
    batcher.handle(finished(2, 1, 0, 5), from_ms(5))
    assert shown(batcher.handle(arrived(7, 5), from_ms(5))) == [(0, 1, (7,))]


@pytest.mark.parametrize(
    ("order", "first"),
    [("invalid_after", 1), ("deadline", 1), ("slack", 1), ("efficiency", 0)],
)
def test_a_free_slot_takes_the_best_ready_candidate(order: str, first: int) -> None:
    batcher = Batcher(config("eager", queues=3, slots=1, order=order))
    batcher.handle(arrived(0, 0, queue=2), Ns(0))
    for number in (1, 2):
        assert batcher.handle(arrived(number, 0, queue=0, slo=19), Ns(0)) == []
    assert batcher.handle(arrived(3, 0, queue=1, slo=17.5), Ns(0)) == []
    assert shown(batcher.handle(finished(1, 0, 0, 5), from_ms(5)))[0][0] == first


def test_a_lower_priority_number_goes_first() -> None:
    spec = config().queues[0]
    urgent = QueueSpec("urgent", spec.times, spec.slo, priority=-1)
    batcher = Batcher(BatchingConfig((spec, urgent), 1, "eager"))
    batcher.handle(arrived(0, 0), Ns(0))
    batcher.handle(arrived(1, 0, slo=15), Ns(0))
    batcher.handle(arrived(2, 0, queue=1), Ns(0))
    assert shown(batcher.handle(finished(1, 0, 0, 5), from_ms(5))) == [(1, 0, (2,))]


def test_window_drop_lets_the_batch_have_its_size_and_timeout_drop_does_not() -> None:
    for policy, expected in (
        ("eager-window", [(1, Why.FOR_THE_BATCH), (0, 0, (2, 3, 4, 5))]),
        ("eager", [(0, 0, (1,))]),
    ):
        batcher = Batcher(config(policy, slots=1))
        batcher.handle(arrived(0, 0), Ns(0))
        batcher.handle(arrived(1, 0, slo=10.5), Ns(0))
        commands = []
        for number in range(2, 6):
            commands += batcher.handle(arrived(number, 4), from_ms(4))
        commands += batcher.handle(finished(1, 0, 0, 5), from_ms(5))
        assert shown(commands) == expected, policy


def test_what_cannot_be_in_time_is_dropped_when_that_is_known() -> None:
    batcher = Batcher(config("eager", slots=1))
    assert shown(batcher.handle(arrived(0, 0, slo=4), Ns(0))) == [(0, Why.TOO_LATE)]
    batcher.handle(arrived(1, 0), Ns(0))
    batcher.handle(arrived(2, 0, slo=9), Ns(0))
    assert due(batcher) == pytest.approx(4 + 1e-6)
    assert shown(batcher.handle(Tick(), Ns(4 * MS + 1))) == [(2, Why.TOO_LATE)]
    fcfs = Batcher(config("fcfs", slots=1))
    assert shown(fcfs.handle(arrived(0, 0, slo=4), Ns(0))) == [(0, 0, (0,))]


def test_orders_and_inputs_are_sent_ahead_over_a_network() -> None:
    network = Network(Ns(MS), Ns(MS), Ns(2 * MS))
    batcher = Batcher(config("eager", slots=1, network=network))
    first = batcher.handle(arrived(1, 0), Ns(0))[0]
    assert isinstance(first, Batch)
    assert (first.earliest, first.latest) == (2 * MS, 13 * MS)
    assert batcher.handle(arrived(2, 0), Ns(0)) == []
    assert due(batcher) == 7 - 2  # free at 7
    second = batcher.handle(Tick(), from_ms(5))[0]
    assert isinstance(second, Batch)
    assert (second.slot, second.earliest) == (0, 7 * MS)
    assert batcher.handle(arrived(3, 5), from_ms(5)) == []  # one ahead is enough
    assert due(batcher) == pytest.approx(5 + 18 - 5 - 2 + 1e-6)
    assert batcher.handle(finished(1, 0, 2, 5), from_ms(7)) == []
    assert due(batcher) == 12 - 2


def test_requests_may_come_in_any_order_of_deadlines() -> None:
    batcher = Batcher(config("latest"))
    for number, slo in ((1, 20), (2, 12), (3, 15)):
        batcher.handle(arrived(number, 0, slo=slo), Ns(0))
    assert due(batcher) == 12 - 7
    assert shown(batcher.handle(Tick(), from_ms(5))) == [(0, 0, (2, 3, 1))]


def test_a_cancelled_request_leaves_its_batch() -> None:
    batcher = Batcher(config())
    events = [arrived(1, 0), arrived(2, 0)]
    for event in events:
        batcher.handle(event, Ns(0))
    cancelled = Cancelled(QueueId(0), events[0].requests[0])
    assert shown(batcher.handle(cancelled, Ns(0))) == [(1, Why.CANCELLED)]
    assert batcher.handle(cancelled, Ns(0)) == []
    assert shown(batcher.handle(Tick(), from_ms(14))) == [(0, 0, (2,))]


def test_new_times_and_pressure_move_the_window() -> None:
    batcher = Batcher(config())
    batcher.handle(arrived(1, 0), Ns(0))
    batcher.handle(Pressure(QueueId(0), 2.0), Ns(0))
    assert due(batcher) == 20 - 12
    batcher.handle(Retimed(QueueId(0), (from_ms(1), from_ms(3))), Ns(0))
    assert due(batcher) == 20 - 6
    batcher.handle(Pressure(QueueId(0), 1.0), Ns(0))
    assert due(batcher) == 20 - 3


def test_what_cannot_be_is_refused() -> None:
    batcher = Batcher(config())
    batcher.handle(Tick(), Ns(5))
    with pytest.raises(InvariantError, match="time went back"):
        batcher.handle(Tick(), Ns(4))
    with pytest.raises(InvariantError, match="no batch 1"):
        batcher.handle(finished(1, 0, 0, 0), Ns(5))
    with pytest.raises(TypeError):
        batcher.handle("tick", Ns(6))  # type: ignore[arg-type]
    with pytest.raises(InvariantError, match="order"):
        Batcher(config(order="lifo"))


def test_who_comes_behind_a_ready_candidate_does_not_change_it() -> None:
    batcher = Batcher(config("deferred", slots=1))
    assert shown(batcher.handle(arrived(0, 0, slo=6), Ns(0))) == [(0, 0, (0,))]
    batcher.handle(arrived(1, 1, slo=13), from_ms(1))
    assert due(batcher) == 8  # when two would have to begin
    assert batcher.handle(Tick(), from_ms(8)) == []
    assert batcher.handle(arrived(2, 8.5), from_ms(8.5)) == []
    # With the third the second would be late.
    assert shown(batcher.handle(finished(1, 0, 0, 8.6), from_ms(8.6))) == [(0, 0, (1,))]
    assert batcher.waiting() == [RequestId(2)]
