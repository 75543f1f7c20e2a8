"""Kernel libraries: find the kernels, bind their arguments, run lists of calls.

A library holds TVM's kernels and our C runtime (`native/`), and needs nothing else: serving loads
no part of TVM. A list of calls runs in C, without the interpreter and its lock.
"""

from __future__ import annotations

import _ctypes
import ctypes
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenantdl.errors import ExecutionError, UserError

Array = NDArray[Any]

_RUN = "tenantdl_run"
SYMBOL_PREFIX = "__tvm_ffi_"  # of a kernel's symbol, by TVM's code generator
_ERROR_BYTES = 512

# The C structures, field by field: TVMFFIAny, DLTensor, and `Call` of runtime.c.
_VALUE = np.dtype([("type", "i4"), ("padding", "u4"), ("pointer", "u8")])
_TENSOR = np.dtype(
    [
        *(("data", "u8"), ("device", "i4"), ("device_id", "i4"), ("ndim", "i4")),
        *(("code", "u1"), ("bits", "u1"), ("lanes", "u2")),
        *(("shape", "u8"), ("strides", "u8"), ("byte_offset", "u8")),
    ]
)
_CALL = np.dtype(
    [
        *(("kernel", "u8"), ("args", "u8"), ("count", "i4")),
        *(("part", "i4"), ("parts", "i4"), ("padding", "u4")),
    ]
)
_TENSOR_POINTER, _CPU = 7, 1
# DLPack's codes, by numpy's kinds; ml_dtypes' have names only.
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_NAMED_CODES = {
    "bfloat16": 4,
    "float8_e4m3fn": 10,
    "float8_e4m3fnuz": 11,
    "float8_e5m2": 12,
    "float8_e5m2fnuz": 13,
}


