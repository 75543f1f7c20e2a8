"""Pattern rewrites of the graph."""

from __future__ import annotations

from tenantdl.compile.graph import Graph


def rewrite(graph: Graph) -> Graph:
    """All patterns, to a fixed point."""
    return graph
