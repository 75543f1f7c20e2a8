"""ONNX file → graph: the whole of the frontend in one function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from tenantdl.compile.frontend.bind import bind_inputs, declared_dims
from tenantdl.compile.frontend.dtypes import RUNNABLE, dtype_name
from tenantdl.compile.frontend.read import Weights, read_model
from tenantdl.compile.frontend.refusal import METADATA_BYTES_MAX, Refusal, check_text
from tenantdl.compile.frontend.scope import Scope
from tenantdl.compile.frontend.tracer import Tracer
from tenantdl.compile.graph import Graph, Node
from tenantdl.errors import UserError


def load_graph(
    model: str | Path | onnx.ModelProto,
    *,
    batch: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """Reads an ONNX model into a graph of static shapes.

    `batch` is the first dimension of inputs where the model leaves it open; `shapes` gives whole
    shapes of inputs by name. Outputs keep their names and each is written by a node of its own.
    Raises UserError, one line that names the node, for everything that cannot be compiled.
    """
    where = str(model) if isinstance(model, str | Path) else "model"
    try:
        proto, weights, where = read_model(model)
        return _load(proto, weights, where, batch, shapes or {})
    except UserError:
        raise
    except Refusal as refusal:
        raise UserError(str(refusal), where=where) from refusal
    except Exception as error:  # hostile files break protobuf and NumPy in their own ways
        raise UserError(f"ill-formed ({type(error).__name__}: {error})", where=where) from error


def input_dims(model: str | Path | onnx.ModelProto) -> dict[str, list[int | str]]:
    """The declared dimensions of each input that is no constant: numbers, names, "" where the model
    says nothing; an input of unknown rank has none. Raises UserError."""
    where = str(model) if isinstance(model, str | Path) else "model"
    try:
        proto, _, where = read_model(model)
        constants = {tensor.name for tensor in proto.graph.initializer}
        ports = [port for port in proto.graph.input if port.name not in constants]
        return {port.name: declared_dims(port) or [] for port in ports}
    except Refusal as refusal:
        raise UserError(str(refusal), where=where) from refusal


def _load(
    proto: onnx.ModelProto,
    weights: Weights,
    where: str,
    batch: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> Graph:
    tracer = Tracer(where, weights, _functions(proto, where))
    opsets = {_domain(o.domain): o.version for o in proto.opset_import} or {"": 1}
    scope = Scope(opsets)
    check_text(proto.graph.name)
    _read_constants(tracer, proto.graph, scope)
    inputs = bind_inputs(proto.graph, tracer.builder, scope, batch, shapes)
    tracer.run(proto.graph.node, scope)
    graph = _finish(tracer, proto.graph, scope, inputs)
    graph.metadata = _metadata(proto)
    return graph


def _metadata(proto: onnx.ModelProto) -> dict[str, str]:
    size = sum(len(entry.key) + len(entry.value) for entry in proto.metadata_props)
    if size > METADATA_BYTES_MAX:
        raise Refusal(f"metadata of {size} characters")
    for entry in proto.metadata_props:
        check_text(entry.key)
        check_text(entry.value)
    return {entry.key: entry.value for entry in proto.metadata_props}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _functions(proto: onnx.ModelProto, where: str) -> dict[tuple[str, str], onnx.FunctionProto]:
    functions: dict[tuple[str, str], onnx.FunctionProto] = {}
    for function in proto.functions:
        key = (_domain(function.domain), function.name)
        if key in functions:
            raise UserError(f"function '{function.name}' is defined twice", where=where)
        functions[key] = function
    return functions


def _read_constants(tracer: Tracer, graph: onnx.GraphProto, scope: Scope) -> None:
    if graph.sparse_initializer:
        raise Refusal("sparse tensors are not supported")
    for tensor in graph.initializer:
        if not tensor.name:
            raise Refusal("an initializer has no name")
        check_text(tensor.name)
        array = tracer.weights.read(tensor)
        scope.bind(tensor.name, tracer.builder.constant(array, hint=tensor.name))


def _finish(tracer: Tracer, proto: onnx.GraphProto, scope: Scope, inputs: list[str]) -> Graph:
    """Names the outputs, drops what none of them needs, checks the types that are left."""
    b = tracer.builder
    taken: dict[str, str] = {}  # value → the output it became
    outputs = []
    for output in proto.output:
        check_text(output.name)
        value = scope.find(output.name)
        _check_declared(output, b.dtype(value))
        if value in taken or value in b.constants or value in inputs:
            b.label = f"output {output.name}"
            name = b.fresh(output.name)
            b.types[name] = b.types[value]
            b.nodes.append(Node("Identity", [value], [name], {}, b.label))
            value = name
        taken[value] = output.name
        outputs.append(output.name)
    if len(set(outputs)) != len(outputs):
        raise Refusal("an output is listed twice")
    graph = Graph(proto.name, inputs, outputs, b.nodes, b.constants, b.types)
    _rename(graph, {value: name for value, name in taken.items() if value != name})
    _prune(graph)
    _check_types(tracer, graph)
    return graph


def _check_declared(output: onnx.ValueInfoProto, dtype: str) -> None:
    kind = output.type
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type:
        declared = dtype_name(kind.tensor_type.elem_type)
        if declared != dtype:
            raise Refusal(f"output '{output.name}' is declared {declared} and is {dtype}")


def _rename(graph: Graph, names: dict[str, str]) -> None:
    """Gives values new names; one that is in the way steps aside."""
    if not names:
        return
    for name in names.values():
        if name in graph.types and name not in names:
            aside = f"{name}#inner"
            while aside in graph.types:
                aside += "'"
            names = {**names, name: aside}
    for node in graph.nodes:
        node.inputs = [names.get(name, name) for name in node.inputs]
        node.outputs = [names.get(name, name) for name in node.outputs]
    graph.inputs = [names.get(name, name) for name in graph.inputs]
    graph.constants = {names.get(name, name): v for name, v in graph.constants.items()}
    graph.types = {names.get(name, name): kind for name, kind in graph.types.items()}


def _prune(graph: Graph) -> None:
    """Drops nodes, outputs of nodes and constants that no output of the graph needs."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            node.outputs = [name if name in needed else "" for name in node.outputs]
            while not node.outputs[-1]:
                node.outputs.pop()
            needed.update(name for name in node.inputs if name)
            kept.append(node)
    graph.nodes = kept[::-1]
    graph.constants = {name: v for name, v in graph.constants.items() if name in needed}
    alive = needed | set(graph.inputs)
    graph.types = {name: kind for name, kind in graph.types.items() if name in alive}


def _check_types(tracer: Tracer, graph: Graph) -> None:
    for node in graph.nodes:
        for name in (*node.inputs, *node.outputs):
            if name and graph.types[name].dtype not in RUNNABLE:
                what = f"tensors of {graph.types[name].dtype} are not supported"
                raise tracer.error(node.name, node.op, what)
