"""Gives every input of the model a static shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from tenantdl.compile.frontend.builder import Builder
from tenantdl.compile.frontend.dtypes import RUNNABLE, dtype_name
from tenantdl.compile.frontend.infer import check_size
from tenantdl.compile.frontend.refusal import Refusal, check_text
from tenantdl.compile.frontend.scope import Scope
from tenantdl.compile.graph import TensorType

_Dims = list[int | str]  # a number, a name, or "" where the model says nothing


def bind_inputs(
    graph: onnx.GraphProto,
    builder: Builder,
    scope: Scope,
    batch: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """Declares the inputs and returns their names. Initializers that are listed as inputs too stay
    constants. Raises Refusal naming the input and the dimension that is still open."""
    if batch < 1:
        raise Refusal(f"batch {batch} is not positive")
    protos = [proto for proto in graph.input if proto.name not in scope.names]
    declared = {proto.name: declared_dims(proto) for proto in protos}
    for name in shapes:
        if name not in declared:
            raise Refusal(f"there is no input '{name}' (there are: {', '.join(declared)})")
    bound = _bind_names(declared, batch, shapes)
    names: list[str] = []
    for proto in protos:
        shape = _shape(proto.name, declared[proto.name], batch, shapes, bound)
        dtype = dtype_name(proto.type.tensor_type.elem_type)
        if dtype not in RUNNABLE:
            raise Refusal(f"input '{proto.name}': tensors of {dtype} are not supported")
        name = builder.fresh(proto.name)
        builder.types[name] = check_size(TensorType(shape, dtype))
        names.append(name)
        # An input without elements is as good as a constant.
        value = builder.constant(np.empty(shape, dtype)) if 0 in shape else name
        scope.bind(proto.name, value)
    return names


def declared_dims(proto: onnx.ValueInfoProto) -> _Dims | None:
    """The dimensions an input declares; None where not even their number is known."""
    check_text(proto.name)
    if not proto.name or not proto.type.HasField("tensor_type"):
        kind = proto.type.WhichOneof("value") or "no type"
        raise Refusal(f"input '{proto.name}' is not a tensor ({kind})")
    tensor = proto.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims: _Dims = []
    for dim in tensor.shape.dim:
        known = dim.HasField("dim_value") and dim.dim_value >= 0  # exporters write -1 for "open"
        dims.append(dim.dim_value if known else dim.dim_param.replace("?", ""))
    return dims


def _bind_names(
    declared: Mapping[str, _Dims | None], batch: int, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """Values of named dimensions: from the given shapes, then the batch where one comes first."""
    bound: dict[str, int] = {}
    for name, shape in shapes.items():
        dims = declared[name]
        for dim, extent in zip(dims or [], shape, strict=False):
            if isinstance(dim, str) and dim and bound.setdefault(dim, extent) != extent:
                raise Refusal(f"dimension '{dim}' is given as {bound[dim]} and as {extent}")
    for dims in declared.values():
        if dims and isinstance(dims[0], str) and dims[0]:
            bound.setdefault(dims[0], batch)
    return bound


def _shape(
    name: str,
    dims: _Dims | None,
    batch: int,
    shapes: Mapping[str, tuple[int, ...]],
    bound: Mapping[str, int],
) -> tuple[int, ...]:
    if name in shapes:
        shape = tuple(shapes[name])
        fits = dims is None or (
            len(dims) == len(shape)
            and all(isinstance(d, str) or d == s for d, s in zip(dims, shape, strict=True))
        )
        if not fits or any(extent < 0 for extent in shape):
            raise Refusal(f"input '{name}' is declared {_render(dims)}, it cannot be {list(shape)}")
        return shape
    if dims is None:
        raise Refusal(f"input '{name}' has no declared shape: give it as {name}=1x3x224x224")
    result = []
    for index, dim in enumerate(dims):
        extent = dim if isinstance(dim, int) else bound.get(dim, batch if index == 0 else None)
        if extent is None:
            raise Refusal(
                f"input '{name}' {_render(dims)} leaves dimension {index} open: "
                f"give its shape, for example {name}={'x'.join(_example(dims, batch))}"
            )
        result.append(extent)
    if batch != 1 and dims and isinstance(dims[0], int) and dims[0] != batch and not bound:
        raise Refusal(f"input '{name}' has the fixed shape {dims}: batch {batch} is not possible")
    return tuple(result)


def _render(dims: _Dims | None) -> str:
    return "[" + ", ".join(str(dim) or "?" for dim in dims) + "]" if dims is not None else "?"


def _example(dims: _Dims, batch: int) -> list[str]:
    guess = {0: str(batch), 1: "3"}
    return [str(d) if isinstance(d, int) else guess.get(i, "224") for i, d in enumerate(dims)]
