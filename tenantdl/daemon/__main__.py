"""`python -m tenantdl.daemon TASK`: the subprocess of `running_daemon`."""

from __future__ import annotations

import sys
from pathlib import Path

from tenantdl.daemon.server import run_task

if __name__ == "__main__":
    run_task(Path(sys.argv[1]))
