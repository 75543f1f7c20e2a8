"""Whether the daemon's thread stays awake, by who else wants its core."""

from __future__ import annotations

import asyncio
import time

from tenantdl.bench.peers import on_cores
from tenantdl.daemon.attention import Attention
from tenantdl.machine import usable_cores


async def turns(lanes_use: int) -> int:
    """How often an awake thread has asked for news since something happened, while lanes use
    those cores (a mask)."""
    asked = 0
    here = usable_cores()[0]
    with on_cores([here]):
        attention = Attention([here])
        loop = asyncio.get_running_loop()
        attention.start(loop)
        attention.look(time.monotonic_ns() + 10**12, lanes_use)
        for _ in range(5):
            asked += bool(attention._looking)
            await asyncio.sleep(0)
        attention.close()
        await asyncio.sleep(0)
    assert not attention._looking
    return asked


def test_it_looks_around_unless_a_lane_wants_its_core() -> None:
    assert asyncio.run(turns(lanes_use=0)) == 5
    assert asyncio.run(turns(lanes_use=1)) == 0
