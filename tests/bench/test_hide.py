"""Peers held to AVX2: what CPUID answers after that, and when it is too late or not possible."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tenantdl.bench import hide
from tenantdl.compile.target import native_target, parse_target
from tenantdl.errors import UserError

WIDE = native_target().lanes == 16 and native_target().arch == "x86_64"
FAULTS = WIDE and "cpuid_fault" in Path("/proc/cpuinfo").read_text()
PROBE = """
#include <cpuid.h>
unsigned leaf7(void) { unsigned a, b, c, d; __cpuid_count(7, 0, a, b, c, d); return b; }
"""
SCRIPT = """
import ctypes, sys
from tenantdl.bench import hide
from tenantdl.compile.target import parse_target
probe = ctypes.CDLL(sys.argv[1])
bits = lambda: [probe.leaf7() >> bit & 1 for bit in (5, 16)]
before = bits()
hide.match(parse_target("x86_64:haswell"))
print(before, bits())
"""


@pytest.mark.skipif(not FAULTS, reason="CPUID does not fault here")
def test_avx512_is_hidden_and_avx2_is_not(tmp_path: Path) -> None:
    source, library = tmp_path / "probe.c", tmp_path / "probe.so"
    source.write_text(PROBE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, library], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[1, 1] [1, 0]"


def test_nothing_is_done_for_this_machines_own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hide, "_library", lambda: pytest.fail("not needed"))
    hide.match(parse_target("native"))


@pytest.mark.skipif(not WIDE, reason="there is no AVX-512 to hide")
def test_too_late_when_a_peer_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", object())
    with pytest.raises(UserError, match="picked its kernels already"):
        hide.match(parse_target("x86_64:haswell"))


def test_other_targets_are_refused() -> None:
    with pytest.raises(UserError, match="native or x86_64:haswell"):
        hide.match(parse_target("aarch64"))
