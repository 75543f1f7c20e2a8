"""The CPU that kernels are generated for: vector width, registers, caches, and TVM's target.

TVM's own name for the host CPU is unreliable in virtual machines (it has called a Sapphire Rapids
"rocketlake" and then halves the vector width), so the level is chosen from the CPU's flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tenantdl.errors import UserError
from tenantdl.machine import Caches, Machine, this_machine


@dataclass(frozen=True)
class CpuLevel:
    """An LLVM CPU that stands for a generation, with the flags it takes for granted."""

    mcpu: str
    lanes: int
    registers: int
    features: tuple[str, ...]
    mattr: tuple[str, ...] = ()


_AVX2 = ("avx", "avx2", "fma", "bmi1", "bmi2", "f16c")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_ICELAKE = (*_AVX512, "avx512_vnni", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg", "vaes", "gfni")
_SAPPHIRE = (*_ICELAKE, "avx512_bf16", "avx512_fp16", "avx_vnni")
# LLVM prefers 256-bit vectors on these by default; our kernels are written for 512.
_WIDE = ("-prefer-256-bit",)
_NO_AMX = ("-amx-tile", "-amx-int8", "-amx-bf16")

X86_LEVELS = (
    CpuLevel("sapphirerapids", 16, 32, _SAPPHIRE, _WIDE + _NO_AMX),
    CpuLevel("icelake-server", 16, 32, _ICELAKE, _WIDE),
    CpuLevel("skylake-avx512", 16, 32, _AVX512, _WIDE),
    CpuLevel("haswell", 8, 16, _AVX2),
    CpuLevel("x86-64", 4, 16, ()),
)
ARM_LEVELS = (CpuLevel("generic", 4, 32, (), ("+neon",)),)
# Templates vectorise: looking for more vectors in straight lines takes a sixth of LLVM's time.
_LLVM = ("-vectorize-slp:bool=0",)
_TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


@dataclass(frozen=True)
class CpuTarget:
    """What kernels are compiled for. `lanes`: float32 elements of a vector register."""

    arch: str
    level: CpuLevel
    caches: Caches

    @property
    def lanes(self) -> int:
        """float32 elements of a vector register, also the channel block of packed layouts."""
        return self.level.lanes

    @property
    def registers(self) -> int:
        """Architectural vector registers."""
        return self.level.registers

    @cached_property
    def tvm(self) -> Any:
        """The `tvm.target.Target`."""
        import tvm

        options: dict[str, object] = {
            "kind": "llvm",
            "mcpu": self.level.mcpu,
            "mtriple": _TRIPLES[self.arch],
            "cl-opt": list(_LLVM),
        }
        if self.level.mattr:
            options["mattr"] = list(self.level.mattr)
        return tvm.target.Target(options)


def native_target(machine: Machine | None = None) -> CpuTarget:
    """The best level that `machine` (default: this one) has all flags of."""
    machine = machine or this_machine()
    levels = X86_LEVELS if machine.arch == "x86_64" else ARM_LEVELS
    if machine.arch not in _TRIPLES:
        raise UserError(f"machines of kind {machine.arch} are not supported")
    level = next(level for level in levels if set(level.features) <= machine.features)
    return CpuTarget(machine.arch, level, machine.caches)


def parse_target(text: str) -> CpuTarget:
    """`native`, or `ARCH[:MCPU]` such as `x86_64:haswell`, `aarch64`, or a triple.

    Raises UserError for an unknown architecture or CPU.
    """
    if text == "native":
        return native_target()
    head, _, mcpu = text.partition(":")
    arch = head.partition("-")[0]
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch)
    if arch not in _TRIPLES:
        raise UserError(f"unknown target {text!r}: use native, {', '.join(sorted(_TRIPLES))}")
    levels = X86_LEVELS if arch == "x86_64" else ARM_LEVELS
    names = [level.mcpu for level in levels]
    if mcpu and mcpu not in names:
        raise UserError(f"unknown CPU {mcpu!r} in target {text!r}: one of {', '.join(names)}")
    level = levels[names.index(mcpu)] if mcpu else levels[-1]
    return CpuTarget(arch, level, this_machine().caches)
