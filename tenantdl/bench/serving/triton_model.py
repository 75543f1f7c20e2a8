"""The model.py of every model in the Triton repository that the bench writes: onnxruntime inside
Triton's python backend (its wheel for CPUs holds no other). Runs in Triton's own environment, so it
imports nothing of ours. Parameters: `file`, `threads`, `cores` ("0,1": what this instance is kept
on; empty: as Triton was started)."""

from __future__ import annotations

import json
import os
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as backend  # type: ignore[import-not-found]


class TritonPythonModel:
    """One instance: a process of its own, with a session of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session, on its cores: worker threads inherit them."""
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        if given["cores"]:
            os.sched_setaffinity(0, {int(core) for core in given["cores"].split(",")})
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = int(given["threads"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._scalars = given["scalars"].split(",")
        self._inputs = [port["name"] for port in config["input"]]
        self._outputs = [port["name"] for port in config["output"]]
        self._session = ort.InferenceSession(
            given["file"], options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One after the other; Triton hands over what waits."""
        responses = []
        for request in requests:
            feeds = {
                name: backend.get_input_tensor_by_name(request, name).as_numpy()
                for name in self._inputs
            }
            feeds |= {name: feeds[name].reshape(()) for name in self._scalars if name}
            results = self._session.run(self._outputs, feeds)
            tensors = [
                backend.Tensor(name, value)
                for name, value in zip(self._outputs, results, strict=True)
            ]
            responses.append(backend.InferenceResponse(tensors))
        return responses
