"""What a variant of a plan asks of the machine, in physical units."""

from __future__ import annotations

import msgspec


class Footprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one run of a plan in one variant. `flops`: arithmetic. `stream_bytes`: read or written in
    memory whatever the caches hold (weights, large activations). `reuse_bytes`: read again from the
    shared cache as long as the working set stays there, from memory otherwise. `shared_bytes`: that
    working set, a core. `private_bytes`: what a core comes back to in its own caches."""

    flops: float
    stream_bytes: float
    reuse_bytes: float
    shared_bytes: float
    private_bytes: float
