"""A profile as samples: encounters of a victim's variants with one neighbour, or with what another
model left in the caches of its core."""

from __future__ import annotations

import msgspec

from tenantdl.predict.samples import Party, Sample, mix_of
from tenantdl.profile.store import Store

# Slowdowns that are known worse (relative standard error) are no evidence of anything.
ERROR_MAX = 0.03


def encounters(store: Store) -> list[tuple[Sample, ...]]:
    """For each model and neighbour, what its variants were slowed down by it, as far as that is
    known to within 3 %."""
    solos = store.solos()
    parties = {n: msgspec.json.decode(solo.party, type=Party) for n, solo in solos.items()}
    stressors = store.neighbours()
    parties |= {n: msgspec.json.decode(text, type=Party) for n, text in stressors.items()}
    met: dict[tuple[str, str], list[Sample]] = {}
    for (victim, neighbour), measured in store.measured("corun").items():
        if victim in parties and neighbour in parties and measured.error <= ERROR_MAX:
            own, other = parties[victim], parties[neighbour]
            key = (victim.split("/v")[0], neighbour)
            mix = mix_of(own.model, [other.model])
            met.setdefault(key, []).append(Sample(mix, own, (other,), measured.slowdown))
    for (victim, before), measured in store.measured("before").items():
        if victim in parties and before in parties and measured.error <= ERROR_MAX:
            own, earlier = parties[victim], parties[before]
            mix = f"{own.model}<{earlier.model}"
            sample = Sample(mix, own, (), measured.slowdown, earlier)
            met.setdefault((victim.split("/v")[0], f"<{before}"), []).append(sample)
    return [tuple(sorted(found, key=lambda s: s.victim.variant)) for found in met.values()]
