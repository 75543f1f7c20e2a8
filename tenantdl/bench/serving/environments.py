"""Where peers live: environments of their own, set up by `scripts/peers/setup_*.sh`."""

from __future__ import annotations

import os
from pathlib import Path

from tenantdl.errors import UserError


def environment(peer: str) -> Path:
    """The Python environment of `peer`. Raises UserError where it is not set up."""
    default = Path.home() / ".cache" / "tenantdl" / "peers"
    folder = Path(os.environ.get("TENANTDL_PEERS") or default) / peer
    if not (folder / "bin" / "python3").exists():
        raise UserError(
            f"{peer} is not set up in {folder}: run scripts/peers/setup_{peer}.sh", where=peer
        )
    return folder


def packages(folder: Path) -> Path:
    """The folder of the packages in the environment `folder`."""
    return next(folder.glob("lib/python3*/site-packages"))
