"""Functions to rent by the call: latency and cost on some vCPUs, or on time slices of a GPU
(HarmonyBatch §3). Seconds, dollars, GB.

A CPU function of c vCPUs takes α·exp(−c/β) + γ for a batch, with coefficients for the mean and for
the worst case. A sliced function holds m of M slices; alone on the device a batch would take
L0 = ξ1·b + ξ2, and then it takes (M/m)·L0 on average and at worst waits (M − m)·τ once a turn.
Locally a CPU function is a slot of c cores, a sliced one a share m/M of a lane with quantum τ.

Prices are Alibaba Function Compute's as the paper has them (2024): `Prices`. The printed cost model
charges time as it passes, and nothing for vCPUs and memory beside a GPU; then GPUs are cheaper
always. What is billed in fact is whole seconds of GPU time, with a third of a vCPU for each slice
and memory: `whole-seconds`, the default; `printed` is the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Billing: TypeAlias = Literal["whole-seconds", "printed"]

PROFILES = Path(__file__).with_name("function_profiles.json")
VCPUS = np.arange(1, 321) / 20  # 0.05 to 16
BATCHES_CPU_MAX, BATCHES_SLICED_MAX = 4, 32
_VCPUS_PER_SLICE = 1 / 3
_GB_PER_VCPU_MAX = 4.0
_GB_STEP = 1 / 16


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars a vCPU-second, a slice-second (1 GB of GPU memory), a GB-second, and a call."""

    vcpu_s: float = 1.3e-5
    slice_s: float = 1.5e-5
    memory_gb_s: float = 1.3e-6
    call: float = 1.3e-7


PRICES = Prices()


class _Cpu(msgspec.Struct, frozen=True):
    mem_mb_linear_in_batch: tuple[float, float]
    avg_alpha_beta_gamma_by_batch: tuple[tuple[float, float, float], ...]
    max_alpha_beta_gamma_by_batch: tuple[tuple[float, float, float], ...]


class _Sliced(msgspec.Struct, frozen=True):
    mem_mb: float
    gpu_mem: tuple[int, ...]
    xi1_s: float
    xi2_s: float
    tau_s: float
    slices: int


class FunctionProfile(msgspec.Struct, frozen=True):
    """Coefficients of one model: `cpu` by batch size, `gpu` for slices. `gpu.gpu_mem[i]`: the
    largest batch that fits i + 1 slices; larger ones take one slice more than it lists."""

    cpu: _Cpu
    gpu: _Sliced


@dataclass(frozen=True, slots=True)
class Functions:
    """Every function one could rent, by kind, as flat arrays: vCPUs or slices (`size`), batch,
    worst latency in seconds, dollars a request."""

    kind: Literal["cpu", "sliced"]
    size: Floats
    batch: Floats
    latency_max: Floats
    cost: Floats


def read_profiles(path: Path = PROFILES) -> dict[str, FunctionProfile]:
    """The published coefficients of BERT, GPT-2, VGG-19 and VideoMAE."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, FunctionProfile])


@lru_cache(maxsize=256)
def catalogue(
    profile: FunctionProfile, billing: Billing = "whole-seconds", prices: Prices = PRICES
) -> tuple[Functions, Functions]:
    """All CPU functions and all sliced ones for a model."""
    return _cpu(profile.cpu, billing, prices), _sliced(profile.gpu, billing, prices)


def cpu_latency(coefficients: tuple[float, float, float], vcpus: Floats) -> Floats:
    """Seconds for a batch on so many vCPUs."""
    alpha, beta, gamma = coefficients
    return alpha * np.exp(-vcpus / beta) + gamma


def sliced_latency(alone_s: Floats, size: Floats, profile: _Sliced) -> tuple[Floats, Floats]:
    """(mean, worst) seconds of a batch that takes `alone_s` on the whole device."""
    total, quantum = profile.slices, profile.tau_s
    turns = np.ceil(alone_s / (size * quantum) - 1e-9)
    return alone_s * total / size, turns * (total - size) * quantum + alone_s


def _cpu(profile: _Cpu, billing: Billing, prices: Prices) -> Functions:
    size, batch, latency, cost = [], [], [], []
    slope, start = profile.mem_mb_linear_in_batch
    coefficients = zip(
        profile.avg_alpha_beta_gamma_by_batch, profile.max_alpha_beta_gamma_by_batch, strict=True
    )
    for count, (mean, worst) in enumerate(coefficients, 1):
        own_gb = np.ceil((slope * count + start) / 1024 / _GB_STEP) * _GB_STEP
        vcpus = VCPUS[own_gb - 1e-9 <= VCPUS * _GB_PER_VCPU_MAX]
        memory = np.maximum(own_gb, np.ceil(vcpus / _GB_STEP) * _GB_STEP)
        rent = vcpus * prices.vcpu_s
        if billing == "whole-seconds":
            rent = rent + memory * prices.memory_gb_s
        size.append(vcpus)
        batch.append(np.full(len(vcpus), float(count)))
        latency.append(cpu_latency(worst, vcpus))
        cost.append((cpu_latency(mean, vcpus) * rent + prices.call) / count)
    parts = [np.concatenate(part) for part in (size, batch, latency, cost)]
    return Functions("cpu", *parts)


def _sliced(profile: _Sliced, billing: Billing, prices: Prices) -> Functions:
    size, batch = np.meshgrid(
        np.arange(1, profile.slices + 1, dtype=float),
        np.arange(1, BATCHES_SLICED_MAX + 1, dtype=float),
        indexing="ij",
    )
    least = np.searchsorted(np.array(profile.gpu_mem, dtype=float), batch) + 1
    fits = size >= least
    size, batch = size[fits], batch[fits]
    alone = np.maximum(profile.xi1_s * batch + profile.xi2_s, 1e-6)
    mean, worst = sliced_latency(alone, size, profile)
    rent = size * prices.slice_s
    if billing == "whole-seconds":
        mean = np.ceil(mean - 1e-9)
        memory = np.ceil(profile.mem_mb / 1024 / _GB_STEP) * _GB_STEP
        rent = rent + size * _VCPUS_PER_SLICE * prices.vcpu_s + memory * prices.memory_gb_s
    return Functions("sliced", size, batch, worst, (mean * rent + prices.call) / batch)