class Library:
    """A loaded kernel library. It stays loaded for as long as anybody refers to it."""

    def __init__(self, path: Path) -> None:
        """Load the shared library at `path`, whose digest the caller has checked. Raises UserError
        when it cannot be loaded or is not a kernel library."""
        try:
            self._handle = ctypes.CDLL(_unseen(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            raise UserError(f"kernel library cannot be loaded: {error}", where=str(path)) from error
        self._path = path
        try:
            self.run = self._handle[_RUN]
            new, self.pool_free = self._handle.tenantdl_pool_new, self._handle.tenantdl_pool_free
            self.pool_rest = self._handle.tenantdl_pool_rest
        except AttributeError as error:
            raise UserError("not a kernel library of tenantdl's", where=str(path)) from error
        pointer, i64 = ctypes.c_void_p, ctypes.c_int64
        self.run.argtypes = [pointer, pointer, ctypes.c_int32, pointer, i64, i64]
        self.run.argtypes += [pointer, ctypes.c_char_p, i64]
        new.argtypes, new.restype = [pointer, ctypes.c_int32], pointer
        for function in (self.pool_free, self.pool_rest):
            function.argtypes, function.restype = [pointer], None
        self.pool_new = new

    def address(self, symbol: str) -> int:
        """Where kernel `symbol` lies. Raises UserError when the library has none of that name."""
        try:
            function = self._handle[SYMBOL_PREFIX + symbol]
        except AttributeError as error:
            raise UserError(
                f"kernel {symbol} is not in the library", where=str(self._path)
            ) from error
        return int(ctypes.cast(function, ctypes.c_void_p).value or 0)

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle and not sys.is_finalizing():  # at the end workers may still run its code
            _ctypes.dlclose(handle._handle)


_loads = itertools.count()


def _unseen(path: Path) -> str:
    """Another way to write `path`. To the system's loader, a path that it knows is the library it
    has loaded, even if the file was replaced since."""
    digits = ("/." if digit == "0" else "//." for digit in f"{next(_loads):b}")
    return f"{path.parent}{''.join(digits)}/{path.name}"


class Pool:
    """Workers for `cores[1:]`; the thread that made it is the one on `cores[0]`. Each is started
    when it is first needed. All take part in loops until told otherwise."""

    def __init__(self, library: Library, cores: Sequence[int]) -> None:
        """Make room for the workers (core −1: on any). Raises ExecutionError when there is none."""
        ids = np.array(cores, np.int32)
        self._library = library  # whose code the workers run
        self._free, self._rest = library.pool_free, library.pool_rest
        self.handle: int | None = library.pool_new(ids.ctypes.data, len(ids))
        if not self.handle:
            raise ExecutionError(f"no room for a pool of {len(cores)} threads")
        self.choose(range(1, len(cores)))

    def choose(self, workers: Sequence[int]) -> None:
        """Loops to come are shared out among the calling thread and these `workers` (their places
        in `cores`)."""
        self.members = np.array(workers, np.int32)

    def rest(self) -> None:
        """Workers that wait for the next loop stop spinning and sleep: others need their cores."""
        self._rest(self.handle)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._free(self.handle)
            self.handle = None


class KernelCall(NamedTuple):
    """A call of kernel `symbol` with C-contiguous arrays, which stay where they are: all of it, or
    part `part` of `parts` of the one loop that it is."""

    symbol: str
    args: Sequence[Array]
    part: int = 0
    parts: int = 1


class Calls:
    """A list of kernel calls with their arguments bound."""

    def __init__(self, library: Library, calls: Sequence[KernelCall]) -> None:
        """Raises UserError for a kernel that the library does not have."""
        self._library = library
        self._run = library.run
        self._tensors = _Tensors()
        self._values = np.zeros(sum(len(call.args) for call in calls), _VALUE)
        self._values["type"] = _TENSOR_POINTER
        self._calls = np.zeros(len(calls), _CALL)
        addresses: dict[str, int] = {}
        at = 0
        for index, (symbol, args, part, parts) in enumerate(calls):
            if symbol not in addresses:
                addresses[symbol] = library.address(symbol)
            pointer = self._values.ctypes.data + at * _VALUE.itemsize
            self._calls[index] = (addresses[symbol], pointer, len(args), part, parts, 0)
            for array in args:
                self._values["pointer"][at] = self._tensors.add(array)
                at += 1
        self._table = self._calls.ctypes.data
        self._error = ctypes.create_string_buffer(_ERROR_BYTES)

    def __len__(self) -> int:
        return len(self._calls)

    def run(self, begin: int, end: int, pool: Pool | None = None) -> None:
        """Run calls [begin, end) on the calling thread and, if given, all workers of its pool.
        Raises ExecutionError when a kernel fails."""
        self._enter(begin, end, pool, None)

    def time_ns(self, pool: Pool | None = None) -> list[int]:
        """Run all calls; how long each took."""
        taken = np.zeros(len(self), np.int64)
        self._enter(0, len(self), pool, taken.ctypes.data)
        return [int(ns) for ns in taken]

    def _enter(self, begin: int, end: int, pool: Pool | None, ns: int | None) -> None:
        handle, members, count = None, None, 0
        if pool is not None and len(pool.members):
            handle, members, count = pool.handle, pool.members.ctypes.data, len(pool.members)
        error = self._error
        if self._run(handle, members, count, self._table, begin, end, ns, error, _ERROR_BYTES):
            raise ExecutionError(error.value.decode(errors="replace"))


class _Tensors:
    """DLTensors of arrays, one for each (memory, shape, dtype)."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[int, ...], str], int] = {}
        self._kept: list[Array] = []

    def add(self, array: Array) -> int:
        """The address of the DLTensor of `array`, which is kept alive."""
        if not array.flags.c_contiguous:
            raise ValueError("a kernel's argument must be contiguous")
        key = (array.ctypes.data, array.shape, array.dtype.name)
        if key not in self._known:
            extents = np.array([*array.shape, *_strides(array.shape)], np.int64)
            tensor = np.zeros(1, _TENSOR)
            shape = extents.ctypes.data
            code, bits = _dtype(array.dtype)
            tensor[0] = (
                *(array.ctypes.data, _CPU, 0, array.ndim, code, bits, 1),
                *(shape, shape + 8 * array.ndim, 0),
            )
            self._kept += [array, extents, tensor]
            self._known[key] = tensor.ctypes.data
        return self._known[key]


def _strides(shape: tuple[int, ...]) -> list[int]:
    strides = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


def _dtype(dtype: np.dtype[Any]) -> tuple[int, int]:
    code = _NAMED_CODES.get(dtype.name, _CODES.get(dtype.kind))
    if code is None:
        raise UserError(f"kernels take no arrays of {dtype.name}")
    return code, 8 * dtype.itemsize
