"""Local response normalisation on packed channels: x ÷ (bias + α/n · Σ x²)^β over n neighbours.

The neighbours of a vector of channels lie in its block and the two beside it; sums are made of
shifted vectors. The usual powers need square roots only; others go to the generic schedule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.emit import Emitter, Index, Value
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.operator import Kernel

# β → the β-th power.
_POWERS: Mapping[float, Callable[[Value], Value]] = {
    0.5: lambda s: T.sqrt(s),
    0.75: lambda s: T.sqrt(s) * T.sqrt(T.sqrt(s)),
    1.0: lambda s: s,
}


@dataclass(frozen=True, slots=True)
class LrnSpec:
    """The attributes of an LRN node."""

    size: int
    alpha: float
    beta: float
    bias: float


def _spec(node: Node) -> LrnSpec:
    attrs = node.attrs
    beta, bias = float(attrs.get("beta", 0.75)), float(attrs.get("bias", 1.0))
    return LrnSpec(int(attrs["size"]), float(attrs.get("alpha", 1e-4)), beta, bias)


def _form(context: Context, node: Node) -> Form | None:
    kind, lanes = context.type(node.inputs[0]), context.target.lanes
    image = len(kind.shape) == 4 and kind.dtype == "float32" and kind.size > 0
    whole = image and kind.shape[1] % lanes == 0 and context.array(node.inputs[0]) is None
    spec = _spec(node)
    return "packed" if whole and spec.beta in _POWERS and spec.size <= lanes else None


def _lower(context: Context, group: Group) -> None:
    source, data = context.packed(group.anchor.inputs[0])
    target, out = context.new_packed(group.output)
    spec = _spec(group.anchor)
    flops = (spec.size + 8) * context.type(group.output).size
    context.emit(group.name, "lrn", lrn(spec, data, out), (source, target), flops=flops)


def lrn(spec: LrnSpec, data: Packed, out: Packed) -> Kernel:
    """The kernel: parameters data, output. Parallel over images, blocks and rows."""
    digest = hashlib.sha256(repr((spec, data, out)).encode()).hexdigest()[:12]
    with Emitter(f"lrn_{digest}", out.lanes) as e:
        source, target = e.param("data", data.shape), e.param("out", out.shape)
        rows = out.blocks * out.height
        with e.parallel(out.batch * rows) as task:
            n, block, y = task // rows, task % rows // out.height, task % out.height
            first, last = block == 0, block == out.blocks - 1
            beside = [
                (T.Select(first, 0, block - 1), e.bind(T.Select(first, *_zero_one()))),
                (T.Select(last, block, block + 1), e.bind(T.Select(last, *_zero_one()))),
            ]
            with e.serial(out.width) as x:
                value = e.bind(e.load(source, data.index(n, block, y, x)))

                def square(neighbour: tuple[Index, Value], x: Index = x) -> Value:
                    vector = e.bind(e.load(source, data.index(n, neighbour[0], y, x)))
                    return e.bind(vector * vector * e.splat(neighbour[1]))

                before, after = (square(neighbour) for neighbour in beside)
                total = _window(e, before, e.bind(value * value), after, spec.size)
                scale = e.splat(spec.bias) + total * e.splat(spec.alpha / spec.size)
                result = value / _POWERS[spec.beta](e.bind(scale))
                e.store(target, out.index(n, block, y, x), result)
    return e.kernel()


def _zero_one() -> tuple[Value, Value]:
    return T.float32(0.0), T.float32(1.0)


def _window(e: Emitter, before: Value, here: Value, after: Value, size: int) -> Value:
    """For each lane the sum of `size` lanes around it; an even size has one more behind."""
    lanes, left = e.lanes, (size - 1) // 2
    total = here
    for shift in range(-left, size - left):
        if shift:
            pair = [before, here] if shift < 0 else [here, after]
            start = shift % lanes
            moved = tirx.Shuffle(pair, list(range(start, start + lanes)))
            total = e.bind(total + moved)
    return total


TEMPLATES = {"LRN": Template(_form, _lower)}
