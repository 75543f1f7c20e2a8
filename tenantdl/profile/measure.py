"""A whole profile of some bundles, within a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tenantdl.profile.corun import measure_before, measure_corun
from tenantdl.profile.counters import open_counters
from tenantdl.profile.solo import Runners, measure_solo
from tenantdl.profile.store import Measured, Solo, Store
from tenantdl.profile.subjects import room, subjects

# Of the campaign's time, for what ran before on the core.
_BEFORE = 0.15


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of the bundles that were asked for; slowdowns `beside` and `after` others."""

    solos: list[Solo]
    corun: list[Measured]
    before: list[Measured]


def measure(
    bundles: Sequence[Path],
    batches: Sequence[int],
    seconds: float,
    output: Path,
    report: Callable[[str], None] = lambda text: None,
) -> Profile:
    """Measure plans (of `batches` only, if there are any) alone, and for `seconds` beside each
    other; what `output` holds already is kept. Raises UserError."""
    found = subjects(bundles, batches)
    names = {subject.name for subject in found}
    with ThreadPoolExecutor(1) as thread:  # affinity and core group are a thread's own

        def work() -> Profile:
            counters = open_counters()
            with Store(output) as store, closing(counters) if counters else nullcontext():
                runners = Runners()
                measure_solo(store, found, runners, report, counters)
                if seconds > 0:
                    measure_before(store, found, runners, _BEFORE * seconds, report)
                    measure_corun(store, found, runners, room(), (1 - _BEFORE) * seconds, report)
                return Profile(
                    [solo for name, solo in store.solos().items() if name in names],
                    [m for m in store.measured("corun").values() if m.victim in names],
                    [m for m in store.measured("before").values() if m.victim in names],
                )

        return thread.submit(work).result()
