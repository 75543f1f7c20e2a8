"""What a lane and its owner share: one page of orders, one ring of reports. No locks, no pickle.

The owner writes an order into the *mailbox*, a newer one over an older. The lane looks there at
every end of a block (one 8-byte read, 0.1 us), so an order placed ahead of time costs no hand-over.
The lane writes *reports* into a ring that the owner drains; each says what the lane does next, so
that the owner always learns which orders were begun and which were written over in time.

Both sides rely on stores becoming visible in order, which x86-64 guarantees: a record is followed
by its number, and a mailbox record is enclosed by two copies of it.
"""

from __future__ import annotations

import enum
import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tenantdl.errors import ExecutionError

CHANNEL_BYTES = 1 << 17
ENDS_MAX = 48
CORES_MAX = 256
SLOTS_MAX = 64

_MAILBOX = 64
_RING = 4096
_RING_LENGTH = 1024
_RECORD = struct.Struct("<QQQQQIII")
_RECORD_BYTES = 64
_ORDER = struct.Struct(f"<QIIIIII{CORES_MAX // 8}s{ENDS_MAX}I{SLOTS_MAX}I")
_STAMP = struct.Struct("<Q")

# 8-byte words at the start of the mapping: the lane's beat; how far the owner has drained; whether
# the owner has more work than is under way.
_BEAT, _DRAINED, _BACKLOG = 0, 1, 2
_FIRST = _MAILBOX // 8
_ORDER_AT = _MAILBOX + 8
_LAST = (_ORDER_AT + _ORDER.size + 7) // 8


class Kind(enum.IntEnum):
    """What a report says."""

    READY = 1
    STARTED = 2
    FINISHED = 3
    FAILED = 4
    YIELDED = 5


class Order(NamedTuple):
    """A launch as the lane needs it. `program`, `arena`, `slots`: numbers of what was loaded. With
    several slots, a request each, inputs are gathered and outputs scattered: slots are laid out for
    plan number `member` of the model, the program is the one for so many. `cores`: a mask of those
    to run on, by their places among the machine's. An order without `ends` is to run nothing more
    (`YIELD`)."""

    launch: int
    request: int
    program: int
    arena: int
    slots: tuple[int, ...]
    member: int
    begin: int
    ends: tuple[int, ...]
    preempt: bool
    cores: int
    variant: int


# To make room for a successor, at the next end of a block.
YIELD = Order(2**64 - 1, 0, 0, 0, (), 0, 0, (), True, 0, 0)


class Report(NamedTuple):
    """`next`: the launch that the lane goes on with, 0 for none. Times in ns, monotonic clock."""

    kind: Kind
    launch: int = 0
    request: int = 0
    begin: int = 0
    end: int = 0
    elapsed: int = 0
    at: int = 0
    next: int = 0


class Channel:
    """Mailbox and ring of one lane process in one mapping; one writer for each of them."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._words = memoryview(memory).cast("Q")
        self._reported = 0
        self._drained = 0
        self._seen = 0

    # --- the owner's side

    def post(self, order: Order) -> None:
        """Write `order` over whatever is in the mailbox."""
        if len(order.ends) > ENDS_MAX:
            raise ExecutionError(f"an order of {len(order.ends)} blocks; at most {ENDS_MAX}")
        if len(order.slots) > SLOTS_MAX:
            raise ExecutionError(f"an order for {len(order.slots)} requests; at most {SLOTS_MAX}")
        ends = order.ends + (0,) * (ENDS_MAX - len(order.ends))
        slots = order.slots + (0,) * (SLOTS_MAX - len(order.slots))
        self._words[_FIRST] = order.launch
        flags = len(order.slots) << 8 | len(order.ends) << 1 | order.preempt
        _ORDER.pack_into(
            self._memory,
            _ORDER_AT,
            order.request,
            order.program,
            order.arena,
            order.member,
            order.begin,
            flags,
            order.variant,
            order.cores.to_bytes(CORES_MAX // 8, "little"),
            *ends,
            *slots,
        )
        self._words[_LAST] = order.launch

    def drain(self) -> Iterator[Report]:
        """The reports that have come since, in order."""
        while True:
            base = _RING + self._drained % _RING_LENGTH * _RECORD_BYTES
            if self._words[base // 8 + 7] != self._drained + 1:
                return
            launch, request, elapsed, at, follows, begin, end, kind = _RECORD.unpack_from(
                self._memory, base
            )
            self._drained += 1
            self._words[_DRAINED] = self._drained
            yield Report(Kind(kind), launch, request, begin, end, elapsed, at, follows)

    def set_backlog(self, more: bool) -> None:
        """Tell the lane whether the end of its launch will be worth a word beforehand."""
        self._words[_BACKLOG] = more

    @property
    def beat(self) -> int:
        """A counter that moves as long as the lane gets through blocks, and when it wakes up."""
        return self._words[_BEAT]

    # --- the lane's side

    @property
    def waiting(self) -> bool:
        """Whether there is an order that was not taken."""
        return self._words[_LAST] != self._seen

    def take(self, *, between: bool) -> Order | None:
        """The newest order if it has not been taken; `between` the blocks of another launch only if
        it preempts. None also while the owner is just writing."""
        number = self._words[_LAST]
        if number == self._seen:
            return None
        request, program, arena, member, begin, flags, variant, cores, *more = _ORDER.unpack_from(
            self._memory, _ORDER_AT
        )
        if self._words[_FIRST] != number:
            return None
        preempt = bool(flags & 1)
        if between and not preempt:
            return None
        self._seen = number
        return Order(
            number,
            request,
            program,
            arena,
            tuple(more[ENDS_MAX : ENDS_MAX + (flags >> 8)]),
            member,
            begin,
            tuple(more[: flags >> 1 & 127]),
            preempt,
            int.from_bytes(cores, "little"),
            variant,
        )

    @property
    def backlog(self) -> bool:
        """Whether the owner has more work than is under way."""
        return bool(self._words[_BACKLOG])

    def full(self) -> bool:
        """Whether the owner has to drain before another report fits."""
        return self._reported - self._words[_DRAINED] >= _RING_LENGTH

    def report(self, report: Report) -> None:
        """Append `report`; the caller has seen that the ring is not `full`."""
        base = _RING + self._reported % _RING_LENGTH * _RECORD_BYTES
        _RECORD.pack_into(
            self._memory,
            base,
            report.launch,
            report.request,
            report.elapsed,
            report.at,
            report.next,
            report.begin,
            report.end,
            report.kind,
        )
        self._reported += 1
        self._words[base // 8 + 7] = self._reported

    def live(self) -> None:
        """One more sign of life."""
        self._words[_BEAT] += 1
