"""The last minute, its percentiles, and what it says about cores."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tenantdl.daemon.observe.exposition import Family, text
from tenantdl.daemon.observe.sizing import advise
from tenantdl.daemon.observe.window import SECONDS, Window, bound, bucket, percentile, total
from tenantdl.load.status import TenantStatus
from tenantdl.units import MS, SECOND, Ns


@pytest.mark.parametrize("latency", [0, 1, 10_000, 10_001, 123_456, 7 * MS, 90 * SECOND])
def test_a_latency_is_at_most_its_buckets_end_and_within_nine_percent(latency: int) -> None:
    number = bucket(latency)
    assert latency <= bound(number) + 1
    assert number == 0 or latency > bound(number - 1) - 1
    assert bound(number) <= max(10_000, 1.091 * latency)


def test_percentiles() -> None:
    latencies = Counter(bucket(ms * MS) for ms in range(1, 101))
    assert percentile(latencies, 0.5) == bound(bucket(50 * MS))
    assert percentile(latencies, 1.0) == bound(bucket(100 * MS))
    assert percentile(Counter(), 0.5) is None


def test_a_minute_is_kept_and_no_more() -> None:
    window = Window()
    for second in range(200):
        window.at(Ns(second * SECOND + 5)).answered += 1
        window.at(Ns(second * SECOND + 6)).refused["expired"] += 1
    whole = total(window.seconds(Ns(199 * SECOND)))
    assert (whole.answered, whole.refused["expired"]) == (SECONDS, SECONDS)
    assert total(window.seconds(Ns(300 * SECOND))).answered == 0


def tenant(
    in_time: int, late: int = 0, refused: int = 0, alone_ms: float = 2.0, name: str = "t"
) -> TenantStatus:
    return TenantStatus(
        name=name,
        models=("m",),
        qos_ms=10,
        queue=0,
        queue_max=9,
        answered=in_time + late,
        in_time=in_time,
        refused={"expired": refused} if refused else {},
        attainment=None,
        rate=1.0,
        p50_ms=1.0,
        p95_ms=1.0,
        p99_ms=1.0,
        queue_ms=0.0,
        compute_ms=2.0,
        alone_ms=alone_ms,
        core_share=0.1,
        histogram=(),
        seconds=(),
    )


@pytest.mark.parametrize(
    ("tenants", "cores", "busy", "wanted", "said"),
    [
        ([tenant(10)], 4, 0.5, 4, "Too few requests"),
        ([tenant(100)], 4, 0.8, 4, "It fits"),
        ([tenant(100)], 4, 0.3, 2, "2 could go"),
        ([tenant(75, late=25)], 4, 0.2, 4, "Not for lack of cores: 25.0 % late"),
        ([tenant(75, late=20, refused=5)], 4, 1.0, 5, "Add 1: 25.0 % late or refused"),
        (
            [tenant(100), tenant(0, late=100, alone_ms=12, name="big")],
            4,
            0.8,
            4,
            "big: the model alone",
        ),
    ],
)
def test_advice(
    tenants: list[TenantStatus], cores: int, busy: float, wanted: int, said: str
) -> None:
    advice = advise(tenants, cores, busy)
    assert advice.wanted == wanted
    assert said in advice.why


def test_the_text_format_is_read_by_prometheus() -> None:
    gauge = Family("a_seconds", "gauge", "A")
    gauge.add(0.25, tenant='quoted "x"\\\n')
    histogram = Family("b", "histogram", "B")
    histogram.histogram((0.1, 1.0), (3, 0, 2), 12.5)
    families = list(text_string_to_metric_families(text([gauge, histogram]).decode()))
    (sample,) = families[0].samples
    assert (sample.value, sample.labels) == (0.25, {"tenant": 'quoted "x"\\\n'})
    values = {(s.name, s.labels.get("le")): s.value for s in families[1].samples}
    assert values == {
        ("b_bucket", "0.1"): 3,
        ("b_bucket", "1"): 3,
        ("b_bucket", "+Inf"): 5,
        ("b_sum", None): 12.5,
        ("b_count", None): 5,
    }
