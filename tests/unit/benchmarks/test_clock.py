import pytest

from benchmarks.peers.clock import UpdateClock


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_counts_whole_updates_after_the_warm_up():
    time = Time()
    waits = []
    clock = UpdateClock(5, 10, synchronize=lambda: waits.append(time.now), now=time)
    ends = []
    for _ in range(10):
        time.now += 3
        ends.append(clock.update(100))
        if ends[-1]:
            break
    # Boundaries at 3, 6 (the first after 5 s: the start), 9, 12, 15, 18 (12 s ≥ 10 s: the end).
    assert ends == [False] * 5 + [True]
    result = clock.result()
    assert (result["tokens"], result["seconds"], result["updates"]) == (400, 12, 4)
    assert result["tokens_per_second"] == pytest.approx(400 / 12)
    assert result["warmup_seconds"] == 6
    assert waits == [106, 118]


def test_the_first_update_compiles_and_never_counts():
    time = Time()
    clock = UpdateClock(0, 1, now=time)
    time.now += 60
    assert not clock.update(100)
    time.now += 2
    assert clock.update(100)
    assert clock.result()["tokens_per_second"] == 50


def test_a_run_that_ends_early_has_no_result():
    clock = UpdateClock(0, 10)
    clock.update(1)
    with pytest.raises(ValueError, match="more data"):
        clock.result()
