"""Scheduling policies, by the names that `names` knows. Functions, no classes to derive from.

A policy is asked whenever something has happened, and answers with launches: which request, on
which cores, in which variant, up to which segment. All of them see the same segments, costs and
events, and are made of the same moves (`placing`).

  model-fcfs        whole models in the order of arrival, each on the cores its target needs
  edf               the same by deadline, preempted at ends of blocks; hopeless requests go last
  layerwise         every segment on the cores that its part of the target needs
  fixed-block(k)    the same for blocks of k segments
  static-partition  fixed cores a tenant, searched for the load
  thin-instances    the same with several narrow instances a tenant (Packrat)
  planaria          all cores shared out anew whenever a request comes or goes
  prema             one request at a time on the whole machine, with tokens
  parties           cores a tenant follow its latency, every 0.1 s
  veltair           adaptive blocks and versions, by the paper's prose; also its halves, veltair-as
                    (scheduling) and veltair-ac (versions), and its printed rule, veltair-literal
  tenantdl          ours, and the default: cores, variant, end of block and start chosen together
"""

from __future__ import annotations

try:  # the same modules compiled by mypyc, where `scripts/compile_scheduler.py` has made them
    from tenantdl_compiled import folder_of
except ImportError:
    pass
else:
    __path__[:0] = folder_of(__name__, __path__)
