"""PP-OCR as an application: text and boxes for an image. Modules `detect` → `turn` → `read`.

Input `image`: uint8 [H, W, 3], RGB. Outputs, one of each a line in reading order: `text`, `score`
(mean probability of its characters) and `box` [4, 2] (x, y; clockwise from the top left).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tenantdl.errors import UserError
from tenantdl.glue.work import Glue, Module, Port, Stage, Tensors, Work

try:
    from tenantdl.glue import ocr_detect, ocr_read
except ImportError as error:
    raise UserError(f"glue 'ocr' needs the extra: pip install tenantdl[ocr] ({error})") from error

MODULES = ("detect", "turn", "read")
SCORE_LEAST = 0.5
PIXELS_MAX = 32 * 1024**2
INPUTS = (Port("image", "uint8", (-1, -1, 3)),)
OUTPUTS = (
    Port("text", "object", (-1,)),
    Port("score", "float32", (-1,)),
    Port("box", "float32", (-1, 4, 2)),
)


def make(modules: Mapping[str, Module]) -> Glue:
    """Glue for the three models. Raises UserError for others."""
    if missing := set(MODULES) - set(modules):
        raise UserError(f"glue 'ocr' needs modules called {MODULES}: {sorted(missing)} missing")
    x = {name: _input_of(modules[name]) for name in MODULES}
    listed = modules["read"].metadata.get("character", "")
    characters = ocr_read.characters_of(listed)
    for plan in modules["read"].plans:
        if plan.outputs[0].shape[-1] != len(characters):
            raise UserError(
                f"{plan.outputs[0].shape[-1]} classes, but {len(characters)} characters: compile"
                " the bundle again from a file with metadata `character`",
                where="module read",
            )
    sizes = [(shape[2], shape[3]) for shape in x["detect"][1]]
    turn_height, turn_width = x["turn"][1][0][2:]
    read_height, widths = x["read"][1][0][2], [shape[3] for shape in x["read"][1]]

    def detect(work: Work) -> list[Tensors]:
        page = ocr_detect.prepare(np.ascontiguousarray(work.inputs["image"][:, :, ::-1]))
        fitted = ocr_detect.fit(page.image, sizes)
        work.kept["page"], work.kept["fitted"] = page, fitted._replace(tensor=np.empty(0))
        return [{x["detect"][0]: fitted.tensor}]

    def find(work: Work, number: int, outputs: Tensors) -> None:
        page = work.kept["page"]
        (score,) = outputs.values()
        boxes = ocr_detect.boxes_of(score, work.kept["fitted"], page)
        work.kept["boxes"] = boxes
        work.kept["lines"] = [ocr_detect.crop(page.image, box) for box in boxes]

    def turn(work: Work) -> list[Tensors]:
        lines = work.kept["lines"]
        fitted = [ocr_read.fit_line(line, turn_height, (turn_width,)) for line in lines]
        return [{x["turn"][0]: tensor} for tensor in fitted]

    def turned(work: Work, number: int, outputs: Tensors) -> None:
        (probabilities,) = outputs.values()
        if ocr_read.is_turned(probabilities):
            work.kept["lines"][number] = np.rot90(work.kept["lines"][number], 2)

    def read(work: Work) -> list[Tensors]:
        lines = work.kept["lines"]
        fitted = [ocr_read.fit_line(np.ascontiguousarray(i), read_height, widths) for i in lines]
        return [{x["read"][0]: tensor} for tensor in fitted]

    def said(work: Work, number: int, outputs: Tensors) -> ocr_read.Line:
        (probabilities,) = outputs.values()
        return ocr_read.decode(probabilities, characters)

    return Glue(
        inputs=INPUTS,
        outputs=OUTPUTS,
        stages={
            "detect": Stage(detect, find),
            "turn": Stage(turn, turned),
            "read": Stage(read, said),
        },
        answer=_answer,
        bytes_max=3 * PIXELS_MAX,
    )


def _answer(work: Work) -> Tensors:
    lines: list[ocr_read.Line] = work.results["read"]
    good = [n for n, line in enumerate(lines) if line.text.strip() and line.score >= SCORE_LEAST]
    boxes = ocr_detect.on_original(work.kept["boxes"][good], work.kept["page"])
    text = np.empty(len(good), object)
    text[:] = [lines[number].text for number in good]
    return {
        "text": text,
        "score": np.array([lines[number].score for number in good], np.float32),
        "box": boxes.reshape(-1, 4, 2),
    }


def _input_of(module: Module) -> tuple[str, list[tuple[int, ...]]]:
    """Name and shapes [1, 3, H, W] of the one input."""
    tensors = module.plans[0].inputs
    shapes = module.shapes(tensors[0].name)
    good = len(tensors) == 1 and all(len(s) == 4 and s[1] == 3 for s in shapes)
    singles = [shape for shape in shapes if shape[0] == 1]
    if not good or not singles or tensors[0].dtype != "float32":
        raise UserError("needs one float32 input [1, 3, H, W]", where=f"module {module.name}")
    return tensors[0].name, singles
