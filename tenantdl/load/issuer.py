"""The open-loop issuer: its own process that sends every request when it is due, come what may.

Latency counts from the *scheduled* arrival (as in MLPerf LoadGen), so that a stalled client or
server cannot hide queueing; how late the client itself was is recorded beside it. More than
`in_flight_max` requests are never open at once: what is due beyond that is recorded as dropped.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import msgspec

from tenantdl.errors import ExecutionError
from tenantdl.load.protocol import HEADER_LENGTH
from tenantdl.units import Ns, from_seconds, to_seconds

# `status` of a request that got no answer.
DROPPED, BROKEN = 0, 1

_LEAD_S = 0.3
_GRACE_S = 60.0


class Stream(msgspec.Struct, frozen=True):
    """One tenant's requests: `body` (a file) is posted to `path` at each of `times` (ns)."""

    tenant: str
    path: str
    body: str
    header_length: int
    times: list[int]


class Plan(msgspec.Struct, frozen=True):
    """What to issue to `url`. A request without an answer after `timeout_s` counts as broken."""

    url: str
    streams: list[Stream]
    in_flight_max: int
    timeout_s: float


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One request. `stream`: its number in the plan; `scheduled`: when it was due after the start;
    `delay`: how much later it was sent; `latency`: from due to answered; all in ns. `status`: of
    HTTP, or DROPPED or BROKEN."""

    stream: int
    scheduled: Ns
    delay: Ns
    latency: Ns
    status: int


def issue(plan: Plan) -> list[Sample]:
    """Run `plan` in a process of its own; the samples in the order of their answers.

    Raises ExecutionError if that process fails.
    """
    last = max((stream.times[-1] for stream in plan.streams if stream.times), default=0)
    with TemporaryDirectory(prefix="tenantdl-load-") as folder:
        file = Path(folder) / "plan.json"
        file.write_bytes(msgspec.json.encode(plan))
        command = [sys.executable, "-m", "tenantdl.load.issuer", str(file)]
        limit = to_seconds(last) + plan.timeout_s + _GRACE_S
        try:
            done = subprocess.run(command, capture_output=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired as error:
            raise ExecutionError(f"the load issuer was still busy after {limit:.0f} s") from error
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise ExecutionError(f"the load issuer failed: {reason}")
        return msgspec.json.decode((Path(folder) / "samples.json").read_bytes(), type=list[Sample])


class _Issuer:
    def __init__(self, plan: Plan, session: aiohttp.ClientSession) -> None:
        self._plan = plan
        self._session = session
        self._samples: list[Sample] = []
        self._open: set[asyncio.Task[None]] = set()
        self._bodies = [Path(stream.body).read_bytes() for stream in plan.streams]
        self._headers = [
            {HEADER_LENGTH: str(s.header_length), "content-type": "application/octet-stream"}
            for s in plan.streams
        ]

    async def run(self) -> list[Sample]:
        due = sorted((at, i) for i, s in enumerate(self._plan.streams) for at in s.times)
        start = time.monotonic_ns() + from_seconds(_LEAD_S)
        for at, stream in due:
            while (wait := start + at - time.monotonic_ns()) > 0:
                await asyncio.sleep(to_seconds(wait))
            if len(self._open) >= self._plan.in_flight_max:
                self._record(stream, at, start, time.monotonic_ns(), DROPPED)
                continue
            task = asyncio.create_task(self._send(stream, at, start))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        await asyncio.gather(*self._open)
        return self._samples

    async def _send(self, stream: int, at: int, start: int) -> None:
        sent = time.monotonic_ns()
        try:
            async with self._session.post(
                self._plan.streams[stream].path,
                data=self._bodies[stream],
                headers=self._headers[stream],
            ) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            status = BROKEN
        self._record(stream, at, start, sent, status)

    def _record(self, stream: int, at: int, start: int, sent: int, status: int) -> None:
        latency = time.monotonic_ns() - start - at
        self._samples.append(Sample(stream, Ns(at), Ns(sent - start - at), Ns(latency), status))


async def _run(plan: Plan) -> list[Sample]:
    async with aiohttp.ClientSession(
        plan.url,
        connector=aiohttp.TCPConnector(limit=0, force_close=False),
        timeout=aiohttp.ClientTimeout(total=plan.timeout_s),
        skip_auto_headers=("accept-encoding", "user-agent", "accept"),
    ) as session:
        return await _Issuer(plan, session).run()


def main(argv: Sequence[str]) -> None:
    """Run the plan in the file `argv[0]`; leave `samples.json` beside it."""
    file = Path(argv[0])
    plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    samples = asyncio.run(_run(plan))
    aside = file.with_name("samples.part")
    aside.write_bytes(msgspec.json.encode(samples))
    aside.rename(file.with_name("samples.json"))


if __name__ == "__main__":
    main(sys.argv[1:])
