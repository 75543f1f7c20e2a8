"""The generic lowering: right on every dtype and odd size, scheduled, safe with hostile data."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantdl.compile.frontend import load_graph, to_onnx
from tenantdl.compile.generic import lower_generic
from tenantdl.compile.graph import Array, Graph
from tenantdl.compile.target import native_target
from tenantdl.errors import UserError

from ..onnx_backend.onnx_runner import Prepared
from .frontend_tools import model, node, ort, random_inputs, reference

F = np.float32
TYPES = onnx.TensorProto


def run(graph: Graph, inputs: dict[str, Array]) -> list[Array]:
    return Prepared(graph, templates=False).run([inputs[name] for name in graph.inputs])


def check(proto: onnx.ModelProto, *, with_ort: bool = True, rtol: float = 1e-4) -> None:
    """Compares with onnxruntime, or with ONNX's reference."""
    graph = load_graph(proto)
    inputs = random_inputs(graph)
    expected = (ort if with_ort else reference)(to_onnx(graph), inputs)
    for found, value in zip(run(graph, inputs), expected, strict=True):
        assert found.dtype == value.dtype
        np.testing.assert_allclose(found, value, rtol=rtol, atol=rtol)


def kernels(proto: onnx.ModelProto) -> list[str]:
    """The scheduled kernels as text."""
    graph = load_graph(proto)
    lowered = lower_generic(graph, graph.nodes, native_target())
    return [str(operator.kernel.func.script()) for operator in lowered.operators]


def weights(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(F)


def convolution(shape: tuple[int, ...], kernel: tuple[int, ...], **attrs: Any) -> onnx.ModelProto:
    nodes = [node("Conv", "x w b", "c", **attrs), node("Relu", "c", "r"), node("Mul", "r r", "y")]
    constants = {"w": weights(*kernel), "b": weights(kernel[0])}
    return model(nodes, {"x": shape}, ["y"], constants)


PRODUCTS = [
    convolution((1, 16, 14, 14), (24, 16, 3, 3), pads=[1, 1, 1, 1]),
    convolution((2, 16, 15, 13), (7, 16, 3, 3), strides=[2, 2]),
    convolution((1, 8, 9, 9), (8, 4, 3, 3), group=2, dilations=[2, 2]),
    convolution((1, 12, 20, 20), (12, 1, 5, 5), group=12, pads=[2, 2, 2, 2]),
    convolution((1, 8, 40), (16, 8, 5), pads=[2, 2]),
    convolution((1, 4, 6, 7, 8), (5, 4, 2, 3, 3)),
    model([node("MatMul", "x w", "y")], {"x": (33, 48)}, ["y"], {"w": weights(48, 80)}),
    model([node("MatMul", "x z", "y")], {"x": (3, 20, 16), "z": (3, 16, 21)}, ["y"]),
    model([node("Gemm", "x w b", "y", transB=1)], {"x": (17, 32)}, ["y"],
          {"w": weights(40, 32), "b": weights(40)}),
    model([node("Gemm", "x z", "y", transA=1, transB=1, alpha=0.5)], {"x": (32, 19), "z": (23, 32)},
          ["y"]),
    model([node("ConvTranspose", "x w", "y", strides=[2, 2])], {"x": (1, 8, 9, 9)}, ["y"],
          {"w": weights(8, 16, 2, 2)}),
    model([node("ConvTranspose", "x w", "y", strides=[2, 2], pads=[1, 1, 1, 1], group=2)],
          {"x": (1, 8, 9, 9)}, ["y"], {"w": weights(8, 4, 3, 3)}),
]  # fmt: skip


@pytest.mark.parametrize("proto", PRODUCTS, ids=lambda p: p.graph.node[0].op_type)
def test_products(proto: onnx.ModelProto) -> None:
    check(proto)


@pytest.mark.parametrize("index", [0, 4, 6, 8, 10])
def test_products_are_tiled_vectorised_and_parallel(index: int) -> None:
    text = kernels(PRODUCTS[index])[0]
    assert "T.parallel" in text
    assert "T.vectorized" in text
    assert "_init" in text  # the reduction was taken apart: its tile stays in registers


REDUCTIONS = [
    ("ReduceSum", [2]), ("ReduceMax", [1]), ("ReduceMean", [0, 2]), ("ReduceMin", [0, 1, 2]),
    ("ReduceL2", [2]), ("ReduceLogSumExp", [2]), ("ReduceProd", [1]), ("ReduceSumSquare", [0]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "axes"), REDUCTIONS)
@pytest.mark.parametrize("shape", [(5, 7, 64), (3, 33, 13)])
def test_reductions(op: str, axes: list[int], shape: tuple[int, ...]) -> None:
    check(model([node(op, "x axes", "y")], {"x": shape}, ["y"], {"axes": np.array(axes)}))


def test_the_maximum_of_nothing_but_minus_infinity() -> None:
    nodes = [node("ReduceMax", "x axes", "a", keepdims=0), node("Softmax", "x", "b")]
    graph = load_graph(model(nodes, {"x": (2, 4)}, ["a", "b"], {"axes": np.array([1])}))
    x = np.full((2, 4), -np.inf, F)
    x[1, 2] = 3
    top, share = run(graph, {"x": x})
    assert top.tolist() == [-np.inf, 3]
    assert share[1].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("shape", [(1, 1), (7,), (3, 5, 7), (2, 130)])
@pytest.mark.parametrize(
    "op", ["Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum", "ArgMax"]
)
def test_along_an_axis(op: str, shape: tuple[int, ...]) -> None:
    if op == "CumSum":
        proto = model([node(op, "x a", "y")], {"x": shape}, ["y"], {"a": np.array(-1)})
    elif op == "ArgMax":
        proto = model([node(op, "x", "y", axis=-1)], {"x": shape}, ["y"], dtypes={"y": 7})
    else:
        proto = model([node(op, "x", "y", axis=-1)], {"x": shape}, ["y"])
    check(proto)


SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0, -0.0, 88.7, 88.8, -87, -88, -104, 1e-30, 20, -20], F
)


