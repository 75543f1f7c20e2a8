"""Kernels of one form become one function: which do, and that it computes what each of them did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import call_kernel
from onnx import ModelProto, TensorProto, helper, numpy_helper

import tenantdl
from tenantdl.compile.build import build_library
from tenantdl.compile.families import United, united
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.operator import Kernel
from tenantdl.compile.plans import (
    Bucket,
    bucket_shapes,
    families,
    grains,
    kernels,
    lower_plans,
    read_graphs,
)
from tenantdl.compile.schedules import Schedules
from tenantdl.compile.target import parse_target

LANES = 16


def scaled(blocks: int, factor: float = 2, extra: int = 1) -> Kernel:
    """out[i] = factor · data[last − i], by blocks: a loop and an offset that follow from `blocks`,
    and a scratch of `extra` elements."""
    with Emitter(f"scaled_{blocks}_{factor}_{extra}".replace("-", "minus_"), LANES) as e:
        data = e.param("data", (blocks * LANES,))
        out = e.param("out", (blocks * LANES + 8,))
        scratch = e.scratch((extra * LANES,))
        with e.serial(blocks) as block:
            value = e.load(data, (((blocks - 1) - block) * LANES,)) * e.splat(float(factor))
            e.store(scratch, (0,), value)
            e.store(out, (block * LANES,), e.load(scratch, (0,)))
    return e.kernel()


def test_extents_become_variables_of_one_function() -> None:
    kernels = [scaled(blocks) for blocks in (2, 3, 7)]
    (only,) = united(kernels)
    assert only.kernel.key == kernels[0].key
    assert only.aliases == (kernels[1].key, kernels[2].key)
    assert only.kernel.flat


def test_infinities_are_written_down_and_read_again() -> None:
    kernels = [scaled(blocks, factor=-np.inf) for blocks in (2, 3)]
    (only,) = united(kernels)
    assert only.aliases == (kernels[1].key,)
    assert "-inf" in str(only.kernel.func)


def test_other_numbers_and_other_trees_stay_apart() -> None:
    a, b, other = scaled(2), scaled(3), scaled(3, factor=3)
    assert [one.kernel.key for one in united([a, b, other])] == [a.key, other.key]
    # The scratch's size is no linear function of an extent: 1, 1, 2 for 2, 3, 7.
    odd = [scaled(2, extra=1), scaled(3, extra=1), scaled(7, extra=2)]
    assert [one.aliases for one in united(odd)] == [(), (), ()]
    assert united([a]) == [United(a)]


@pytest.mark.parametrize("shared", [False, True])
def test_a_function_serves_under_all_names(tmp_path: Path, shared: bool) -> None:
    kernels = [scaled(blocks) for blocks in (2, 3, 7)]
    families = {kernel.key: "scaled" for kernel in kernels} if shared else None
    build_library(kernels, parse_target("native"), tmp_path / "lib.so", families)
    for kernel, blocks in zip(kernels, (2, 3, 7), strict=True):
        data = np.arange(blocks * LANES, dtype=np.float32)
        out = np.zeros(blocks * LANES + 8, np.float32)
        call_kernel(tmp_path / "lib.so", kernel.key, data, out)
        expected = 2 * data.reshape(blocks, LANES)[::-1].reshape(-1)
        np.testing.assert_array_equal(out[:-8], expected)
        assert not out[-8:].any()


def lines_of_print() -> ModelProto:
    """Images of any width: a stem, convolutions that Winograd takes and that it does not, with
    strides, one pixel, channel by channel; a gate."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def conv(x: str, y: str, shape: tuple[int, ...], **attrs: object) -> None:
        weights = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"{y}.w"))
        nodes.append(helper.make_node("Conv", [x, f"{y}.w"], [f"{y}.c"], **attrs))
        nodes.append(helper.make_node("Relu", [f"{y}.c"], [y]))

    conv("x", "a", (32, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    conv("a", "b", (48, 32, 3, 3), pads=[1, 1, 1, 1])
    conv("b", "c", (48, 1, 3, 3), pads=[1, 1, 1, 1], group=48)
    conv("c", "d", (64, 48, 1, 1))
    conv("d", "e", (64, 64, 3, 3), pads=[1, 1, 1, 1], strides=[2, 1])
    nodes.append(helper.make_node("MaxPool", ["e"], ["y"], kernel_shape=[2, 2], strides=[2, 2]))
    graph = helper.make_graph(
        nodes,
        "lines",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_widths_share_their_functions() -> None:
    model, target, widths = lines_of_print(), parse_target("native"), (80, 160, 240)
    shapes, axes = bucket_shapes(model, 1, None, [Bucket("W", widths)])
    graphs = read_graphs(model, 1, shapes)
    plans, _ = lower_plans(graphs, target, 2, Schedules(), 1, (1,), 1, grains(axes, shapes))
    alone = {op.kernel.key for op in plans[0].program.operators}
    groups: dict[str, list[Kernel]] = {}
    for kernel in kernels(plans):
        groups.setdefault(families(plans)[kernel.key], []).append(kernel)
    functions = [one for group in groups.values() for one in united(group)]
    assert len(kernels(plans)) > 2 * len(alone)
    # The image's border is made by whole vectors, pools cut rows as they like.
    assert len(functions) <= len(alone) + 4
    # By itself each width has the schedule that is best for it.
    single, _ = lower_plans(graphs[:1], target, 2, Schedules(), 1, (1,))
    assert {op.kernel.key for op in single[0].program.operators} != alone


def test_widths_answer_as_compiled_apart(tmp_path: Path) -> None:
    model = lines_of_print()
    tenantdl.compile(model, tmp_path / "all", buckets={"W": (80, 160, 240)}, batch=(1, 2))
    together = tenantdl.load(tmp_path / "all")
    rng = np.random.default_rng(1)
    for width in (80, 160, 240):
        x = rng.standard_normal((1, 3, 32, width), dtype=np.float32)
        tenantdl.compile(model, tmp_path / "one", shapes={"x": x.shape}, batch=1)
        expected = tenantdl.load(tmp_path / "one").run({"x": x})["y"]
        np.testing.assert_allclose(together.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-4)
