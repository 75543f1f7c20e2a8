"""Slots: who is idle (the lowest number first, so that load uses few slots), who is free when."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from tenantdl.errors import InvariantError
from tenantdl.sched.batching.tournament import NEVER, Tournament


class Slots:
    """A slot runs one batch; over a network, one more may be sent ahead to follow it.

    Times are ns. `free_at[s]`: when what slot s has is predicted to be done.
    """

    def __init__(self, count: int, *, ahead: bool) -> None:
        self.count: int = count
        self.free_at: list[int] = [0] * count
        self._ahead: bool = ahead
        # (batch, predicted length), the running one first.
        self._orders: list[deque[tuple[int, int]]] = [deque() for _ in range(count)]
        self._idle: list[int] = list(range(count))
        self._busy = Tournament(count)
        heapify(self._idle)

    @property
    def idle(self) -> int:
        """How many slots have nothing to do."""
        return len(self._idle)

    @property
    def open(self) -> bool:
        """Whether some slot may take a batch now or, ahead of time, before long."""
        return self._ahead or len(self._idle) > 0

    def pick(self, now: int, start: int) -> int:
        """The lowest idle slot, else the busy one that is free first if that is by `start`; −1 if
        there is none."""
        if self._idle:
            return self._idle[0]
        if self._ahead:
            best = self._busy.best
            if now < self._busy.key <= start:
                return best
        return -1

    def next_free(self, now: int) -> int:
        """When the next slot that may get an order ahead is free; NEVER if nobody knows."""
        while self._ahead and self._busy.key <= now:
            self._busy.set(self._busy.best, NEVER)  # overdue: its Finished will tell
        return self._busy.key if self._ahead else NEVER

    def assign(self, slot: int, batch: int, end: int, length: int) -> None:
        """`slot` gets `batch` to run until `end`."""
        orders = self._orders[slot]
        if not orders:
            if self._idle[0] != slot:
                raise InvariantError(f"slot {slot} is not the lowest idle one")
            heappop(self._idle)
        elif len(orders) > 1:
            raise InvariantError(f"slot {slot} already has an order ahead")
        orders.append((batch, length))
        self.free_at[slot] = end
        if self._ahead:
            self._busy.set(slot, end if len(orders) == 1 else NEVER)

    def finish(self, slot: int, batch: int, at: int) -> None:
        """`slot` is through with `batch`. Raises InvariantError if it did not run it."""
        if not 0 <= slot < self.count or not self._orders[slot]:
            raise InvariantError(f"slot {slot} has no batch {batch} to finish")
        orders = self._orders[slot]
        if orders[0][0] != batch:
            raise InvariantError(f"slot {slot} runs batch {orders[0][0]}, reports {batch}")
        orders.popleft()
        if orders:
            end = at + orders[0][1]
            self.free_at[slot] = end if end > self.free_at[slot] else self.free_at[slot]
            self._busy.set(slot, self.free_at[slot])
        else:
            self.free_at[slot] = at
            heappush(self._idle, slot)
            if self._ahead:
                self._busy.set(slot, NEVER)
