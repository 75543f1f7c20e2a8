"""The runtimes we are measured beside, each set up as its own users would for low latency.

A runtime is a function in `PEERS`: it opens a model for given inputs and a core group, runs it once
and returns a call that does so again. The call answers the outputs in the model's order (OpenVINO
keeps several names for one tensor). A model is opened with only the group's cores allowed, as
under taskset, so that worker threads inherit them; calls are made under `on_cores` too.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import UserError
from tenantdl.ids import CoreId

Array: TypeAlias = NDArray[Any]
Outputs: TypeAlias = tuple[Array, ...]
Call: TypeAlias = Callable[[], Outputs]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run: `model` is an ONNX file, `inputs` its arrays by name, `cores` one a thread.
    `spin`: whether idle worker threads may burn their core while they wait for work."""

    model: Path
    inputs: Mapping[str, Array]
    cores: tuple[CoreId, ...]
    spin: bool = False


def open_onnxruntime(job: Job) -> Call:
    """onnxruntime's CPU provider: all graph optimisations, one thread a core, static shapes."""
    ort = required("onnxruntime")
    with _reported(job, "onnxruntime"), on_cores(job.cores):
        dims = _named_dims(ort, job)
        options = ort.SessionOptions()
        options.intra_op_num_threads = len(job.cores)
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if job.spin else "0"
        )
        for name, extent in dims.items():
            options.add_free_dimension_override_by_name(name, extent)
        session = ort.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])
        feeds = dict(job.inputs)
        session.run(None, feeds)
    return lambda: tuple(session.run(None, feeds))


def open_openvino(job: Job) -> Call:
    """OpenVINO's CPU plugin in LATENCY mode, fp32 (its own default, bf16, is another precision)."""
    with _reported(job, "openvino"):
        compiled = openvino_model(job)
    with _reported(job, "openvino"), on_cores(job.cores):
        request = compiled.create_infer_request()
        ports = list(compiled.outputs)
        feeds = dict(job.inputs)
        request.infer(feeds)

    def call() -> Outputs:
        results = request.infer(feeds, share_inputs=True, share_outputs=True)
        return tuple(results[port] for port in ports)

    return call


def openvino_model(job: Job, **settings: Any) -> Any:
    """The compiled model of a job; `settings`: the plugin's, beside those for low latency."""
    ov = required("openvino")
    core = ov.Core()
    # OpenVINO counts the cores that it may use once, here. Counted under a narrow affinity, later
    # models would get one thread whatever they ask for.
    core.get_property("CPU", "RANGE_FOR_STREAMS")
    with on_cores(job.cores):
        model = core.read_model(str(job.model))
        model.reshape({name: list(value.shape) for name, value in job.inputs.items()})
        latency = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": len(job.cores),
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
        }
        return core.compile_model(model, "CPU", latency | settings)


PEERS: Mapping[str, Callable[[Job], Call]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}


@contextmanager
def on_cores(cores: Sequence[CoreId]) -> Iterator[None]:
    """Allow this thread, and threads that it starts, only `cores` meanwhile (as taskset does)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def required(package: str) -> Any:
    """A peer's package. Raises UserError when it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is not installed: pip install 'tenantdl[bench]'") from error


@contextmanager
def _reported(job: Job, package: str) -> Iterator[None]:
    """What a peer cannot run is the user's to know in one line, not a stack of its internals."""
    try:
        yield
    except Exception as error:  # their own classes derive from Exception directly
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{package} cannot run it: {reason}", where=str(job.model)) from error


def _named_dims(ort: Any, job: Job) -> dict[str, int]:
    """Symbolic dimensions of the inputs and the extents they have in `job.inputs`. Some exporters
    give unlike dimensions one name; such a name stays free."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])
    extents: dict[str, set[int]] = {}
    for port in session.get_inputs():
        shape = np.shape(job.inputs[port.name]) if port.name in job.inputs else ()
        for name, extent in zip(port.shape, shape, strict=False):
            if isinstance(name, str):
                extents.setdefault(name, set()).add(extent)
    return {name: found.pop() for name, found in extents.items() if len(found) == 1}
