"""What plans for many requests are said to take, by those for fewer."""

from __future__ import annotations

from tenantdl.bundle.manifest import Call, Plan
from tenantdl.compile.costs import repeated


def call(name: str, flops: int = 0, nbytes: int = 0) -> Call:
    return Call(name, "dense", "k", (), flops, nbytes)


def plan(batch: int, *calls: Call) -> Plan:
    return Plan(batch, 64, (), (), calls, (), "estimated")


def test_calls_take_what_they_took_for_fewer_requests() -> None:
    # "a" request by request, "b" for several in one call, "join" moves bytes only.
    smaller = plan(2, call("a", 10), call("a", 10), call("b", 8), call("join", 0, 100))
    larger = plan(4, *[call("a", 10)] * 4, *[call("b", 16)] * 2, call("join", 0, 200))
    found = repeated(larger, smaller, [[70, 30, 50, 5], [40, 20, 30, 5]])
    assert found == [[70, 30, 30, 30, 100, 100, 10], [40, 20, 20, 20, 60, 60, 10]]
