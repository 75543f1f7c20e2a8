"""What drives and describes a serving experiment.

workload   the one config file: tenants, machine, server, scheduler, load
arrivals   when requests are due: Poisson, gamma bursts, constant, recorded
issuer     the open-loop client, a process of its own
inputs     what the requests carry
protocol   the messages and binary tensors that client and server share
"""
