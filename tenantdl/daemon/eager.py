"""Coroutines that begin at once: a task waits for its turn on the loop before its first step, and
that of a request usually takes it all the way to the lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class _Begun(Coroutine[Any, None, None]):
    """The rest of a coroutine that has come to wait for `first`."""

    def __init__(self, begun: Coroutine[Any, None, None], first: Any) -> None:
        self._begun, self._first = begun, first

    def send(self, value: None) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._begun.send(value)

    def throw(self, *error: Any) -> Any:
        self._first = None
        return self._begun.throw(*error)

    def close(self) -> None:
        self._begun.close()

    def __await__(self) -> Generator[Any, None, None]:
        raise NotImplementedError("only a task runs this")


def begin(work: Coroutine[Any, None, None]) -> asyncio.Task[None] | None:
    """Run `work` as far as it comes; a task for the rest, None if that was all. What it raises
    until then is raised here. It must not ask for the current task before it waits."""
    try:
        first = work.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_Begun(work, first))
