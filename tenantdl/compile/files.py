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
from tenantdl.compile.graph import Graph
from tenantdl.compile.memory import MemoryPlan
from tenantdl.compile.operator import Operator, Program
from tenantdl.compile.segment import cut, estimate_ns
from tenantdl.compile.target import CpuTarget
from tenantdl.machine import this_machine


def write_weights(program: Program, memory: MemoryPlan, file: Path) -> None:
    """Write all constants to where the memory plan has them."""
    with file.open("wb") as stream:
        for name, array in program.constants.items():
            if name in memory.weights and array.nbytes:
                stream.seek(memory.weights[name])
                array.tofile(stream)
        stream.truncate(memory.weights_bytes)


def static_plan(graph: Graph, program: Program, memory: MemoryPlan, batch: int) -> Plan:
    """The static plan, segments cut by estimated times."""

    def tensor(value: str, buffer: str) -> Tensor:
        kind = graph.types[value]
        return Tensor(value, kind.dtype, kind.shape, memory.arena[buffer])

    calls = tuple(_call(operator, memory) for operator in program.operators)
    pairs = zip(graph.outputs, program.outputs, strict=True)
    return Plan(
        batch=batch,
        arena_bytes=memory.arena_bytes,
        inputs=tuple(tensor(value, value) for value in graph.inputs),
        outputs=tuple(tensor(value, buffer) for value, buffer in pairs),
        calls=calls,
        segments=cut([estimate_ns(call) for call in calls]),
        cost_source="estimated",
    )


def _call(operator: Operator, memory: MemoryPlan) -> Call:
    arguments = []
    for name, parameter in zip(operator.args, operator.kernel.parameters(), strict=True):
        in_weights = name in memory.weights
        arguments.append(
            Argument(
                "weights" if in_weights else "arena",
                memory.weights[name] if in_weights else memory.arena[name],
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
    )


def new_manifest(
    name: str,
    cpu: CpuTarget,
    cores: Sequence[int],
    plan: Plan,
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
        plans=(plan,),
        summary={},
    )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json."""
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
