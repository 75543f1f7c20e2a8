"""An ONNX backend over the compiler, as `onnx.backend.test` wants it: prepare a model, run it.

Kernels run straight from memory: no bundle, no library on disk. `templates=False` sends every node
through the generic lowering instead of the templates.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
import tvm_ffi

from tenantdl.bundle.native import SOURCES
from tenantdl.compile.frontend import load_graph
from tenantdl.compile.generic import lower_generic
from tenantdl.compile.graph import Array, Graph
from tenantdl.compile.lower import lower
from tenantdl.compile.memory import resolve
from tenantdl.compile.operator import Buffer, Program
from tenantdl.compile.rewrite import rewrite
from tenantdl.compile.target import CpuTarget, native_target

_ALIGNMENT = 64


def _load_runtime() -> None:
    """What kernels call beside TVM's runtime, where code compiled in memory finds it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runtime.so"
        command = ["cc", "-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-o", str(path)]
        subprocess.run([*command, *map(str, SOURCES), "-lpthread"], check=True)
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


_load_runtime()


class Prepared:
    """A compiled model; `run` takes inputs in the model's order."""

    def __init__(self, graph: Graph, templates: bool = True) -> None:
        target = native_target()
        self.inputs = list(graph.inputs)
        self.operators = {node.op for node in graph.nodes}
        if templates:
            self.program = lower(rewrite(graph), target, 1)
        else:
            self.program = _generic(graph, target)
        kernels = {op.kernel.key: op.kernel.func for op in self.program.operators}
        self.functions: Any = {}
        if kernels:
            module = tvm.IRModule({tvm.ir.GlobalVar(key): f for key, f in kernels.items()})
            with tvm.transform.PassContext(opt_level=3):
                library = tvm.compile(module, target.tvm)
            self.functions = {key: library[key] for key in kernels}

    @property
    def kinds(self) -> set[str]:
        """What lowered the operators: names of templates, "generic"."""
        return {operator.kind for operator in self.program.operators}

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs in the model's order."""
        given = dict(zip(self.inputs, inputs, strict=True))
        memory: dict[str, Array] = {}
        for operator in self.program.operators:
            args = [
                tvm_ffi.from_dlpack(self._array(name, memory, given).reshape(parameter.shape))
                for name, parameter in zip(operator.args, operator.kernel.parameters(), strict=True)
            ]
            self.functions[operator.kernel.key](*args)
        return [self._array(name, memory, given).copy() for name in self.program.outputs]

    def _array(self, name: str, memory: dict[str, Array], given: Mapping[str, Array]) -> Array:
        """The memory of a buffer: its own, or a view of its base."""
        buffer = self.program.buffers[name]
        root, offset = resolve(self.program, name)
        if root not in memory:
            own = self.program.buffers[root]
            known = given.get(root, self.program.constants.get(root))
            memory[root] = _aligned(own.shape, own.dtype)
            if known is not None:
                memory[root][...] = np.asarray(known).reshape(own.shape)
        flat = memory[root].reshape(-1).view(np.uint8)
        size = int(np.prod(buffer.shape, dtype=np.int64)) * np.dtype(buffer.dtype).itemsize
        return flat[offset : offset + size].view(buffer.dtype).reshape(buffer.shape)


def _generic(graph: Graph, target: CpuTarget) -> Program:
    """A program of generic operators only."""

    lowered = lower_generic(graph, graph.nodes, target)
    buffers = {n: Buffer(kind.shape, kind.dtype) for n, kind in graph.types.items()}
    constants = {**graph.constants, **lowered.constants}
    buffers |= {n: Buffer(a.shape, a.dtype.name) for n, a in lowered.constants.items()}
    buffers |= lowered.buffers
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    return Program(lowered.operators, buffers, constants, inputs, outputs)


def _aligned(shape: tuple[int, ...], dtype: str) -> Array:
    """Zeroed memory as kernels expect it."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    space = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    return space[start : start + size].view(dtype).reshape(shape)


def prepare(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    templates: bool = True,
) -> Prepared:
    """Compiles a model. Raises UserError where it is refused."""
    return Prepared(load_graph(model, shapes=shapes), templates)
