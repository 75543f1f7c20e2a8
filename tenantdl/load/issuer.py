"""The open-loop issuer: its own process that sends every request when it is due, come what may.

Latency counts from the *scheduled* arrival (as in MLPerf LoadGen), so that a stalled client or
server cannot hide queueing; how late the client itself was is recorded beside it. More than
`in_flight_max` requests are never open at once: what is due beyond that is recorded as dropped.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import msgspec

from tenantdl.documents import write_document
from tenantdl.errors import ExecutionError
from tenantdl.lifetime import end_with_parent
from tenantdl.load.answers import Answers
from tenantdl.load.protocol import HEADER_LENGTH
from tenantdl.units import Ns, from_seconds, to_seconds

# `status` of a request that got an answer, or none.
OK, DROPPED, BROKEN = 200, 0, 1

_LEAD_S = 0.3
_BEGUN = b"."
_GRACE_S = 60.0
# How long answers are waited for when no more requests are sent.
_PATIENCE_S = 5.0


class Stream(msgspec.Struct, frozen=True):
    """One tenant's requests: `body` (a file) is posted to `path` at each of `times` (ns).

    `qos` and `misses_max`: nothing more is sent to anyone once more than so many of these were not
    answered within `qos` ns of their time (0 and None: all are sent). `in_flight_max`: what is due
    while so many of them are open is dropped (None: only the plan's bound counts)."""

    tenant: str
    path: str
    body: str
    header_length: int
    times: list[int]
    qos: int = 0
    misses_max: int | None = None
    in_flight_max: int | None = None
    content_type: str = "application/octet-stream"


class Plan(msgspec.Struct, frozen=True):
    """What to issue to `url`. A request without an answer after `timeout_s` counts as broken.
    `compare`: look at the answers, too; those of one stream have to be alike. `one_by_one`: stream
    after stream, each request is due when the one before has been answered (times only count)."""

    url: str
    streams: list[Stream]
    in_flight_max: int
    timeout_s: float
    compare: bool = False
    one_by_one: bool = False


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One request. `stream`: its number in the plan; `scheduled`: when it was due after the start;
    `delay`: how much later it was sent; `latency`: from due to answered; all in ns. `status`: of
    HTTP, or DROPPED or BROKEN."""

    stream: int
    scheduled: Ns
    delay: Ns
    latency: Ns
    status: int


class Outcome(msgspec.Struct, frozen=True):
    """What came of a plan: a sample for every request that was due before the end, in the order of
    their answers. `begun`: the monotonic time (ns) that scheduled times count from. `stopped`: the
    end came early, a stream had missed too much. `cpu_ns`: what the issuer's process used while it
    issued. `unlike`: answers that differ from the first of their stream."""

    samples: list[Sample]
    begun: int
    stopped: bool
    cpu_ns: int
    unlike: int


def issue(plan: Plan) -> list[Sample]:
    """The samples of `drive(plan)`."""
    return drive(plan).samples


def drive(plan: Plan, on_begun: Callable[[], None] = lambda: None) -> Outcome:
    """Run `plan` in a process of its own, which takes a while to start; `on_begun` is called when
    it has. Raises ExecutionError if that process fails."""
    last = max((stream.times[-1] for stream in plan.streams if stream.times), default=0)
    with TemporaryDirectory(prefix="tenantdl-load-") as folder:
        file = Path(folder) / "plan.json"
        file.write_bytes(msgspec.json.encode(plan))
        command = [sys.executable, "-m", "tenantdl.load.issuer", str(file)]
        limit = to_seconds(last) + plan.timeout_s + _GRACE_S
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdout=pipe, stderr=pipe, preexec_fn=end_with_parent
        ) as process:
            try:
                if process.stdout and process.stdout.read(len(_BEGUN)):
                    on_begun()
                _, said = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired as error:
                raise ExecutionError(
                    f"the load issuer was still busy after {limit:.0f} s"
                ) from error
            finally:
                process.kill()
        if process.returncode:
            reason = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise ExecutionError(f"the load issuer failed: {reason}")
        return msgspec.json.decode((Path(folder) / "outcome.json").read_bytes(), type=Outcome)


class _Issuer:
    def __init__(self, plan: Plan, session: aiohttp.ClientSession) -> None:
        self._plan = plan
        self._session = session
        self._samples: list[Sample] = []
        self._open: set[asyncio.Task[None]] = set()
        self._bodies = [Path(stream.body).read_bytes() for stream in plan.streams]
        self._headers = [
            {HEADER_LENGTH: str(s.header_length), "content-type": s.content_type}
            for s in plan.streams
        ]
        self._missed = [0] * len(plan.streams)
        self._open_of = [0] * len(plan.streams)
        self._answers = Answers(len(plan.streams)) if plan.compare else None
        self._start = 0
        # What is open, by when it will be late: (that time, to break ties, stream, task).
        self._awaited: list[tuple[int, int, int, asyncio.Task[None]]] = []
        self._stopped = False

    async def run(self) -> Outcome:
        due = sorted((at, i) for i, s in enumerate(self._plan.streams) for at in s.times)
        used = time.process_time_ns()
        start = self._start = time.monotonic_ns() + from_seconds(_LEAD_S)
        os.write(sys.stdout.fileno(), _BEGUN)
        if self._plan.one_by_one:
            due, order = [], due
            for _, stream in sorted(order, key=lambda request: request[1]):
                await self._send(stream, time.monotonic_ns() - start)
        for at, stream in due:
            while (wait := start + at - time.monotonic_ns()) > 0:
                await asyncio.sleep(to_seconds(wait))
            self._look_for_late()
            if self._stopped:
                break
            if self._is_full(stream):
                self._record(stream, at, time.monotonic_ns(), DROPPED)
                continue
            self._open_of[stream] += 1
            task = asyncio.create_task(self._send(stream, at))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            if self._plan.streams[stream].misses_max is not None:
                late = start + at + self._plan.streams[stream].qos
                heapq.heappush(self._awaited, (late, id(task), stream, task))
        if self._stopped:
            await self._give_up()
        await asyncio.gather(*self._open)
        return Outcome(
            samples=self._samples,
            begun=start,
            stopped=self._stopped,
            cpu_ns=time.process_time_ns() - used,
            unlike=self._answers.unlike if self._answers else 0,
        )

    def _is_full(self, stream: int) -> bool:
        own = self._plan.streams[stream].in_flight_max
        return len(self._open) >= self._plan.in_flight_max or (
            own is not None and self._open_of[stream] >= own
        )

    async def _give_up(self) -> None:
        """What is open may still be answered, for a while; the rest is called off."""
        if self._open:
            _, left = await asyncio.wait(self._open, timeout=_PATIENCE_S)
            for task in left:
                task.cancel()

    def _look_for_late(self) -> None:
        """Count what is open and late already: a server that answers nobody has missed, too."""
        now = time.monotonic_ns()
        while self._awaited and self._awaited[0][0] <= now:
            _, _, stream, task = heapq.heappop(self._awaited)
            if not task.done():
                self._miss(stream)

    def _miss(self, stream: int) -> None:
        most = self._plan.streams[stream].misses_max
        self._missed[stream] += 1
        self._stopped |= most is not None and self._missed[stream] > most

    async def _send(self, stream: int, at: int) -> None:
        sent = time.monotonic_ns()
        try:
            async with self._session.post(
                self._plan.streams[stream].path,
                data=self._bodies[stream],
                headers=self._headers[stream],
            ) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, asyncio.CancelledError):
            status = BROKEN
        self._open_of[stream] -= 1
        self._record(stream, at, sent, status)
        if self._answers and status == OK:
            self._answers.compare(stream, body, response.headers.get(HEADER_LENGTH))

    def _record(self, stream: int, at: int, sent: int, status: int) -> None:
        start = self._start
        latency = time.monotonic_ns() - start - at
        self._samples.append(Sample(stream, Ns(at), Ns(sent - start - at), Ns(latency), status))
        # What was late when it was answered has been counted while it was open, or is now.
        self._look_for_late()
        if status == DROPPED or (status != OK and latency <= self._plan.streams[stream].qos):
            self._miss(stream)


async def _run(plan: Plan) -> Outcome:
    async with aiohttp.ClientSession(
        plan.url,
        connector=aiohttp.TCPConnector(limit=0, force_close=False),
        timeout=aiohttp.ClientTimeout(total=plan.timeout_s),
        skip_auto_headers=("accept-encoding", "user-agent", "accept"),
    ) as session:
        return await _Issuer(plan, session).run()


def main(argv: Sequence[str]) -> None:
    """Run the plan in the file `argv[0]`; leave `outcome.json` beside it."""
    file = Path(argv[0])
    plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    outcome = asyncio.run(_run(plan))
    write_document(file.with_name("outcome.json"), msgspec.json.encode(outcome))


if __name__ == "__main__":
    main(sys.argv[1:])
