"""Which operators stay whole although ONNX defines them by others; which are refused by name."""

from __future__ import annotations

# Their ONNX function bodies are slower than a kernel of their own.
WHOLE = frozenset(
    {"Clip", "Elu", "Gelu", "GreaterOrEqual", "GroupNormalization", "HardSigmoid", "HardSwish"}
    | {"LayerNormalization", "LeakyRelu", "LessOrEqual", "LogSoftmax", "Mish", "PRelu", "Relu"}
    | {"MeanVarianceNormalization", "Selu", "Softmax", "Softplus", "Softsign", "ThresholdedRelu"}
    | {"DepthToSpace", "SpaceToDepth", "Shrink", "CastLike", "Range"}
    | {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}
)

_RANDOM = "its result is random: inference must be repeatable"
_STRING = "strings are not supported"
_SEQUENCE = "sequences are not supported"
_OPTIONAL = "optional values are not supported"

_REFUSED: dict[str, str] = {
    **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"), _RANDOM),
    **dict.fromkeys(("RandomUniform", "RandomUniformLike"), _RANDOM),
    **dict.fromkeys(("StringConcat", "StringNormalizer", "StringSplit"), _STRING),
    **dict.fromkeys(("RegexFullMatch", "TfIdfVectorizer"), _STRING),
    **dict.fromkeys(("SequenceAt", "SequenceConstruct", "SequenceEmpty"), _SEQUENCE),
    **dict.fromkeys(("SequenceErase", "SequenceInsert", "SequenceLength"), _SEQUENCE),
    **dict.fromkeys(("SequenceMap", "SplitToSequence", "ConcatFromSequence"), _SEQUENCE),
    "Optional": _OPTIONAL,
    "ImageDecoder": "decoding images is not inference: send tensors",
}


def refused(op: str) -> str:
    """Why the operator is refused, or "" where it is not."""
    return _REFUSED.get(op, "")
