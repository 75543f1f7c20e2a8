"""Small ONNX models in one line, compiled and compared with onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import tenantdl
from tenantdl.bundle.library import Calls, KernelCall, Library
from tenantdl.compile.pipeline import Summary, compile_model

Array = NDArray[Any]


@dataclass
class Net:
    """Builds one model of many independent parts, so that one compilation serves many cases."""

    opset: int = 18
    seed: int = 0
    nodes: list[Any] = field(default_factory=list)
    inputs: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def input(self, *shape: int) -> str:
        """A float32 input with random values."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self.rng.standard_normal(shape, dtype=np.float32)
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def weight(self, *shape: int) -> str:
        """Random weights that keep the variance."""
        scale = np.float32(1 / np.sqrt(max(1, np.prod(shape[1:]))))
        return self.const(self.rng.standard_normal(shape, dtype=np.float32) * scale)

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        """Append a node; its output's name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attrs))
        return name

    def output(self, *names: str) -> None:
        """Mark outputs."""
        self.outputs += names

    def model(self) -> Any:
        """The ONNX model, shapes static."""

        def info(name: str, array: Array) -> Any:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            return helper.make_tensor_value_info(name, kind, array.shape)

        graph = helper.make_graph(
            self.nodes,
            "net",
            [info(name, array) for name, array in self.inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9)


def reference(net: Net) -> dict[str, Array]:
    """What onnxruntime computes."""
    session = onnxruntime.InferenceSession(
        net.model().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return dict(zip(net.outputs, session.run(net.outputs, net.inputs), strict=True))


def check(net: Net, folder: Path, *, tolerance: float = 2e-6, target: str = "native") -> Summary:
    """Compile, run, and compare every output: max|Δ| ≤ tolerance × max|output|."""
    summary = compile_model(net.model(), folder / "bundle", target=target)
    results = tenantdl.load(folder / "bundle").run(net.inputs)
    for name, expected in reference(net).items():
        assert results[name].shape == expected.shape
        assert results[name].dtype == expected.dtype
        error = float(np.max(np.abs(results[name] - expected), initial=0.0))
        scale = float(np.max(np.abs(expected), initial=1e-30))
        assert error <= tolerance * scale, f"{name}: {error / scale:.1e} relative"
    return summary


def call_kernel(library: Path, symbol: str, *arrays: Array) -> None:
    """Call one kernel of `library` on aligned copies of `arrays`; the last is the output."""
    copies = [_aligned(array) for array in arrays]
    Calls(Library(library), [KernelCall(symbol, copies)]).run(0, 1)
    arrays[-1][...] = copies[-1]


def _aligned(array: Array) -> Array:
    space = np.empty(array.nbytes + 64, np.uint8)
    start = -space.ctypes.data % 64
    copy = space[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
