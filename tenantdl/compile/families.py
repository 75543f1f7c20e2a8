"""One function for kernels that differ in extents only: those of one operator in several buckets.

Two kernels are of one *form* when they are the same tree but for integers. What differs becomes a
variable: an extent of a parameter is read from the argument, every other number has to follow from
one of these as (a · extent + b) / c in all kernels of the family, exactly. So each kernel is the
common function at its own extents, and LLVM, which takes nearly all the time of a compilation, sees
one function for all buckets.

Trees are compared as TVM writes them down (JSON): visiting nodes through the interface takes many
times as long.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tenantdl.compile.operator import Kernel

Numbers = tuple[int, ...]  # one number in each kernel of a family
Node = dict[str, Any]
# Fields that hold a number or a truth and not the index of a node.
_PLAIN = frozenset(("ndim", "kind", "offset_factor", "data_alignment", "purity"))
# What follows from the rest: a function's type, the tiling of buffers that are row-major anyway.
_DERIVED = frozenset((("tirx.PrimFunc", "ty"), ("tirx.BufferType", "layout")))
_INTEGER = "ir.IntImm"
# Fields that hold a value and not an index, by kind.
_VALUES = frozenset((("ir.PrimType", "dtype"), ("ir.FloatImm", "value")))
# Integers that the code generator needs to know, by kind of node.
_LANES = {"prim.Ramp": "lanes", "prim.Broadcast": "lanes", "tirx.For": "extent"}
# Kinds whose fields are known to be what is said here, beside expressions (prim.*).
_KNOWN = frozenset(
    [f"ir.{name}" for name in ("PrimType", "IntImm", "FloatImm", "StringImm", "StringType", "Var")]
    + [f"ir.{name}" for name in ("PointerType", "TupleType", "Call", "DictAttrs", "TensorLoad")]
    + [f"tirx.{name}" for name in ("PrimFunc", "BufferType", "AllocBuffer", "BufferStore", "Bind")]
    + [f"tirx.{name}" for name in ("Evaluate", "For", "IfThenElse", "SeqStmt")]
)
_LOOPS = (0, 1)  # serial, parallel; others are made into vectors or copies of their body


@dataclass(frozen=True, slots=True)
class United:
    """`kernel` is to be compiled, and serves for those called `aliases` as well."""

    kernel: Kernel
    aliases: tuple[str, ...] = ()


def united(kernels: Sequence[Kernel]) -> list[United]:
    """The functions that do for `kernels`, which may but need not be of one form. Those that are
    still to be scheduled (not flat) stay as they are: how depends on their extents."""
    if len(kernels) < 2 or not all(kernel.flat for kernel in kernels):
        return [United(kernel) for kernel in kernels]
    forms: dict[tuple[object, ...], list[tuple[Kernel, _Tree]]] = defaultdict(list)
    for kernel in kernels:
        tree = _Tree(kernel)
        forms[tree.form].append((kernel, tree))
    found: list[United] = []
    for same in forms.values():
        own = [kernel for kernel, _ in same]
        func = _common([tree for _, tree in same]) if len(same) > 1 else None
        if func is None:
            found += [United(kernel) for kernel in own]
        else:
            common = Kernel(own[0].key, func, own[0].flat)
            found.append(United(common, tuple(kernel.key for kernel in own[1:])))
    return found


class _Tree:
    """A function written down. `form`: all of it but its name and the integers that may differ;
    `integers`: all of those, in the order of a walk; `places`: their nodes."""

    def __init__(self, kernel: Kernel) -> None:
        from tvm.ir import save_json

        # The standard library's: infinities and NaNs are written as words, which JSON has none for.
        written = json.loads(str(save_json(kernel.func)))
        self.key = kernel.key
        self.nodes: list[Node] = written["nodes"]
        self.root: int = written["root_index"]
        self.integers: list[int] = []
        self.places: list[int] = []
        self.form: tuple[object, ...] = tuple(self._walk())

    def _walk(self) -> list[object]:
        """Kinds and plain values, parents first; a node that was there before by its number."""
        nodes, form, numbers = self.nodes, list[object](), dict[int, int]()
        pending = [self.root]
        while pending:
            place = pending.pop()
            node = nodes[place]
            kind: str = node["type"]
            data: Any = node.get("data")
            if kind == _INTEGER:
                form.append(nodes[data["ty"]]["data"]["dtype"])
                self.integers.append(nodes[data["value"]]["data"])
                self.places.append(place)
                continue
            known = numbers.setdefault(place, len(numbers))
            if known < len(numbers) - 1:
                form.append(known)
                continue
            form.append(kind)
            if isinstance(data, list):
                form.append(len(data))
                pending.extend(reversed(data))
            elif isinstance(data, dict):
                if kind not in _KNOWN and not kind.startswith("prim."):
                    form.append(object())  # like no other tree
                below, plain = _fields(kind, tuple(data))
                form.extend([data[field] for field in plain])
                form.extend(self._fixed(kind, data))
                pending.extend([data[field] for field in below])
            else:
                form.append(None if data == self.key else data)
        return form

    def _fixed(self, kind: str, data: dict[str, Any]) -> list[object]:
        """Integers that have to be equal in one family."""
        field = _LANES.get(kind)
        if field is None or (kind == "tirx.For" and data["kind"] in _LOOPS):
            return []
        node = self.nodes[data[field]]
        return [self.nodes[node["data"]["value"]]["data"]] if node["type"] == _INTEGER else []


@lru_cache(maxsize=1024)
def _fields(kind: str, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of a node of this kind: the fields that hold indices of nodes, last first, and the others
    that tell it from another one."""
    own = [name for name in names if name != "span" and (kind, name) not in _DERIVED]
    plain = [name for name in own if name in _PLAIN or (kind, name) in _VALUES]
    return tuple(name for name in reversed(own) if name not in plain), tuple(plain)


