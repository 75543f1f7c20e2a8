"""Which part of which tensor a value is: Reshape, Transpose, Slice … traced back to strides.

Exporters split heads and fused projections in many ways; all that matters is where element
(b, h, s, d) lies. The operators are replayed on a NumPy array without contents, whose strides tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenantdl.compile.graph import Array, Node
from tenantdl.compile.rewrite.edit import Editor


@dataclass(frozen=True, slots=True)
class View:
    """Element (i, j, …) is `factor` times element `offset` + Σ index·stride of row-major `base`."""

    base: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    factor: float = 1.0


def trace(edit: Editor, value: str) -> View:
    """`value` as a view of the earliest tensor that it is one of, number factors taken out."""
    chain: list[Node] = []
    base = edit.name(value)
    while (node := edit.producer(base)) is not None and _traceable(edit, node):
        chain.append(node)
        base = edit.name(_data(edit, node))
    array, factor = _dummy(edit, base), 1.0
    start = array
    for position in range(len(chain) - 1, -1, -1):
        node = chain[position]
        output = base_of(chain, position, value, edit)
        try:
            array, factor = _apply(edit, node, output, array, factor)
        except ValueError:  # needs a copy: what follows is a view of that
            base, factor = output, 1.0
            start = array = _dummy(edit, output)
    offset = array.__array_interface__["data"][0] - start.__array_interface__["data"][0]
    return View(base, offset, array.shape, array.strides, factor)


def base_of(chain: list[Node], position: int, value: str, edit: Editor) -> str:
    """The output of `chain[position]` that leads to `value`; the chain runs backwards."""
    return edit.name(_data(edit, chain[position - 1]) if position else value)


def _dummy(edit: Editor, value: str) -> Array:
    return np.empty(edit.shape(value), np.int8)


def _data(edit: Editor, node: Node) -> str:
    """The input that `node` is a view of."""
    if node.op == "Mul" and edit.scalar(node.inputs[0]) is not None:
        return node.inputs[1]
    return node.inputs[0]


def _traceable(edit: Editor, node: Node) -> bool:
    if edit.array(_data(edit, node)) is not None or not edit.is_float(node.outputs[0]):
        return False
    match node.op:
        case "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Transpose" | "Identity":
            return True
        case "Mul" | "Div":
            same = edit.type(_data(edit, node)) == edit.type(node.outputs[0])
            others = [name for name in node.inputs if name != _data(edit, node)]
            return same and len(others) == 1 and edit.scalar(others[0]) not in (None, 0.0)
        case "Slice":
            return all(edit.array(name) is not None for name in node.inputs[1:] if name)
        case "Split":
            return len(node.inputs) < 2 or edit.array(node.inputs[1]) is not None
        case "Gather":
            index = edit.array(node.inputs[1])
            return index is not None and index.ndim == 0
        case _:
            return False


def _apply(
    edit: Editor, node: Node, output: str, array: Array, factor: float
) -> tuple[Array, float]:
    """The view and factor after `node`. ValueError where NumPy would have to copy."""
    match node.op:
        case "Transpose":
            return array.transpose(node.attrs.get("perm")), factor
        case "Mul" | "Div":
            number = edit.scalar(next(n for n in node.inputs if n != _data(edit, node)))
            assert number is not None
            return array, factor * number if node.op == "Mul" else factor / number
        case "Slice":
            return array[_slices(edit, node, array.ndim)], factor
        case "Split":
            return _split(edit, node, output, array), factor
        case "Gather":
            axis = int(node.attrs.get("axis", 0)) % array.ndim
            index = edit.numbers(node.inputs[1])
            assert index is not None
            return _cut(array, axis, index[0]), factor
        case _:
            return np.reshape(array, edit.shape(output), copy=False), factor


def _slices(edit: Editor, node: Node, rank: int) -> tuple[slice, ...]:
    starts, ends, *more = (edit.numbers(name) for name in node.inputs[1:])
    assert starts is not None and ends is not None
    axes = more[0] if more and more[0] is not None else list(range(len(starts)))
    steps = more[1] if len(more) > 1 and more[1] is not None else [1] * len(starts)
    cuts = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise ValueError("backwards")
        cuts[axis % rank] = slice(start, end, step)
    return tuple(cuts)


def _split(edit: Editor, node: Node, output: str, array: Array) -> Array:
    axis = int(node.attrs.get("axis", 0)) % array.ndim
    start = 0
    for name in node.outputs:
        extent = edit.shape(name)[axis]
        if edit.name(name) == output:
            return _cut(array, axis, slice(start, start + extent))
        start += extent
    raise ValueError("not an output")


def _cut(array: Array, axis: int, which: int | slice) -> Array:
    """Part of one axis."""
    cuts: list[int | slice] = [slice(None)] * array.ndim
    cuts[axis] = which
    view: Array = array[tuple(cuts)]
    return view
