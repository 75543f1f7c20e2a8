"""Walks an ONNX graph once, in order, and drives the builder: names are resolved by scope, local
and standard functions are entered, control flow is resolved, old forms are rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from tenantdl.compile.frontend import (
    control,
    expand,
    recurrent,
    spectral,
    upgrade,
    upgrade_layers,
    windows,
)
from tenantdl.compile.frontend.attributes import read_attributes
from tenantdl.compile.frontend.builder import Builder
from tenantdl.compile.frontend.infer import NEWEST
from tenantdl.compile.frontend.read import Weights
from tenantdl.compile.frontend.refusal import DEPTH_MAX, Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Scope
from tenantdl.compile.frontend.support import WHOLE, refused
from tenantdl.errors import TenantdlError, UserError


class Tracer:
    """Reads nodes into `builder`. `functions`: the model's own, by domain and name."""

    def __init__(
        self,
        where: str,
        weights: Weights,
        functions: Mapping[tuple[str, str], onnx.FunctionProto],
    ) -> None:
        self.builder = Builder()
        self.where = where
        self.weights = weights
        self.functions = functions
        self.depth = 0

    def run(self, nodes: Iterable[onnx.NodeProto], scope: Scope) -> None:
        """Reads nodes in order. Raises UserError naming the first that cannot be compiled."""
        for index, proto in enumerate(nodes):
            label = f"{scope.prefix}{proto.name or f'{proto.op_type}_{index}'}"
            self.builder.label = label
            try:
                self._node(proto, scope)
            except TenantdlError:
                raise
            except Refusal as refusal:
                raise self.error(label, proto.op_type, str(refusal)) from refusal
            except Exception as error:  # hostile nodes break libraries in their own ways
                what = f"ill-formed ({type(error).__name__}: {error})"
                raise self.error(label, proto.op_type, what) from error

    def error(self, label: str, op: str, what: str) -> UserError:
        """The error line of a node."""
        return UserError(f"node '{label}' ({op}): {what}"[:400], where=self.where)

    def _node(self, proto: onnx.NodeProto, scope: Scope) -> None:
        inputs = [scope.find(name) if name else "" for name in proto.input]
        attrs = read_attributes(proto.attribute, scope.attrs, self.weights)
        call = Call(proto.op_type, 0, inputs, attrs, list(proto.output), scope)
        results = self.call(call, proto.domain)
        for name, value in zip(call.outputs, results, strict=False):
            if name and value:
                scope.bind(name, value)

    def call(self, call: Call, domain: str) -> list[str]:
        """Reads one operator; returns the values of its outputs, "" for those not wanted."""
        domain = "" if domain == "ai.onnx" else domain
        function = self.functions.get((domain, call.op))
        if function is not None:
            return self.inline(function, call)
        if domain:
            raise Refusal(f"operators of the domain '{domain}' are not supported")
        call.version = self._version(call)
        reason = refused(call.op)
        if reason:
            raise Refusal(reason)
        rewrite: Handler | None = _HANDLERS.get(call.op)
        if rewrite is not None:
            results = rewrite(self, call)
            if results:
                return results
        if call.op not in WHOLE and expand.has_body(call.op):
            return expand.enter_body(self, call)
        wanted = [bool(name) for name in call.outputs]
        hints = [call.scope.prefix + name for name in call.outputs]
        return self.builder.emit(call.op, call.inputs, call.attrs, hints, wanted)

    def _version(self, call: Call) -> int:
        """The version of the operator's form. Raises Refusal for operators unknown to the opset."""
        opset = call.scope.opsets.get("")
        if opset is None:
            raise Refusal("the model imports no opset of ONNX's own domain")
        if not onnx.defs.has(call.op, min(opset, NEWEST), ""):
            raise Refusal(f"unknown operator in opset {opset}")
        schema = onnx.defs.get_schema(call.op, min(opset, NEWEST), "")
        if not schema.min_input <= len(call.inputs) <= schema.max_input:
            raise Refusal(f"takes {schema.min_input} to {schema.max_input} inputs")
        if not schema.min_output <= len(call.outputs) <= schema.max_output:
            raise Refusal(f"has {schema.min_output} to {schema.max_output} outputs")
        return int(schema.since_version)

    def inline(self, function: onnx.FunctionProto, call: Call) -> list[str]:
        """Reads the body of a function in a scope of its own."""
        if len(call.inputs) > len(function.input) or len(call.outputs) > len(function.output):
            raise Refusal(f"function '{function.name}' is called with too many inputs or outputs")
        attrs = read_attributes(function.attribute_proto, {}, self.weights) | call.attrs
        opsets = {_domain(o.domain): o.version for o in function.opset_import}
        label = self.builder.label
        scope = Scope(opsets or call.scope.opsets, attrs, prefix=f"{label}/")
        for index, name in enumerate(function.input):
            scope.names[name] = call.input(index)
        self.enter(function.node, scope)
        self.builder.label = label
        return [scope.find(name) for name in function.output[: len(call.outputs)]]

    def enter(self, nodes: Iterable[onnx.NodeProto], scope: Scope) -> None:
        """Reads the nodes of a body. Raises Refusal where bodies nest too deeply (recursion)."""
        if self.depth >= DEPTH_MAX:
            raise Refusal(f"functions and branches nest deeper than {DEPTH_MAX}")
        self.depth += 1
        self.run(nodes, scope)
        self.depth -= 1

    def body(self, graph: onnx.GraphProto, scope: Scope) -> list[str]:
        """Reads a branch or loop body; `scope` holds its inputs already. Returns its outputs."""
        for tensor in graph.initializer:
            scope.bind(tensor.name, self.builder.constant(self.weights.read(tensor)))
        if graph.sparse_initializer:
            raise Refusal("sparse tensors are not supported")
        self.enter(graph.node, scope)
        return [scope.find(output.name) for output in graph.output]


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


_HANDLERS: dict[str, Handler] = {
    **upgrade.HANDLERS,
    **upgrade_layers.HANDLERS,
    **expand.HANDLERS,
    **control.HANDLERS,
    **recurrent.HANDLERS,
    **spectral.HANDLERS,
    **windows.HANDLERS,
}
