"""MLPerf LoadGen's Server scenario as a second, independent issuer: its own Poisson process, clock
and percentiles. One process a tenant, since LoadGen has one test in a process.

Latency counts from when LoadGen had scheduled a query. It knows no refusals: those are counted
here, and have to be read beside its percentiles.
Reference: https://github.com/mlcommons/inference/tree/master/loadgen
"""

from __future__ import annotations

import http.client
import importlib
import json
import subprocess
import sys
import threading
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tenantdl.documents import write_document
from tenantdl.errors import ExecutionError, UserError
from tenantdl.lifetime import end_with_parent
from tenantdl.load.issuer import OK, Stream
from tenantdl.load.protocol import HEADER_LENGTH
from tenantdl.units import MS

PERCENTILES = {"p50_ms": "50.00", "p90_ms": "90.00", "p95_ms": "95.00", "p99_ms": "99.00"}
_DETAIL = "mlperf_log_detail.txt"
_PREFIX = ":::MLLOG "
_GRACE_S = 120.0
_THREADS = 64


class LoadgenTask(msgspec.Struct, frozen=True):
    """One tenant's test: `rate` a second for `duration_s`. `stream`: what is sent, with its QoS."""

    url: str
    stream: Stream
    rate: float
    duration_s: float
    seed: int


class LoadgenResult(msgspec.Struct, frozen=True):
    """`valid`: 95 % of the queries were answered within the QoS, LoadGen says. `rate`: completed a
    second. `latencies`: percentiles in ms. `refused`: answers other than 200."""

    valid: bool
    rate: float
    latencies: dict[str, float]
    refused: int


def run_loadgen(tasks: Sequence[LoadgenTask]) -> list[LoadgenResult]:
    """All tests at once, a process each. Raises UserError if LoadGen is not installed,
    ExecutionError if a test fails."""
    _loadgen()
    with TemporaryDirectory(prefix="tenantdl-loadgen-") as place:
        files = [Path(place) / str(number) / "task.json" for number in range(len(tasks))]
        for file, task in zip(files, tasks, strict=True):
            write_document(file, msgspec.json.encode(task))
        command = [sys.executable, "-m", "tenantdl.load.loadgen"]
        processes = [
            subprocess.Popen(
                [*command, str(file)], stdout=subprocess.DEVNULL, preexec_fn=end_with_parent
            )
            for file in files
        ]
        try:
            for process, task in zip(processes, tasks, strict=True):
                if process.wait(task.duration_s + _GRACE_S):
                    raise ExecutionError(f"LoadGen failed for tenant {task.stream.tenant}")
        except subprocess.TimeoutExpired as error:
            raise ExecutionError("LoadGen was still busy long after its time") from error
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return [
            msgspec.json.decode(file.with_name("result.json").read_bytes(), type=LoadgenResult)
            for file in files
        ]


def _loadgen() -> Any:
    try:
        return importlib.import_module("mlperf_loadgen")
    except ImportError as error:
        raise UserError("LoadGen is not installed: pip install 'tenantdl[bench]'") from error


class _Client:
    """Sends one body again and again, from many threads, a connection each."""

    def __init__(self, task: LoadgenTask) -> None:
        self._address = urllib.parse.urlsplit(task.url).netloc
        self._path = task.stream.path
        self._body = Path(task.stream.body).read_bytes()
        self._headers = {HEADER_LENGTH: str(task.stream.header_length)}
        self._own = threading.local()
        self.statuses: Counter[int] = Counter()

    def send(self) -> None:
        kept = hasattr(self._own, "connection") and self._own.connection.sock is not None
        try:
            try:
                status = self._ask()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not kept:
                    raise
                # Servers close what was idle for long; clients ask again then.
                self._own.connection.close()
                status = self._ask()
            self.statuses[status] += 1
        except (OSError, http.client.HTTPException):
            self._own.connection.close()
            self.statuses[0] += 1

    def _ask(self) -> int:
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPConnection(self._address)
        self._own.connection.request("POST", self._path, self._body, self._headers)
        response = self._own.connection.getresponse()
        response.read()
        return int(response.status)


def _test(task: LoadgenTask, folder: Path) -> LoadgenResult:
    lg = _loadgen()
    client = _Client(task)
    with ThreadPoolExecutor(_THREADS) as threads:

        def one(number: int) -> None:
            client.send()
            lg.QuerySamplesComplete([lg.QuerySampleResponse(number, 0, 0)])

        def issue(samples: Sequence[Any]) -> None:
            for sample in samples:
                threads.submit(one, sample.id)

        sut = lg.ConstructSUT(issue, lambda: None)
        library = lg.ConstructQSL(1, 1, lambda _: None, lambda _: None)
        lg.StartTestWithLogSettings(sut, library, _settings(lg, task), _logs(lg, folder))
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)
    figures = _figures((folder / _DETAIL).read_text())
    return LoadgenResult(
        valid=figures["result_validity"] == "VALID",
        rate=float(figures["result_completed_samples_per_sec"]),
        latencies={
            name: round(float(figures[f"result_{q}_percentile_latency_ns"]) / MS, 4)
            for name, q in PERCENTILES.items()
        },
        refused=sum(n for status, n in client.statuses.items() if status != OK),
    )


def _settings(lg: Any, task: LoadgenTask) -> Any:
    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.Server
    settings.mode = lg.TestMode.PerformanceOnly
    settings.server_target_qps = task.rate
    settings.server_target_latency_ns = task.stream.qos
    settings.server_target_latency_percentile = 0.95
    settings.min_duration_ms = round(task.duration_s * 1000)
    settings.min_query_count = 1
    settings.schedule_rng_seed = task.seed
    return settings


def _logs(lg: Any, folder: Path) -> Any:
    output = lg.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    logs = lg.LogSettings()
    logs.log_output = output
    return logs


def _figures(text: str) -> dict[str, Any]:
    """The keys and values of LoadGen's detailed log."""
    figures: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith(_PREFIX):
            entry = json.loads(line.removeprefix(_PREFIX))
            figures[entry["key"]] = entry["value"]
    return figures


def main(argv: Sequence[str]) -> None:
    """Run the test in the file `argv[0]`; leave `result.json` beside it."""
    file = Path(argv[0])
    task = msgspec.json.decode(file.read_bytes(), type=LoadgenTask)
    write_document(file.with_name("result.json"), msgspec.json.encode(_test(task, file.parent)))


if __name__ == "__main__":
    main(sys.argv[1:])
