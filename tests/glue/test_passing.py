"""The default glue: tensors go to inputs of the same name, else of the same type and size."""

from __future__ import annotations

import numpy as np
import pytest

from tenantdl.bundle.manifest import Plan, Tensor
from tenantdl.errors import UserError
from tenantdl.glue.find import make_glue
from tenantdl.glue.work import Module, Work


def module(
    name: str,
    after: tuple[str, ...] = (),
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("x", "float32", (1, 4)),),
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("y", "float32", (1, 4)),),
) -> Module:
    def tensors(ports: tuple[tuple[str, str, tuple[int, ...]], ...]) -> tuple[Tensor, ...]:
        return tuple(Tensor(*port, 0) for port in ports)

    plan = Plan(1, 64, tensors(inputs), tensors(outputs), (), (), "estimated")
    return Module(name, after, (plan,), {})


def test_a_diamond_passes_by_name_and_then_by_size() -> None:
    left = module("left", ("top",), outputs=(("b", "float32", (1, 4)),))
    right = module("right", ("top",), outputs=(("a", "float32", (4,)),))
    bottom = module(
        "bottom",
        ("left", "right"),
        inputs=(("a", "float32", (1, 4)), ("other", "float32", (2, 2))),
        outputs=(("z", "int64", (1,)),),
    )
    glue = make_glue("pass", {m.name: m for m in (module("top"), left, right, bottom)})
    assert [port.name for port in glue.inputs] == ["x"]
    assert [port.name for port in glue.outputs] == ["z"]
    work = Work({"x": np.arange(4, dtype=np.float32).reshape(1, 4)})
    (call,) = glue.stages["top"].calls(work)
    assert call["x"] is work.inputs["x"]
    work.results["top"] = [{"y": np.ones((1, 4), np.float32)}]
    work.results["left"] = [{"b": np.full((1, 4), 2, np.float32)}]
    work.results["right"] = [{"a": np.full(4, 3, np.float32)}]
    (call,) = glue.stages["bottom"].calls(work)
    assert call["a"].tolist() == [[3] * 4]
    assert call["other"].tolist() == [[2, 2], [2, 2]]


def test_results_are_kept_as_copies() -> None:
    glue = make_glue("pass", {"one": module("one")})
    lent = np.zeros((1, 4), np.float32)
    kept = glue.stages["one"].take(Work({}), 0, {"y": lent})
    lent[:] = 9
    assert kept["y"].sum() == 0


@pytest.mark.parametrize(
    ("modules", "match"),
    [
        ((module("a"), module("b", ("a",), inputs=(("x", "int64", (1, 4)),))), "nothing before"),
        ((module("a"), module("b", ("a",), inputs=(("x", "float32", (1, 5)),))), "nothing before"),
        ((module("a"), module("b")), "two tensors of one name"),
    ],
)
def test_what_does_not_fit_is_said_at_the_start(modules: tuple[Module, ...], match: str) -> None:
    with pytest.raises(UserError, match=match):
        make_glue("pass", {m.name: m for m in modules})


@pytest.mark.parametrize("name", ["nonsense", "tenantdl.nowhere:make", "tenantdl.glue.work:nope"])
def test_unknown_glue(name: str) -> None:
    with pytest.raises(UserError, match="glue"):
        make_glue(name, {"a": module("a")})
