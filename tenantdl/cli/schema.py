"""`tenantdl schema`: the JSON schema of workload files, for editors and for checks in CI."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="schema")(schema_command)


def schema_command() -> None:
    """Print the JSON schema of workload files (docs/workload.schema.json)."""
    from tenantdl.cli import render
    from tenantdl.documents import indented_json
    from tenantdl.load.workload import json_schema

    render.line(indented_json(json_schema()).decode().rstrip())
