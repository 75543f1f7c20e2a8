"""Relax function → operators: legalise, fuse, schedule each fused kernel, read the calls off."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, te, topi
from tvm.relax import transform

from tenantdl.compile.generic.convert import Imported, import_nodes
from tenantdl.compile.generic.schedule import schedule
from tenantdl.compile.graph import Array, Graph, Node, TensorType
from tenantdl.compile.operator import Buffer, Kernel, Lowered, Operator
from tenantdl.compile.target import CpuTarget
from tenantdl.errors import UserError

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")


def lower_generic(graph: Graph, nodes: Sequence[Node], target: CpuTarget) -> Lowered:
    """Operators for nodes (in order) that no template covers.

    Every output of the nodes that other nodes or the graph's outputs need is written to a buffer
    named after the value. Raises UserError naming a node that cannot be run correctly.
    """
    results = _needed(graph, nodes)
    if not results:
        return Lowered()
    label = nodes[0].name or nodes[0].op
    imported = import_nodes(graph, nodes, results)
    try:
        with target.tvm, tvm.transform.PassContext(opt_level=3):
            module = _passes()(imported.module)
        return _Reader(label, graph.types, imported, module, target).read()
    except UserError:
        raise
    except Exception as error:  # TVM's passes fail in their own ways
        if len(nodes) > 1:
            _blame(graph, nodes, target)
        what = str(error).strip().splitlines()[-1:]
        raise UserError(
            f"node '{label}' ({nodes[0].op}): TVM cannot lower it: {what}", where=graph.name
        ) from error


def _blame(graph: Graph, nodes: Sequence[Node], target: CpuTarget) -> None:
    """Raises the UserError of the first node that cannot be lowered by itself, if there is one."""
    for node in nodes:
        lower_generic(graph, [node], target)


def _needed(graph: Graph, nodes: Sequence[Node]) -> list[str]:
    """Outputs of the nodes that something outside of them reads."""
    ids = {id(node) for node in nodes}
    used = set(graph.outputs)
    used.update(n for node in graph.nodes if id(node) not in ids for n in node.inputs)
    return [name for node in nodes for name in node.outputs if name in used]


def _passes() -> Any:
    return tvm.transform.Sequential(
        [
            transform.DecomposeOpsForInference(),
            transform.CanonicalizeBindings(),
            transform.LegalizeOps(),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
        ]
    )


class _Reader:
    """Walks the bindings of the fused main function; every one is a call of a kernel."""

    def __init__(
        self,
        label: str,
        types: Mapping[str, TensorType],
        imported: Imported,
        module: Any,
        target: CpuTarget,
    ) -> None:
        self.types = types
        self.module = module
        self.target = target
        self.label = label
        self.results = imported.results
        self.main = module["main"]
        self.lowered = Lowered()
        self.kernels: dict[Any, Kernel] = {}
        # Relax names are not unique after fusion: variables are told apart by identity. A place is
        # the name of a buffer, or a list of places for a tuple.
        self.places: dict[Any, Any] = dict(zip(self.main.params, imported.parameters, strict=True))

    def read(self) -> Lowered:
        """The operators, each result in a buffer of its own name."""
        for block in self.main.body.blocks:
            for binding in block.bindings:
                self.places[binding.var] = self._place(binding.value)
        outputs = self._place(self.main.body.body)
        self._name_results(outputs)
        return self.lowered

    def _place(self, value: Any) -> Any:
        """Where the value of an expression is, after emitting the operators that compute it."""
        match value:
            case relax.Var():
                return self.places[value]
            case tvm.ir.expr.GenericConst():
                return self._constant(value.value.numpy())
            case relax.Tuple():
                return [self._place(field) for field in value.fields]
            case relax.TupleGetItem():
                return self._place(value.tuple_value)[value.index]
            case relax.Call() if value.op == _CALL_TIR and len(value.args) == 2:
                return self._call(value)
            case _:
                raise UserError(f"node '{self.label}': TVM has no kernel for {_short(value)}")

    def _call(self, call: Any) -> Any:
        kernel = self._kernel(call.args[0])
        reads = [self._place(arg) for arg in call.args[1].fields]
        kind = call.ty_args[0]
        many = isinstance(kind, relax.TupleType)
        writes = [self._temporary(k) for k in (kind.fields if many else [kind])]
        self.lowered.operators.append(
            Operator(
                f"{self.label}:{call.args[0].name_hint}",
                "generic",
                kernel,
                (*reads, *writes),
                len(writes),
            )
        )
        return writes if many else writes[0]

    def _kernel(self, variable: Any) -> Kernel:
        """The scheduled kernel of a function of the module; equal functions share one."""
        if variable not in self.kernels:
            func = self.module[variable]
            digest = tvm_ffi.structural_hash(func.without_attr("global_symbol"), map_free_vars=True)
            hint = re.sub(r"[^a-z0-9_]+", "", variable.name_hint.lower())[:40]
            key = f"generic_{hint}_{digest & 0xFFFFFFFFFFFFFFFF:016x}"
            scheduled = schedule(func, self.target)
            self.kernels[variable] = Kernel(key, scheduled.with_attr("global_symbol", key))
        return self.kernels[variable]

    def _temporary(self, kind: Any) -> str:
        name = f"{self.results[0]}#generic{len(self.lowered.buffers)}"
        shape = tuple(int(extent) for extent in kind.shape.values)
        self.lowered.buffers[name] = Buffer(shape, str(kind.dtype))
        return name

    def _constant(self, array: Array) -> str:
        name = f"{self.results[0]}#constant{len(self.lowered.constants)}"
        self.lowered.constants[name] = np.asarray(array)
        return name

    def _name_results(self, places: list[str]) -> None:
        """Temporaries that are results take their names; what is not a temporary is copied."""
        names: dict[str, str] = {}
        for result, place in zip(self.results, places, strict=True):
            if place in self.lowered.buffers and place not in names:
                names[place] = result
            else:
                self._copy(place, result)
        self.lowered.buffers = {names.get(n, n): b for n, b in self.lowered.buffers.items()}
        self.lowered.operators = [
            replace(op, args=tuple(names.get(arg, arg) for arg in op.args))
            for op in self.lowered.operators
        ]

    def _copy(self, source: str, result: str) -> None:
        kind = self.types[result]
        self.lowered.buffers[result] = Buffer(kind.shape, kind.dtype)
        if not kind.size:
            return  # there is nothing to copy
        data = te.placeholder(kind.shape, kind.dtype, "data")
        func = te.create_prim_func([data, topi.identity(data)])
        shape = "x".join(map(str, kind.shape))
        key = f"generic_copy_{kind.dtype}_{shape}"
        kernel = Kernel(key, schedule(func, self.target).with_attr("global_symbol", key))
        self.lowered.operators.append(
            Operator(f"{self.label}:copy", "generic", kernel, (source, result))
        )


def _short(value: Any) -> str:
    return str(getattr(value, "op", value)).splitlines()[0][:80]
