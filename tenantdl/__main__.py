"""`python -m tenantdl`: the same as the `tenantdl` command."""

from __future__ import annotations

from tenantdl.cli.main import main

if __name__ == "__main__":
    main()
