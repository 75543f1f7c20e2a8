"""Load a bundle: verify, read, and hand out. Never imports ONNX or the TVM compiler.

Everything in the manifest is checked before it is used: digests of the files, CPU features, that
every argument lies inside the arena or the weights, that segments cover the calls.
"""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from tenantdl.bundle.library import Library
from tenantdl.bundle.manifest import (
    ALIGNMENT,
    FORMAT,
    LIBRARY,
    MANIFEST,
    WEIGHTS,
    Call,
    Manifest,
    Plan,
    Segment,
)
from tenantdl.bundle.memory import allocate, seal
from tenantdl.documents import read_bounded
from tenantdl.errors import UserError
from tenantdl.machine import this_machine

MANIFEST_BYTES_MAX = 256 * 1024**2
ARENA_BYTES_MAX = WEIGHTS_BYTES_MAX = 64 * 1024**3


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBundle:
    """A verified bundle: kernels in `library`; `weights` are the bytes of weights.bin, in memory
    that forks share (writing is a fault)."""

    path: Path
    manifest: Manifest
    library: Library
    weights: NDArray[np.uint8]


def load_bundle(path: str | os.PathLike[str], *, verify: bool = True) -> LoadedBundle:
    """Open the bundle at `path`.

    `verify=False` skips the digest of the weights only (of a bundle that was just written or
    checked); manifest and library are always checked. Raises UserError for anything that does not
    fit.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    _check_machine(manifest, folder)
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(file_digest, folder / LIBRARY)
        weights = _read_weights(folder / WEIGHTS)
        if verify:
            _check_digest(manifest, folder / WEIGHTS, blake3(weights.data).hexdigest())
        _check_digest(manifest, folder / LIBRARY, digest.result())
    for plan in manifest.plans:
        _check_plan(plan, weights.size, folder)
    return LoadedBundle(folder, manifest, Library(folder / LIBRARY), weights)


def read_manifest(folder: Path) -> Manifest:
    """Parse and version-check manifest.json of the bundle in `folder`."""
    file = folder / MANIFEST
    try:
        raw = read_bounded(file, MANIFEST_BYTES_MAX, "manifest")
    except OSError as error:
        raise UserError(f"not a bundle: {error.strerror}", where=str(file)) from error
    try:
        version = msgspec.json.decode(raw, type=_Versioned).format
    except msgspec.MsgspecError as error:
        raise UserError(f"manifest is not valid: {error}", where=str(file)) from error
    if version != FORMAT:
        raise UserError(
            f"bundle format {version}, this tenantdl reads {FORMAT}: compile again", where=str(file)
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise UserError(f"manifest is not valid: {error}", where=str(file)) from error
    for plan in manifest.plans:
        if not 0 <= plan.arena_bytes <= ARENA_BYTES_MAX:
            raise UserError(f"arena of {plan.arena_bytes} bytes is out of bounds", where=str(file))
        for tensor in (*plan.inputs, *plan.outputs):
            if _nbytes(tensor.shape, tensor.dtype, str(file)) > ARENA_BYTES_MAX:
                raise UserError(f"tensor {tensor.name} is too large", where=str(file))
    return manifest


class _Versioned(msgspec.Struct):
    format: int


def _check_machine(manifest: Manifest, folder: Path) -> None:
    machine = this_machine()
    if manifest.target.arch != machine.arch:
        raise UserError(
            f"compiled for {manifest.target.arch}, this machine is {machine.arch}",
            where=str(folder),
        )
    missing = sorted(set(manifest.target.features) - machine.features)
    if missing:
        raise UserError(
            f"needs CPU features that this machine lacks: {', '.join(missing)}", where=str(folder)
        )


def _check_digest(manifest: Manifest, file: Path, digest: str) -> None:
    if manifest.digests.get(file.name) != digest:
        raise UserError("digest differs from the manifest's", where=str(file))


def file_digest(file: Path) -> str:
    """BLAKE3 of a file, hexadecimal: SHA-256 would take most of the time of loading. Raises
    UserError when it cannot be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise UserError("is not a file", where=str(file))
        return blake3().update_mmap(file).hexdigest()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from error


