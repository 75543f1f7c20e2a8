"""What is logged and traced of a request that has ended."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tenantdl.daemon.observe.ended import NOBODY, Origin
from tenantdl.daemon.observe.logs import log_request, set_up
from tenantdl.daemon.observe.timeline import Timeline
from tenantdl.daemon.observe.tracing import Tracer
from tenantdl.ids import RequestId
from tenantdl.load.workload import ObserveSection
from tenantdl.logs import JsonLines
from tenantdl.sched.messages import LaneReady
from tenantdl.units import MS, Ns
from tests.daemon.observe.test_timeline import LANE, World

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def world() -> World:
    """A request with id and trace that ran for 2 ms after 1 ms, one without, and one refused."""
    world = World()
    world.timeline = Timeline(keep_blocks=True)
    world.tell(0, LaneReady(LANE))
    return world


def ended(world: World, origin: Origin = NOBODY) -> None:
    world.timeline.origins[RequestId(1)] = origin
    world.arrive(1, now=MS)
    world.run(now=2 * MS, elapsed=2 * MS)


@pytest.fixture(autouse=True)
def _loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TENANTDL_LOG", "text")
    root = logging.getLogger("tenantdl")
    before = root.handlers, root.propagate
    yield
    root.handlers, root.propagate = before
    logging.getLogger("tenantdl.requests").setLevel(logging.NOTSET)


def test_a_request_is_one_json_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(ObserveSection(log="json", requests=True))
    ended(world, Origin("mine", f"00-{TRACE}-{SPAN}-01"))
    log_request(*world.timeline.ended)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line.pop("message") == "request 1 ('mine') of t for m: ok after 3.00 ms"
    assert line == {
        "level": "info",
        "logger": "tenantdl.requests",
        "request": 1,
        "id": "mine",
        "traceparent": f"00-{TRACE}-{SPAN}-01",
        "tenant": "t",
        "model": "m",
        "outcome": "ok",
        "total_ms": 3.0,
        "blocks": 1,
        "compute_ms": 2.0,
        "batch": 1,
        "late": False,
    }


def test_requests_are_not_logged_unless_asked_for(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(ObserveSection())
    ended(world)
    log_request(*world.timeline.ended)
    logging.getLogger("tenantdl.daemon").warning("odd")
    assert capsys.readouterr().err.endswith(" WARNING odd\n")


def test_an_exception_stays_on_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "%s", ("broken",), (type(error), error, None)
        )
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: two\nlines")


def spans(world: World, origin: Origin, sample: float) -> list[object]:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    tracer = Tracer("", sample, exporter=exporter)
    ended(world, origin)
    tracer.request(*world.timeline.ended)
    tracer.close()
    found: list[object] = exporter.get_finished_spans()
    return found


def test_spans_continue_the_clients_trace_down_to_blocks(world: World) -> None:
    found = spans(world, Origin("mine", f"00-{TRACE}-{SPAN}-01"), sample=0.0)
    by_name = {span.name: span for span in found}  # type: ignore[attr-defined]
    assert set(by_name) == {"infer m", "queue", "block 0:1"}
    root = by_name["infer m"]
    assert {f"{span.context.trace_id:032x}" for span in by_name.values()} == {TRACE}
    assert f"{root.parent.span_id:016x}" == SPAN
    assert root.attributes["tenantdl.request_id"] == "mine"
    assert root.attributes["tenantdl.outcome"] == "ok"
    assert root.end_time - root.start_time == 3 * MS
    for name, length in (("queue", MS), ("block 0:1", 2 * MS)):
        span = by_name[name]
        assert span.parent.span_id == root.context.span_id
        assert span.end_time - span.start_time == length
    assert by_name["block 0:1"].attributes["tenantdl.cores"] == (3,)


@pytest.mark.parametrize(
    ("traceparent", "sample", "expected"),
    [
        ("", 0.0, 0),
        ("", 1.0, 3),
        (f"00-{TRACE}-{SPAN}-00", 1.0, 0),  # the client said no
        ("nonsense", 1.0, 0),
    ],
)
def test_sampling(world: World, traceparent: str, sample: float, expected: int) -> None:
    assert len(spans(world, Origin("", traceparent), sample)) == expected


def test_blocks_are_not_kept_for_nothing() -> None:
    world = World()
    world.tell(0, LaneReady(LANE))
    ended(world)
    (one,) = world.timeline.ended
    assert (one.live.blocks, one.blocks, one.computed) == ([], 1, Ns(2 * MS))


def test_processes_that_are_started_log_in_the_same_form() -> None:
    set_up(ObserveSection(log="json"))
    code = "import logging; from tenantdl import logs; logs.set_up();"
    code += "logging.getLogger('tenantdl.exec').error('lane %d', 3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stderr)["message"] == "lane 3"
