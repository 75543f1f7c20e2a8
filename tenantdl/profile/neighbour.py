"""A neighbour at work: a variant of a bundle, again and again on one core, as a program.

`python -m tenantdl.profile.neighbour BUNDLE PLAN VARIANT CORE`; the protocol is that of
`tenantdl.exec.neighbour`.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from tenantdl.bundle.load import load_bundle
from tenantdl.exec.cores import pin
from tenantdl.exec.neighbour import Neighbour
from tenantdl.exec.runner import Runner
from tenantdl.exec.stress import READY
from tenantdl.ids import CoreId


def of_bundle(bundle: Path, plan: int, variant: int, core: CoreId) -> Neighbour:
    """A variant of a plan, again and again on `core`."""
    arguments = [str(bundle), str(plan), str(variant), str(core)]
    return Neighbour(["-m", "tenantdl.profile.neighbour", *arguments])


def main(argv: Sequence[str]) -> None:
    """Run until standard input closes."""
    bundle, plan, variant, core = argv
    pin([CoreId(int(core))])
    loaded = load_bundle(bundle, verify=False)
    runner = Runner(loaded, loaded.manifest.plans[int(plan)])
    runner.run_block(0, runner.segment_count, int(variant))
    os.write(sys.stdout.fileno(), READY)
    while not select.select([sys.stdin.fileno()], [], [], 0)[0]:
        runner.run_block(0, runner.segment_count, int(variant))


if __name__ == "__main__":
    main(sys.argv[1:])
