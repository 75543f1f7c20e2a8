"""Values on the command line: what is taken, and what is refused in one line."""

from __future__ import annotations

import pytest

from tenantdl.cli import parse
from tenantdl.errors import UserError


def test_shapes() -> None:
    given = ["x=1x3x224x224", "a=b=2", "scalar=", "y=4X5"]
    assert parse.shapes(given) == {"x": (1, 3, 224, 224), "a=b": (2,), "scalar": (), "y": (4, 5)}


@pytest.mark.parametrize(
    "text",
    ["x", "=1", "x=0", "x=-1", "x=1x", "x=axb", "x=1.5", "x=²", "x=99999999999", "x=" + "1x" * 20],
)
def test_bad_shapes(text: str) -> None:
    with pytest.raises(UserError, match=r"^--shape: "):
        parse.shapes([text])


def test_an_input_is_given_once() -> None:
    with pytest.raises(UserError, match="input 'x' is given twice"):
        parse.shapes(["x=1", "x=2"])


def test_numbers() -> None:
    assert parse.numbers("2,1, 0", "--cores") == (2, 1, 0)


@pytest.mark.parametrize("text", ["", "1,", "a", "-1", "1;2", "1,1", "0", "9" * 20])
def test_bad_numbers(text: str) -> None:
    with pytest.raises(UserError, match=r"^--threads: "):
        parse.numbers(text, "--threads", least=1)


def test_words() -> None:
    assert parse.words("b,a,b", "--against", known=("a", "b")) == ("b", "a")
    assert parse.words("", "--against", known=("a",)) == ()
    with pytest.raises(UserError, match="--against: unknown 'c': choose from a, b"):
        parse.words("a,c", "--against", known=("a", "b"))
