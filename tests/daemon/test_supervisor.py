"""The supervisor of a daemon, with small scripts in the daemon's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

PATIENCE_S = 60
# Runs a supervisor over a script, whose exit codes and life are up to the test.
RUN = """
import logging, sys
from tenantdl.daemon import supervisor
supervisor._PULSE_S = 0.05
supervisor._PATIENCE_S = 0.2
logging.basicConfig()
url = sys.argv[2] if len(sys.argv) > 2 else None
sys.exit(supervisor.Supervisor([sys.executable, sys.argv[1]], url).run())
"""
# Counts its starts in a file; ends with the code that the file `code` says, or waits for SIGTERM.
SCRIPT = """
import pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
starts = here / "starts"
starts.write_text(str(int(starts.read_text()) + 1 if starts.exists() else 1))
code = (here / "code").read_text() if (here / "code").exists() else "wait"
if code != "wait":
    sys.exit(int(code))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
(here / "up").write_text(str(starts.read_text()))
while True:
    time.sleep(0.05)
"""
DEAF = """
import http.server, pathlib, sys, time
here = pathlib.Path(__file__).parent
starts = here / "starts"
starts.write_text(str(int(starts.read_text()) + 1 if starts.exists() else 1))
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        if Handler.asked > 2 and starts.read_text() == "1":
            time.sleep(1000)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
port = int((here / "port").read_text())
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "daemon.py"
    file.write_text(SCRIPT)
    return file


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def supervise(script: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(script), *more])


def until(path: Path, text: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not (path.exists() and path.read_text() == text):
        assert time.monotonic() < end, path
        time.sleep(0.02)


def child_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    return psutil.Process(process.pid).children()[0]


def test_what_crashes_is_started_again_and_a_stop_is_passed_on(
    script: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    started.append(process := supervise(script))
    for number in ("1", "2"):
        until(script.with_name("up"), number)
        os.kill(child_of(process).pid, signal.SIGKILL)
    until(script.with_name("up"), "3")
    last = child_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert not last.is_running()


@pytest.mark.parametrize("code", [0, 2])
def test_the_end_is_the_end(
    script: Path, started: list[subprocess.Popen[bytes]], code: int
) -> None:
    script.with_name("code").write_text(str(code))
    started.append(process := supervise(script))
    assert process.wait(PATIENCE_S) == code
    assert script.with_name("starts").read_text() == "1"


def test_a_daemon_ends_with_its_supervisor(
    script: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    started.append(process := supervise(script))
    until(script.with_name("up"), "1")
    child = child_of(process)
    process.kill()
    psutil.wait_procs([child], timeout=PATIENCE_S)
    assert not child.is_running()


def test_a_daemon_that_answers_nobody_is_killed(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "port").write_text(str(port))
    (tmp_path / "deaf.py").write_text(DEAF)
    started.append(supervise(tmp_path / "deaf.py", f"http://127.0.0.1:{port}/"))
    until(tmp_path / "starts", "2")
