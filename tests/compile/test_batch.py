"""Plans for several requests and for several lengths: results equal those of requests alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net
from onnx import TensorProto, helper, numpy_helper

import tenantdl
from tenantdl.bundle.load import load_bundle, read_manifest
from tenantdl.bundle.manifest import LIBRARY, WEIGHTS
from tenantdl.compile.batch import sizes
from tenantdl.compile.plans import Bucket, bucket_shapes
from tenantdl.errors import UserError
from tenantdl.exec.runner import Runner

SIZES = (1, 2, 3, 8)


def convolutions() -> Net:
    """A small image network: borders, a residual, a gate, pooling, a dense layer; and an output of
    an odd number of bytes."""
    net = Net()
    x = net.input(1, 3, 14, 14)
    a = net.op("Conv", x, net.weight(24, 3, 3, 3), pads=[1, 1, 1, 1])
    b = net.op("Relu", a)
    c = net.op("Conv", b, net.weight(24, 24, 3, 3), pads=[1, 1, 1, 1])
    d = net.op("Add", c, b)
    e = net.op("Conv", d, net.weight(24, 1, 3, 3), group=24, pads=[1, 1, 1, 1])
    f = net.op("GlobalAveragePool", e)
    g = net.op("Flatten", f)
    net.output(net.op("Gemm", g, net.weight(24, 10)), net.op("Relu", e))
    return net


def tokens(*, masked: bool) -> object:
    """A layer of attention over S tokens of 32 numbers; `masked`: what is 0 in the mask is left
    out, everywhere."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 32)).astype(np.float32) / 20
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"]),
        helper.make_node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Sub", ["mask", "one"], ["negative"]),
        helper.make_node("Mul", ["negative", "large"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"] if masked else ["scores", "zero"], ["biased"]),
        helper.make_node("Softmax", ["biased"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "q"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "w"], ["y"]),
    ]
    constants = {"w": weight, "one": np.float32(1), "large": np.float32(1e9), "zero": np.float32(0)}
    graph = helper.make_graph(
        nodes,
        "tokens",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "S", 32]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1, "S"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_batches_answer_as_requests_alone(tmp_path: Path) -> None:
    net = convolutions()
    summary = tenantdl.compile(net.model(), tmp_path / "one", batch=1)
    many = tenantdl.compile(net.model(), tmp_path / "many", batch=SIZES)
    alone, together = tenantdl.load(tmp_path / "one"), tenantdl.load(tmp_path / "many")
    rng = np.random.default_rng(1)
    for requests in range(1, 9):  # also sizes between two plans
        x = rng.standard_normal((requests, 3, 14, 14), dtype=np.float32)
        got = together.run({"x0": x})
        for i in range(requests):
            for name, expected in alone.run({"x0": x[i : i + 1]}).items():
                np.testing.assert_allclose(got[name][i : i + 1], expected, rtol=1e-5, atol=1e-6)
    # One copy of the weights; the kernels of one request serve all but the widened ones.
    assert many.weights_bytes == summary.weights_bytes
    assert many.kernels <= summary.kernels + 3 * (len(SIZES) - 1)


def test_first_plan_is_that_of_one_request(tmp_path: Path) -> None:
    net = convolutions()
    tenantdl.compile(net.model(), tmp_path / "one", name="net")
    tenantdl.compile(net.model(), tmp_path / "many", name="net", batch=(1, 4))
    one, many = read_manifest(tmp_path / "one"), read_manifest(tmp_path / "many")
    assert many.plans[0].calls == one.plans[0].calls
    assert [plan.batch for plan in many.plans] == [1, 4]
    assert many.padding is None
    assert (tmp_path / "many" / LIBRARY).stat().st_size < 2 * (
        tmp_path / "one" / LIBRARY
    ).stat().st_size
    assert (tmp_path / "many" / WEIGHTS).read_bytes() == (tmp_path / "one" / WEIGHTS).read_bytes()


def test_masked_lengths_are_padded(tmp_path: Path) -> None:
    buckets = {"S": (4, 8, 12)}
    tenantdl.compile(tokens(masked=True), tmp_path / "b", batch=(1, 2), buckets=buckets)  # type: ignore[arg-type]
    model = tenantdl.load(tmp_path / "b")
    assert model.manifest.padding is not None
    assert len(model.manifest.plans) == 6
    tenantdl.compile(
        tokens(masked=True), tmp_path / "exact", shapes={"x": (1, 7, 32), "mask": (1, 1, 7)}
    )  # type: ignore[arg-type]
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 7, 32), dtype=np.float32)
    mask = np.ones((2, 1, 7), np.float32)
    got = model.run({"x": x, "mask": mask})["y"]
    assert got.shape == (2, 7, 32)
    exact = tenantdl.load(tmp_path / "exact")
    for i in range(2):
        expected = exact.run({"x": x[i : i + 1], "mask": mask[i : i + 1]})["y"]
        np.testing.assert_allclose(got[i : i + 1], expected, rtol=1e-4, atol=1e-5)


def test_what_padding_changes_is_not_padded(tmp_path: Path) -> None:
    buckets = {"x.1": (4, 8)}
    tenantdl.compile(tokens(masked=False), tmp_path / "b", buckets=buckets)  # type: ignore[arg-type]
    model = tenantdl.load(tmp_path / "b")
    assert model.manifest.padding is None
    with pytest.raises(UserError, match="shape"):
        model.run({"x": np.zeros((1, 7, 32), np.float32), "mask": np.ones((1, 1, 7), np.float32)})


def test_buckets_without_extents_are_parts_of_what_the_shape_says() -> None:
    shapes = {"x": (1, 8, 32), "mask": (1, 1, 8)}
    found, axes = bucket_shapes(tokens(masked=True), 1, shapes, [Bucket("S", ())])  # type: ignore[arg-type]
    assert [one["x"] for one in found if one] == [(1, 8, 32), (1, 2, 32), (1, 4, 32)]
    assert axes[0].bucket.extents == (2, 4, 8)
    with pytest.raises(UserError, match="give the largest"):
        bucket_shapes(tokens(masked=True), 1, None, [Bucket("S", ())])  # type: ignore[arg-type]


def test_bad_sizes_and_dimensions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch sizes"):
        sizes((2, 4))
    with pytest.raises(UserError, match="no open dimension 'T'"):
        tenantdl.compile(tokens(masked=True), tmp_path / "b", buckets={"T": (4,)})  # type: ignore[arg-type]
    net = Net()
    net.output(net.op("Relu", net.input(3, 4)))
    with pytest.raises(UserError, match="cannot be batched"):
        tenantdl.compile(net.model(), tmp_path / "c", batch=(1, 2))


def test_rows_of_a_batch_are_gathered_and_scattered(tmp_path: Path) -> None:
    net = convolutions()
    tenantdl.compile(net.model(), tmp_path / "b", batch=(1, 4))
    bundle = load_bundle(tmp_path / "b")
    one, four = (Runner(bundle, plan) for plan in bundle.manifest.plans)
    rng = np.random.default_rng(3)
    requests = [{"x0": rng.standard_normal((1, 3, 14, 14), dtype=np.float32)} for _ in range(3)]
    for row, inputs in enumerate(requests):  # the fourth place stays empty
        four.gather(row, inputs)
    four.run_block(0, four.segment_count)
    for row, inputs in enumerate(requests):
        for name, expected in one.run(inputs).items():
            np.testing.assert_allclose(four.scatter(row)[name], expected, rtol=1e-5, atol=1e-6)
