"""What all tests share: examples that repeat, caches in a temporary folder, skips with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tenantdl.machine import this_machine

settings.register_profile(
    "tenantdl",
    deadline=None,  # no timing assertions: a shared machine stalls at will
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tenantdl")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache of compiled models."""
    monkeypatch.setenv("TENANTDL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _keeps_its_cores() -> Iterator[None]:
    """A test, and what it calls in this thread, gives the cores back that it was given."""
    before = os.sched_getaffinity(0)
    yield
    after = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    assert after == before, "this thread was left pinned"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip hardware tests where the hardware is missing, and say what is."""
    machine = this_machine()
    missing = [] if "avx512f" in machine.features else ["AVX-512"]
    missing += [] if len(machine.cores) >= 2 else ["two cores"]
    if not missing:
        return
    mark = pytest.mark.skip(reason=f"this machine lacks {' and '.join(missing)}")
    for item in items:
        if item.get_closest_marker("hardware"):
            item.add_marker(mark)
