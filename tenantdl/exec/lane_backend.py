"""What real lanes run: bundles, through `Runner`s whose arenas lie in shared memory."""

from __future__ import annotations

from collections.abc import Sequence

from tenantdl.bundle.load import load_bundle
from tenantdl.exec import cores as _cores
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId


def pin(cores: Sequence[CoreId]) -> None:
    """Keep this thread on the first of `cores`, and its helpers on the others."""
    _cores.pin(cores)


def choose(cores: Sequence[CoreId]) -> None:
    """Blocks to come run on these."""
    _cores.group().choose(cores)


def rest() -> None:
    """Helpers leave their cores to others."""
    _cores.group().rest()


def open_programs(
    bundle: str, plans: Sequence[tuple[int, Sequence[memoryview]]]
) -> list[list[Runner]]:
    """A runner for every arena of every (plan number, arenas) of the bundle at path `bundle`.

    Each plan is run once in memory of its own first, so that code and weights are warm. Raises
    UserError.
    """
    loaded = load_bundle(bundle)
    programs: list[list[Runner]] = []
    for number, arenas in plans:
        plan = loaded.manifest.plans[number]
        warm_up = Runner(loaded, plan)
        with _cores.alone():
            warm_up.run_block(0, warm_up.segment_count)
        programs.append([Runner(loaded, plan, arena) for arena in arenas])
    return programs