def _read_weights(file: Path) -> NDArray[np.uint8]:
    try:
        found = file.stat()
        size = found.st_size
        if not stat.S_ISREG(found.st_mode) or size > WEIGHTS_BYTES_MAX:
            raise UserError(f"is not a file of up to {WEIGHTS_BYTES_MAX} bytes", where=str(file))
        if size == 0:
            return np.empty(0, np.uint8)
        weights = allocate(size)
        with file.open("rb", buffering=0) as stream:
            done = 0
            while count := stream.readinto(weights[done:].data):
                done += count
        if done < size:
            raise UserError(f"ends after {done} of {size} bytes", where=str(file))
        # DLPack refuses arrays that say they are read-only; the pages themselves are.
        seal(weights)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from error
    return weights


def _check_plan(plan: Plan, weights_bytes: int, folder: Path) -> None:
    where = str(folder / MANIFEST)
    spaces = {"arena": plan.arena_bytes, "weights": weights_bytes}
    for call in (*plan.calls, *_substitutes(plan, where)):
        for argument in call.args:
            end = argument.offset + _nbytes(argument.shape, argument.dtype, where)
            if argument.offset < 0 or end > spaces[argument.space]:
                raise UserError(f"operator {call.name} reaches outside its memory", where=where)
            if argument.offset % ALIGNMENT:
                raise UserError(f"operator {call.name} has an unaligned argument", where=where)
    for tensor in (*plan.inputs, *plan.outputs):
        end = tensor.arena_offset + _nbytes(tensor.shape, tensor.dtype, where)
        if tensor.arena_offset < 0 or end > plan.arena_bytes:
            raise UserError(f"tensor {tensor.name} lies outside the arena", where=where)
    begin, part, parts = 0, 0, 1
    for segment in plan.segments:
        follows = segment.part == part and (part == 0 or segment.parts == parts)
        if segment.begin != begin or segment.end <= begin or not follows:
            raise UserError("segments do not cover the operators in order", where=where)
        parts = max(1, segment.parts)
        if segment.parts > 1:
            _check_part(plan, segment, where)
        part = (part + 1) % parts
        begin = segment.end if part == 0 else begin
    if begin != len(plan.calls):
        raise UserError("segments do not cover the operators", where=where)


def _check_part(plan: Plan, segment: Segment, where: str) -> None:
    if segment.end != segment.begin + 1 or segment.end > len(plan.calls):
        raise UserError("a segment in parts is not one operator", where=where)
    call = plan.calls[segment.begin]
    if segment.parts > call.loop:
        raise UserError(f"operator {call.name} cannot be run in {segment.parts} parts", where=where)
    for variant in plan.variants:
        if any(substitute.position == segment.begin for substitute in variant.substitutes):
            raise UserError(f"operator {call.name} is in parts and replaced", where=where)


def _substitutes(plan: Plan, where: str) -> list[Call]:
    """The calls of all variants, whose figures fit the plan's segments."""
    found = []
    for variant in plan.variants:
        optional = (variant.pressed_ns, variant.private_bytes, variant.traffic_bytes)
        lengths = {len(figure) for figure in (*variant.cost_ns, *filter(None, optional))}
        counts = variant.cores
        if lengths != {len(plan.segments)} or len(variant.cost_ns) != len(counts):
            raise UserError(f"figures of variant {variant.goal} do not fit", where=where)
        if not counts or list(counts) != sorted(set(counts)) or counts[0] < 1:
            raise UserError(f"core counts of variant {variant.goal} do not ascend", where=where)
        for substitute in variant.substitutes:
            if not 0 <= substitute.position < len(plan.calls):
                raise UserError(f"variant {variant.goal} replaces no call", where=where)
            found.append(substitute.call)
    return found


def _nbytes(shape: tuple[int, ...], dtype: str, where: str) -> int:
    if any(extent < 0 for extent in shape):
        raise UserError("negative extent in a shape", where=where)
    try:
        size = np.dtype(dtype).itemsize
    except TypeError as error:
        raise UserError(f"unknown dtype {dtype!r}", where=where) from error
    for extent in shape:
        size *= extent
    return size
