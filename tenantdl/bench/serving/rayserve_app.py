"""What the bench has Ray Serve run: a deployment for each model, onnxruntime inside, the Open
Inference Protocol in front. Runs in Ray's own environment: `python rayserve_app.py TASK`."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import ray  # type: ignore[import-not-found]
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from tenantdl.bench.serving.exchange import answered, received
from tenantdl.bench.serving.runtimes import OnnxModel, open_models


class OnnxRuntime:
    """One replica of a model."""

    def __init__(self, name: str, file: str) -> None:
        self._name = name
        (self._call,) = open_models("onnxruntime", [OnnxModel(file, {})], cores=1)

    async def __call__(self, request: Request) -> Response:
        """POST /v2/models/NAME/infer."""
        number, inputs = await received(request)
        return answered(self._name, number, self._call(inputs))


class Ready:
    """Answers once everything is deployed."""

    async def __call__(self, request: Request) -> Response:
        """GET /v2/health/ready."""
        return Response()


def main(task: dict[str, Any]) -> None:
    """Deploy, then wait to be told to stop."""
    ray.init(num_cpus=task["cores"], include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": task["port"]})
    # Ray does not start what would take more cores than there are.
    share = 0.9 / (len(task["models"]) + 1)
    for name, file in task["models"].items():
        deployment = serve.deployment(OnnxRuntime).options(
            num_replicas=task["cores"], ray_actor_options={"num_cpus": share}
        )
        serve.run(deployment.bind(name, file), name=name, route_prefix=f"/v2/models/{name}/infer")
    ready = serve.deployment(Ready).options(ray_actor_options={"num_cpus": 0})
    serve.run(ready.bind(), name="ready", route_prefix="/v2/health/ready")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    ray.shutdown()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
