"""What is learned online, and how fast it follows."""

from __future__ import annotations

from tenantdl.sched.batching.learn import WINDOW, Learner


def test_a_guess_stands_until_something_is_known() -> None:
    learner = Learner(10, 0.5, [100])
    assert learner.alone(3).mean == 100
    assert learner.batch(4).mean == 10 + 0.5 * 4 * 100
    version = learner.version
    learner.arrived(3)
    learner.observe(3, 50)
    assert learner.version > version
    assert learner.batch_of(3, 2).mean == 10 + 0.5 * 2 * 50


def test_drift_shows_within_one_window() -> None:
    learner = Learner(0, 1.0, [100])
    learner.arrived(0)
    for _ in range(3 * WINDOW):
        learner.observe(0, 100)
    assert learner.alone(0).quantile(0.99) == 100
    for sample in range(WINDOW):
        learner.observe(0, 300)
        if sample == WINDOW // 8:
            assert learner.alone(0).quantile(0.95) == 300
    assert learner.alone(0).quantile(0.1) == 300


def test_the_mix_is_that_of_recent_arrivals() -> None:
    learner = Learner(0, 1.0, [100])
    for _ in range(WINDOW):
        learner.arrived(0)
    for number in range(WINDOW):
        learner.arrived(1 if number % 4 == 0 else 2)
    assert [share for share, _ in learner.mix()] == [0.25, 0.75]
    learner.observe(1, 400)
    assert learner.batch(1).mean == 0.25 * 400 + 0.75 * 100
