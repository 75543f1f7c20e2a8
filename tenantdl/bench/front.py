"""What a request costs outside the lanes: HTTP, the daemon's loop, the client. Measured on a real
daemon whose lanes have nothing to do, with requests of two sizes that never meet. Times in µs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from tenantdl.bench import qos
from tenantdl.bundle.manifest import FORMAT, MANIFEST, Manifest, Target, Tensor
from tenantdl.exec.idle_backend import idle_plan
from tenantdl.load.workload import parse_workload
from tenantdl.units import MS, US

_SECONDS, _RATE = 4.0, 25.0
_LARGE_MB = 1.0
_WORKLOAD = """
bundles = {folder}
[load]
arrivals = "constant"
[[tenant]]
name = "small"
bundle = "small/idle:1"
qos_ms = 1000
rate = {rate}
[[tenant]]
name = "large"
bundle = "large/idle:1"
qos_ms = 1000
rate = {rate}
"""


class FrontCost(NamedTuple):
    """From the due time of a request to its answer, apart from what happens in the lane: of small
    ones the median, `request_us`, and `request_p95_us`, which one in twenty exceeds; and so much
    more for every megabyte (10⁶ bytes) of input."""

    request_us: float
    request_p95_us: float
    request_mb_us: float


def measure_front(handover_us: float) -> FrontCost:
    """Drive a daemon for some seconds. Raises ExecutionError if it does not come up."""
    with TemporaryDirectory(prefix="tenantdl-front-") as folder:
        _write_bundle(Path(folder) / "small", "small", 1)
        _write_bundle(Path(folder) / "large", "large", round(_LARGE_MB * 1e6 / 4))
        text = _WORKLOAD.format(folder=msgspec.json.encode(folder).decode(), rate=_RATE)
        result = qos.run(
            parse_workload(text), duration_s=_SECONDS, backend="tenantdl.exec.idle_backend"
        )
    small, large = (float(result.rows[place]["p50_ms"]) * MS / US for place in (0, 1))
    tail = float(result.rows[0]["p95_ms"]) * MS / US
    lane, more = handover_us, max(0.0, large - small)
    return FrontCost(max(0.0, small - lane), max(0.0, tail - lane), more / _LARGE_MB)


def _write_bundle(folder: Path, name: str, elements: int) -> None:
    """A bundle for lanes without kernels, with one input of so many numbers."""
    plan = idle_plan(1)
    plan = msgspec.structs.replace(plan, inputs=(Tensor("x", "float32", (elements,), 0),))
    manifest = Manifest(
        format=FORMAT,
        name=name,
        created_by="tenantdl",
        source="",
        target=Target("", "", ()),
        machine={},
        cores=(1,),
        digests={},
        plans=(plan,),
        summary={},
    )
    (folder / "idle:1").mkdir(parents=True)
    (folder / "idle:1" / MANIFEST).write_bytes(msgspec.json.encode(manifest))
