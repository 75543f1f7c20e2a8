"""Measure what variants take on this machine, alone and beside each other.

`subjects` are what is measured (variants of bundles on so many cores), `solo` measures them alone,
`corun` beside neighbours, `store` keeps everything in one SQLite file that belongs to one machine,
`samples` makes of it what predictors learn from.
"""
