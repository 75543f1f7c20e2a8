"""The public functions behind `import tenantdl`: compile a model, load a bundle, run it.

Compiling imports ONNX and the TVM compiler on first use; loading and running never do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tenantdl.bundle.load import LoadedBundle, load_bundle
from tenantdl.bundle.manifest import Manifest, Tensor
from tenantdl.bundle.select import Selector, padded_to
from tenantdl.exec.cores import pin
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId

if TYPE_CHECKING:
    from onnx import ModelProto

    from tenantdl.compile.pipeline import Summary

Array: TypeAlias = NDArray[Any]
Progress: TypeAlias = Callable[[str, float], None]


def compile(
    model: str | os.PathLike[str] | ModelProto,
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    target: str = "native",
    batch: int | Sequence[int] = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    buckets: Mapping[str, Sequence[int]] | None = None,
    cores: Sequence[int] = (1, 2),
    variants: int | None = None,
    tune: str = "none",
    tuning_logs: str | os.PathLike[str] | None = None,
    winograd4: bool = True,
    progress: Progress | None = None,
) -> Summary:
    """Compile an ONNX model (file or loaded) to a bundle, a folder at `out`.

    `name`: what the model is called when served (default: the file's stem). `target`: `native` or
    `ARCH[:CPU]`. `batch` binds a symbolic first dimension; several sizes, with 1 among them, give a
    plan for so many requests together each. `shapes` binds whole inputs, `buckets` a dimension by
    its name or as INPUT.AXIS to several extents, with a plan for each (none: a quarter, half and
    all of what `shapes` says). `cores`: the core counts to
    prepare for. `variants`: in how many ways the first plan can be run, at most; None decides.
    `tune`: "none" takes schedules from the model of the machine and
    the records there are; "fast" measures a few for up to a minute, "full" many for up to half an
    hour. `tuning_logs`: folder whose records are read, and to which new ones go.
    `winograd4`: whether convolutions may use F(4×4) and its like, faster and less accurate.
    `progress(phase, fraction)` is called as the work goes on.
    Raises UserError for a model that cannot be compiled, naming the node.
    """
    from tenantdl.compile.pipeline import VARIANTS, Tuning, compile_model
    from tenantdl.compile.plans import Bucket
    from tenantdl.compile.tune import effort_of

    source = Path(os.fspath(model)) if isinstance(model, str | os.PathLike) else model
    return compile_model(
        source,
        Path(out),
        name=name,
        target=target,
        batch=batch if isinstance(batch, int) else 1,
        together=(1,) if isinstance(batch, int) else tuple(batch),
        shapes=shapes,
        buckets=[Bucket(name, tuple(extents)) for name, extents in (buckets or {}).items()],
        cores=tuple(cores),
        variants=VARIANTS if variants is None else variants,
        tuning=Tuning(effort_of(tune), Path(tuning_logs) if tuning_logs else None, winograd4),
        progress=progress,
    )


def load(path: str | os.PathLike[str], *, cores: Sequence[int] | None = None) -> Model:
    """Open the bundle at `path`, checking its digests.

    `cores`: pin the calling thread to these cores (ids of the operating system), one kernel
    thread a core; None leaves the scheduling to the system, on all cores the process may use.
    Raises UserError for a damaged bundle, or one compiled for another kind of machine.
    """
    if cores is not None:
        pin([CoreId(core) for core in cores])
    return Model(load_bundle(path))


class Model:
    """A loaded bundle, ready to run. Calls of `run` from several threads take turns."""

    def __init__(self, bundle: LoadedBundle) -> None:
        self._bundle = bundle
        self._selector = Selector(bundle.manifest.plans, bundle.manifest.padding)
        self._runners: dict[int, Runner] = {}
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """Everything that the bundle says about itself."""
        return self._bundle.manifest

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Name, dtype and shape of each input of the first plan."""
        return self.manifest.plans[0].inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Name, dtype and shape of each output of the first plan."""
        return self.manifest.plans[0].outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, as new arrays, for `inputs` by name (dtypes must match; shapes as one of
        the bundle's plans takes them).

        Raises UserError for a missing, unknown, misshaped or mistyped input.
        """
        shapes = {name: np.shape(value) for name, value in inputs.items()}
        fit = self._selector.find(shapes)
        if fit is None:  # the first plan says what is wrong
            return self._runner(0).run(inputs)
        plan = self.manifest.plans[fit.plan]
        with self._lock:
            outputs = self._runner(fit.plan).run(padded_to(plan, inputs))
        return self._selector.cut(fit, outputs)

    def _runner(self, plan: int) -> Runner:
        if plan not in self._runners:
            self._runners[plan] = Runner(self._bundle, self.manifest.plans[plan])
        return self._runners[plan]
