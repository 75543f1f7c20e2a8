"""The daemon: Open Inference Protocol over HTTP in front of the scheduler and its lanes.

server       `serve(workload)` blocks; `running_daemon(workload)` starts one in a subprocess
http         routes, limits, errors; parameters: what a message may ask for
engine       the loop around the scheduler; calls: what passes between it and the routes
catalogue    models and tenants of a workload; tenants: what the engine keeps for each
statistics   what became of requests, for /metrics, /status and /stats
observe      metrics, timeline, status, dashboard
journal      what the scheduler was told and said, on disk
"""

from __future__ import annotations

from tenantdl.daemon.server import RunningDaemon, running_daemon, serve

__all__ = ["RunningDaemon", "running_daemon", "serve"]
