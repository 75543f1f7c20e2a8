"""Names of policies, and the choice between deferring and starting at once."""

from __future__ import annotations

import pytest

from tenantdl.errors import UserError
from tenantdl.ids import RequestId
from tenantdl.sched.batching.config import Network, QueueSpec
from tenantdl.sched.batching.latency import linear
from tenantdl.sched.batching.messages import Request
from tenantdl.sched.batching.policies import POLICIES, adaptive, policy
from tenantdl.sched.batching.queue import Queue
from tenantdl.units import MS, SECOND, Ns


@pytest.mark.parametrize(
    "name", ["symphony", "timeout", "timeout()", "timeout(-1)", "timeout(1ms)"]
)
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"choose from deferred, .*timeout\(MS\)"):
        policy(name)


def test_a_queue_defers_while_it_keeps_several_slots_busy() -> None:
    queue = Queue(QueueSpec("q", linear(Ns(MS), Ns(4 * MS), 16), Ns(20 * MS)), Network())
    queue.push((Request(RequestId(0), Ns(0), Ns(SECOND)),), 0)
    queue.deadline = SECOND
    assert adaptive(queue, 1, 0) == 0  # nothing known yet
    defers = []
    for slots in (1.4, 1.2, 1.4, 1.6, 1.4):
        queue.meter.known, queue.slots = True, slots
        defers.append(adaptive(queue, 1, 0) > 0)
    assert defers == [False, False, False, True, True]


def test_auto_is_eager_on_few_slots() -> None:
    queue = Queue(QueueSpec("q", linear(Ns(10 * MS), Ns(0), 16), Ns(SECOND)), Network(), 2)
    queue.push(tuple(Request(RequestId(i), Ns(0), Ns(SECOND)) for i in range(8)), 0)
    queue.meter.known, queue.slots, queue.deadline = True, 2.0, SECOND
    assert adaptive(queue, 1, 0) == 0
    assert (
        POLICIES["auto"].form(0, queue, 0, 0, []) == POLICIES["eager"].form(0, queue, 0, 0, []) == 8
    )


def test_auto_makes_batches_no_larger_than_pays() -> None:
    flat = Queue(QueueSpec("q", linear(Ns(10 * MS), Ns(0), 16), Ns(SECOND)), Network())
    steep = Queue(QueueSpec("q", linear(Ns(MS), Ns(20 * MS), 16), Ns(SECOND)), Network())
    assert (flat.useful, steep.useful) == (1, 16)
    requests = tuple(Request(RequestId(i), Ns(0), Ns(SECOND)) for i in range(8))
    for queue, size in ((flat, 1), (steep, 8)):
        queue.push(requests, 0)
        assert POLICIES["auto"].form(0, queue, 0, 0, []) == size


def test_auto_makes_them_no_larger_on_few_slots_either_if_run_times_vary() -> None:
    spec = QueueSpec("q", linear(Ns(10 * MS), Ns(0), 16), Ns(SECOND), varied=True)
    queue = Queue(spec, Network(), 2)
    queue.push(tuple(Request(RequestId(i), Ns(0), Ns(SECOND)) for i in range(8)), 0)
    assert POLICIES["auto"].form(0, queue, 0, 0, []) == 1
