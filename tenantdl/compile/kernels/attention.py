"""FusedAttention: the tensors that it reads, tiles that fit registers and caches."""

from __future__ import annotations

from tenantdl.compile.context import Context, Form, Group
from tenantdl.compile.graph import Node
from tenantdl.compile.kernels.attention_fused import (
    AttentionSchedule,
    AttentionSpec,
    attention,
)
from tenantdl.compile.kernels.registry import Template
from tenantdl.compile.target import CpuTarget

_TILE_ROWS_MAX = 8
_TILE_VECTORS_MAX = 4


def _form(context: Context, node: Node) -> Form | None:
    return "plain"


def _lower(context: Context, group: Group) -> None:
    node = group.anchor
    batch, heads, queries, keys, depth, value_depth = node.attrs["sizes"]
    distinct = list(dict.fromkeys(node.inputs))
    spec = AttentionSpec(
        batch,
        heads,
        queries,
        keys,
        depth,
        value_depth,
        tuple(context.type(name).size for name in distinct),
        tuple(distinct.index(name) for name in node.inputs),
        node.attrs["q"],
        node.attrs["k"],
        node.attrs["v"],
        node.attrs["mask"],
        node.attrs["scale"],
        node.attrs["tokens_first"],
        context.target.lanes,
    )
    sources = tuple(context.plain(name) for name in distinct)
    kernel = attention(spec, choose(spec, context.target, context.cores))
    args = (*sources, context.new_plain(group.output))
    context.emit(group.name, "attention", kernel, args, flops=spec.flops)


def choose(spec: AttentionSpec, target: CpuTarget, cores: int) -> AttentionSchedule:
    """Tiles within the registers, blocks of scores within a third of L1. Queries of one head are
    divided only if there are too few heads to keep all cores busy."""
    key_blocks = -(-spec.keys // spec.lanes)
    value_blocks = -(-spec.value_depth // spec.lanes)
    vectors = min(_TILE_VECTORS_MAX if target.registers >= 32 else 2, max(key_blocks, value_blocks))
    score_rows = _rows(min(vectors, key_blocks), target)
    value_rows = _rows(min(vectors, value_blocks), target)
    in_cache = target.caches.l1d_bytes // 3 // (4 * spec.lanes * key_blocks)
    block_rows = max(1, in_cache // score_rows) * score_rows
    tasks = spec.batch * spec.heads
    parts = 1
    while parts * 2 * score_rows <= spec.queries and _idle(tasks * parts, cores) > 0.1:
        parts += 1
    return AttentionSchedule(
        -(-spec.queries // parts),
        min(block_rows, spec.queries),
        min(score_rows, spec.queries),
        vectors,
        min(value_rows, spec.queries),
    )


def _rows(vectors: int, target: CpuTarget) -> int:
    return max(1, min(_TILE_ROWS_MAX, (target.registers - 1 - vectors) // vectors))


def _idle(tasks: int, cores: int) -> float:
    """Share of the cores' time that is lost when `tasks` equal tasks are dealt out."""
    rounds = -(-tasks // cores)
    return 1 - tasks / (rounds * cores)


TEMPLATES = {"FusedAttention": Template(_form, _lower)}
