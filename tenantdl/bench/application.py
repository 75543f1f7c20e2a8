"""OCR as one application of a running daemon, beside its models called one by one from a client,
and beside rapidocr in process on the same cores; on pages with known text.

Systems take turns of a few pages each, in a closed loop of `concurrency` clients. Rows, one each:
{"system", "concurrency", "pages", "lines", "lines_right", "throughput_rps", "p50_ms", "p95_ms",
"throughput_rps_by_round", "wrong"}; all measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tenantdl.api import Progress
from tenantdl.bench.pages import Page, page
from tenantdl.bundle.load import read_manifest
from tenantdl.daemon import running_daemon
from tenantdl.errors import UserError
from tenantdl.glue.find import make_glue
from tenantdl.glue.work import Glue, Module, Tensors, Work
from tenantdl.load.applications import ApplicationSection
from tenantdl.load.protocol import datatype
from tenantdl.load.workload import Workload

Row = dict[str, Any]
Read = Callable[[Page], Sequence[str]]

APPLICATION, ONE_BY_ONE, RAPIDOCR = "application", "one-by-one", "rapidocr"
SYSTEMS = (APPLICATION, ONE_BY_ONE, RAPIDOCR)
_WRONG_MAX = 20


@dataclass(slots=True)
class _Score:
    """Of one system: latencies in seconds, pages a second by round, lines that came out wrong."""

    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    lines: int = 0
    right: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Reader:
    """A client: it reads in a thread of its own, always the same, since connections of Triton's
    client stay with the thread that they were made in."""

    thread: ThreadPoolExecutor
    read: Read


def run(
    workload: Workload,
    name: str,
    *,
    systems: Sequence[str],
    pages: int,
    rounds: int,
    concurrency: int,
    seed: int,
    progress: Progress = lambda phase, done: None,
) -> list[Row]:
    """Read `pages` pages a round with every system in turns. Raises UserError for a workload
    without the application, and where rapidocr is not installed."""
    section = next((a for a in workload.application if a.name == name), None)
    if section is None or section.glue != "ocr":
        raise UserError(f"no application {name!r} with glue 'ocr'", where=workload.name)
    with ExitStack() as stack:
        readers = _readers(workload, section, systems, concurrency, stack)
        scores = {system: _Score() for system in systems}
        for system in systems:  # warm up
            _turn([page(seed, n) for n in range(concurrency)], readers[system], _Score())
        for number in range(rounds):
            shown = [page(seed, number * pages + n) for n in range(pages)]
            for place, system in enumerate(systems):
                _turn(shown, readers[system], scores[system])
                progress(system, (number * len(systems) + place + 1) / (rounds * len(systems)))
    return [_row(system, concurrency, score) for system, score in scores.items()]


def _row(system: str, concurrency: int, score: _Score) -> Row:
    p50, p95 = (float(np.percentile(score.latencies, q)) * 1000 for q in (50, 95))
    return {
        "system": system,
        "concurrency": concurrency,
        "pages": len(score.latencies),
        "lines": score.lines,
        "lines_right": score.right,
        "throughput_rps": float(np.median(score.rates)),
        "p50_ms": p50,
        "p95_ms": p95,
        "throughput_rps_by_round": score.rates,
        "wrong": [list(pair) for pair in score.wrong[:_WRONG_MAX]],
    }


def _turn(shown: Sequence[Page], readers: Sequence[_Reader], score: _Score) -> None:
    """Read all pages, each by the reader that is free first."""
    left = iter(shown)
    lock = threading.Lock()

    def work(read: Read) -> None:
        while True:
            with lock:
                own = next(left, None)
            if own is None:
                return
            begin = time.perf_counter()
            said = read(own)
            latency = time.perf_counter() - begin
            with lock:
                _note(score, own, said, latency)

    begin = time.perf_counter()
    for future in [reader.thread.submit(work, reader.read) for reader in readers]:
        future.result()
    score.rates.append(len(shown) / (time.perf_counter() - begin))


def _note(score: _Score, shown: Page, said: Sequence[str], latency: float) -> None:
    score.latencies.append(latency)
    score.lines += len(shown.lines)
    if len(said) == len(shown.lines):
        pairs = list(zip(shown.lines, said, strict=True))
    else:  # a line missing or torn: those that are nowhere to be found are wrong
        pairs = [(line, line if line in said else "–") for line in shown.lines]
    score.right += sum(line == read for line, read in pairs)
    score.wrong += [(line, read) for line, read in pairs if line != read]


def _readers(
    workload: Workload,
    section: ApplicationSection,
    systems: Sequence[str],
    concurrency: int,
    stack: ExitStack,
) -> dict[str, list[_Reader]]:
    """A reader for every client of every system; they and the daemon live until `stack` is left."""
    makes: dict[str, Callable[[], Read]] = {}
    if served := [system for system in systems if system != RAPIDOCR]:
        url = stack.enter_context(running_daemon(workload)).url.removeprefix("http://")
        kinds = {APPLICATION: _whole, ONE_BY_ONE: _one_by_one}
        for system in served:
            makes[system] = partial(kinds[system], workload, section, url)
    if RAPIDOCR in systems:
        cores = len(workload.machine.cores) or 1
        makes[RAPIDOCR] = partial(_rapidocr, max(cores // concurrency, 1))

    def reader(make: Callable[[], Read]) -> _Reader:
        thread = stack.enter_context(ThreadPoolExecutor(1))
        return _Reader(thread, thread.submit(make).result())

    return {system: [reader(make) for _ in range(concurrency)] for system, make in makes.items()}


class _Client:
    """What anyone would use: Triton's client, binary tensors, one connection."""

    def __init__(self, url: str) -> None:
        import tritonclient.http as triton

        self._triton = triton
        self._client = triton.InferenceServerClient(url, network_timeout=120)

    def infer(self, model: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs of one inference."""
        given = []
        for name, array in inputs.items():
            tensor = self._triton.InferInput(name, array.shape, datatype(array.dtype.name))
            tensor.set_data_from_numpy(array)
            given.append(tensor)
        answer = self._client.infer(model, given)
        names = [output["name"] for output in answer.get_response()["outputs"]]
        return {name: answer.as_numpy(name) for name in names}


def _whole(workload: Workload, section: ApplicationSection, url: str) -> Read:
    client = _Client(url)

    def read(shown: Page) -> list[str]:
        text = client.infer(section.name, {"image": shown.image})["text"]
        return [line.decode() for line in text]

    return read


def _one_by_one(workload: Workload, section: ApplicationSection, url: str) -> Read:
    """The same glue in the client, which calls one model after the other."""
    client = _Client(url)
    manifests = {
        module.name: read_manifest(Path(workload.bundles) / module.bundle_name)
        for module in section.module
    }
    modules = {
        module.name: Module(
            module.name,
            module.after,
            manifests[module.name].plans,
            manifests[module.name].metadata,
        )
        for module in section.module
    }
    glue: Glue = make_glue(section.glue, modules)

    def read(shown: Page) -> list[str]:
        work = Work({"image": shown.image})
        for module in section.module:
            stage = glue.stages[module.name]
            results = work.results[module.name] = []
            for number, inputs in enumerate(stage.calls(work)):
                outputs: Tensors = client.infer(manifests[module.name].name, inputs)
                results.append(stage.take(work, number, outputs))
        return [str(text) for text in glue.answer(work)["text"]]

    return read


def _rapidocr(threads: int) -> Read:
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise UserError(f"rapidocr cannot be imported ({error}); see requirements") from error
    key = "EngineConfig.onnxruntime.{}_op_num_threads"
    engine = RapidOCR(
        params={
            key.format("intra"): threads,
            key.format("inter"): 1,
            "Global.log_level": "warning",
        }
    )

    def read(shown: Page) -> list[str]:
        answer: Any = engine(np.ascontiguousarray(shown.image[:, :, ::-1]))
        return list(answer.txts or ())

    return read
