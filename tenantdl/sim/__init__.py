"""Simulators: the pure schedulers, driven in virtual time over declared machines and profiles.

machines   machines as data                   execution  the execution model: times of blocks
scaling    layer times where none are known   engine     virtual lanes around the scheduler
profiles   models: segment × variant × cores  simulate   a workload, a machine, a policy: one run
search     the highest rate that holds        slots      batches on slots, for the batching policies
"""
