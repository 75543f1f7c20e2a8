"""Flushing is on for the thread that asked and those it starts, and for nobody else."""

from __future__ import annotations

import threading

import numpy as np

from tenantdl.exec.denormals import denormals_flushed, flush_denormals

TINY = np.float32(1e-38)


def _product() -> float:
    """A product that is denormal, computed where the compiler cannot see it."""
    return float((np.full(64, TINY) * np.float32(0.01)).max())


def _in_thread(*steps: object) -> list[float]:
    results: list[float] = []

    def run() -> None:
        for step in steps:
            assert callable(step)
            step()
        results.append(_product())
        child = threading.Thread(target=lambda: results.append(_product()))
        child.start()
        child.join()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results


def test_flushes_in_the_thread_and_its_children_only() -> None:
    assert _in_thread() == [_product(), _product()]
    assert _product() > 0
    assert _in_thread(flush_denormals) == [0.0, 0.0]
    assert _product() > 0


def test_block_restores_the_mode() -> None:
    with denormals_flushed():
        assert _product() == 0
    assert _product() > 0