@pytest.mark.parametrize(
    "op", ["Exp", "Sigmoid", "Tanh", "Erf", "Softplus", "Gelu", "Mish", "Elu", "Selu", "HardSwish"]
)
def test_functions_on_special_values_and_on_a_sweep(op: str) -> None:
    x = np.concatenate([SPECIAL, np.linspace(-30, 30, 5001, dtype=F)])
    graph = load_graph(model([node(op, "x", "y")], {"x": x.shape}, ["y"], opset=20))
    (found,) = run(graph, {"x": x})
    wide = to_onnx(graph)
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = TYPES.DOUBLE
    with np.errstate(all="ignore"):
        (exact,) = reference(wide, {"x": x.astype(np.float64)})
    if op in ("HardSwish",):
        exact[1:3] = found[1:3]  # inf * 0
    finite = np.isfinite(exact) & (np.abs(exact) < 3e38)
    np.testing.assert_allclose(found[finite], exact[finite], rtol=3e-6, atol=3e-6)
    np.testing.assert_array_equal(np.isnan(found[:1]), [True])


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", [*INTEGERS, "float16", "float32", "float64"])
def test_arithmetic_of_every_dtype(dtype: str) -> None:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("Add", "x z", "a"),
        node("Mul", "a x", "b"),
        node("Sub", "b z", "c"),
        node("Concat", "c x", "d", axis=0),
        node("Transpose", "d", "e"),
        node("Less", "e one", "f"),
        node("Where", "f e one", "g"),
        node("Cast", "g", "y", to=TYPES.FLOAT),
    ]
    constants = {"one": np.ones((), dtype)}
    dtypes = {"x": kind, "z": kind}
    check(
        model(nodes, {"x": (3, 5), "z": (3, 5)}, ["y"], constants, dtypes=dtypes),
        with_ort=False,
        rtol=1e-2 if dtype == "float16" else 1e-5,
    )


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op: str) -> None:
    dtypes = dict.fromkeys(("x", "z", "y"), TYPES.BOOL)
    nodes = [node(op, "x z", "a"), node("Not", "a", "y")]
    check(model(nodes, {"x": (3, 5), "z": (5,)}, ["y"], dtypes=dtypes))


def test_sums_of_float16_are_taken_in_float32() -> None:
    dtypes = {"x": TYPES.FLOAT16, "y": TYPES.FLOAT16}
    graph = load_graph(
        model([node("ReduceSum", "x a", "y", keepdims=0)], {"x": (1, 8192)}, ["y"],
              {"a": np.array([1])}, dtypes=dtypes)
    )  # fmt: skip
    (found,) = run(graph, {"x": np.ones((1, 8192), np.float16)})
    assert found.tolist() == [8192]


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_integer_division_does_not_trap(op: str) -> None:
    dtypes = dict.fromkeys(("x", "z", "y"), TYPES.INT32)
    graph = load_graph(model([node(op, "x z", "y")], {"x": (4,), "z": (4,)}, ["y"], dtypes=dtypes))
    least = np.iinfo(np.int32).min
    x = np.array([7, least, -7, 5], np.int32)
    (found,) = run(graph, {"x": x, "z": np.array([2, -1, 2, 0], np.int32)})
    assert found[:3].tolist() == ([3, least, -3] if op == "Div" else [1, 0, 1])


