"""Evaluates nodes whose inputs are all constant, by ONNX's reference implementation.

Bounded: what would take more memory than `FOLD_BYTES_MAX`, or much time, stays a node.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from tenantdl.compile.frontend.attributes import make_node
from tenantdl.compile.frontend.infer import NEWEST
from tenantdl.compile.frontend.refusal import FOLD_BYTES_MAX, Refusal
from tenantdl.compile.graph import Array, TensorType

# Random, or with work and scratch memory that the sizes of their tensors do not bound.
_NOT_FOLDED = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"}
    | {"AveragePool", "MaxPool", "LpPool", "MaxUnpool", "Einsum", "Col2Im", "GridSample"}
    | {"RoiAlign", "MaxRoiPool", "DFT", "STFT", "NonMaxSuppression", "Resize", "LRN"}
)
# Their outputs are views of one element or of the input: no memory, whatever the size.
_RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def fold(
    op: str,
    arrays: Sequence[Array | None],
    attrs: Mapping[str, Any],
    types: Sequence[TensorType | None],
    budget_bytes: int,
) -> list[Array] | None:
    """The outputs, or None where the node must stay. `types`: what inference says of the outputs;
    `budget_bytes`: how much memory folding may still take. Raises Refusal where evaluation fails.
    """
    if op in _NOT_FOLDED:
        return None
    read = sum(array.nbytes for array in arrays if array is not None)
    sizes = [kind.nbytes if kind else read * 8 for kind in types]
    if sum(sizes) > min(FOLD_BYTES_MAX, budget_bytes) and op not in _RESHAPING:
        return None
    if op == "ConstantOfShape" and types[0] is not None:
        value = np.asarray(attrs.get("value", np.zeros(1, np.float32))).reshape(())
        return [np.broadcast_to(value, types[0].shape)]
    if op in _RESHAPING and types[0] is not None and arrays[0] is not None:
        return [arrays[0].reshape(types[0].shape)]
    return _evaluate(op, arrays, attrs, len(types))


def _evaluate(
    op: str, arrays: Sequence[Array | None], attrs: Mapping[str, Any], n_outputs: int
) -> list[Array]:
    inputs = {f"i{k}": array for k, array in enumerate(arrays) if array is not None}
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(arrays)]
    node = make_node(op, names, [f"o{k}" for k in range(n_outputs)], attrs)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(node, opsets={"": NEWEST}).run(None, inputs)
    except Exception as error:  # whatever the reference raises, the node cannot be evaluated
        raise Refusal(f"cannot be evaluated on its constants: {error}") from error
    if not all(isinstance(result, (np.ndarray, np.generic)) for result in results):
        raise Refusal("its result is not a tensor")
    return [np.asarray(result) for result in results]
