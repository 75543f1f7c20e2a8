"""Bad models: one line that says what and where; no other exception, never much memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tenantdl.compile.frontend import load_graph
from tenantdl.errors import UserError

from .frontend_tools import model, node

F = np.float32
MEMORY_BYTES_MAX = 64 * 2**20


@pytest.fixture
def _memory() -> Iterator[None]:
    """Fails where a test takes more memory than any of these models can need."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY_BYTES_MAX


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_graph(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sample() -> onnx.ModelProto:
    """A bit of everything: weights, shape arithmetic, a branch, a pool."""
    value = helper.make_tensor_value_info
    then = helper.make_graph([node("Relu", "p", "t")], "t", [], [value("t", 1, None)])
    other = helper.make_graph([node("Neg", "p", "e")], "e", [], [value("e", 1, None)])
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("MaxPool", "c", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("If", "yes", "i", then_branch=then, else_branch=other),
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Concat", "n rest", "target", axis=0),
        node("Reshape", "i target", "f"),
        node("Gemm", "f g", "y", transB=1),
    ]
    constants = {
        "w": np.ones((2, 1, 3, 3), F),
        "b": np.zeros(2, F),
        "g": np.ones((3, 8), F),
        "zero": np.array([0]),
        "rest": np.array([-1]),
        "yes": np.array(True),
    }
    return model(nodes, {"x": ("N", 1, 4, 4)}, ["y"], constants)


def test_the_sample_is_good() -> None:
    assert load_graph(sample()).types["y"].shape == (1, 3)


@given(cut=st.integers(0, 2000))
@settings(max_examples=60)
def test_truncated_files(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = sample().SerializeToString()
    check_bytes(data[: min(cut, len(data) - 1)], tmp_path_factory)


@given(
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8)
)
@settings(max_examples=200)
def test_mutated_files(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(sample().SerializeToString())
    for place, byte in changes:
        data[place % len(data)] = byte
    check_bytes(bytes(data), tmp_path_factory)


@given(data=st.binary(max_size=200))
@settings(max_examples=60)
def test_random_files(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_bytes(data, tmp_path_factory)


def check_bytes(data: bytes, folders: pytest.TempPathFactory) -> None:
    """Loading the bytes gives a graph or a UserError of one line, within little memory."""
    path = folders.mktemp("bad") / "model.onnx"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        load_graph(path)
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY_BYTES_MAX


@given(
    op=st.sampled_from(["Conv", "MaxPool", "Gemm", "Reshape", "Concat", "Gather"]),
    key=st.sampled_from(["pads", "strides", "kernel_shape", "axis", "group", "transB", "auto_pad"]),
    value=st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
        st.floats(allow_nan=True),
        st.text(max_size=5),
    ),
)
@settings(max_examples=200)
def test_hostile_attributes(op: str, key: str, value: Any) -> None:
    proto = sample()
    target = next(each for each in proto.graph.node if each.op_type == op)
    kept = [each for each in target.attribute if each.name != key]
    del target.attribute[:]
    target.attribute.extend(kept)
    kind = onnx.AttributeProto.INTS if value == [] else None
    target.attribute.append(helper.make_attribute(key, value, attr_type=kind))
    try:
        load_graph(proto)
    except UserError as error:
        assert "\n" not in str(error)


@given(shape=st.lists(st.sampled_from([-1, 0, 1, 2**20, 2**31, 2**40, 2**62]), max_size=5))
@settings(max_examples=80)
@pytest.mark.usefixtures("_memory")
def test_hostile_shapes_of_inputs(shape: list[int]) -> None:
    proto = model([node("Relu", "x", "y")], {"x": tuple(shape)}, ["y"])
    try:
        load_graph(proto)
    except UserError as error:
        assert "input 'x'" in str(error) or "too large" in str(error)


HUGE = np.array([2**20, 2**20, 2**20])
HOSTILE = [
    ("ConstantOfShape", "huge", {}),
    ("Expand", "one huge", {}),
    ("Tile", "three huge", {}),
    ("Range", "zero many step", {}),
    ("Resize", "three - scale", {}),
    ("Pad", "three pads", {}),
    ("OneHot", "index many pair", {}),
    ("EyeLike", "wide", {}),
    ("Reshape", "one huge", {}),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"), HOSTILE, ids=lambda v: v if isinstance(v, str) else ""
)
@pytest.mark.usefixtures("_memory")
def test_small_files_that_mean_huge_tensors(op: str, inputs: str, attrs: dict[str, Any]) -> None:
    constants = {
        "huge": HUGE,
        "one": np.ones((1, 1, 1), F),
        "three": np.ones((1, 1, 3), F),
        "zero": np.array(0),
        "many": np.array(2**50),
        "step": np.array(1),
        "scale": np.array([1e9, 1e9, 1e9], F),
        "pads": np.array([0, 0, 0, 2**40, 0, 0]),
        "index": np.zeros((4,), np.int64),
        "pair": np.array([0, 1], F),
        "wide": np.broadcast_to(np.zeros((), F), (1, 1)),
    }
    nodes = [node(op, inputs, "t", **attrs), node("Cast", "t", "u", to=1), node("Neg", "u", "y")]
    if op == "EyeLike":
        nodes.insert(0, node("ConstantOfShape", "square", "wide2"))
        nodes[1] = node(op, "wide2", "t")
        constants["square"] = np.array([2**25, 2**25])
    line = refusal(model(nodes, {}, ["y"], constants))
    assert line.startswith("model: node '")


@pytest.mark.usefixtures("_memory")
def test_tensors_whose_data_are_not_there() -> None:
    proto = sample()
    proto.graph.initializer[0].dims[0] = 2**40
    assert "declares" in refusal(proto)
    proto.graph.initializer[0].dims[0] = -1
    assert "negative dimension" in refusal(proto)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda g: g.node[0].input.__setitem__(0, "nowhere"),
            "node 'Conv_0' (Conv): reads 'nowhere'",
        ),
        (lambda g: g.node[0].output.__setitem__(0, "p"), "(MaxPool): reads 'c'"),
        (
            lambda g: g.node[3].output.__setitem__(0, "p"),
            "node 'Shape_3' (Shape): produces 'p' a second",
        ),
        (lambda g: setattr(g.node[0], "op_type", "Blur"), "node 'Conv_0'"),
        (lambda g: setattr(g.node[0], "domain", "acme"), "operators of the domain 'acme'"),
        (lambda g: g.node.insert(0, g.node.pop()), "node 'Gemm_0' (Gemm): reads 'f'"),
        (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 7), "node 'Conv_0' (Conv)"),
        (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 8), "strings"),
        (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 16), "bfloat16"),
        (lambda g: setattr(g.output[0], "name", "z"), "reads 'z'"),
        (lambda g: setattr(g.output[0].type.tensor_type, "elem_type", 7), "is declared int64"),
        (lambda g: g.initializer.pop(0), "node 'Conv_0' (Conv): reads 'w'"),
        (lambda g: g.initializer.append(g.initializer[0]), "a second time"),
        (lambda g: g.initializer[0].ClearField("raw_data"), "its data disagree"),
    ],
)
def test_broken_graphs_are_named(change: Any, message: str) -> None:
    proto = sample()
    if message == "node 'Conv_0'":
        proto.graph.node[0].name = "Conv_0"
    change(proto.graph)
    line = refusal(proto)
    assert line.startswith("model: ")
    assert message in line


