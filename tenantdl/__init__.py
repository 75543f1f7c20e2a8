"""tenantdl: many deep-learning models on shared CPU cores, each within its latency target."""

from __future__ import annotations

__version__ = "0.1.0"
