"""The fallback for operators without a template: any ONNX operator that TVM or a rule of ours can
express runs, fused, parallel and vectorised.

    convert.py    nodes → one Relax function: rules.py first, then TVM's ONNX converters
    lowering.py   legalise, fuse, schedule, read the kernel calls off
    schedule.py   the schedule of one fused kernel
"""

from tenantdl.compile.generic.lowering import lower_generic

__all__ = ["lower_generic"]
