"""PP-OCR's glue: sizes, boxes and decoding by hand; and whole pages, with onnxruntime for the
models, against the text that was rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from tenantdl import zoo
from tenantdl.bench.pages import page
from tenantdl.bundle.manifest import Plan, Tensor
from tenantdl.errors import UserError
from tenantdl.glue.find import make_glue
from tenantdl.glue.work import Glue, Module, Work

pytest.importorskip("cv2")
from tenantdl.glue import ocr_detect, ocr_read

MODELS = {"detect": "ppocr_det", "turn": "ppocr_cls", "read": "ppocr_rec"}
SIZES = ((736, 960), (736, 736))
WIDTHS = (320, 640, 960)


def test_a_page_is_letterboxed_into_the_smallest_size_with_room() -> None:
    image = np.full((368, 480, 3), 255, np.uint8)
    fitted = ocr_detect.fit(image, [(1280, 1280), (736, 960), (736, 736)])
    assert (fitted.height, fitted.width, fitted.tensor.shape) == (736, 960, (1, 3, 736, 960))
    assert np.unique(fitted.tensor).tolist() == [1]
    small = ocr_detect.fit(image, [(736, 736)])  # no room: smaller, black below
    assert (small.height, small.width) == (564, 736)
    assert np.unique(small.tensor[:, :, 564:]).tolist() == [-1]


def test_flat_tiny_and_huge_pages_come_within_bounds() -> None:
    flat = ocr_detect.prepare(np.zeros((40, 900, 3), np.uint8))
    assert flat.image.shape == (224, 900, 3)
    assert flat.top == 92
    assert min(ocr_detect.prepare(np.zeros((10, 20, 3), np.uint8)).image.shape[:2]) >= 30
    huge = ocr_detect.prepare(np.zeros((4000, 100, 3), np.uint8))
    assert huge.image.shape[0] <= 2016
    box = np.array([[[0, 92], [900, 92], [900, 132], [0, 132]]], np.float32)
    assert ocr_detect.on_original(box, flat).tolist() == [[[0, 0], [900, 0], [900, 40], [0, 40]]]


def test_boxes_are_grown_scored_and_in_reading_order() -> None:
    score = np.zeros((1, 1, 200, 400), np.float32)
    score[0, 0, 100:120, 210:310] = 0.9  # second line, right
    score[0, 0, 96:116, 20:120] = 0.9  # second line, left
    score[0, 0, 30:50, 40:240] = 0.9  # first line
    score[0, 0, 160:180, 20:120] = 0.4  # too faint
    score[0, 0, 5:7, 5:7] = 1  # too small
    page_of = ocr_detect.prepare(np.zeros((400, 800, 3), np.uint8))
    fitted = ocr_detect.Fitted(np.empty(0), 200, 400)
    boxes = ocr_detect.boxes_of(score, fitted, page_of)
    assert [int(box[0, 0] > 200) for box in boxes] == [0, 0, 1]
    # 200 × 20 pixels and half a pixel of dilation grow by 1.6 · area / perimeter on each side.
    more = 1.6 * 200 * 20 / 440
    wanted = np.array([[40 - more, 30 - more], [240 + more, 50 + more]]) * 2
    assert np.abs(boxes[0][[0, 2]] - wanted).max() <= 4


def test_standing_text_is_laid_down() -> None:
    image = np.zeros((100, 60, 3), np.uint8)
    box = np.array([[10, 10], [30, 10], [30, 90], [10, 90]], np.float32)
    assert ocr_detect.crop(image, box).shape == (20, 80, 3)


def test_lines_take_the_narrowest_width_with_room() -> None:
    line = np.full((24, 100, 3), 255, np.uint8)
    fitted = ocr_read.fit_line(line, 48, WIDTHS)
    assert fitted.shape == (1, 3, 48, 320)
    assert np.unique(fitted[..., :200]).tolist() == [1]
    assert np.unique(fitted[..., 200:]).tolist() == [0]
    long = np.full((24, 3000, 3), 255, np.uint8)
    assert np.unique(ocr_read.fit_line(long, 48, WIDTHS)).tolist() == [1]


def test_decoding_drops_blanks_and_repeats() -> None:
    characters = ocr_read.characters_of("a\nb\n")
    assert characters == ["", "a", "b", " "]
    best = [0, 1, 1, 0, 1, 2, 3, 3, 0, 2]
    probabilities = np.full((1, len(best), 4), 0.1, np.float32)
    probabilities[0, np.arange(len(best)), best] = 0.7
    line = ocr_read.decode(probabilities, characters)
    assert line.text == "aab b"
    assert line.score == pytest.approx(0.7)
    assert ocr_read.decode(np.eye(4, dtype=np.float32)[None, :1], characters) == ("", 0.0)


def _module(name: str) -> Module:
    shapes: dict[str, list[tuple[int, ...]]] = {
        "detect": [(1, 3, *size) for size in SIZES],
        "turn": [(1, 3, 48, 192)],
        "read": [(1, 3, 48, width) for width in WIDTHS],
    }
    model = onnx.load(str(zoo.path(MODELS[name])), load_external_data=False)
    classes = 18710 if name == "read" else 2
    plans = tuple(
        Plan(
            1,
            64,
            (Tensor("x", "float32", shape, 0),),
            (Tensor("y", "float32", (1, classes), 0),),
            (),
            (),
            "estimated",
        )
        for shape in shapes[name]
    )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Module(name, (), plans, metadata)


@pytest.fixture(scope="module")
def glue() -> Glue:
    return make_glue("ocr", {name: _module(name) for name in MODELS})


@pytest.fixture(scope="module")
def sessions() -> Mapping[str, Any]:
    ort = pytest.importorskip("onnxruntime")
    return {name: ort.InferenceSession(str(zoo.path(MODELS[name]))) for name in MODELS}


def read(glue: Glue, sessions: Mapping[str, Any], image: Any) -> dict[str, Any]:
    work = Work({"image": image})
    for name in MODELS:
        stage = glue.stages[name]
        results = work.results[name] = []
        for number, inputs in enumerate(stage.calls(work)):
            (output,) = sessions[name].run(None, {"x": inputs["x"]})
            results.append(stage.take(work, number, {"y": output}))
    return dict(glue.answer(work))


@pytest.mark.parametrize(("number", "turned"), [(0, False), (2, True)])
def test_every_line_of_a_page_is_read(
    glue: Glue, sessions: Mapping[str, Any], number: int, turned: bool
) -> None:
    shown = page(3, number)
    image = np.ascontiguousarray(np.rot90(shown.image, 2)) if turned else shown.image
    answer = read(glue, sessions, image)
    lines = tuple(answer["text"])
    assert (lines[::-1] if turned else lines) == shown.lines
    assert answer["box"].shape == (len(shown.lines), 4, 2)
    assert answer["score"].min() > 0.8


def test_an_empty_page_has_no_text(glue: Glue, sessions: Mapping[str, Any]) -> None:
    answer = read(glue, sessions, np.full((300, 300, 3), 255, np.uint8))
    assert [array.shape for array in answer.values()] == [(0,), (0,), (0, 4, 2)]


def test_other_models_are_refused() -> None:
    modules = {name: _module(name) for name in MODELS}
    with pytest.raises(UserError, match="missing"):
        make_glue("ocr", {"detect": modules["detect"]})
    read_module = modules["read"]
    modules["read"] = Module("read", (), read_module.plans, {})
    with pytest.raises(UserError, match="18710 classes, but 2 characters"):
        make_glue("ocr", modules)