@given(indices=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4))
@settings(max_examples=30)
def test_indices_out_of_range_stay_inside(indices: list[int]) -> None:
    (gathered, scattered), x = INDEXED.run([np.array(indices), ROWS]), ROWS
    for index, row in zip(indices, gathered, strict=True):
        place = index + 5 if index < 0 else index
        assert row.tolist() == x[min(max(place, 0), 4)].tolist()
    assert scattered.shape == x.shape
    assert set(scattered.ravel().tolist()) <= {*x.ravel().tolist(), -1.0}


ROWS = np.arange(15, dtype=F).reshape(5, 3)


class _Indexed:
    """One compiled model for all examples; compiled when first used."""

    prepared: Prepared | None = None

    def run(self, inputs: list[Array]) -> list[Array]:
        if self.prepared is None:
            nodes = [
                node("Gather", "x i", "a", axis=0),
                node("Unsqueeze", "i last", "column"),
                node("ScatterND", "x column new", "b"),
            ]
            constants = {"last": np.array([1]), "new": np.full((4, 3), -1, F)}
            proto = model(
                nodes, {"i": (4,), "x": (5, 3)}, ["a", "b"], constants, dtypes={"i": TYPES.INT64}
            )
            self.prepared = Prepared(load_graph(proto), templates=False)
        return self.prepared.run(inputs)


INDEXED = _Indexed()


def test_negative_indices_count_from_the_end() -> None:
    indices = np.array([[0, -1], [-3, 2]])
    proto = model([node("Gather", "x i", "y", axis=1)], {"x": (2, 3)}, ["y"], {"i": indices})
    check(proto)
    proto = model(
        [node("GatherElements", "x i", "y", axis=1)], {"x": (2, 3)}, ["y"], {"i": indices}
    )
    check(proto)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("how", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
def test_resize(mode: str, how: str) -> None:
    call = node("Resize", "x - - sizes", "y", mode=mode, coordinate_transformation_mode=how)
    for sizes in ([1, 2, 7, 9], [1, 2, 2, 3]):
        check(model([call], {"x": (1, 2, 4, 5)}, ["y"], {"sizes": np.array(sizes)}))


def relu_keys() -> list[str]:
    nodes = [node("Relu", "x", "a"), node("Relu", "z", "b")]
    graph = load_graph(model(nodes, {"x": (4, 5), "z": (4, 5)}, ["a", "b"]))
    return [op.kernel.key for op in lower_generic(graph, graph.nodes, native_target()).operators]


def test_equal_kernels_are_shared_and_their_names_are_stable() -> None:
    first, second = relu_keys()
    assert first == second
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(relu_keys) == [first, second]


def test_a_part_of_a_graph_names_what_it_reads_and_writes() -> None:
    nodes = [
        node("Relu", "x", "a"),
        node("Exp", "a", "b"),
        node("Add", "b w", "c"),
        node("Neg", "c", "y"),
    ]
    graph = load_graph(model(nodes, {"x": (64,)}, ["y"], {"w": weights(64)}))
    lowered = lower_generic(graph, graph.nodes[1:3], native_target())
    reads = {name for op in lowered.operators for name in op.reads} - set(lowered.buffers)
    assert reads <= {"a", *graph.constants, *lowered.constants}
    assert "a" in reads
    assert lowered.operators[-1].writes == ("c",)
    assert lowered.buffers["c"].shape == (64,)
    assert all(operator.kind == "generic" for operator in lowered.operators)


def test_results_that_are_inputs_are_copied() -> None:
    proto = model([node("Identity", "x", "a"), node("Identity", "x", "b")], {"x": (3,)}, ["a", "b"])
    x = np.array([1, 2, 3], F)
    assert [value.tolist() for value in run(load_graph(proto), {"x": x})] == [[1, 2, 3]] * 2


@pytest.mark.parametrize("op", ["Det", "Col2Im"])
def test_operators_without_a_correct_lowering_are_refused_by_name(op: str) -> None:
    constants = {"image": np.array([5, 5]), "block": np.array([1, 5])}
    call = node(op, "x" if op == "Det" else "x image block", "y")
    proto = model([call], {"x": (3, 3) if op == "Det" else (1, 5, 5)}, ["y"], constants)
    graph = load_graph(proto)
    with pytest.raises(UserError, match=rf"node '{op}_0' \({op}\): the operator is not supported"):
        lower_generic(graph, graph.nodes, native_target())
