"""An ONNX backend over the compiler, as `onnx.backend.test` wants it: prepare a model, run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import tvm

from tenantdl.compile.frontend import load_graph
from tenantdl.compile.generic import lower_generic
from tenantdl.compile.graph import Array, Graph
from tenantdl.compile.target import native_target


class Prepared:
    """A compiled model; `run` takes inputs in the model's order."""

    def __init__(self, graph: Graph) -> None:
        target = native_target()
        self.graph = graph
        self.lowered = lower_generic(graph, graph.nodes, target)
        kernels = {op.kernel.key: op.kernel.func for op in self.lowered.operators}
        self.functions: Any = {}
        if kernels:
            module = tvm.IRModule({tvm.ir.GlobalVar(k): f for k, f in kernels.items()})
            with tvm.transform.PassContext(opt_level=3):
                library = tvm.compile(module, target.tvm)
            self.functions = {key: library[key] for key in kernels}

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs in the model's order."""
        given = dict(zip(self.graph.inputs, inputs, strict=True))
        memory: dict[str, Any] = {}

        def tensor(name: str) -> Any:
            if name not in memory:
                memory[name] = self._tensor(name, given)
            return memory[name]

        for operator in self.lowered.operators:
            self.functions[operator.kernel.key](*(tensor(name) for name in operator.args))
        return [np.asarray(tensor(name).numpy()) for name in self.graph.outputs]

    def _tensor(self, name: str, given: Mapping[str, Array]) -> Any:
        for arrays in (given, self.graph.constants, self.lowered.constants):
            if name in arrays:
                return tvm.runtime.tensor(np.array(arrays[name], order="C"))
        buffer = self.lowered.buffers[name]
        return tvm.runtime.empty(buffer.shape, buffer.dtype)


def prepare(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Prepared:
    """Compiles a model. Raises UserError where it is refused."""
    return Prepared(load_graph(model, shapes=shapes))
