"""Peers behind a server: real runtimes on a small model; what Triton is told; which file it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tenantdl.bench.serving import compare, mlserver, rayserve, triton
from tenantdl.bench.serving.compare import Settings
from tenantdl.bench.serving.models import onnx_file, served_models, streams
from tenantdl.bench.serving.runtimes import RUNTIMES, OnnxModel, open_models
from tenantdl.bundle.load import file_digest
from tenantdl.bundle.manifest import MANIFEST
from tenantdl.errors import UserError
from tenantdl.ids import CoreId
from tenantdl.load.protocol import decode_request, tensors
from tenantdl.load.workload import Workload, parse_workload
from tenantdl.machine import usable_cores
from tests.exec.fake_lane_backend import fake_bundle


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = x + 6, for x float32[N, 2]: what the fake bundle of six segments does to the first."""
    six = numpy_helper.from_array(np.array([6, 0], np.float32), "six")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "six"], ["y"])],
        "six",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [six],
    )
    file = tmp_path / "six.onnx"
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), str(file))
    return file


@pytest.fixture
def workload(tmp_path: Path, model: Path) -> Workload:
    bundle = fake_bundle(tmp_path, "six", 6, 0)
    manifest = msgspec.json.decode((bundle / MANIFEST).read_bytes())
    manifest["source"] = file_digest(model)
    (bundle / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return parse_workload(
        f"""
        name = "peers"
        bundles = "{tmp_path}"
        [machine]
        cores = [{usable_cores()[0]}]
        [load]
        rate = 20
        duration_s = 1
        [[tenant]]
        name = "t"
        bundle = "fake:6:0"
        onnx = "{model}"
        qos_ms = 30000
        """
    )


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name != "onnxruntime-shared"])
def test_a_runtime_answers(name: str, model: Path) -> None:
    (call,) = open_models(name, [OnnxModel(str(model), {"x": (1, 2)})], cores=1)
    x = np.array([[1, 2]], np.float32)
    x.flags.writeable = False  # as inputs come from the wire
    for _ in range(2):
        assert call({"x": x})["y"].tolist() == [[7, 2]]


def test_peers_are_driven_like_the_daemon(workload: Workload) -> None:
    settings = Settings(targets=("onnxruntime", "openvino"), runs=1, rate=20.0)
    rows = compare.run(workload, settings)
    assert [row["target"] for row in rows] == ["onnxruntime", "openvino"]
    for row in rows:
        (probe,) = row["probes"]
        assert probe["tenants"]["t"]["in_time"] == probe["tenants"]["t"]["due"] > 0
        assert row["conflict_rate"] is None


def test_a_peer_that_cannot_run_a_model_says_so_in_one_line(
    workload: Workload, model: Path
) -> None:
    model.write_bytes(b"no model")
    (tenant,) = workload.tenant
    bundle = workload.bundle_path(tenant)
    manifest = msgspec.json.decode((bundle / MANIFEST).read_bytes())
    manifest["source"] = file_digest(model)
    (bundle / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(UserError, match="onnxruntime: "):
        compare.run(workload, Settings(targets=("onnxruntime",), runs=1, rate=20.0))


def test_the_file_must_be_what_the_bundle_was_compiled_from(
    workload: Workload, model: Path
) -> None:
    (served,) = served_models(workload).values()
    assert onnx_file(served) == model
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"was compiled from another file than .*six\.onnx"):
        onnx_file(served)
    (tenant,) = workload.tenant
    unnamed = msgspec.structs.replace(
        workload, tenant=(msgspec.structs.replace(tenant, onnx=None),)
    )
    (served,) = served_models(unnamed).values()
    with pytest.raises(UserError, match=r"say which, with tenant\.onnx"):
        onnx_file(served)


def test_what_triton_is_told(workload: Workload, tmp_path: Path) -> None:
    models = served_models(workload)
    triton.write_repository(models, {}, 2, tmp_path / "stock")
    stock = (tmp_path / "stock" / "six" / "config.pbtxt").read_text()
    assert 'input [{name: "x" data_type: TYPE_FP32 dims: [1, 2]}]' in stock
    assert "instance_group [{kind: KIND_CPU count: 2}]" in stock
    assert 'key: "cores" value {string_value: ""}' in stock
    assert (tmp_path / "stock" / "six" / "1" / "model.py").is_file()
    triton.write_repository(models, {"six": (CoreId(3),)}, 2, tmp_path / "static")
    static = (tmp_path / "static" / "six" / "config.pbtxt").read_text()
    assert "instance_group [{kind: KIND_CPU count: 1}]" in static
    assert 'key: "cores" value {string_value: "3"}' in static


def test_what_mlserver_and_ray_are_told(workload: Workload, model: Path, tmp_path: Path) -> None:
    models = served_models(workload)
    mlserver.write_folder(models, 2, tmp_path / "mlserver", [1, 2, 3])
    server = msgspec.json.decode((tmp_path / "mlserver" / "settings.json").read_bytes())
    assert (server["host"], server["http_port"], server["parallel_workers"]) == ("127.0.0.1", 1, 2)
    one = (tmp_path / "mlserver" / "six" / "model-settings.json").read_bytes()
    assert msgspec.json.decode(one)["parameters"]["uri"] == str(model)
    rayserve.write_task(models, 2, tmp_path / "ray.json", 8000)
    task = msgspec.json.decode((tmp_path / "ray.json").read_bytes())
    assert task == {"port": 8000, "cores": 2, "models": {"six": str(model)}}


def test_a_server_that_takes_json_gets_the_same_tensors(workload: Workload, tmp_path: Path) -> None:
    sent = []
    for binary in (True, False):
        (stream,) = streams(workload, tmp_path, rate=1.0, duration_s=1.0, seed=5, binary=binary)
        body = Path(stream.body).read_bytes()
        sent.append(tensors(*decode_request(memoryview(body), stream.header_length))["x"])
    assert np.array_equal(*sent)
    assert b"binary_data_size" not in body
