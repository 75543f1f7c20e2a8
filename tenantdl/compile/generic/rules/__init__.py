"""Own rules: ONNX operator → Relax, where TVM's converter is absent, wrong, or slow on a CPU."""

from tenantdl.compile.generic.rules import (
    arithmetic,
    indexing,
    neural,
    pointwise,
    quantise,
    reduce,
    regions,
    resize,
    shapes,
)
from tenantdl.compile.generic.rules.use import Rule, Use

RULES: dict[str, Rule] = {
    **arithmetic.RULES,
    **indexing.RULES,
    **neural.RULES,
    **pointwise.RULES,
    **quantise.RULES,
    **reduce.RULES,
    **regions.RULES,
    **resize.RULES,
    **shapes.RULES,
}

__all__ = ["RULES", "Rule", "Use"]
