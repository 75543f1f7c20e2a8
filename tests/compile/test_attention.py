"""Attention as exporters write it becomes one kernel, and computes what onnxruntime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from nets import Net, check

from tenantdl.compile.frontend import load_graph
from tenantdl.compile.graph import Graph, Node, TensorType
from tenantdl.compile.kernels.attention import choose
from tenantdl.compile.kernels.attention_fused import AttentionSpec
from tenantdl.compile.lower import lower
from tenantdl.compile.rewrite import rewrite
from tenantdl.compile.rewrite.edit import Editor
from tenantdl.compile.rewrite.views import trace
from tenantdl.compile.target import parse_target
from tenantdl.zoo.bert import Size, bert_large


def _split(net: Net, x: str, heads: int, depth: int, order: tuple[int, ...]) -> str:
    shape = net.const((0, 0, heads, depth), np.int64)
    return net.op("Transpose", net.op("Reshape", x, shape), perm=order)


def _project(net: Net, x: str, width: int, columns: int) -> str:
    return net.op("Add", net.weight(columns), net.op("MatMul", x, net.weight(width, columns)))


def _join(net: Net, mixed: str, width: int) -> str:
    mixed = net.op("Transpose", mixed, perm=(0, 2, 1, 3))
    return net.op("Reshape", mixed, net.const((0, 0, width), np.int64))


def _bert(net: Net, batch: int, tokens: int, heads: int, depth: int, mask: str = "") -> str:
    width = heads * depth
    x = net.input(batch, tokens, width)
    q = _split(net, _project(net, x, width, width), heads, depth, (0, 2, 1, 3))
    k = _split(net, _project(net, x, width, width), heads, depth, (0, 2, 3, 1))
    v = _split(net, _project(net, x, width, width), heads, depth, (0, 2, 1, 3))
    scores = net.op("Div", net.op("MatMul", q, k), net.const(np.sqrt(depth)))
    if mask:
        scores = net.op("Add", scores, mask)
    return _join(net, net.op("MatMul", net.op("Softmax", scores, axis=-1), v), width)


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "depth"), [(1, 128, 2, 64), (2, 40, 3, 32), (1, 37, 2, 15)]
)
def test_separate_projections(
    tmp_path: Path, target: str, batch: int, tokens: int, heads: int, depth: int
) -> None:
    net = Net()
    lowest = np.where(np.arange(tokens) < tokens - 5, 0, -3.4028234663852886e38)
    masks = np.broadcast_to(lowest, (batch, 1, 1, tokens))
    net.output(_bert(net, batch, tokens, heads, depth, net.const(masks)))
    summary = check(net, tmp_path, target=target)
    assert summary.kinds == {"dense": 1, "attention": 1}  # the projections are one


@pytest.mark.parametrize("shape", [(), (1, 1, 20, 20), (2, 3, 20, 20), (20, 1), (2, 1, 1, 1)])
def test_masks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    net = Net()
    mask = net.input(*shape) if shape else ""
    net.output(_bert(net, 2, 20, 3, 16, mask))
    assert check(net, tmp_path).kinds == {"dense": 1, "attention": 1}


@pytest.mark.parametrize("cut", ["slice", "split", "gather"])
def test_one_fused_projection(tmp_path: Path, cut: str) -> None:
    """q, k, v out of one tensor, the factor on q, keys turned by a second Transpose."""
    net = Net()
    heads, depth, tokens = 4, 15, 40
    width = heads * depth
    x = _project(net, net.input(1, tokens, width), width, 3 * width)
    five = net.op("Reshape", x, net.const((0, -1, 3, heads, depth), np.int64))
    five = net.op("Transpose", five, perm=(2, 0, 3, 1, 4))
    if cut == "split":
        names = [f"part{i}" for i in range(3)]
        net.nodes.append(_split_node(five, names))
        parts = [net.op("Squeeze", name, net.const((0,), np.int64)) for name in names]
    elif cut == "gather":
        parts = [net.op("Gather", five, net.const(i, np.int64), axis=0) for i in range(3)]
    else:
        bounds = [[net.const((i,), np.int64) for i in pair] for pair in ((0, 1), (1, 2), (2, 3))]
        axis = net.const((0,), np.int64)
        sliced = [net.op("Slice", five, begin, end, axis) for begin, end in bounds]
        parts = [net.op("Squeeze", part, axis) for part in sliced]
    q = net.op("Mul", parts[0], net.const([depth**-0.5]))
    k = net.op("Transpose", parts[1], perm=(0, 1, 3, 2))
    weights = net.op("Softmax", net.op("MatMul", q, k), axis=-1)
    net.output(_join(net, net.op("MatMul", weights, parts[2]), width))
    assert check(net, tmp_path).kinds == {"dense": 1, "attention": 1}


def _split_node(value: str, names: list[str]) -> object:
    from onnx import helper

    return helper.make_node("Split", [value], names, axis=0, num_outputs=len(names))


def test_cross_attention_without_transposes(tmp_path: Path) -> None:
    """Heads as batch, other numbers of keys than queries, values of their own depth."""
    net = Net()
    q, k, v = net.input(6, 10, 24), net.input(6, 24, 33), net.input(6, 33, 20)
    weights = net.op("Softmax", net.op("MatMul", q, k), axis=-1)
    net.output(net.op("MatMul", weights, v))
    assert check(net, tmp_path).kinds == {"attention": 1}


def test_scores_that_are_needed_elsewhere_stay(tmp_path: Path) -> None:
    net = Net()
    weights = net.op("Softmax", net.op("MatMul", net.input(4, 8), net.input(8, 6)), axis=-1)
    net.output(weights, net.op("MatMul", weights, net.input(6, 5)))
    assert check(net, tmp_path).kinds == {"matmul": 2, "softmax": 1}


def test_long_sequences(tmp_path: Path) -> None:
    net = Net()
    net.output(_bert(net, 1, 512, 1, 32))
    assert check(net, tmp_path).kinds == {"dense": 1, "attention": 1}


def test_views_that_need_a_copy_start_behind_it() -> None:
    types = {"x": (2, 6), "t": (6, 2), "r": (12,), "s": (3, 4)}
    shape = np.array((12,), np.int64)
    graph = Graph(
        "views",
        ["x"],
        ["s"],
        [
            Node("Transpose", ["x"], ["t"], {"perm": [1, 0]}),
            Node("Reshape", ["t", "shape"], ["r"]),
            Node("Reshape", ["r", "shape"], ["s"]),
        ],
        {"shape": shape},
        {name: TensorType(extents, "float32") for name, extents in types.items()},
    )
    view = trace(Editor(graph), "s")
    assert (view.base, view.shape, view.strides) == ("r", (3, 4), (4, 1))
    assert trace(Editor(graph), "t").strides == (1, 6)


@pytest.mark.parametrize("text", ["x86_64:sapphirerapids", "x86_64:haswell", "aarch64"])
def test_tiles_fit_the_registers(text: str) -> None:
    target = parse_target(text)
    for depth in (15, 32, 64, 128):
        for keys in (8, 128, 512):
            view = (0, 0, depth, depth, 1)
            sizes, places = (keys * depth,) * 3, (0, 1, 2)
            spec = AttentionSpec(
                1, 1, keys, keys, depth, depth, sizes, places, view, view, view, (), 1.0, True,
                target.lanes,
            )  # fmt: skip
            schedule = choose(spec, target, 2)
            blocks = -(-depth // target.lanes)
            for rows, vectors in (
                (schedule.score_rows, min(schedule.score_vectors, -(-keys // target.lanes))),
                (schedule.value_rows, min(schedule.score_vectors, blocks)),
            ):
                assert rows * vectors + vectors + 1 <= target.registers


def test_an_encoder_compiles_for_neon() -> None:
    target = parse_target("aarch64")
    shapes = {name: (1, 24) for name in ("input_ids", "attention_mask", "token_type_ids")}
    model = bert_large(size=Size(layers=1, hidden=32, heads=2, inner=64, vocabulary=100))
    program = lower(rewrite(load_graph(model, shapes=shapes)), target, 2)
    kernels = {operator.kernel.key: operator.kernel.func for operator in program.operators}
    assembly = tvm.compile(tvm.IRModule(kernels), target=target.tvm).mod.inspect_source("asm")
    assert {operator.kind for operator in program.operators} >= {"dense", "attention", "gather"}
    assert assembly.count("fmla") > 100
