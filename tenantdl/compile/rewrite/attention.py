"""softmax(scale · q·kᵀ + mask) · v as one node, FusedAttention, which reads q, k, v where they lie.

Inputs: the tensors that hold q, k and v (often one and the same), and the mask, if any. Attributes:
`q`, `k`, `v`: offset and the strides of (batch, head, token, depth), in elements; `sizes`: batch,
heads, queries, keys, depth, value depth; `mask`: its strides of (batch, head, query, key); `scale`;
`tokens_first`: whether the output is [batch, queries, heads, depth], else [batch, heads, queries,
depth].
"""

from __future__ import annotations

from dataclasses import dataclass

from tenantdl.compile.graph import Node
from tenantdl.compile.rewrite.edit import Editor
from tenantdl.compile.rewrite.views import View, trace


@dataclass(slots=True)
class _Scores:
    """scale · q·k + mask, k being [depth, keys]."""

    product: Node
    scale: float = 1.0
    mask: str = ""


def _attention(edit: Editor, node: Node) -> bool:
    softmax = edit.inner(node.inputs[0], "Softmax")
    if softmax is None or not edit.is_float(node.outputs[0]):
        return False
    rank = len(edit.shape(node.outputs[0]))
    if not 2 <= rank <= 4 or int(softmax.attrs.get("axis", -1)) % rank != rank - 1:
        return False
    scores = _scores(edit, softmax.inputs[0])
    if scores is None or edit.array(node.inputs[1]) is not None:
        return False
    if any(edit.array(name) is not None for name in scores.product.inputs):
        return False
    q, k, v = (
        _four(trace(edit, name))
        for name in (scores.product.inputs[0], scores.product.inputs[1], node.inputs[1])
    )
    if len({rank, len(edit.shape(scores.product.inputs[0])), len(edit.shape(node.inputs[1]))}) > 1:
        return False
    batch, heads, queries, depth = q.shape
    keys = k.shape[3]
    if k.shape != (batch, heads, depth, keys) or v.shape[:3] != (batch, heads, keys):
        return False
    mask = _mask_strides(edit, scores.mask, (batch, heads, queries, keys))
    if mask is None or 0 in (*q.shape, *v.shape, keys):
        return False
    attrs = {
        "q": (q.offset, *q.strides),
        "k": (k.offset, *k.strides[:2], k.strides[3], k.strides[2]),
        "v": (v.offset, *v.strides),
        "sizes": (batch, heads, queries, keys, depth, v.shape[3]),
        "mask": mask,
        "scale": scores.scale * q.factor * k.factor,
        "tokens_first": False,
    }
    if v.factor != 1.0:
        return False
    inputs = [q.base, k.base, v.base, *([scores.mask] if scores.mask else [])]
    new = Node("FusedAttention", inputs, list(node.outputs), attrs, node.name, "tenantdl")
    edit.substitute(node, new)
    return True


def _scores(edit: Editor, value: str) -> _Scores | None:
    """`value` taken apart; every step is read once only, so that it may disappear."""
    found = _Scores(Node("", [], []))
    shape = edit.shape(value)
    while (node := edit.inner(value, "MatMul", "Add", "Mul", "Div")) is not None:
        if node.op == "MatMul":
            found.product = node
            return found
        if node.op == "Add":
            sides = _sum_sides(edit, node)
            if sides is None or found.mask or found.scale != 1.0:
                return None
            value, found.mask = sides
        else:
            pairs = [node.inputs, node.inputs[::-1]][: 2 if node.op == "Mul" else 1]
            pair = next((p for p in pairs if edit.scalar(p[1]) not in (None, 0.0)), None)
            if pair is None:
                return None
            number = edit.scalar(pair[1]) or 1.0
            found.scale *= number if node.op == "Mul" else 1 / number
            value = pair[0]
        if edit.shape(value) != shape:
            return None
    return None


def _sum_sides(edit: Editor, node: Node) -> tuple[str, str] | None:
    """(scores, mask): the scores come from a product of two values."""
    for scores, mask in (node.inputs, node.inputs[::-1]):
        at = scores
        while (step := edit.inner(at, "Mul", "Div")) is not None:
            at = step.inputs[1] if edit.array(step.inputs[0]) is not None else step.inputs[0]
        if edit.inner(at, "MatMul") is not None:
            return scores, mask
    return None


def _mask_strides(
    edit: Editor, mask: str, shape: tuple[int, int, int, int]
) -> tuple[int, ...] | None:
    """Strides of the mask seen as `shape`, 0 where it repeats; () without a mask."""
    if not mask:
        return ()
    own = edit.shape(mask)
    if len(own) > 4 or not edit.is_float(mask):
        return None
    own = (1,) * (4 - len(own)) + own
    strides, step = [], 1
    for extent, full in zip(own[::-1], shape[::-1], strict=True):
        if extent not in (1, full):
            return None
        strides.append(step if extent > 1 else 0)
        step *= extent
    return tuple(strides[::-1])


def _four(view: View) -> View:
    """The view with leading dimensions of 1 up to four."""
    missing = 4 - len(view.shape)
    return View(
        view.base,
        view.offset,
        (1,) * missing + view.shape,
        (0,) * missing + view.strides,
        view.factor,
    )


def _tokens_first(edit: Editor, node: Node) -> bool:
    """[batch, heads, queries, depth] → [batch, queries, heads, depth], by writing it that way."""
    before = edit.inner(node.inputs[0], "FusedAttention")
    if before is None or list(node.attrs.get("perm", [])) != [0, 2, 1, 3]:
        return False
    if before.attrs["tokens_first"]:
        return False
    attrs = {**before.attrs, "tokens_first": True}
    new = Node("FusedAttention", list(before.inputs), list(node.outputs), attrs, "", "tenantdl")
    edit.substitute(node, new)
    return True


PATTERNS = {"MatMul": _attention, "Transpose": _tokens_first}
