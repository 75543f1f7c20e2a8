"""Simulators: the pure schedulers, driven in virtual time."""
