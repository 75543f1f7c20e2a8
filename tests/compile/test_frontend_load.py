"""Loading: shapes, folding, names, functions, control flow, and models of the field."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tenantdl.compile.frontend import load_graph, to_onnx
from tenantdl.errors import UserError

from .frontend_tools import check_same, model, node, ops, ort, random_inputs


def packaged(package: str, *parts: str) -> str:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"package {package} is not installed")
    return str(Path(found.origin).parent.joinpath(*parts))


REAL = [
    ("magika", ("models", "standard_v3_3", "model.onnx"), 3, None),
    ("rapidocr", ("models", "ch_ppocr_mobile_v2.0_cls_mobile.onnx"), 1, {"x": (2, 3, 48, 96)}),
    ("rapidocr", ("models", "PP-OCRv6_rec_small.onnx"), 1, {"x": (1, 3, 48, 96)}),
    ("rapidocr", ("models", "PP-OCRv6_det_small.onnx"), 1, {"x": (1, 3, 96, 64)}),
    ("silero_vad", ("data", "silero_vad_op18_ifless.onnx"), 1, {"input": (1, 576)}),
    ("silero_vad", ("data", "silero_vad_half.onnx"), 1, {"input": (1, 576)}),
    ("silero_vad", ("data", "silero_vad_16k_sequence.onnx"), 5, None),
    ("onnx", ("backend", "test", "data", "light", "light_shufflenet.onnx"), 1, None),
    ("onnx", ("backend", "test", "data", "light", "light_densenet121.onnx"), 1, None),
]


@pytest.mark.parametrize(("package", "parts", "batch", "shapes"), REAL, ids=lambda v: str(v)[-30:])
def test_real_models_keep_their_meaning(
    package: str, parts: tuple[str, ...], batch: int, shapes: dict[str, tuple[int, ...]] | None
) -> None:
    path = packaged(package, *parts)
    graph = load_graph(path, batch=batch, shapes=shapes)
    inputs = random_inputs(graph)
    if "sr" in inputs:
        inputs["sr"] = np.array(16000, np.int64)
    for found, expected in zip(ort(to_onnx(graph), inputs), ort(path, inputs), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert not {"Identity", "Dropout", "Shape", "If", "LSTM", "Constant"} & set(ops(graph))


def test_every_value_has_a_static_type_and_every_output_a_node() -> None:
    proto = model(
        [node("Relu", "x", "a"), node("Identity", "x", "same"), node("Identity", "c", "fixed")],
        {"x": ("N", 3), "unused": (2,)},
        ["a", "same", "fixed", "a2"],
        {"c": np.ones(4, np.float32)},
    )
    proto.graph.node.append(node("Identity", "a", "a2"))
    graph = load_graph(proto, batch=5)
    assert graph.inputs == ["x", "unused"]
    assert graph.types["x"].shape == (5, 3)
    made = [name for each in graph.nodes for name in each.outputs]
    assert sorted(made) == sorted(graph.outputs) == ["a", "a2", "fixed", "same"]
    assert set(graph.values()) <= set(graph.types)


def test_shape_arithmetic_folds() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n zero1", "n1"),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    constants = {"zero": np.array(0), "zero1": np.array([0]), "rest": np.array([-1])}
    graph = load_graph(model(nodes, {"x": ("N", 3, 4)}, ["y"], constants), batch=2)
    assert ops(graph) == ["Reshape"]
    assert graph.types["y"].shape == (2, 12)


def test_large_constants_are_not_materialised() -> None:
    nodes = [node("ConstantOfShape", "shape", "big"), node("Add", "big x", "y")]
    graph = load_graph(model(nodes, {"x": (1,)}, ["y"], {"shape": np.array([1024, 1024, 100])}))
    assert all(array.base is not None or array.size < 10 for array in graph.constants.values())


@pytest.mark.parametrize(
    ("shapes", "batch", "message"),
    [
        (None, 1, "input 'x' [N, 3, H, W] leaves dimension 2 open"),
        ({"x": (1, 4, 8, 8)}, 1, "input 'x' is declared [N, 3, H, W], it cannot be [1, 4, 8, 8]"),
        ({"z": (1,)}, 1, "there is no input 'z'"),
        ({"x": (1, 3, 8, 8)}, 0, "batch 0 is not positive"),
    ],
)
def test_open_shapes_are_named(
    shapes: dict[str, tuple[int, ...]] | None, batch: int, message: str
) -> None:
    proto = model([node("Relu", "x", "y")], {"x": ("N", 3, "H", "W")}, ["y"])
    with pytest.raises(UserError) as caught:
        load_graph(proto, batch=batch, shapes=shapes)
    assert message in str(caught.value)


def test_a_named_dimension_is_one_number_everywhere() -> None:
    proto = model([node("Add", "x y", "z")], {"x": ("N", 2), "y": ("M", 2, "N")}, ["z"])
    proto.graph.node[0].CopyFrom(node("Identity", "y", "z"))
    graph = load_graph(proto, batch=3)
    assert graph.types["y"].shape == (3, 2, 3)


def test_fixed_batch_cannot_be_changed() -> None:
    proto = model([node("Relu", "x", "y")], {"x": (1, 3)}, ["y"])
    with pytest.raises(UserError, match="fixed shape"):
        load_graph(proto, batch=4)


def branch(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, 1, None)
    return helper.make_graph(nodes, name, [], [value])


def test_if_with_a_constant_condition_takes_its_branch() -> None:
    both = {
        "then_branch": branch("t", [node("Relu", "x", "a")], "a"),
        "else_branch": branch("e", [node("Neg", "x", "b")], "b"),
    }
    proto = model([node("If", "c", "y", **both)], {"x": (3,)}, ["y"], {"c": np.array(False)})
    assert ops(check_same(proto)) == ["Neg"]


def test_if_with_an_open_condition_computes_both() -> None:
    both = {
        "then_branch": branch("t", [node("Relu", "x", "a")], "a"),
        "else_branch": branch("e", [node("Neg", "x", "b")], "b"),
    }
    proto = model([node("If", "c", "y", **both)], {"x": (3,), "c": ()}, ["y"], dtypes={"c": 9})
    assert set(ops(check_same(proto))) == {"Relu", "Neg", "Where"}


def test_if_whose_branches_differ_is_refused() -> None:
    both = {
        "then_branch": branch("t", [node("Relu", "x", "a")], "a"),
        "else_branch": branch("e", [node("Concat", "x x", "b", axis=0)], "b"),
    }
    proto = model([node("If", "c", "y", **both)], {"x": (3,), "c": ()}, ["y"], dtypes={"c": 9})
    with pytest.raises(UserError, match=r"node 'If_0' \(If\): .*differ in shape"):
        load_graph(proto)


def loop(trips: int | None, going: str = "keep") -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            node("Identity", "cond", "keep"),
            node("Add", "v x", "w"),
            node("ReduceSum", "w", "s", keepdims=0),
            node("Less", "s limit", "open"),
            node("Identity", "w", "scan"),
        ],
        "body",
        [info("i", 7, []), info("cond", 9, []), info("v", 1, [3])],
        [info(going, 9, []), info("w", 1, [3]), info("scan", 1, [3])],
    )
    constants = {"c": np.array(True), "limit": np.array(10, np.float32)}
    if trips is not None:
        constants["m"] = np.array(trips)
    inputs = {"x": (3,)} | ({} if trips is not None else {"m": ()})
    proto = model(
        [node("Loop", "m c x", "y all", body=body)],
        inputs,
        ["y", "all"],
        constants,
        dtypes={"m": 7},
    )
    return proto


def test_loops_of_constant_length_unroll() -> None:
    assert ops(check_same(loop(3))).count("Add") == 3


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (loop(None), "its trip count is not constant"),
        (loop(5, going="open"), "when it ends depends on data"),
        (loop(10**6), "takes more than"),
    ],
)
def test_other_loops_are_refused(proto: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UserError, match=r"node 'Loop_0' \(Loop\): " + message):
        load_graph(proto)


def test_local_functions_are_inlined() -> None:
    function = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", "a a", "t"), node("Elu", "t", "b")],
        [helper.make_opsetid("", 18)],
    )
    function.node[1].attribute.append(onnx.AttributeProto(name="alpha", type=1))
    function.node[1].attribute[0].ref_attr_name = "slope"
    function.attribute.append("slope")
    call = node("Twice", "x", "y", slope=0.5, domain="own")
    proto = model([call], {"x": (4,)}, ["y"], functions=[function], opsets={"own": 1})
    graph = check_same(proto)
    assert ops(graph) == ["Add", "Elu"]
    assert graph.nodes[1].attrs["alpha"] == pytest.approx(0.5)


def test_recursive_functions_are_refused() -> None:
    function = helper.make_function(
        "own",
        "F",
        ["a"],
        ["b"],
        [node("F", "a", "b", domain="own")],
        [helper.make_opsetid("own", 1)],
    )
    call = node("F", "x", "y", domain="own")
    proto = model([call], {"x": (4,)}, ["y"], functions=[function], opsets={"own": 1})
    with pytest.raises(UserError, match="nest deeper"):
        load_graph(proto)
