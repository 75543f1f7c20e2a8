"""The C runtime that is linked into every kernel library: a pool of threads, a loop over calls."""

from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(name) for name in ("pool.c", "runtime.c"))
"""What a library is linked with, besides its kernels."""