def test_files_that_are_no_models(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "absent.onnx")
    assert "cannot be read" in refusal(tmp_path) or "not a file" in refusal(tmp_path)
    empty = tmp_path / "empty.onnx"
    empty.touch()
    assert "not an ONNX model" in refusal(empty)
    text = tmp_path / "text.onnx"
    text.write_text("#!/bin/sh\necho hello\n")
    assert str(text) in refusal(text)


def test_unknown_versions() -> None:
    proto = sample()
    proto.opset_import[0].version = 9999
    assert "opset 9999 is unknown" in refusal(proto)
    proto = sample()
    proto.ir_version = 1
    assert "IR version" in refusal(proto)


@pytest.mark.parametrize(
    "op", ["SequenceConstruct", "RandomNormalLike", "StringNormalizer", "NonZero", "Bernoulli"]
)
def test_refusals_name_the_operator(op: str) -> None:
    line = refusal(model([node(op, "x", "y")], {"x": (3,)}, ["y"]))
    assert line.startswith(f"model: node '{op}_0' ({op}): ")


def external(folder: Path, location: str, *, length: int = 12, offset: int = 0) -> Path:
    """A model whose only weight lies in `location`."""
    proto = model([node("Add", "x w", "y")], {"x": (3,)}, ["y"], {"w": np.arange(3, dtype=F)})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", length), ("offset", offset)):
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_are_read(tmp_path: Path) -> None:
    np.arange(5, dtype=F).tofile(tmp_path / "weights.bin")
    graph = load_graph(external(tmp_path, "weights.bin", offset=8))
    assert graph.constants["w"].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("location", "length", "offset", "message"),
    [
        ("../secret.bin", 12, 0, "leave the model's folder"),
        ("/etc/hostname", 12, 0, "leave the model's folder"),
        ("link.bin", 12, 0, "leave the model's folder"),
        ("absent.bin", 12, 0, "are missing"),
        ("", 12, 0, "nowhere"),
        ("weights.bin", 16, 0, "needs 12 bytes"),
        ("weights.bin", 2**60, 0, "needs 12 bytes"),
        ("weights.bin", 12, 2**40, "ends behind its file"),
        ("weights.bin", 12, -4, "ends behind its file"),
    ],
)
def test_external_data_stay_in_bounds(
    tmp_path: Path, location: str, length: int, offset: int, message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    np.arange(5, dtype=F).tofile(folder / "weights.bin")
    np.arange(5, dtype=F).tofile(tmp_path / "secret.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    assert message in refusal(external(folder, location, length=length, offset=offset))


def test_external_data_of_a_model_without_a_folder() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(sample())
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    assert "nowhere" in refusal(proto)


def test_names_that_are_not_text(tmp_path: Path) -> None:
    proto = sample()
    data = proto.SerializeToString().replace(b"model", b"mod\xff\xfe")
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert "not text" in refusal(path)


def test_strings_in_constants() -> None:
    proto = model([node("Neg", "x", "y")], {"x": (1,)}, ["y"])
    proto.graph.initializer.append(numpy_helper.from_array(np.array(["a"], object), "s"))
    assert "strings" in refusal(proto)
