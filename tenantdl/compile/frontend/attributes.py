"""ONNX attributes as Python values: int, float, str, lists of them, arrays, graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from tenantdl.compile.frontend.read import Weights
from tenantdl.compile.frontend.refusal import Refusal


def read_attributes(
    protos: Iterable[AttributeProto], outer: Mapping[str, Any], weights: Weights
) -> dict[str, Any]:
    """Name → value. A reference takes the value that `outer`, the attributes of the function's
    call, gives; one that it does not give is left out. Raises Refusal for kinds that cannot run."""
    attrs: dict[str, Any] = {}
    for proto in protos:
        if proto.name in attrs:
            raise Refusal(f"attribute '{proto.name}' is given twice")
        if proto.ref_attr_name:
            if proto.ref_attr_name in outer:
                attrs[proto.name] = outer[proto.ref_attr_name]
        else:
            attrs[proto.name] = _value(proto, weights)
    return attrs


def _value(proto: AttributeProto, weights: Weights) -> Any:
    match proto.type:
        case AttributeProto.INT:
            return proto.i
        case AttributeProto.FLOAT:
            return proto.f
        case AttributeProto.STRING:
            return proto.s.decode("utf-8", "replace")
        case AttributeProto.INTS:
            return list(proto.ints)
        case AttributeProto.FLOATS:
            return list(proto.floats)
        case AttributeProto.STRINGS:
            return [item.decode("utf-8", "replace") for item in proto.strings]
        case AttributeProto.TENSOR:
            return weights.read(proto.t)
        case AttributeProto.GRAPH:
            return proto.g
        case _:
            raise Refusal(f"attribute '{proto.name}' is of an unsupported kind ({proto.type})")


def make_node(
    op: str,
    inputs: list[str],
    outputs: list[str],
    attrs: Mapping[str, Any],
    name: str = "",
    domain: str = "",
) -> onnx.NodeProto:
    """The ONNX node of Python values: the inverse of reading."""
    node = helper.make_node(op, inputs, outputs, name=name, domain=domain)
    schema = onnx.defs.get_schema(op, domain).attributes if onnx.defs.has(op, domain) else {}
    for key, value in attrs.items():
        if isinstance(value, np.ndarray):
            value = numpy_helper.from_array(np.asarray(value, order="C"))
        # An empty list says nothing of its kind: the schema does.
        kind = int(schema[key].type) if value == [] and key in schema else None
        node.attribute.append(helper.make_attribute(key, value, attr_type=kind))
    return node
