"""Runs applications: every module's calls as soon as the modules before it are done.

Above the engine's calls, on its event loop; glue and the copying of large tensors are in threads.
All calls of a request carry its arrival and its end-to-end deadline, less what comes behind them.
The first call that fails or is refused ends the request, and the others are cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from tenantdl.daemon.calls import Call, Refused, Ticket
from tenantdl.daemon.catalogue import Catalogue, ServedModel
from tenantdl.daemon.stages import ServedApplication, Stage
from tenantdl.daemon.statistics import Statistics, Timing
from tenantdl.errors import UserError
from tenantdl.glue.work import Tensors, Work
from tenantdl.ids import TenantId
from tenantdl.sched.messages import Reason
from tenantdl.units import Ns, from_ms

_log = logging.getLogger(__name__)
T = TypeVar("T")

THREADS = 2
# Glue's Python may hold the interpreter for so long while the event loop has something to do.
_SWITCH_S = 0.0005


class Lender(Protocol):
    """What runs single calls (`engine.Engine`)."""

    statistics: Statistics

    def open(self, call: Call) -> Ticket:
        """A slot for a call. Raises Refused."""

    def write(self, ticket: Ticket) -> None:
        """Put a call's inputs into its slot."""

    async def answer(self, ticket: Ticket) -> dict[str, Any]:
        """Run a call whose inputs are in its slot. Raises Refused."""

    def leave(self, ticket: Ticket) -> None:
        """Give the slot back."""


class Applications:
    """All applications of a daemon."""

    def __init__(self, catalogue: Catalogue, lender: Lender) -> None:
        self._catalogue = catalogue
        self._lender = lender
        self._inside = dict.fromkeys(catalogue.applications, 0)
        self._limits: dict[TenantId, asyncio.Semaphore] = {}
        self._pool: ThreadPoolExecutor | None = None
        if catalogue.applications:
            sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="glue")

    def inside(self) -> dict[TenantId, int]:
        """How many requests of each application are inside."""
        return {TenantId(name): count for name, count in self._inside.items()}

    def close(self) -> None:
        """End the threads. Idempotent."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def infer(self, call: Call) -> tuple[dict[str, Any], Timing]:
        """Run one request; outputs by name, and where the time went. Raises Refused, and UserError
        for a request that glue takes for nonsense."""
        application = self._catalogue.applications[call.model]
        timing = Timing(TenantId(application.name), application.id)
        outcome: Reason | None = None
        try:
            return await self._admitted(application, call, timing), timing
        except Refused as refused:
            outcome = refused.reason
            raise
        except asyncio.CancelledError:
            outcome = Reason.CANCELLED
            raise
        except UserError:
            outcome = Reason.EXECUTION_FAILED
            raise
        except Exception as error:
            outcome = Reason.EXECUTION_FAILED
            _log.exception("glue of application %s failed", application.name)
            raise Refused(outcome) from error
        finally:
            now = Ns(time.monotonic_ns())
            timing.total = now - call.arrived
            timing.late = now > _deadline(application, call)
            self._count(timing, outcome, now)

    async def _admitted(
        self, application: ServedApplication, call: Call, timing: Timing
    ) -> dict[str, Any]:
        name = application.id
        if self._inside[name] >= application.section.queue_max:
            raise Refused(Reason.QUEUE_FULL)
        self._inside[name] += 1
        try:
            return await self._run(application, call, timing)
        finally:
            self._inside[name] -= 1

    def _count(self, timing: Timing, reason: Reason | None, now: Ns) -> None:
        if reason is None:
            self._lender.statistics.answered(timing, now)
        else:
            self._lender.statistics.refused(timing, reason.value, now)

    async def _run(
        self, application: ServedApplication, call: Call, timing: Timing
    ) -> dict[str, Any]:
        work = Work(call.inputs)
        done = {name: asyncio.Event() for name in application.stages}

        async def stage(name: str) -> None:
            for before in application.stages[name].section.after:
                await done[before].wait()
            await self._stage(application, name, call, work, timing)
            done[name].set()

        await _together([stage(name) for name in application.stages])
        return dict(await in_thread(self._threads, application.glue.answer, work))

    async def _stage(
        self, application: ServedApplication, name: str, call: Call, work: Work, timing: Timing
    ) -> None:
        stage, glue = application.stages[name], application.glue.stages[name]
        calls = await in_thread(self._threads, glue.calls, work)
        if len(calls) > stage.section.fan_out_max:
            raise UserError(
                f"{len(calls)} calls of {name}, at most {stage.section.fan_out_max} (fan_out_max)",
                where=f"application {application.name}",
            )
        results: list[Any] = [None] * len(calls)
        work.results[name] = results
        limit = self._limits.setdefault(stage.tenant, asyncio.Semaphore(stage.section.calls_max))

        async def one(number: int, inputs: Tensors) -> None:
            async with limit:
                part = self._call_of(application, stage, call, inputs)
                take = partial(glue.take, work, number)
                try:
                    results[number], own = await self._lent(part, take)
                except Refused as refused:
                    raise Refused(refused.reason, name) from refused
                timing.compute_infer += own.compute_infer

        await _together([one(number, inputs) for number, inputs in enumerate(calls)])

    async def _lent(self, call: Call, take: Callable[[Tensors], T]) -> tuple[T, Timing]:
        """Run one call, whose large tensors threads move: they write the inputs, and `take` makes
        something of the outputs where they lie."""
        engine = self._lender
        ticket = engine.open(call)
        ticket.lent = True
        try:
            await in_thread(self._threads, engine.write, ticket)
        except BaseException:
            engine.leave(ticket)
            raise
        outputs = await engine.answer(ticket)
        try:
            return await in_thread(self._threads, take, outputs), ticket.timing
        finally:
            engine.leave(ticket)

    def _call_of(
        self, application: ServedApplication, stage: Stage, call: Call, inputs: Tensors
    ) -> Call:
        model = self._catalogue.find(stage.model)
        if not isinstance(model, ServedModel):
            raise UserError(f"its model {stage.model} was unloaded", where=application.name)
        return Call(
            tenant=stage.tenant,
            model=model.id,
            plan=model.plan_for(inputs),
            inputs=inputs,
            arrived=call.arrived,
            timeout=call.timeout,
            priority=call.priority,
            origin=call.origin,
            deadline=Ns(_deadline(application, call) - stage.tail),
        )

    @property
    def _threads(self) -> Executor:
        assert self._pool is not None
        return self._pool


def _deadline(application: ServedApplication, call: Call) -> Ns:
    """When the whole should be done."""
    return Ns(call.arrived + from_ms(application.section.slo_ms))


async def in_thread(pool: Executor, function: Callable[..., T], *arguments: Any) -> T:
    """The result of `function` in a thread of `pool`. Does not return, not even when cancelled,
    while it runs: memory that it uses may be given to somebody else afterwards."""
    future = asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.cancel()
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        raise


async def _together(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first failure cancels the others, and is raised once these have ended."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [e for e in ended if isinstance(e, Exception)]
    for failure in failures:
        raise failure
