"""Every builder, at reduced width: valid ONNX, dynamic batch, live activations, right structure."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import onnx
import pytest

from tenantdl import zoo
from tenantdl.zoo import bert, efficientnet, googlenet, layers, mobilenet, resnet, ssd, yolo

TINY = bert.Size(layers=2, hidden=64, heads=4, inner=128)
SMALL = {
    "resnet50": partial(resnet.resnet50, width=8),
    "googlenet": partial(googlenet.googlenet, width=0.25),
    "efficientnet_b0": partial(efficientnet.efficientnet_b0, width=0.5),
    "mobilenet_v2": partial(mobilenet.mobilenet_v2, width=0.5),
    "tiny_yolov2": partial(yolo.tiny_yolov2, width=4),
    "ssd_resnet34": partial(ssd.ssd_resnet34, width=8),
    "bert_large": partial(bert.bert_large, size=TINY),
}


def samples(name: str, batch: int) -> dict[str, np.ndarray]:
    size = 24 if name == "bert_large" else None
    return zoo.sample_inputs(name, batch, seed=5, size=size)


@pytest.mark.parametrize("name", SMALL)
def test_graph_is_valid_and_shapes_are_inferred(name) -> None:
    model = SMALL[name]()
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    known = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output)}
    assert known >= {output for node in model.graph.node for output in node.output}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
    assert [port.name for port in zoo.entry(name).inputs] == [i.name for i in model.graph.input]


@pytest.mark.parametrize("name", SMALL)
def test_rows_do_not_depend_on_the_batch(name, run) -> None:
    model, inputs = SMALL[name](), samples(name, 4)
    batched = run(model, inputs)
    alone = run(model, {key: value[2:3] for key, value in inputs.items()})
    for key, value in batched.items():
        np.testing.assert_allclose(value[2:3], alone[key], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_alive_and_depend_on_the_input(name, run) -> None:
    for value in run(SMALL[name](), samples(name, 2)).values():
        assert np.isfinite(value).all()
        assert 0.01 < value.std() < 100
        assert np.abs(value[0] - value[1]).mean() > 0.01 * np.abs(value[0]).mean()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", {"Conv": 53, "Relu": 49, "Add": 16, "MaxPool": 1, "Gemm": 1}),
        ("googlenet", {"Conv": 57, "Relu": 57, "Concat": 9, "MaxPool": 13, "Gemm": 1}),
        ("efficientnet_b0", {"Conv": 81, "Sigmoid": 65, "Mul": 65, "Add": 9, "Gemm": 1}),
        ("mobilenet_v2", {"Conv": 52, "Clip": 35, "Add": 10, "Gemm": 1}),
        ("tiny_yolov2", {"Conv": 9, "LeakyRelu": 8, "MaxPool": 6}),
        ("ssd_resnet34", {"Conv": 51, "Softmax": 1, "Exp": 1, "Concat": 3}),
        ("bert_large", {"MatMul": 17, "Softmax": 2, "LayerNormalization": 5, "Erf": 2}),
    ],
)
def test_operators_are_those_of_the_published_model(name, expected) -> None:
    kinds = Counter(node.op_type for node in SMALL[name]().graph.node)
    assert {kind: kinds[kind] for kind in expected} == expected


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def test_resnet50_strides_in_its_3x3() -> None:
    convs = [attributes(n) for n in SMALL["resnet50"]().graph.node if n.op_type == "Conv"]
    strided = [conv["kernel_shape"] for conv in convs if conv["strides"] == [2, 2]]
    assert strided == [[7, 7], *([[3, 3], [1, 1]] * 3)]  # stem, then conv2 and the shortcut


def test_tiny_yolov2_keeps_its_map_in_the_sixth_pooling(run) -> None:
    model = SMALL["tiny_yolov2"]()
    pools = [attributes(node) for node in model.graph.node if node.op_type == "MaxPool"]
    assert pools[5]["strides"] == [1, 1] and pools[5]["auto_pad"] == b"SAME_UPPER"
    assert run(model, samples("tiny_yolov2", 1))["grid"].shape == (1, 125, 13, 13)


def test_ssd_decodes_its_offsets(run) -> None:
    model = SMALL["ssd_resnet34"]()
    offsets = next(n.output[0] for n in model.graph.node if n.op_type == "Transpose")
    model.graph.output.add().name = offsets
    outputs = run(model, samples("ssd_resnet34", 1))
    raw, defaults = outputs[offsets], ssd.default_boxes()
    centre = defaults[:, :2] + 0.1 * raw[..., :2] * defaults[:, 2:]
    half = 0.5 * defaults[:, 2:] * np.exp(0.2 * raw[..., 2:])
    expected = np.concatenate([centre - half, centre + half], axis=2)
    np.testing.assert_allclose(outputs["boxes"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["scores"].sum(axis=2), 1, rtol=1e-4)


def test_ssd_default_boxes_cover_the_image() -> None:
    boxes = ssd.default_boxes()
    assert boxes.shape == (8732, 4)
    assert boxes.min() > 0 and boxes.max() <= 1
    np.testing.assert_allclose(boxes[:, :2].mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(boxes[0], [4 / 300, 4 / 300, 0.07, 0.07], rtol=1e-5)


def test_bert_ignores_padding(run) -> None:
    inputs = samples("bert_large", 2)
    inputs["attention_mask"][1, 16:] = 0
    changed = {key: value.copy() for key, value in inputs.items()}
    changed["input_ids"][1, 16:] = 7
    before, after = (
        run(SMALL["bert_large"](), given)["start_logits"] for given in (inputs, changed)
    )
    np.testing.assert_allclose(before[1, :16], after[1, :16], atol=1e-5)
    assert np.abs(before[1, 16:] - after[1, 16:]).max() > 1e-3


def test_moments_of_a_rectified_normal() -> None:
    mean, std = layers.moments(layers.relu, 0.0, 1.0)
    assert mean == pytest.approx(1 / np.sqrt(2 * np.pi), rel=0.02)
    assert std == pytest.approx(np.sqrt(0.5 - 1 / (2 * np.pi)), rel=0.02)


def test_filters_give_unit_variance_and_drop_a_common_mean() -> None:
    rng = np.random.default_rng(0)
    weight = layers.filters(rng, (64, 16, 3, 3), 2.0, centred=True)
    values = 5 + 2 * rng.standard_normal((16 * 9, 1000))
    outputs = weight.reshape(64, -1) @ values
    assert outputs.std() == pytest.approx(1, rel=0.1)
    assert np.abs(outputs.mean(axis=1)).max() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "ssd_resnet34", "tiny_yolov2", "bert_large"])
def test_full_size_models_run_and_match_the_listing(name, run, count) -> None:
    model, entry = zoo.build(name), zoo.entry(name)
    parameters, flops = count(model, samples(name, 1) if name != "bert_large" else _full_bert())
    assert parameters == entry.parameters
    assert flops / 1e9 == pytest.approx(entry.gflops, rel=0.01)
    assert model.ByteSize() < 2**31
    for value in run(model, samples(name, 4)).values():
        assert np.isfinite(value).all() and value.std() > 0.01


def _full_bert() -> dict[str, np.ndarray]:
    return zoo.sample_inputs("bert_large")
