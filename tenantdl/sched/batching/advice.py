"""How many slots more or fewer a load wants, as a value (Symphony §4; the two rules are a
reconstruction from the paper's text)."""

from __future__ import annotations

from tenantdl.errors import InvariantError

# Fewer bad requests than this are noise, not a lack of slots.
BAD_MAX = 0.01


def advice(slots: int, bad: float, idle: float) -> int:
    """How many slots to add (release, if negative) at `slots` of them.

    `bad`: share of requests late or dropped; r bad of what comes means that about r/(1−r) more
    slots serve it. `idle`: share of all slot time without work; whole idle slots can go, but one
    stays. Raises InvariantError for what are no shares.
    """
    if not (0 <= bad <= 1 and 0 <= idle <= 1 and slots > 0):
        raise InvariantError(f"not shares: {bad} bad, {idle} idle of {slots} slots")
    if bad > BAD_MAX:
        return max(round(slots * bad / max(1 - bad, 1 / slots)), 1)
    return -min(int(slots * idle), slots - 1)
