"""Glue for the fakes: `split` makes n calls of the first input's n; `each` passes them on."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from tenantdl.errors import UserError
from tenantdl.glue.work import Glue, Module, Port, Stage, Tensors, Work


def make(modules: Mapping[str, Module]) -> Glue:
    def first(work: Work) -> list[Tensors]:
        if work.inputs["n"][0] < -1:
            raise UserError("a negative count")
        return [{"x": np.zeros((1, 2), np.float32)}]

    def many(work: Work) -> list[Tensors]:
        count = int(work.inputs["n"][0])
        if count == -1:
            raise ValueError("a bug in glue")
        time.sleep(0.001)
        mischief = float(work.inputs["n"][1])
        return [{"x": np.array([[k, mischief if k == 1 else 0]], np.float32)} for k in range(count)]

    def take(work: Work, number: int, outputs: Tensors) -> float:
        return float(outputs["y"][0, 0])

    def answer(work: Work) -> Tensors:
        values = work.results["many"]
        text = np.empty(len(values), object)
        text[:] = [f"n° {value:g}" for value in values]
        return {"value": np.array(values, np.float32), "text": text}

    return Glue(
        inputs=(Port("n", "int32", (2,)),),
        outputs=(Port("value", "float32", (-1,)), Port("text", "object", (-1,))),
        stages={"first": Stage(first), "many": Stage(many, take)},
        answer=answer,
        bytes_max=8,
    )
