"""Hardware and kernel: vector units, cores, quota, clocks, governor, huge pages, memory."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from tenantdl.cli.doctor_check import Check, cores_in, told
from tenantdl.machine import Machine, quota_cores

_CPU = Path("/sys/devices/system/cpu")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_CLOCK = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_CGROUP_STAT = Path("/sys/fs/cgroup/cpu.stat")
# The first of these that the machine has is the vector unit that kernels use.
_VECTOR_UNITS = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON"))
_EXTRAS = ("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")
_QUICK_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
_FILES_MIN = 4096
_MEMORY_MIN = 2 * 1024**3


def checks(machine: Machine) -> Iterator[Check]:
    """All of them."""
    yield Check("CPU", "ok", f"{machine.model} ({machine.arch})")
    yield _vectors(machine.features)
    yield _cores(machine)
    yield _affinity()
    yield _quota()
    yield from _siblings(machine)
    yield _governor()
    yield _clock()
    yield _huge_pages()
    yield _memory()
    yield _files()
    yield Check("kernel", "ok", platform.release())


def _vectors(features: frozenset[str]) -> Check:
    for flag, name in _VECTOR_UNITS:
        if flag in features:
            extra = [f for f in _EXTRAS if f in features]
            return Check("vector unit", "ok", " ".join([name, *extra]))
    return Check("vector unit", "warn", "baseline only", "kernels will be slow")


def _cores(machine: Machine) -> Check:
    usable, online = len(machine.cores), os.sysconf("SC_NPROCESSORS_ONLN")
    found = f"{usable} of {online} usable: {', '.join(map(str, machine.cores))}"
    if usable < 2:
        return Check("cores", "warn", found, "serving needs one core beside the lanes to be steady")
    return Check("cores", "ok", found)


def _affinity() -> Check:
    allowed, online = len(os.sched_getaffinity(0)), os.sysconf("SC_NPROCESSORS_ONLN")
    if allowed < online:
        advice = "taskset, a cpuset or the container took the others away; all threads obey it"
        return Check("affinity", "ok", f"{allowed} of {online} cores", advice)
    return Check("affinity", "ok", f"all {online} cores")


def _quota() -> Check:
    quota = quota_cores()
    throttled = _throttled()
    if quota is None:
        return Check("CPU quota", "ok", "none")
    found = f"{quota:g} cores" + (f", throttled {throttled} times" if throttled else "")
    if quota < 1 or throttled:
        advice = "a throttled lane stands still for up to 100 ms: raise the limit, or use cpuset"
        return Check("CPU quota", "warn", found, advice)
    if quota != int(quota):
        return Check("CPU quota", "warn", found, "lanes use whole cores: the fraction lies idle")
    return Check("CPU quota", "ok", found, "better still: a cpuset (static CPU manager policy)")


def _throttled() -> int:
    for line in (told(_CGROUP_STAT) or "").splitlines():
        if line.startswith("nr_throttled "):
            return int(line.split()[1])
    return 0


def _siblings(machine: Machine) -> Iterator[Check]:
    """Hyper-threads share a core's vector units."""
    shared = [
        core
        for core in machine.cores
        if cores_in(told(_CPU / f"cpu{core}/topology/thread_siblings_list") or "0") > 1
    ]
    if shared:
        advice = "list one thread of each core in [machine] cores, if your provider shows them so"
        yield Check("hyper-threads", "warn", f"{len(shared)} usable cores are threads", advice)
    nodes = cores_in(told(Path("/sys/devices/system/node/online")) or "0")
    if nodes > 1:
        advice = "one daemon a node keeps memory near: numactl --cpunodebind --membind"
        yield Check("NUMA", "warn", f"{nodes} nodes", advice)
    isolated = told(_CPU / "isolated")
    if isolated:
        yield Check("isolated cores", "ok", isolated, "good for lanes: [machine] cores")


def _governor() -> Check:
    kinds = {told(path) for path in _CPU.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {None}
    if not kinds:
        return Check("governor", "ok", "not told: the host decides")
    found = ", ".join(sorted(str(kind) for kind in kinds))
    if kinds != {"performance"}:
        advice = "blocks are short, clocks rise late: cpupower frequency-set -g performance"
        return Check("governor", "warn", found, advice)
    return Check("governor", "ok", found)


def _clock() -> Check:
    clock = told(_CLOCK)
    if clock is None or clock in _QUICK_CLOCKS:
        return Check("clock", "ok", clock or "not told")
    return Check("clock", "warn", clock, "reading the time is slow: clocksource=tsc, if stable")


def _huge_pages() -> Check:
    modes = told(_HUGE_PAGES)
    if modes is None:
        return Check("huge pages", "warn", "not offered by this kernel")
    mode = modes.partition("[")[2].partition("]")[0]
    if mode == "never":
        return Check("huge pages", "warn", mode, f"echo madvise > {_HUGE_PAGES} (as root)")
    return Check("huge pages", "ok", mode)


def _memory() -> Check:
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    found = f"{memory.available / 1024**3:.1f} of {memory.total / 1024**3:.1f} GiB free"
    if memory.available < _MEMORY_MIN:
        return Check("memory", "warn", found, "weights that are paged out cost milliseconds")
    if swap.total and swap.percent > 25:
        advice = "something was paged out: free memory, or swapoff -a"
        return Check("memory", "warn", f"{found}, swap {swap.percent:.0f} % full", advice)
    return Check("memory", "ok", found)


def _files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < _FILES_MIN:
        advice = "each connection takes one: ulimit -n 65536 (systemd: LimitNOFILE=)"
        return Check("open files", "warn", found, advice)
    return Check("open files", "ok", found)
