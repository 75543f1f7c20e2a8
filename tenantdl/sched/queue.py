"""A tenant's waiting requests, in an order that is total (ranks end in the sequence number)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from tenantdl.sched.request import Request

Rank = tuple[int, ...]
RankFunction = Callable[[Request], Rank]


class RankedQueue:
    """Requests in the order of a rank that must not change while they are inside."""

    def __init__(self, rank: RankFunction) -> None:
        self._rank = rank
        self._items: list[tuple[Rank, Request]] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self._items)

    @property
    def head(self) -> Request | None:
        """The first request, None if empty."""
        return self._items[0][1] if self._items else None

    def push(self, request: Request) -> None:
        """Put `request` in its place."""
        insort(self._items, (self._rank(request), request))

    def remove(self, request: Request) -> None:
        """Take `request` out; raises InvariantError if it is not inside."""
        if not self.discard(request):
            raise request.broken("not in the queue that should hold it")

    def discard(self, request: Request) -> bool:
        """Take `request` out if it is inside; whether it was."""
        # Ranks differ, so that requests themselves are never compared.
        index = bisect_left(self._items, (self._rank(request),))
        inside = index < len(self._items) and self._items[index][1] is request
        if inside:
            del self._items[index]
        return inside
