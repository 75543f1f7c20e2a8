"""ONNX model → bundle: frontend, rewrites, lowering, memory plan, library, weights, segments.

load_graph ─▶ rewrite ─▶ lower ─▶ plan_memory ─▶ build_library ─▶ measure, cut ─▶ manifest
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tenantdl.bundle.load import file_digest
from tenantdl.bundle.manifest import (
    LIBRARY,
    MANIFEST,
    WEIGHTS,
    Manifest,
)
from tenantdl.compile.batch import sizes
from tenantdl.compile.build import build_library
from tenantdl.compile.costs import measured_plans
from tenantdl.compile.files import new_manifest, write_manifest, write_weights
from tenantdl.compile.graph import Graph
from tenantdl.compile.plans import (
    Axes,
    Bucket,
    bucket_shapes,
    families,
    grains,
    kernels,
    lower_plans,
    read_graphs,
    try_padding,
)
from tenantdl.compile.schedules import COMMITTED, Record, Schedules, read_records, write_records
from tenantdl.compile.target import CpuTarget, parse_target
from tenantdl.compile.tune import Effort, tune
from tenantdl.compile.variants import VARIANTS_MAX, Ways
from tenantdl.errors import UserError
from tenantdl.machine import this_machine

if TYPE_CHECKING:
    from onnx import ModelProto

Progress = Callable[[str, float], None]
# Unless another number is asked for: a second one costs little, further ones bring little here.
VARIANTS = 2
PHASES = ("import", "tune", "lower", "build", "weights", "measure")


@dataclass(frozen=True, slots=True)
class Tuning:
    """`effort`: how long schedules are measured; `folder`: where the records go, and are read from
    beside those that come with tenantdl. `winograd4`: whether convolutions may use Winograd's
    larger tiles, F(4×4) and the like, whose errors are about ten times those of the others."""

    effort: Effort = "none"
    folder: Path | None = None
    winograd4: bool = True


NO_TUNING = Tuning()


@dataclass(slots=True)
class Summary:
    """What came out of a compilation; of the first of its `plans`, where they differ. Seconds are
    wall time a phase; `kinds` counts operators and
    `flops_by_kind` floating-point operations a template ("generic": the fallback)."""

    name: str
    path: str
    target: str
    operators: int = 0
    plans: int = 1
    variants: int = 1
    kernels: int = 0
    segments: int = 0
    flops: int = 0
    weights_bytes: int = 0
    arena_bytes: int = 0
    library_bytes: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    flops_by_kind: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    latency_ms: float | None = None


def compile_model(
    model: str | Path | ModelProto,
    out: Path,
    *,
    name: str | None = None,
    target: str = "native",
    batch: int = 1,
    together: Sequence[int] = (1,),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    buckets: Sequence[Bucket] = (),
    cores: Sequence[int] = (1, 2),
    variants: int = VARIANTS,
    tuning: Tuning = NO_TUNING,
    progress: Progress | None = None,
) -> Summary:
    """Compile `model` to a bundle, a folder at `out` (replaced if it is a bundle already), with a
    plan for each number of requests `together` in each combination of `buckets`. The first plan
    comes in up to `variants` variants.

    Everything is written beside `out` and renamed at the end. Raises UserError naming what is
    wrong with the model, the target or the place.
    """
    out = Path(out)
    if name is None:
        name = Path(model).stem if isinstance(model, str | Path) else out.stem
    cpu = parse_target(target)
    if not cores or any(count < 1 for count in cores):
        raise UserError(f"core counts must be positive, not {list(cores)}")
    if not 1 <= variants <= VARIANTS_MAX:
        raise UserError(f"between 1 and {VARIANTS_MAX} variants, not {variants}")
    if not _runs_here(cpu):
        variants = 1  # which ways are worth anything has to be measured
    together = sizes(together)
    summary = Summary(name, str(out), f"{cpu.arch}:{cpu.level.mcpu}")
    phases = _Phases(summary, progress)
    with _folder_beside(out) as folder:
        with phases("import"):
            variations, axes = bucket_shapes(model, batch, shapes, buckets)
            graphs = read_graphs(model, batch, variations)
        with phases("tune"):
            records = _records(graphs[0], cpu, cores, tuning, name)
        with phases("lower"):
            schedules = Schedules(records, winograd4=tuning.winograd4)
            parts = grains(axes, variations)
            plans, weights = lower_plans(
                graphs, cpu, max(cores), schedules, batch, together, variants, parts
            )
        with phases("build"):
            build_library(kernels(plans), cpu, folder / LIBRARY, families(plans))
        with phases("weights"):
            write_weights(weights, folder / WEIGHTS)
        static = [plan.plan() for plan in plans]
        manifest = new_manifest(name, cpu, cores, static, folder, _source(model))
        with phases("measure"):
            ways = plans[0].trials(cpu.caches.l2_bytes, variants)
            manifest = _measured(manifest, axes, folder, cpu, ways)
        _describe(summary, manifest, folder)
        manifest = msgspec.structs.replace(
            manifest, summary=asdict(summary), metadata=graphs[0].metadata
        )
        write_manifest(manifest, folder)
    return summary


def _records(
    graph: Graph, cpu: CpuTarget, cores: Sequence[int], tuning: Tuning, name: str
) -> list[Record]:
    """What is known of schedules for this CPU, and what measuring adds to it."""
    folders = (COMMITTED, *([tuning.folder] if tuning.folder else []))
    known = read_records(cpu, folders)
    if tuning.effort == "none":
        return known
    if not _runs_here(cpu):
        raise UserError(f"schedules for {cpu.level.mcpu} cannot be measured on this machine")
    kept = known if tuning.effort == "fast" else []
    found = tune(graph, cpu, cores, kept, tuning.effort, winograd4=tuning.winograd4)
    if found and tuning.folder:
        write_records(found, cpu, name, tuning.folder)
    return [*known, *found]


class _Phases:
    """Times phases and reports progress."""

    def __init__(self, summary: Summary, progress: Progress | None) -> None:
        self._summary, self._progress = summary, progress

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(phase, PHASES.index(phase) / len(PHASES))
        start = time.perf_counter()
        yield
        self._summary.seconds[phase] = time.perf_counter() - start
        if self._progress is not None:
            self._progress(phase, (PHASES.index(phase) + 1) / len(PHASES))


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` if all goes well and vanishes if not."""
    if out.exists() and not (out / MANIFEST).is_file():
        raise UserError("exists and is not a bundle", where=str(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(out)) from error
    try:
        yield folder
        folder.chmod(0o755)
        if out.exists():
            aside = folder.with_name(folder.name + ".old")
            os.rename(out, aside)
            os.rename(folder, out)
            shutil.rmtree(aside)
        else:
            os.rename(folder, out)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(out)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _source(model: str | Path | ModelProto) -> str:
    """Digest of the ONNX file, or of the serialised model without its weights' bytes."""
    if isinstance(model, str | Path):
        return file_digest(Path(model))
    return hashlib.sha256(model.graph.name.encode()).hexdigest()


def _measured(
    manifest: Manifest, axes: Sequence[Axes], folder: Path, cpu: CpuTarget, ways: Ways
) -> Manifest:
    """Cut plans by measured operator times and try padding, unless it cannot run here."""
    if not _runs_here(cpu):
        return manifest
    write_manifest(manifest, folder)

    def measure() -> Manifest:
        plans = measured_plans(manifest.plans, manifest.cores, folder, ways)
        padding = try_padding(manifest, axes, folder)
        return msgspec.structs.replace(manifest, plans=tuple(plans), padding=padding)

    with ThreadPoolExecutor(1) as thread:  # affinity and core group are a thread's own
        return thread.submit(measure).result()


def _runs_here(cpu: CpuTarget) -> bool:
    machine = this_machine()
    return cpu.arch == machine.arch and set(cpu.level.features) <= machine.features


def _describe(summary: Summary, manifest: Manifest, folder: Path) -> None:
    plan = manifest.plans[0]
    summary.operators = len(plan.calls)
    summary.plans = len(manifest.plans)
    summary.variants = max(1, len(plan.variants))
    summary.kernels = len({call.symbol for plan in manifest.plans for call in plan.calls})
    summary.segments = len(plan.segments)
    summary.flops = sum(call.flops for call in plan.calls)
    summary.arena_bytes = plan.arena_bytes
    summary.weights_bytes = (folder / WEIGHTS).stat().st_size
    summary.library_bytes = (folder / LIBRARY).stat().st_size
    summary.kinds = dict(Counter(call.kind for call in plan.calls))
    for call in plan.calls:
        total = summary.flops_by_kind.get(call.kind, 0)
        summary.flops_by_kind[call.kind] = total + call.flops
    if plan.cost_source == "measured":
        summary.latency_ms = sum(segment.cost_ns for segment in plan.segments) / 1e6
