"""What can be seen of a running daemon. It listens to the scheduler's events and commands, as the
journal does, and never speaks: a fault in here ends the watching, not the service.

observer   the one object that the engine tells; snapshots for /status
timeline   every block that ran, in a bounded ring; works on a journal, too
ended      a request's life: origin, blocks, end; logs: a line about it; tracing: spans of it
window     the last minute of each tenant, second by second
machine    counts of blocks by core, tenant, variant; predicted against actual time
metrics    all of it as Prometheus text; exposition: the text format
chrome     blocks as a Chrome/Perfetto trace
routes     /status, /trace, /dashboard
"""
