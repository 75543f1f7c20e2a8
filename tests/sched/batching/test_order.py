"""Which ready candidate goes first where run times vary."""

from __future__ import annotations

from tenantdl.sched.batching.config import Network, QueueSpec
from tenantdl.sched.batching.learn import Patience
from tenantdl.sched.batching.order import ScoreOrder
from tenantdl.sched.batching.queue import Queue
from tenantdl.sched.batching.times import Times
from tenantdl.units import MS, SECOND, Ns


def order(waits: float, *, varied: bool = True) -> ScoreOrder:
    """Queue 0: 40 ms, must begin within 10 ms; queue 1: 5 ms, within 30 ms."""
    tables = [(Ns(40 * MS),), (Ns(5 * MS),)]
    times = [Times(table, varied=varied) for table in tables]
    made = ScoreOrder(times.__getitem__, lambda _: waits)
    for number, (table, deadline) in enumerate(zip(tables, (50 * MS, 35 * MS), strict=True)):
        queue = Queue(QueueSpec("q", table, Ns(SECOND)), Network())
        queue.size, queue.deadline = 1, deadline
        made.add(number, queue)
    return made


def test_what_takes_least_goes_first_where_all_wait_long() -> None:
    assert order(100 * MS).best(0) == 1


def test_what_is_urgent_goes_first_where_nobody_waits() -> None:
    assert order(5 * MS).best(0) == 0


def test_who_was_dropped_would_have_waited_longer() -> None:
    patience, passed_over = Patience(), Patience()
    for number in range(1000):
        patience.observe(Ns(20 * MS), served=True)
        passed_over.observe(Ns(20 * MS), served=number % 4 == 0)
    assert abs(patience.value - 20 * MS) < 0.01 * MS
    assert 70 * MS < passed_over.value < 90 * MS
    starved = Patience()
    for _ in range(1000):
        starved.observe(Ns(20 * MS), served=False)
    assert starved.value > 1000 * MS


def test_what_must_begin_first_goes_first_where_run_times_are_alike() -> None:
    assert order(100 * MS, varied=False).best(0) == 0


def test_baselines_are_never_ranked_by_score() -> None:
    for scored in (False, True):
        times = Times((Ns(10 * MS),), scored=scored)
        for i in range(600):
            times.observe(1, Ns((10 if i % 2 else 40) * MS), 1.0)
        assert times.dynamic == scored
