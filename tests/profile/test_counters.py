"""Hardware counters against a fake kernel: what is asked for, scaled, and where there is no PMU."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from tenantdl.profile.counters import EVENTS, Counters, Counts, open_counters


class FakeKernel:
    """Hands out pipes as counters; counts 1000 · (event + 1), half of the time."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def open(self, attributes: bytes, pid: int, cpu: int, group: int, flags: int) -> int:
        kind, size, event = struct.unpack_from("=IIQ", attributes)
        assert (kind, size, len(attributes), pid, cpu) == (0, 64, 64, 0, -1)
        (bits,) = struct.unpack_from("=Q", attributes, 40)
        self.asked.append((event, bits))
        reader, writer = os.pipe()
        os.write(writer, 50 * struct.pack("=QQQ", 1000 * (event + 1), 10, 5))
        os.close(writer)
        return reader


def test_events_are_asked_for_in_user_space_and_scaled() -> None:
    kernel, requests = FakeKernel(), []
    counters = open_counters(kernel.open)
    assert counters is not None
    counters._control = lambda file, request, zero: requests.append(request)
    assert [event for event, _ in kernel.asked] == list(EVENTS)
    assert all(bits & 1 and bits >> 5 & 1 for _, bits in kernel.asked)  # disabled, no kernel
    with counters:
        pass
    assert len(requests) == 3 * len(EVENTS)
    assert counters.read() == Counts(2000.0, 4000.0, 6000.0, 8000.0)
    counters.close()
    counters.close()


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.ENOSYS])
def test_where_there_is_none_nothing_is_left_open(code: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    kernel = FakeKernel()
    answers = [lambda *a: kernel.open(*a), lambda *a: kernel.open(*a), lambda *a: -code]
    assert open_counters(lambda *a: answers.pop(0)(*a)) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_else_goes_wrong_is_raised() -> None:
    with pytest.raises(OSError, match="Too many open files"):
        open_counters(lambda *a: -errno.EMFILE)


def test_on_this_machine_they_count_or_are_not_there() -> None:
    counters = open_counters()
    if counters is None:
        pytest.skip("no PMU to be had here")
    assert isinstance(counters, Counters)
    with counters:
        sum(range(100_000))
    counts = counters.read()
    counters.close()
    assert counts.instructions > 100_000
