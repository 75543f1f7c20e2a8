"""The files of a bundle: manifest, weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tenantdl.bundle.load import file_digest
from tenantdl.bundle.manifest import (
    FORMAT,
    LIBRARY,
    MANIFEST,
    WEIGHTS,
    Argument,
    Call,
    Manifest,
    Plan,
    Target,
    Tensor,
)
from tenantdl.compile.graph import Graph, TensorType
from tenantdl.compile.memory import MemoryPlan, Weights
from tenantdl.compile.operator import Operator, Program
from tenantdl.compile.segment import cut, estimate_ns
from tenantdl.compile.target import CpuTarget
from tenantdl.machine import this_machine


def write_weights(weights: Weights, file: Path) -> None:
    """Write all constants to where they were placed."""
    with file.open("wb") as stream:
        for offset, array in weights.arrays:
            stream.seek(offset)
            array.tofile(stream)
        stream.truncate(weights.nbytes)


def static_plan(
    graph: Graph, program: Program, memory: MemoryPlan, batch: int, together: int = 1
) -> Plan:
    """The static plan, segments cut by estimated times. `program` runs `together` requests of the
    graph's shapes."""

    def tensor(value: str, buffer: str) -> Tensor:
        kind = graph.types[value]
        shape = kind.shape if together == 1 else (together, *kind.shape[1:])
        return Tensor(value, kind.dtype, shape, memory.arena[buffer])

    kernels = {operator.kernel.key: operator.kernel for operator in program.operators}
    parameters = {key: kernel.parameters() for key, kernel in kernels.items()}
    calls = tuple(
        call_of(operator, parameters[operator.kernel.key], memory) for operator in program.operators
    )
    pairs = zip(graph.outputs, program.outputs, strict=True)
    sources = zip(graph.inputs, program.inputs, strict=True)
    return Plan(
        batch=batch * together,
        arena_bytes=memory.arena_bytes,
        inputs=tuple(tensor(value, buffer) for value, buffer in sources),
        outputs=tuple(tensor(value, buffer) for value, buffer in pairs),
        calls=calls,
        segments=cut([estimate_ns(call) for call in calls], calls),
        cost_source="estimated",
    )


def call_of(operator: Operator, parameters: Sequence[TensorType], memory: MemoryPlan) -> Call:
    """An operator, whose kernel has these parameters, with its arguments where they are."""
    arguments = []
    for name, parameter in zip(operator.args, parameters, strict=True):
        in_weights = name in memory.constants
        arguments.append(
            Argument(
                "weights" if in_weights else "arena",
                memory.constants[name] if in_weights else memory.arena[name],
                parameter.shape,
                parameter.dtype,
            )
        )
    nbytes = sum(
        int(np.prod(a.shape, dtype=np.int64)) * np.dtype(a.dtype).itemsize for a in arguments
    )
    return Call(
        operator.name,
        operator.kind,
        operator.kernel.key,
        tuple(arguments),
        operator.flops,
        nbytes,
        operator.kernel.loop(),
    )


def new_manifest(
    name: str,
    cpu: CpuTarget,
    cores: Sequence[int],
    plans: Sequence[Plan],
    folder: Path,
    source: str,
) -> Manifest:
    """The manifest of the bundle in `folder`, whose other files are written."""
    from tenantdl import __version__

    digests = {file: file_digest(folder / file) for file in (LIBRARY, WEIGHTS)}
    return Manifest(
        format=FORMAT,
        name=name,
        created_by=f"tenantdl {__version__}",
        source=source,
        target=Target(cpu.arch, cpu.level.mcpu, cpu.level.features),
        machine=this_machine().describe(),
        cores=tuple(cores),
        digests=digests,
        plans=tuple(plans),
        summary={},
    )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json."""
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
