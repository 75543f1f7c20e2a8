"""Graph nodes → one Relax function: by own rules where there is one, else by TVM's ONNX converters.

The shape and dtype of every result are compared with what ONNX says; a converter that disagrees is
not trusted and the node is refused.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tenantdl.compile.frontend.attributes import make_node
from tenantdl.compile.frontend.infer import NEWEST
from tenantdl.compile.frontend.refusal import Refusal
from tenantdl.compile.generic.rules import RULES, Use
from tenantdl.compile.graph import Graph, Node, TensorType
from tenantdl.errors import UserError

# Constants up to this size are part of the code, larger ones are arguments.
_EMBEDDED_ELEMENTS_MAX = 256

# Sums of many float16 are taken in float32.
_WIDENED = frozenset(
    {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "CumSum", "Einsum", "Gemm"}
    | {"GlobalAveragePool", "GlobalLpPool", "GroupNormalization", "InstanceNormalization"}
    | {"LayerNormalization", "LogSoftmax", "LpNormalization", "LpPool", "LRN", "MatMul", "Mean"}
    | {"MeanVarianceNormalization", "Mod", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSum"}
    | {"ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSumSquare", "Softmax", "Resize"}
    | {"Erf", "Exp", "Gelu", "Mish", "Sigmoid", "Softplus", "Tanh"}
)


@dataclass(slots=True)
class Imported:
    """A Relax module with one function `main`: parameters and results name graph values."""

    module: Any
    parameters: list[str]
    results: list[str]


def import_nodes(graph: Graph, nodes: Sequence[Node], results: Sequence[str]) -> Imported:
    """Converts nodes, in order, that together make `results`.

    Raises UserError naming the first node that has no correct conversion.
    """
    inside = {name for node in nodes for name in node.outputs if name}
    read = dict.fromkeys(name for node in nodes for name in node.inputs if name)
    values: dict[str, Any] = {}
    parameters: list[str] = []
    for name in read:
        if name in inside:
            continue
        array = graph.constants.get(name)
        if array is not None and array.size <= _EMBEDDED_ELEMENTS_MAX:
            values[name] = relax.const(np.array(array, order="C"), array.dtype.name)
        else:
            values[name] = _variable(len(parameters), graph.types[name])
            parameters.append(name)
    builder = relax.BlockBuilder()
    with builder.function("main", [values[name] for name in parameters]):
        try:
            with builder.dataflow():
                for node in nodes:
                    _convert(builder, graph, node, values)
                outputs = builder.emit_output(relax.Tuple([values[name] for name in results]))
        except UserError:
            builder._end_block()  # TVM warns on stderr about blocks that are left open
            raise
        builder.emit_func_output(outputs)
    return Imported(builder.get(), parameters, list(results))


def _variable(index: int, kind: TensorType) -> Any:
    return relax.Var(f"p{index}", relax.TensorType(kind.shape, kind.dtype))


def _convert(builder: Any, graph: Graph, node: Node, values: dict[str, Any]) -> None:
    inputs = [values[name] if name else None for name in node.inputs]
    kinds = [graph.types[name] if name else None for name in node.outputs]
    try:
        if node.op in _WIDENED:
            inputs = [_as(builder, value, "float16", "float32") for value in inputs]
        made = _apply(builder, node, inputs, kinds, graph)
        for name, kind, value in zip(node.outputs, kinds, made, strict=False):
            if kind is not None:
                values[name] = builder.emit(value)
                if node.op in _WIDENED and kind.dtype == "float16":
                    values[name] = _as(builder, values[name], "float32", "float16")
                _compare(values[name], kind)
        missing = [name for name in node.outputs if name and name not in values]
        if missing:
            raise Refusal(f"its output '{missing[0]}' is not supported")
    except UserError:
        raise
    except Refusal as refusal:
        raise UserError(f"node '{node.name}' ({node.op}): {refusal}", where=graph.name) from refusal
    except Exception as error:  # TVM's converters fail in their own ways
        what = f"TVM cannot convert it: {str(error).strip().splitlines()[-1:]}"
        raise UserError(
            f"node '{node.name}' ({node.op}): {what}"[:400], where=graph.name
        ) from error


def _as(builder: Any, value: Any, before: str, after: str) -> Any:
    """The value cast to `after` if it is of `before`."""
    if value is None or str(value.ty.dtype) != before:
        return value
    return builder.emit(relax.op.astype(value, after))


def _apply(
    builder: Any,
    node: Node,
    inputs: list[Any],
    kinds: list[TensorType | None],
    graph: Graph,
) -> list[Any]:
    rule = RULES.get(node.op)
    if rule is not None:
        made = rule(Use(builder, node, inputs, kinds, graph))
        return made if isinstance(made, list) else [made]
    converters = onnx_frontend._get_convert_map()
    if node.op not in converters:
        raise Refusal("the operator is not supported")
    proto = make_node(
        node.op, node.inputs, node.outputs, {k: v for k, v in node.attrs.items() if v != []}
    )
    attrs = onnx_frontend.ONNXGraphImporter({}, {})._parse_attr(proto.attribute)
    attrs["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    convert = converters[node.op].get_converter(NEWEST)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        made = convert(builder, onnx_frontend.onnx_input(inputs), attrs, [{}, {}])
    return _fields(builder, made)


def _fields(builder: Any, made: Any) -> list[Any]:
    """The results of a converter one by one."""
    if isinstance(made, relax.Tuple):
        return list(made.fields)
    made = builder.normalize(made)
    if isinstance(made.ty, relax.TupleType):
        made = builder.emit(made)
        return [relax.TupleGetItem(made, index) for index in range(len(made.ty.fields))]
    return [made]


def _compare(value: Any, kind: TensorType) -> None:
    """Raises Refusal where the conversion and ONNX disagree on the type."""
    shape = value.ty.shape
    found = tuple(int(extent) for extent in shape.values) if shape is not None else None
    dtype = str(value.ty.dtype)
    if found != kind.shape or dtype != kind.dtype:
        raise Refusal(
            f"TVM converts it to {dtype}{list(found) if found is not None else '?'}, "
            f"not {kind.dtype}{list(kind.shape)}"
        )
