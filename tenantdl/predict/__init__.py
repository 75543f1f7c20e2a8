"""How much tenants slow each other down: learned from samples, exported to tables.

Footprints (`footprint`) describe variants in physical units; samples (`samples`) say what was
measured; `model` learns, `baselines` are what it has to beat, `export` writes the tables that the
scheduler reads. Serving imports none of the learning.
"""
