"""Mailbox and ring: what is written is read, once, in order; newer orders replace older ones."""

from __future__ import annotations

import threading

import pytest

from tenantdl.errors import ExecutionError
from tenantdl.exec.lane_memory import Mapping
from tenantdl.exec.lane_wire import CHANNEL_BYTES, ENDS_MAX, Channel, Kind, Order, Report


@pytest.fixture
def sides() -> tuple[Channel, Channel]:
    mapping = Mapping.create("test", CHANNEL_BYTES)
    other = Mapping(mapping.fd, CHANNEL_BYTES)
    mapping.close()
    return Channel(mapping.memory), Channel(other.memory)


def order(number: int, preempt: bool = True, ends: tuple[int, ...] = (3, 7)) -> Order:
    return Order(number, 100 + number, 1, 2, (3, 9), 5, 0, ends, preempt, 1 << 255 | number, 3)


def test_an_order_is_taken_once(sides: tuple[Channel, Channel]) -> None:
    owner, lane = sides
    assert not lane.waiting and lane.take(between=False) is None
    owner.post(order(5))
    assert lane.waiting
    assert lane.take(between=True) == order(5)
    assert not lane.waiting and lane.take(between=False) is None


def test_a_newer_order_replaces_an_older_one(sides: tuple[Channel, Channel]) -> None:
    owner, lane = sides
    owner.post(order(1))
    owner.post(order(2, ends=tuple(range(1, ENDS_MAX + 1))))
    assert lane.take(between=False) == order(2, ends=tuple(range(1, ENDS_MAX + 1)))
    assert lane.take(between=False) is None


def test_only_a_preempting_order_is_taken_between_blocks(sides: tuple[Channel, Channel]) -> None:
    owner, lane = sides
    owner.post(order(1, preempt=False))
    assert lane.take(between=True) is None
    assert lane.take(between=False) == order(1, preempt=False)


def test_too_many_blocks_are_refused(sides: tuple[Channel, Channel]) -> None:
    with pytest.raises(ExecutionError, match="at most"):
        sides[0].post(order(1, ends=tuple(range(ENDS_MAX + 1))))


def test_reports_come_in_order_and_the_ring_is_bounded(sides: tuple[Channel, Channel]) -> None:
    owner, lane = sides
    assert list(owner.drain()) == []
    sent = 0
    for _ in range(3):
        first = sent
        while not lane.full():
            sent += 1
            lane.report(Report(Kind.FINISHED, sent, 2**63, 3, 4, 2**40, 6, sent + 1))
        assert sent - first == 1024
        got = [report.launch for report in owner.drain()]
        assert got == list(range(first + 1, sent + 1))
    assert not lane.full()
    lane.report(Report(Kind.FAILED, 7, 8, 9, 10, 11, 12, 0))
    assert list(owner.drain()) == [Report(Kind.FAILED, 7, 8, 9, 10, 11, 12, 0)]


def test_the_beat_moves(sides: tuple[Channel, Channel]) -> None:
    owner, lane = sides
    before = owner.beat
    lane.live()
    assert owner.beat == before + 1


def test_orders_are_never_torn(sides: tuple[Channel, Channel]) -> None:
    """Written and read at full speed by two threads: each order taken is one that was written."""
    owner, lane = sides
    count = 20_000

    def write() -> None:
        for n in range(1, count + 1):
            owner.post(Order(n, n, n, n, (n,), n, n, (n, n + 1), True, n, n))

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while seen < count:
        if got := lane.take(between=True):
            n = got.launch
            assert got == Order(n, n, n, n, (n,), n, n, (n, n + 1), True, n, n)
            assert n > seen
            seen = n
    writer.join()
