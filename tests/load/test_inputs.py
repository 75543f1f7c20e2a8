"""Inputs for the load: valid for every model, repeatable, checked when they come from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenantdl.bundle.manifest import Tensor
from tenantdl.errors import UserError
from tenantdl.load.inputs import random_inputs, read_inputs

TENSORS = (
    Tensor("ids", "int64", (1, 64), 0),
    Tensor("image", "float32", (1, 3, 8, 8), 512),
    Tensor("flag", "bool", (5,), 1280),
)


def test_random_inputs_fit_and_repeat() -> None:
    arrays = random_inputs(TENSORS, 3)
    assert {n: (a.dtype.name, a.shape) for n, a in arrays.items()} == {
        t.name: (t.dtype, t.shape) for t in TENSORS
    }
    assert set(np.unique(arrays["ids"])) == {0, 1}
    again = random_inputs(TENSORS, 3)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert not np.array_equal(arrays["image"], random_inputs(TENSORS, 4)["image"])


def test_inputs_from_a_file(tmp_path: Path) -> None:
    given = random_inputs(TENSORS, 1)
    np.savez(tmp_path / "x.npz", **given)
    read = read_inputs(str(tmp_path / "x.npz"), TENSORS)
    assert all(np.array_equal(given[name], read[name]) for name in given)


@pytest.mark.parametrize("change", ["missing", "extra", "dtype", "shape"])
def test_inputs_that_do_not_fit_are_named(tmp_path: Path, change: str) -> None:
    given = random_inputs(TENSORS, 1)
    match change:
        case "missing":
            del given["ids"]
        case "extra":
            given["ids2"] = given["ids"]
        case "dtype":
            given["ids"] = given["ids"].astype("int32")
        case "shape":
            given["ids"] = given["ids"][:, :5]
    np.savez(tmp_path / "x.npz", **given)
    with pytest.raises(UserError, match=r"input 'ids2?' is .*, the model takes"):
        read_inputs(str(tmp_path / "x.npz"), TENSORS)


def test_what_is_no_npz_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK nonsense")
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    for name in ("x.npz", "o.npz", "none.npz"):
        with pytest.raises(UserError, match=name):
            read_inputs(str(tmp_path / name), TENSORS)
