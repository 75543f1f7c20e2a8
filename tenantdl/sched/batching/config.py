"""What a batcher is told at the start: queues, slots, network, policy. Plain data."""

from __future__ import annotations

import msgspec

from tenantdl.units import Ns


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Delays between the batcher and the slots. `control`: an order; `data`: the input of one
    request; `response`: the answer, back to the client; `jitter`: slack kept against all of it.
    The paper's: 100 µs, 50 µs, 2 ms. On one machine: nothing."""

    control: Ns = Ns(0)
    data: Ns = Ns(0)
    response: Ns = Ns(0)
    jitter: Ns = Ns(0)


class QueueSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that may share a batch. `times[b-1]`: how long a batch of b runs; `slo`: the latency
    target that the target batch is made for (each request carries its own deadline). Ready batches
    of a lower `priority` always go first. `policy`: its own, if it is not the batcher's. `varied`:
    requests of the same model in other queues take much longer or shorter."""

    name: str
    times: tuple[Ns, ...]
    slo: Ns
    priority: int = 0
    policy: str = ""
    varied: bool = False


class BatchingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`policy`: a name that `policies.policy` knows; `order`: a key of `order.KEYS`."""

    queues: tuple[QueueSpec, ...]
    slots: int
    policy: str = "auto"
    order: str = "invalid_after"
    network: Network = Network()
