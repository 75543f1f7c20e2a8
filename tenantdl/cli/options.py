"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str, typer.Option(metavar="URL", envvar="TENANTDL_URL", help="Where the daemon listens.")
]
Token = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", envvar="TENANTDL_TOKEN", help="If the daemon asks for one."),
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the results (-: to stdout).")
]
# Of commands that write a file of results (`bench.envelope`), and only that.
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results.")]
URL = "http://127.0.0.1:8000"
