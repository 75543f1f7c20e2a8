"""The custom runtime that the bench gives MLServer: onnxruntime, one thread a request. Runs in
MLServer's own environment, so it imports nothing of ours. `parameters.extra.scalars`: inputs that
have no dimensions in the model, but one here."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class OnnxRuntime(MLModel):  # type: ignore[misc]
    """One model in one inference worker."""

    async def load(self) -> bool:
        """Open the session."""
        parameters = self.settings.parameters
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._scalars = set(parameters.extra["scalars"])
        self._session = ort.InferenceSession(
            parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [port.name for port in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One request."""
        feeds: dict[str, Any] = {}
        for tensor in payload.inputs:
            value = NumpyCodec.decode_input(tensor)
            feeds[tensor.name] = value.reshape(()) if tensor.name in self._scalars else value
        results = self._session.run(self._outputs, feeds)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                NumpyCodec.encode_output(name, value)
                for name, value in zip(self._outputs, results, strict=True)
            ],
        )