def _common(trees: Sequence[_Tree]) -> Any:
    """The function of which `trees`, all of one form, are instances; None if there is none."""
    first = trees[0]
    of_place: dict[int, Numbers] = {}
    every = zip(*(tree.integers for tree in trees), strict=True)
    for place, numbers in zip(first.places, every, strict=True):
        if of_place.setdefault(place, numbers) != numbers:
            return None
    nodes = first.nodes
    variables: dict[tuple[Numbers, int], int] = {}
    instead: dict[int, int] = {}
    for place, numbers in of_place.items():
        if len(set(numbers)) > 1:
            kind = nodes[place]["data"]["ty"]
            if (numbers, kind) not in variables:
                nodes.append({"type": "ffi.String", "data": f"extent{len(variables)}"})
                fields = {"span": 0, "ty": kind, "name": len(nodes) - 1}
                nodes.append({"type": "ir.Var", "data": fields})
                variables[numbers, kind] = len(nodes) - 1
            instead[place] = variables[numbers, kind]
    for node in nodes:
        data: Any = node.get("data")
        if isinstance(data, list):
            data[:] = [instead.get(child, child) for child in data]
        elif isinstance(data, dict):
            data |= {
                field: instead[data[field]]
                for field in _fields(node["type"], tuple(data))[0]
                if data[field] in instead
            }
        if node["type"] == "tirx.BufferType":
            data["layout"] = 0
    nodes.append({"type": "ffi.Array", "data": [first.root, *variables.values()]})
    return _bound(nodes, [numbers for numbers, _ in variables])


def _bound(nodes: list[Node], of_variable: Sequence[Numbers]) -> Any:
    """The function with its variables bound: to extents of parameters, or to what follows from
    them; None if one does not."""
    from tvm import tirx
    from tvm.ir import load_json

    written = {"root_index": len(nodes) - 1, "nodes": nodes, "metadata": {}}
    func, *variables = load_json(json.dumps(written))
    given = [
        (variable, numbers)
        for variable, numbers in zip(variables, of_variable, strict=True)
        if any(extent.same_as(variable) for p in func.params for extent in p.shape)
    ]
    body = func.body
    for variable, numbers in zip(variables, of_variable, strict=True):
        if any(variable.same_as(extent) for extent, _ in given):
            continue
        follows = (_from(extent, of, numbers) for extent, of in given)
        value = next((one for one in follows if one is not None), None)
        if value is None:
            return None
        body = tirx.SeqStmt([tirx.Bind(variable, value.astype(variable.ty.dtype)), body])
    return tirx.PrimFunc(func.params, body, func.ret_type, func.attrs)


def _from(extent: Any, of: Numbers, numbers: Numbers) -> Any:
    """An expression of `extent` that is each of `numbers` where the extent is that of `of`."""
    other = next((i for i, number in enumerate(of) if number != of[0]), None)
    if other is None:
        return None
    across, up = of[other] - of[0], numbers[other] - numbers[0]
    if across < 0:
        across, up = -across, -up
    shift = numbers[0] * across - up * of[0]
    if any(up * x + shift != across * y for x, y in zip(of, numbers, strict=True)):
        return None
    if across == 1:
        return extent * up + shift
    return (extent * up + shift) // across
