"""A thin layer over TVM's IR builder in which the templates are written.

A template opens a kernel, declares parameters, opens loops and stores vectors:

    with Emitter("scale_128", lanes=16) as e:
        data, out = e.param("data", (8, 128)), e.param("out", (8, 128))
        with e.parallel(8) as row, e.serial(128 // 16) as block:
            e.store(out, (row, block * 16), e.load(data, (row, block * 16)) * 2.0)
    kernel = e.kernel()

Vectors are `lanes` float32 elements along the last dimension. Accumulators that live across loop
iterations are `Register`s: stack slots of one vector, which LLVM keeps in registers (a slot over
1024 bytes would go to the heap: tirx's limit). Values inside an iteration are bound once with
`bind`, so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.ir import PointerType, PrimType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from tenantdl.compile.operator import Kernel

PARALLEL_EXTENT = "tenantdl_extent"  # see bundle/native/runtime.c
Index = Any  # an int or a tirx expression
Value = Any  # a scalar or vector tirx expression


class Register:
    """One vector (or scalar) kept across loop iterations."""

    def __init__(self, lanes: int, dtype: str = "float32") -> None:
        self._slot = T.alloc_buffer((lanes,), dtype, scope="global")
        self._index = T.ramp(0, 1, lanes) if lanes > 1 else 0

    def get(self) -> Value:
        """The present value."""
        return self._slot[self._index]

    def set(self, value: Value) -> None:
        """Overwrite the value."""
        T.buffer_store(self._slot, value, [self._index])

    def add(self, value: Value) -> None:
        """Add to the value; a product becomes one fused multiply-add."""
        self.set(self.get() + value)


class Emitter:
    """Builds one kernel; see the module's docstring. Parameters are declared in call order."""

    def __init__(self, key: str, lanes: int) -> None:
        self.key = key
        self.lanes = lanes
        self._func: Any = None

    def __enter__(self) -> Emitter:
        self._builder = IRBuilder()
        self._builder.__enter__()
        self._frame = T.prim_func()
        self._frame.__enter__()
        T.func_name(self.key)
        T.func_attr({"global_symbol": self.key, "tirx.noalias": True})
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            self._builder.__exit__(kind, error, trace)
            return
        self._frame.__exit__(None, None, None)
        self._builder.__exit__(None, None, None)
        self._func = self._builder.get()

    def kernel(self) -> Kernel:
        """The finished kernel (after the `with` block)."""
        return Kernel(self.key, self._func, flat=True)

    # parameters, storage, loops

    def param(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Any:
        """The next parameter: a row-major buffer of `shape`."""
        return T.arg(name, T.buffer(tuple(shape), dtype))

    def scratch(self, shape: Sequence[int], dtype: str = "float32") -> Any:
        """Memory private to the enclosing loop iteration: stack up to 1 KiB, else heap."""
        return T.alloc_buffer(tuple(shape), dtype, scope="global")

    def parallel(self, extent: int) -> Any:
        """A loop whose iterations are spread over the thread pool in contiguous chunks."""
        if extent == 1:
            return _single()
        T.evaluate(T.call_extern("int32", PARALLEL_EXTENT, T.int32(extent)))
        return T.parallel(0, extent)

    def serial(self, extent: Index) -> Any:
        """An ordinary loop."""
        return _single() if isinstance(extent, int) and extent == 1 else T.serial(0, extent)

    def view(self, buffer: Any, index: Sequence[Index], shape: Sequence[int]) -> Any:
        """A buffer of `shape` that begins at `index` of an input that the kernel only reads: one
        pointer for all that is read nearby. Stores through it, or to `buffer`, go unseen."""
        pointer = T.bind(T.address_of(buffer[tuple(index)]), PointerType(PrimType("float32")))
        return T.decl_buffer(tuple(shape), "float32", data=pointer)

    @contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        """Statements that run only if `condition` holds."""
        with T.If(condition), T.Then():
            yield

    @contextmanager
    def branches(self, condition: Any) -> Iterator[tuple[Any, Any]]:
        """`with e.branches(c) as (then, other): with then: …; with other: …`"""
        with T.If(condition):
            yield T.Then(), T.Else()

    # values

    def bind(self, value: Value) -> Value:
        """Compute `value` once, here."""
        return value if isinstance(value, (int, float)) else T.bind(value)

    def integer(self, value: Index) -> Index:
        """An int32 computed once and hidden from TVM's simplifier, which would carry its formula
        into every index and then take seconds over them."""
        if isinstance(value, int):
            return value
        slot = Register(1, "int32")
        slot.set(value)
        return self.bind(slot.get())

    def splat(self, value: Value, lanes: int | None = None) -> Value:
        """A scalar in every lane."""
        lanes = self.lanes if lanes is None else lanes
        scalar = T.float32(value) if isinstance(value, (int, float)) else value
        return scalar if lanes == 1 else T.broadcast(scalar, lanes)

    def load(self, buffer: Any, index: Sequence[Index], lanes: int | None = None) -> Value:
        """`lanes` consecutive elements from `index` on (the last index counts elements)."""
        return buffer[tuple(self._span(index, lanes))]

    def store(
        self, buffer: Any, index: Sequence[Index], value: Value, lanes: int | None = None
    ) -> None:
        """Store a vector at `index`."""
        T.buffer_store(buffer, value, self._span(index, lanes))

    def registers(self, count: int, init: Value = 0.0, lanes: int | None = None) -> list[Register]:
        """`count` registers, each set to `init`."""
        lanes = self.lanes if lanes is None else lanes
        made = [Register(lanes) for _ in range(count)]
        for register in made:
            register.set(self.splat(init, lanes))
        return made

    def prefetch(
        self, buffer: Any, index: Sequence[Index], locality: int = 2, *, write: bool = False
    ) -> None:
        """Ask for the cache line at `index` (to `write` it); addresses past the end never fault."""
        T.evaluate(
            T.call_llvm_intrin(
                "void",
                "llvm.prefetch",
                T.address_of(buffer[tuple(index)]),
                T.int32(int(write)),
                T.int32(locality),
                T.int32(1),
            )
        )

    def reduce_sum(self, vector: Value, lanes: int | None = None) -> Value:
        """Sum over the lanes (pairwise)."""
        return self._halve(vector, lanes, lambda a, b: a + b)

    def reduce_max(self, vector: Value, lanes: int | None = None) -> Value:
        """Maximum over the lanes."""
        return self._halve(vector, lanes, T.max)

    def _halve(self, vector: Value, lanes: int | None, combine: Any) -> Value:
        width = self.lanes if lanes is None else lanes
        value = self.bind(vector)
        while width > 1:
            width //= 2
            low = tirx.Shuffle([value], list(range(width)))
            high = tirx.Shuffle([value], list(range(width, 2 * width)))
            value = self.bind(combine(low, high))
        return value

    def _span(self, index: Sequence[Index], lanes: int | None) -> list[Index]:
        lanes = self.lanes if lanes is None else lanes
        if lanes == 1:
            return list(index)
        return [*index[:-1], T.ramp(index[-1], 1, lanes)]


@contextmanager
def _single() -> Iterator[int]:
    """A loop of one iteration is no loop."""
    yield 0
