"""Inputs as clients would send them: valid tokens with padding, images, printed digits, speech.

Seeded and made with numpy alone. Everything is normalised as the models' publishers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import UserError
from tenantdl.zoo.catalogue import Entry, entry
from tenantdl.zoo.signals import audio, picture, printed, source_text

Array = NDArray[Any]
Rng = np.random.Generator

BATCH_MAX, SIZE_MAX, POSITIONS = 1024, 4096, 512
_CLS, _SEP, _FIRST_WORD = 101, 102, 1996  # of the uncased WordPiece vocabulary; padding is 0
_MAGIKA_PADDING = 256
_SAMPLE_RATE = 16_000
_WINDOW, _CONTEXT = 512, 64  # samples of silero's step, and those repeated from the step before


def sample_inputs(
    name: str, batch: int = 1, seed: int = 0, *, size: int | None = None
) -> dict[str, Array]:
    """Inputs of the model `name` by input name: `batch` different, realistic requests.

    `size` sets the dimension that varies besides the batch: tokens (bert_large, minilm_l6;
    default 128), pixels of width (ppocr_rec, 320) or of both sides (ppocr_det, 640; multiples
    of 32), steps of 32 ms (silero_vad_sequence, 32). UserError for unknown names and for sizes
    that the model cannot take.
    """
    model = entry(name)
    if not 1 <= batch <= (model.batch or BATCH_MAX):
        raise UserError(f"batch {batch} is outside 1..{model.batch or BATCH_MAX}", where=name)
    maker = _MAKERS.get(name, _pictures)
    default = _SIZES.get(name)
    largest = POSITIONS if maker is _tokens else SIZE_MAX
    if size is not None and (default is None or not 2 <= size <= largest):
        raise UserError(f"size {size} does not fit this model", where=name)
    return maker(model, batch, size or default or 0, np.random.default_rng(seed))


def _pictures(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """Images in ImageNet's normalisation: float32 [batch,3,H,W], mean 0, deviation 1."""
    port = model.inputs[0]
    side = port.shape[2]
    assert isinstance(side, int)
    images = np.stack([picture(rng, side, side) for _ in range(batch)])
    mean = np.array([0.485, 0.456, 0.406], dtype=np.float32)[:, None, None]
    deviation = np.array([0.229, 0.224, 0.225], dtype=np.float32)[:, None, None]
    return {port.name: (images - mean) / deviation}


def _yolo(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """Darknet's images: values in 0..1, not normalised."""
    return {"image": np.stack([picture(rng, 416, 416) for _ in range(batch)])}


def _tokens(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """[CLS] words [SEP] padding; the first row is full, others at least half. int64."""
    ids = rng.integers(_FIRST_WORD, 30_522, (batch, size), dtype=np.int64)
    lengths = rng.integers(max(2, size // 2), size, batch, endpoint=True)
    lengths[0] = size
    mask = (np.arange(size)[None] < lengths[:, None]).astype(np.int64)
    ids[:, 0] = _CLS
    ids[np.arange(batch), lengths - 1] = _SEP
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
    }


def _text_lines(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """Lines of printed digits, black on white, in -1..1; padded to the right with 0."""
    width = size or 192
    return {"x": np.stack([2 * printed(rng, 48, width) - 1 for _ in range(batch)])}


def _pages(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """Square pages with lines of printed digits on a picture, in -1..1."""
    if size % 32:
        raise UserError(f"size {size} is no multiple of 32", where=model.name)
    pages = np.stack([0.7 + 0.3 * picture(rng, size, size) for _ in range(batch)])
    for page in pages:
        for top in range(size // 16, size - 48, size // 5):
            page[:, top : top + 48] *= printed(rng, 48, size)
    return {"x": 2 * pages - 1}


def _bytes(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """First and last 1024 bytes of source files, the shorter ones padded. int32 [batch,2048]."""
    rows = np.full((batch, 2048), _MAGIKA_PADDING, dtype=np.int32)
    for row in rows:
        text = np.frombuffer(source_text(rng, int(rng.integers(200, 3000))), dtype=np.uint8)
        head, tail = text[:1024], text[-1024:]
        row[: head.size] = head
        row[2048 - tail.size :] = tail
    return {"bytes": rows}


def _stream(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """`size` consecutive windows of one stream of speech, each with its 64 samples of context."""
    wave = np.concatenate([np.zeros(_CONTEXT, np.float32), audio(rng, size * _WINDOW)])
    windows = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW + _CONTEXT)[::_WINDOW]
    state = np.zeros((1, 1, 128), dtype=np.float32)
    return {"input": np.ascontiguousarray(windows), "h": state, "c": state.copy()}


def _step(model: Entry, batch: int, size: int, rng: Rng) -> dict[str, Array]:
    """One window of `batch` streams of speech; fresh state."""
    span = _WINDOW + _CONTEXT
    return {
        "input": np.stack([audio(rng, 8 * span)[4 * span : 5 * span] for _ in range(batch)]),
        "sr": np.array(_SAMPLE_RATE, dtype=np.int64),
        "state": np.zeros((2, batch, 128), dtype=np.float32),
    }


_MAKERS: dict[str, Callable[[Entry, int, int, Rng], dict[str, Array]]] = {
    "tiny_yolov2": _yolo,
    "bert_large": _tokens,
    "minilm_l6": _tokens,
    "ppocr_det": _pages,
    "ppocr_rec": _text_lines,
    "ppocr_cls": _text_lines,
    "silero_vad_sequence": _stream,
    "silero_vad_ifless": _step,
    "magika": _bytes,
}
# The varying dimension where there is one.
_SIZES = {
    "bert_large": 128,
    "minilm_l6": 128,
    "ppocr_det": 640,
    "ppocr_rec": 320,
    "silero_vad_sequence": 32,
}
