"""What a workload's tenants send, and which ONNX file a peer runs for each of them.

Streams are made from the bundles' manifests alone, so that every target gets the same bytes at the
same times. A peer runs the ONNX file that the bundle was compiled from: `onnx` of the tenant, or
the model of the zoo that has the bundle's name. Its digest has to be the bundle's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tenantdl import zoo
from tenantdl.bench import cache
from tenantdl.bundle.load import file_digest, read_manifest
from tenantdl.bundle.manifest import Manifest, Plan
from tenantdl.errors import UserError
from tenantdl.load.arrivals import Shape, arrive
from tenantdl.load.inputs import random_inputs, read_inputs
from tenantdl.load.issuer import Stream
from tenantdl.load.protocol import Array, datatype, encode_request
from tenantdl.load.workload import TenantSection, Workload
from tenantdl.units import from_ms


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it is served: its `name` in URLs, its plan for the shapes that the load has, and
    which `tenants` use it."""

    name: str
    bundle: Path
    manifest: Manifest
    plan: Plan
    tenants: tuple[TenantSection, ...]


def served_models(workload: Workload) -> dict[str, Model]:
    """The models of a workload by name. Raises UserError for bundles that cannot be read."""
    models: dict[str, Model] = {}
    for tenant in workload.tenant:
        bundle = workload.bundle_path(tenant)
        manifest = read_manifest(bundle)
        name = tenant.models[0] if tenant.models else tenant.model or manifest.name
        users = (*models[name].tenants, tenant) if name in models else (tenant,)
        models[name] = Model(name, bundle, manifest, manifest.plans[0], users)
    return models


def onnx_file(model: Model) -> Path:
    """The ONNX file that `model`'s bundle was compiled from. Raises UserError if it is not known,
    or has changed since (a model that the zoo builds is no file then: its name has to do)."""
    given = next((tenant.onnx for tenant in model.tenants if tenant.onnx), None)
    if given is None and model.manifest.name not in zoo.names():
        raise UserError(
            "peers run the ONNX file that a bundle was compiled from: say which, with tenant.onnx",
            where=str(model.bundle),
        )
    name = given or model.manifest.name
    file = cache.source(name, batch=1, seed=0).file
    built = name in zoo.names() and zoo.entry(name).kind != "packaged"
    if not built and file_digest(file) != model.manifest.source:
        raise UserError(
            f"was compiled from another file than {file}: compile it again", where=str(model.bundle)
        )
    return file


def streams(
    workload: Workload,
    folder: Path,
    *,
    rate: float,
    duration_s: float,
    seed: int,
    scalars_as: tuple[int, ...] = (),
    binary: bool = True,
) -> list[Stream]:
    """What each tenant sends at `rate` requests a second in all; bodies are written to `folder`.

    The same seed is the same trace, stretched to the rate. Every tenant has a seed of its own:
    adding one to a workload does not move the others' arrivals. `scalars_as`: the shape to send
    scalar inputs in (Triton has none). `binary`: tensors as bytes, else as JSON. Raises UserError.
    """
    load, models = workload.load, served_models(workload)
    shape = Shape(load.burstiness, load.trace, load.pace)
    by_tenant = {tenant.name: model for model in models.values() for tenant in model.tenants}
    made = []
    for number, (tenant, each) in enumerate(
        zip(workload.tenant, workload.rates(rate).values(), strict=True)
    ):
        model = by_tenant[tenant.name]
        rng = np.random.default_rng((seed, number))
        times = arrive(load.arrivals, each, duration_s, rng, shape)
        file = folder / f"{number}.body"
        inputs = (
            read_inputs(tenant.inputs, model.plan.inputs)
            if tenant.inputs
            else random_inputs(model.plan.inputs, seed)
        )
        inputs = {
            name: value if value.shape else value.reshape(scalars_as)
            for name, value in inputs.items()
        }
        encode = encode_request if binary else _as_json
        body, header_length = encode(inputs, {"tenant": tenant.name})
        file.write_bytes(body)
        path = f"/v2/models/{model.name}/infer"
        made.append(
            Stream(
                tenant.name,
                path,
                str(file),
                header_length,
                times.tolist(),
                qos=from_ms(tenant.qos_ms),
                in_flight_max=tenant.in_flight_max,
                content_type=f"application/{'octet-stream' if binary else 'json'}",
            )
        )
    return made


def _as_json(inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> tuple[bytes, int]:
    """The body of a request that is JSON throughout, and its length."""
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype(array.dtype.name),
            "data": array.ravel().tolist(),
        }
        for name, array in inputs.items()
    ]
    body = msgspec.json.encode({"inputs": tensors, "parameters": parameters})
    return body, len(body)
