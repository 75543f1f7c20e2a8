"""onnxruntime and OpenVINO behind a server, as their users would tune them for many tenants.

A runtime is a function in `RUNTIMES`: it opens models for given shapes on given cores and returns a
call for each, which many threads may make at once. Worker threads inherit the process's affinity.

  onnxruntime         one thread a request; the system shares the cores out among requests
  onnxruntime-pools   a pool of all cores for each model, idle threads do not spin
  onnxruntime-shared  one pool of all cores for all models (its idle threads do spin: Python has no
                      switch for it)
  openvino            fp32, as many streams as cores for each model, a thread each
  openvino-latency    fp32, one stream of all cores for each model
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import UserError

Array: TypeAlias = NDArray[Any]
Call: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]


class OnnxModel(NamedTuple):
    """An ONNX file, and the shapes that its inputs have in the load."""

    file: str
    shapes: dict[str, tuple[int, ...]]


class Threads(NamedTuple):
    """How a runtime spreads work: threads a request, and whether models share one pool."""

    cores: int
    each: int
    shared: bool = False


def onnxruntime(models: Sequence[OnnxModel], threads: Threads) -> list[Call]:
    """Sessions with all graph optimisations and static shapes; idle threads do not spin."""
    ort = _required("onnxruntime")
    if threads.shared:
        ort.set_global_thread_pool_sizes(threads.each, 1)
    return [_session(ort, model, threads) for model in models]


def _session(ort: Any, model: OnnxModel, threads: Threads) -> Call:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.use_per_session_threads = not threads.shared
    options.intra_op_num_threads = threads.each
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model.file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(None, dict(inputs)), strict=True))

    return call


def openvino(models: Sequence[OnnxModel], threads: Threads) -> list[Call]:
    """Models in fp32 (OpenVINO's own default here, bf16, is another precision)."""
    ov = _required("openvino")
    core = ov.Core()
    return [_compiled(core, model, threads) for model in models]


def _compiled(core: Any, model: OnnxModel, threads: Threads) -> Call:
    graph = core.read_model(model.file)
    graph.reshape({name: list(shape) for name, shape in model.shapes.items()})
    settings = {
        "PERFORMANCE_HINT": "LATENCY" if threads.each > 1 else "THROUGHPUT",
        "INFERENCE_NUM_THREADS": threads.cores,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": max(1, threads.cores // threads.each),
    }
    compiled = core.compile_model(graph, "CPU", settings)
    ports = {port.get_any_name(): port for port in compiled.outputs}
    own = threading.local()  # a request object serves one caller at a time

    def call(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        results = own.request.infer(dict(inputs))
        return {name: np.array(results[port]) for name, port in ports.items()}

    return call


RUNTIMES: dict[str, tuple[Callable[[Sequence[OnnxModel], Threads], list[Call]], bool, bool]] = {
    # name: (how it is opened, all cores for one request, one pool for all models)
    "onnxruntime": (onnxruntime, False, False),
    "onnxruntime-pools": (onnxruntime, True, False),
    "onnxruntime-shared": (onnxruntime, True, True),
    "openvino": (openvino, False, False),
    "openvino-latency": (openvino, True, False),
}


def open_models(name: str, models: Sequence[OnnxModel], cores: int) -> list[Call]:
    """Open `models` in the runtime called `name` for a process that has `cores` cores."""
    function, wide, shared = RUNTIMES[name]
    return function(models, Threads(cores, cores if wide else 1, shared))


def _required(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is not installed: pip install 'tenantdl[bench]'") from error
