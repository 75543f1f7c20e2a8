"""Coroutines that begin at once: what tasks promise holds for them too."""

from __future__ import annotations

import asyncio

import pytest

from tenantdl.daemon.eager import begin


def test_work_that_waits_for_nothing_is_done_at_once() -> None:
    async def main() -> None:
        seen: list[int] = []

        async def work() -> None:
            seen.append(1)

        assert begin(work()) is None
        assert seen == [1]

    asyncio.run(main())


def test_work_comes_as_far_as_it_can_and_goes_on_in_a_task() -> None:
    async def main() -> None:
        seen: list[object] = []
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            seen.append("begun")
            seen.append(await answer)
            await asyncio.sleep(0)
            seen.append("ended")

        task = begin(work())
        assert task is not None and seen == ["begun"]
        answer.set_result("answered")
        await task
        assert seen == ["begun", "answered", "ended"]

    asyncio.run(main())


def test_work_is_cancelled_where_it_waits_also_before_its_task_has_run() -> None:
    async def main() -> None:
        seen: list[str] = []

        async def work() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                seen.append("left")

        for turns in (0, 3):
            task = begin(work())
            assert task is not None
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert seen == ["left", "left"]

    asyncio.run(main())


def test_what_goes_wrong_at_once_is_raised_at_once() -> None:
    async def main() -> None:
        async def work() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            begin(work())

    asyncio.run(main())
