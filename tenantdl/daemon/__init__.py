"""The daemon: Open Inference Protocol over HTTP and gRPC before the scheduler and its lanes.

server       `serve(workload)` blocks; `running_daemon(workload)` starts one in a subprocess
front        its doors; protocol/: what is said there
engine       the loop around the scheduler; calls: what passes between it and the routes
catalogue    models and tenants of a workload; tenants: what the engine keeps for each
repository   a folder of models; hosting: models in and out of lanes
statistics   what became of requests, for /metrics, /status and /stats
observe      metrics, timeline, status, dashboard
journal      what the scheduler was told and said, on disk
"""

from __future__ import annotations

from tenantdl.daemon.server import RunningDaemon, running_daemon, serve

__all__ = ["RunningDaemon", "running_daemon", "serve"]
