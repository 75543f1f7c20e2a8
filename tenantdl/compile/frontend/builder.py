"""Builds the graph by partial evaluation: an operator is folded if its inputs are constant,
dropped if it does nothing, otherwise appended with the static types of its outputs.

Everything above (old opsets, functions, control flow, recurrences) is a program over `emit`, so
that a chain Shape → Gather → Concat → Reshape is gone by the time the Reshape is appended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tenantdl.compile.frontend.dtypes import dtype_name
from tenantdl.compile.frontend.fold import fold
from tenantdl.compile.frontend.infer import check_size, infer_types
from tenantdl.compile.frontend.refusal import (
    DATA_ELEMENTS_MAX,
    FOLD_TOTAL_BYTES_MAX,
    NODES_MAX,
    Refusal,
)
from tenantdl.compile.graph import Array, Node, TensorType


class Builder:
    """The graph while it grows. Values are named; `types` knows each, `constants` holds some."""

    def __init__(self) -> None:
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[Node] = []
        self.label = ""  # the ONNX node at work: names what it emits
        self._fold_budget_bytes = FOLD_TOTAL_BYTES_MAX
        self._taken: dict[str, int] = {}
        self._labels: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """A value name not used yet, `hint` itself if possible."""
        hint = hint or self.label or "value"
        name = hint
        while name in self.types or name in self._taken:
            self._taken[hint] = self._taken.get(hint, 0) + 1
            name = f"{hint}#{self._taken[hint]}"
        self._taken.setdefault(name, 0)
        return name

    def constant(self, array: Any, dtype: str | None = None, hint: str = "const") -> str:
        """A new constant; small equal ones are not shared here."""
        value = np.asarray(array, dtype=dtype)
        name = self.fresh(hint)
        self.types[name] = check_size(TensorType(tuple(value.shape), value.dtype.name))
        self.constants[name] = value
        return name

    def const(self, name: str) -> Array | None:
        """The array of a value if it is constant."""
        return self.constants.get(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The static shape of a value. Raises Refusal where the value is an absent input."""
        return self._type(name).shape

    def dtype(self, name: str) -> str:
        """The dtype of a value. Raises Refusal where the value is an absent input."""
        return self._type(name).dtype

    def _type(self, name: str) -> TensorType:
        if not name:
            raise Refusal("an input that it needs is absent")
        return self.types[name]

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:
        """Appends an operator with one output and returns its value."""
        return self.emit(op, list(inputs), attrs)[0]

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        attrs: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = ("",),
        wanted: Sequence[bool] | None = None,
    ) -> list[str]:
        """Appends `op` in the form of the newest opset; `outputs` hint at the names of its values,
        of which those not `wanted` are left out (their name is then ""). Raises Refusal."""
        attrs = dict(attrs or {})
        inputs = _without_trailing_gaps(inputs)
        wanted = [True] * len(outputs) if wanted is None else wanted
        same = _unchanged(self, op, inputs, attrs)
        if same is not None and len(outputs) == 1:
            return [same]
        kinds = infer_types(op, inputs, attrs, len(outputs), self.types, self.constants)
        folded = self._fold(op, inputs, attrs, kinds)
        if folded is not None:
            return [
                self.constant(array, hint=hint) if want else ""
                for array, hint, want in zip(folded, outputs, wanted, strict=True)
            ]
        if any(want and kind is None for kind, want in zip(kinds, wanted, strict=True)):
            raise Refusal("the shape of its output depends on data")
        # A value without elements is known whatever the inputs are.
        empty = [kind is not None and 0 in kind.shape for kind in kinds]
        names = [
            self._declare(hint, kind) if want and kind and not none else ""
            for kind, hint, want, none in zip(kinds, outputs, wanted, empty, strict=True)
        ]
        results = [
            self.constant(np.empty(kind.shape, kind.dtype), hint=hint) if kind and none else name
            for kind, hint, name, none in zip(kinds, outputs, names, empty, strict=True)
        ]
        if not any(names):
            return results
        if len(self.nodes) >= NODES_MAX:
            raise Refusal(f"the graph grows beyond {NODES_MAX} nodes")
        self.nodes.append(Node(op, inputs, names, attrs, self._node_name()))
        return results

    def _node_name(self) -> str:
        """The label; from its second node on with a number."""
        count = self._labels.get(self.label, 0)
        self._labels[self.label] = count + 1
        return f"{self.label}#{count}" if count else self.label

    def _declare(self, hint: str, kind: TensorType) -> str:
        name = self.fresh(hint)
        self.types[name] = kind
        return name

    def _fold(
        self,
        op: str,
        inputs: list[str],
        attrs: dict[str, Any],
        kinds: list[TensorType | None],
    ) -> list[Array] | None:
        arrays = [self.constants.get(name) for name in inputs]
        if any(name and array is None for name, array in zip(inputs, arrays, strict=True)):
            return None
        results = fold(op, arrays, attrs, kinds, self._fold_budget_bytes)
        if results is None or len(results) < len(kinds):
            return None
        typed: list[Array] = []
        for array, kind in zip(results, kinds, strict=False):
            if kind is not None and array.shape != kind.shape:
                raise Refusal(f"evaluates to {list(array.shape)}, not {list(kind.shape)}")
            typed.append(array.astype(kind.dtype, copy=False) if kind else array)
            if array.size > DATA_ELEMENTS_MAX and array.base is None:
                self._fold_budget_bytes -= array.nbytes
        return typed


def _without_trailing_gaps(inputs: Sequence[str]) -> list[str]:
    kept = list(inputs)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _unchanged(b: Builder, op: str, inputs: list[str], attrs: Mapping[str, Any]) -> str | None:
    """The input that the operator hands on as it is, if it does."""
    if not inputs or not inputs[0]:
        return None
    source = inputs[0]
    match op:
        case "Identity":
            return source
        case "Cast" if b.types[source].dtype == dtype_name(attrs.get("to", 0)):
            return source
        case "Concat" | "Sum" | "Mean" | "Max" | "Min" if len(inputs) == 1:
            return source
        case "Transpose" if attrs.get("perm") == list(range(len(b.shape(source)))):
            return source
        case "Reshape" | "Expand" if len(inputs) == 2 and inputs[1] in b.constants:
            if not attrs.get("allowzero"):
                target = tuple(b.constants[inputs[1]].reshape(-1).tolist())
                return source if target == b.shape(source) and 0 not in target else None
    return None
