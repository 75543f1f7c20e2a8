"""TIR functions → an object file: which of TVM's passes, then LLVM.

Templates make loops, vectors and scratch memory of the size they need, no blocks of TVM's
schedules. Of TVM's own pipeline they need half the passes, and not the slowest one, which looks for
what blocks leave of their buffers. The code that comes out is the same, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenantdl.compile.target import CpuTarget

_FLAT = "tenantdl_flat"


def build(functions: dict[str, Any], target: CpuTarget, file: Path, *, flat: bool) -> None:
    """Compile functions to an object file; `flat`: they have none of TVM's blocks."""
    import tvm
    from tvm import tirx
    from tvm.tirx import compilation_pipeline

    compilation_pipeline.register_tir_pipeline(_FLAT, _flat)
    pipeline = _FLAT if flat else "default"
    built = tirx.build(tvm.IRModule(functions), target=target.tvm, pipeline=pipeline)
    built.write_to_file(str(file))


def _flat() -> tuple[Any, Any, Any]:
    """The pipeline, and TVM's own last passes for host and device."""
    import tvm
    from tvm.s_tir import transform as s
    from tvm.tirx import compilation_pipeline
    from tvm.tirx import transform as t

    passes = [
        s.StmtSimplify(),
        t.FlattenBuffer(),
        t.BF16ComputeLegalize(),
        t.NarrowDataType(32),
        t.VectorizeLoop(True),
        t.StorageRewrite(),
        s.HoistIfThenElse(),
        t.UnrollLoop(),
        t.StmtSimplify(),
        t.RemoveNoOp(),
        s.RewriteUnsafeSelect(),
        t.CommonSubexprElim(),
        t.FP8ComputeLegalize(),
        t.VerifyMemory(),
        t.AnnotateEntryFunc(),
        t.SplitHostDevice(),
        t.MakePackedAPI(),
        t.FP8StorageLegalize(),
        t.BF16StorageLegalize(),
    ]
    host, device = (
        compilation_pipeline.finalize_host_passes,
        compilation_pipeline.finalize_device_passes,
    )
    return tvm.transform.Sequential(passes), host, device
