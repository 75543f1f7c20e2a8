"""Pattern rewrites of the graph: what exporters spread over many nodes becomes one again.

identities.py     nodes that do nothing, and plainer names for some that do
reshapes.py       reshapes go behind what fuses with a convolution
one_hot.py        products with one-hot rows as Gather
gemm.py           Gemm as MatMul and Add
activations.py    Silu, HardSigmoid, HardSwish
gelu.py           GELU, from erf or tanh
layer_norm.py     LayerNormalization, RMSNormalization, their scale and bias
group_norm.py     GroupNormalization as InstanceNormalization
batch_norm.py     BatchNormalization as Mul and Add
scale_bias.py     Mul and Add by constants into the weights before them
shuffle.py        channel shuffles into the convolution before them
pad.py            Pad into the convolution or pooling behind it
attention.py      softmax(q·kᵀ)·v as FusedAttention; views.py reads the layouts around it
projections.py    parallel MatMuls of one input as one

Internal operators are of domain "tenantdl": Silu, RMSNormalization, FusedAttention.
"""

from __future__ import annotations

from collections.abc import Callable

from tenantdl.compile.graph import Graph, Node
from tenantdl.compile.rewrite import (
    activations,
    attention,
    batch_norm,
    gelu,
    gemm,
    group_norm,
    identities,
    layer_norm,
    one_hot,
    pad,
    projections,
    reshapes,
    scale_bias,
    shuffle,
)
from tenantdl.compile.rewrite.edit import Editor

Pattern = Callable[[Editor, Node], bool]

ROUNDS_MAX = 20  # of all patterns; every known model needs four or fewer

# Operator of the node that ends a pattern → the patterns to try there, in this order.
_FAMILIES = (
    identities,
    reshapes,
    one_hot,
    gemm,
    batch_norm,
    group_norm,
    scale_bias,
    shuffle,
    pad,
    gelu,
    activations,
    layer_norm,
    attention,
    projections,
)


def rewrite(graph: Graph) -> Graph:
    """Apply all patterns to a fixed point. Changes and returns `graph`; its inputs and outputs keep
    their names and types."""
    for _ in range(ROUNDS_MAX):
        changed = False
        for family in _FAMILIES:
            changed |= _pass(graph, family.PATTERNS)
        if not changed:
            break
    return graph


def _pass(graph: Graph, patterns: dict[str, Pattern]) -> bool:
    edit = Editor(graph)
    for node in list(graph.nodes):
        pattern = patterns.get(node.op)
        if pattern is not None and edit.alive(node):
            pattern(edit, node)
    edit.finish()
    return edit.changed
