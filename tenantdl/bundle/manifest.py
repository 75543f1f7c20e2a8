"""The manifest of a bundle: typed, versioned JSON.

Format history
  1  first form: plans (one per batch size or shape bucket) over one library and one weights file.
  2  libraries hold their own runtime (tenantdl_run), TVM's is not loaded.
  3  plans have variants: other kernels for some of their calls, with measured figures.
  4  digests are BLAKE3.
  5  libraries start workers when they are first chosen, and have tenantdl_pool_rest. Bundles with
     shape buckets may say how inputs are padded. `metadata` was added since.
  6  segments may be parts of a call; calls are run with the part.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

FORMAT = 6
MANIFEST, LIBRARY, WEIGHTS = "manifest.json", "kernels.so", "weights.bin"
ALIGNMENT = 64


Extent = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
# Up to eleven days.
Cost = Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input or output as clients see it. `shape` is this plan's; `-1` never occurs in it.
    `arena_offset`: where its row-major bytes lie in the arena."""

    name: str
    dtype: str
    shape: tuple[Extent, ...]
    arena_offset: int


class Argument(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A kernel argument: `offset` bytes into the arena or the weights, as `space` says."""

    space: Literal["arena", "weights"]
    offset: int
    shape: tuple[int, ...]
    dtype: str


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kernel call: an operator. `bytes` are those of all its arguments. `loop`: iterations of
    the parallel loop that is all that the kernel does, and can be run in parts (0: more than that).
    """

    name: str
    kind: str
    symbol: str
    args: tuple[Argument, ...]
    flops: int
    bytes: int
    loop: int = 0


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls [begin, end), the smallest schedulable run, or part `part` of `parts` of one long call.
    `cost_ns`: on one core."""

    begin: int
    end: int
    cost_ns: Cost
    part: int = 0
    parts: int = 1


class Substitute(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`call` in place of the plan's call number `position`, none that is run in parts: the same
    result in the same memory."""

    position: int
    call: Call


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to run a plan's segments: its calls, some of them replaced. Measured figures a
    segment: `cost_ns[c]` alone on `cores[c]` cores (ascending); `pressed_ns` on one core beside a
    neighbour that writes memory (empty: not measured). Known from the schedules: `private_bytes`,
    the largest working set that a core comes back to, and `traffic_bytes` from beyond its private
    caches (empty: not known). `goal`: what it was chosen for."""

    goal: str
    substitutes: tuple[Substitute, ...]
    cores: tuple[int, ...]
    cost_ns: tuple[tuple[Cost, ...], ...]
    pressed_ns: tuple[Cost, ...]
    private_bytes: tuple[int, ...]
    traffic_bytes: tuple[int, ...]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The static execution plan for one set of input shapes.

    `arena_bytes` of memory, zeroed once, hold everything that is not a weight. Inputs are written
    there, `calls` run in order, outputs are read there. `cost_source`: "measured" or "estimated".
    `variants`: the ways to run it, the fastest alone on one core first; none: only one is known,
    and its costs on one core.
    """

    batch: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    arena_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    segments: tuple[Segment, ...]
    cost_source: Literal["measured", "estimated"]
    variants: tuple[Variant, ...] = ()


def short_digest(manifest: Manifest) -> str:
    """Tells one compilation from another, for people and file names."""
    return manifest.digests[LIBRARY][:8]


def variant_count(plan: Plan) -> int:
    """In how many ways the plan can be run."""
    return max(1, len(plan.variants))


def calls_of(plan: Plan, variant: int) -> list[Call]:
    """The calls of variant number `variant` (0 is there even where none is listed)."""
    calls = list(plan.calls)
    for substitute in plan.variants[variant].substitutes if plan.variants else ():
        calls[substitute.position] = substitute.call
    return calls


class Padding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs that are shorter along (name, axis) than a plan's may be padded with zeros, and its
    outputs cut back along theirs: tried when the bundle was made, the results are the same."""

    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the library was compiled for. `features`: CPU flags that must be present to load it."""

    arch: str
    mcpu: str
    features: tuple[str, ...]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of manifest.json. `digests`: BLAKE3 of the other files, hexadecimal.
    `cores`: core counts that the model was compiled for. `source`: digest of the ONNX file.
    `metadata`: what that file says of itself, such as labels."""

    format: int
    name: str
    created_by: str
    source: str
    target: Target
    machine: dict[str, Any]
    cores: tuple[int, ...]
    digests: dict[str, str]
    plans: Annotated[tuple[Plan, ...], msgspec.Meta(min_length=1)]
    summary: dict[str, Any]
    padding: Padding | None = None
    metadata: dict[str, str] = {}
