"""Scopes of names, uses of operators, and what a rewriting rule may ask of the model's reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx

from tenantdl.compile.frontend.builder import Builder
from tenantdl.compile.frontend.read import Weights
from tenantdl.compile.frontend.refusal import Refusal


@dataclass(slots=True)
class Scope:
    """Names that nodes see. A branch or loop body sees its parent's; a function only its own."""

    opsets: Mapping[str, int]
    attrs: Mapping[str, Any] = field(default_factory=dict)  # of the function's call
    parent: Scope | None = None
    names: dict[str, str] = field(default_factory=dict)
    prefix: str = ""

    def find(self, name: str) -> str:
        """The value that an ONNX name stands for. Raises Refusal where nothing produces it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        raise Refusal(f"reads '{name}', which nothing before it produces")

    def bind(self, name: str, value: str) -> None:
        """Gives a value its ONNX name. Raises Refusal where the name has one already."""
        if name in self.names:
            raise Refusal(f"produces '{name}' a second time")
        self.names[name] = value

    def inside(self, label: str) -> Scope:
        """A scope for a body of the node `label`."""
        return Scope(self.opsets, self.attrs, self, prefix=f"{label}/")


@dataclass(slots=True)
class Call:
    """One use of an operator: resolved inputs ("" = absent), attributes, and the ONNX names of its
    outputs ("" = not wanted). `version`: of the operator's form; rewriting brings it up to date."""

    op: str
    version: int
    inputs: list[str]
    attrs: dict[str, Any]
    outputs: list[str]
    scope: Scope

    def input(self, index: int) -> str:
        """The value of an input, "" where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def wants(self, index: int) -> bool:
        """Whether an output is used."""
        return index < len(self.outputs) and bool(self.outputs[index])


class Reader(Protocol):
    """What rules need of the tracer."""

    builder: Builder
    weights: Weights

    def inline(self, function: onnx.FunctionProto, call: Call) -> list[str]:
        """Reads the body of a function in a scope of its own."""

    def body(self, graph: onnx.GraphProto, scope: Scope) -> list[str]:
        """Reads a branch or loop body; returns its outputs."""


Handler = Callable[[Reader, Call], list[str]]
"""Rewrites a call. An empty result means: go on with the call as the rule left it."""
