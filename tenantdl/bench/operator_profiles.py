"""One operator alone, timed inside each runtime: what its node took, without reorders around it.

A whole call of a one-node model would also time copies into each runtime's own layout, which a
network makes once and its operators share. So each runtime is asked what its nodes took, and the
nodes that only move data are left out, ours (kind `layout`) as theirs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tenantdl.bench.peers import Array, Job, on_cores, openvino_model, required
from tenantdl.bundle.load import load_bundle
from tenantdl.exec.cores import pin
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId
from tenantdl.units import US

_MOVES = frozenset({"ReorderInput", "ReorderOutput"})  # onnxruntime's
_MOVE_TYPES = frozenset({"Reorder", "Input", "Output"})  # OpenVINO's
_SUFFIX = "_kernel_time"


class Profile(Protocol):
    """Calls of one model in one runtime, and what its operator took in each."""

    def call(self) -> None:
        """Run the model once."""

    def times_us(self) -> list[float]:
        """What the operator took in every call so far, µs; there are no calls after that."""


class Ours:
    """Our bundle of the operator."""

    def __init__(self, bundle: Path, inputs: Mapping[str, Array], cores: Sequence[CoreId]) -> None:
        pin(cores)
        self._runner = Runner(load_bundle(bundle))
        self._runner.run(inputs)
        calls = self._runner.plan.calls
        self._counts = [i for i, call in enumerate(calls) if call.kind != "layout"]
        self._taken: list[float] = []

    def call(self) -> None:
        """Run it once."""
        times = self._runner.time_ns()
        self._taken.append(sum(times[i] for i in self._counts) / US)

    def times_us(self) -> list[float]:
        """What was taken, µs."""
        return self._taken


class Onnxruntime:
    """onnxruntime's profile, which it writes to a file at the end (whole µs)."""

    def __init__(self, job: Job) -> None:
        ort = required("onnxruntime")
        self._folder = tempfile.TemporaryDirectory(prefix="tenantdl-profile-")
        self._job = job
        with on_cores(job.cores):
            options = ort.SessionOptions()
            options.intra_op_num_threads = len(job.cores)
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(self._folder.name, "profile")
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = ort.InferenceSession(
                str(job.model), options, providers=["CPUExecutionProvider"]
            )
        self._calls = 0

    def call(self) -> None:
        """Run it once."""
        with on_cores(self._job.cores):
            self._session.run(None, dict(self._job.inputs))
        self._calls += 1

    def times_us(self) -> list[float]:
        """What its profile says, µs."""
        events = json.loads(Path(self._session.end_profiling()).read_bytes())
        self._folder.cleanup()
        by_node: dict[str, list[float]] = {}
        for event in events:
            name = event["name"]
            node = event.get("cat") == "Node" and name.endswith(_SUFFIX)
            if node and event["args"]["op_name"] not in _MOVES:
                by_node.setdefault(name, []).append(float(event["dur"]))
        return [sum(taken) for taken in zip(*by_node.values(), strict=True)]


class Openvino:
    """OpenVINO's performance counters (whole µs)."""

    def __init__(self, job: Job) -> None:
        with on_cores(job.cores):
            model = openvino_model(job, PERF_COUNT=True)
            self._request = model.create_infer_request()
        self._job = job
        self._taken: list[float] = []

    def call(self) -> None:
        """Run it once."""
        with on_cores(self._job.cores):
            self._request.infer(dict(self._job.inputs), share_inputs=True, share_outputs=True)
        self._taken.append(
            sum(
                node.real_time.total_seconds() * 1e6
                for node in self._request.get_profiling_info()
                if node.node_type not in _MOVE_TYPES
            )
        )

    def times_us(self) -> list[float]:
        """What was taken, µs."""
        return self._taken


PROFILES: Mapping[str, Callable[[Job], Profile]] = {
    "onnxruntime": Onnxruntime,
    "openvino": Openvino,
}


def take_turns(profiles: Mapping[str, Profile], rounds: int, turn: int) -> dict[str, list[float]]:
    """Times, µs, of `rounds` turns each of `turn` calls one after the other; the first call of a
    turn is not counted: the operator's caches were the others' before."""
    for _ in range(rounds):
        for profile in profiles.values():
            for _ in range(turn + 1):
                profile.call()
    return {name: _without_firsts(p.times_us(), turn) for name, p in profiles.items()}


def _without_firsts(times: list[Any], turn: int) -> list[float]:
    return [time for i, time in enumerate(times) if i % (turn + 1)]
