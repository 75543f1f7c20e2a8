"""Triton's load generator drives us over HTTP and gRPC, with and without shared memory. Skips where
scripts/peers/setup_perf_analyzer.sh was not run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.daemon.fake_service import FakeServer

PEERS = Path(os.environ.get("TENANTDL_PEERS") or Path.home() / ".cache" / "tenantdl" / "peers")
BINARY = PEERS / "perf_analyzer" / "perf_analyzer"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BINARY.exists(), reason=f"{BINARY}: run scripts/peers/setup_perf_analyzer.sh"
    ),
]


@pytest.mark.parametrize("memory", ["none", "system"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer(protocol: str, memory: str) -> None:
    with FakeServer().running() as server:
        command = [BINARY, "-m", "echo_large", "-u", getattr(server, protocol), "-i", protocol]
        command += ["--shared-memory", memory, "--measurement-mode", "count_windows"]
        command += ["--measurement-request-count", "20", "--concurrency-range", "2", "-r", "3"]
        # How steady this machine is does not matter here.
        run = subprocess.run([*command, "-s", "999"], capture_output=True, text=True, timeout=200)
        answered = len(server.engine.calls)
    said = run.stdout + run.stderr
    assert "had error" not in said, said
    assert answered >= 60, said
