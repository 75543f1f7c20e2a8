"""A backend for lanes without kernels: each segment sleeps and adds one to what is in the arena.

The bundle's path, or the file "behaviour" in it, says how: "fake:SEGMENTS:MICROSECONDS", and for
how many requests together each of its plans is, ":1,2,4"; 666 raises when it is loaded, 777 kills.
Inputs below zero make mischief in the middle segment: -1 kills the process, -2 raises, -3 hangs, -4
kills it only if the file in FAKE_ONCE is still there (and removes it). 77 becomes the number of
cores that a block runs on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tenantdl.bundle.manifest import FORMAT, MANIFEST, Manifest, Plan, Segment, Target, Tensor

Array = np.ndarray[Any, Any]


def fake_plan(segments: int, cost_ns: int, batch: int = 1) -> Plan:
    """A plan with x float32[batch, 2] -> y float32[batch, 2]."""
    x = Tensor("x", "float32", (batch, 2), 0)
    y = Tensor("y", "float32", (batch, 2), 0)
    parts = tuple(Segment(i, i + 1, cost_ns) for i in range(segments))
    return Plan(batch, 64, (x,), (y,), (), parts, "estimated")


def fake_bundle(
    folder: Path,
    name: str,
    segments: int,
    micros: int,
    plans: int = 1,
    batches: Sequence[int] = (),
) -> Path:
    """A bundle without kernels in `folder`; its manifest believes what its segments cost. In place
    of equal `plans`, `batches` has one for so many requests each, which all take as long."""
    together = ":" + ",".join(map(str, batches)) if batches else ""
    bundle = folder / f"fake:{segments}:{micros}{together}"
    bundle.mkdir(parents=True)
    manifest = Manifest(
        format=FORMAT,
        name=name,
        created_by="test",
        source="",
        target=Target("x86_64", "generic", ()),
        machine={},
        cores=(1,),
        digests={},
        plans=tuple(
            fake_plan(segments, max(1, micros) * 1000, batch) for batch in batches or (1,) * plans
        ),
        summary={},
    )
    (bundle / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return bundle


def pin(cores: Sequence[int]) -> None:
    os.sched_setaffinity(0, set(cores))


chosen: list[Sequence[int]] = []


def choose(cores: Sequence[int]) -> None:
    chosen[:] = [cores]


def rest() -> None:
    chosen.clear()


class FakeProgram:
    def __init__(self, segments: int, micros: int, arena: memoryview, batch: int = 1) -> None:
        self.segment_count = segments
        self._seconds = micros / 1e6
        self._values = np.frombuffer(arena[: 8 * batch], np.float32).reshape(batch, 2)

    def set_inputs(self, inputs: Mapping[str, Array]) -> None:
        self._values[...] = inputs["x"]

    def run_block(self, begin: int, end: int, variant: int = 0) -> None:
        if self._seconds:
            time.sleep(self._seconds * (end - begin))
        worst = self._values[:, 1].min()
        if worst < 0 and begin <= self.segment_count // 2 < end:
            self._mischief(int(worst))
        if self._values[0, 1] == 77:
            self._values[0, 1] = len(chosen[0])
        self._values[:, 0] += end - begin

    def outputs(self) -> dict[str, Array]:
        return {"y": self._values.copy()}

    def gather(self, row: int, inputs: Mapping[str, Array]) -> None:
        self._values[row] = inputs["x"][0]

    def scatter(self, row: int) -> dict[str, Array]:
        return {"y": self._values[row : row + 1].copy()}

    def _mischief(self, kind: int) -> None:
        if kind == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == -2:
            raise RuntimeError("a kernel raised")
        elif kind == -3:
            time.sleep(1000)
        elif kind == -4 and Path(os.environ["FAKE_ONCE"]).exists():
            Path(os.environ["FAKE_ONCE"]).unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def open_programs(
    bundle: str, plans: Sequence[tuple[int, Sequence[memoryview]]]
) -> list[list[FakeProgram]]:
    said = Path(bundle) / "behaviour"
    name = said.read_text() if said.exists() else Path(bundle).name
    _, segments, micros, *together = name.split(":")
    if micros == "666":
        raise RuntimeError("this one never loads")
    if micros == "777":
        os.kill(os.getpid(), signal.SIGKILL)
    batches = [int(batch) for batch in together[0].split(",")] if together else [1] * len(plans)
    return [
        [FakeProgram(int(segments), int(micros), a, batches[number]) for a in arenas]
        for number, arenas in plans
    ]
