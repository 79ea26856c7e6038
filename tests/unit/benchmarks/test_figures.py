import json

import numpy as np
import pytest

from benchmarks.checkpoint import lost_seconds
from benchmarks.common import BenchmarkError, Spread
from benchmarks.corpus import MEAN_TOKENS, Padding, regroup
from benchmarks.learning import Point, crossing, crossing_share, curve_of, mean_curve
from benchmarks.links import Link, Step, efficiency, exposed_seconds, ring_seconds
from benchmarks.peers.settings import row_order
from benchmarks.throughput import SIZES, speed_from_metrics, verdicts

LINK = Link("a link", bytes_per_second=1e9, latency=0.0)


def write_metrics(path, points):
    path.write_text("".join(json.dumps(point) + "\n" for point in points))
    return path


def point(step, time, elapsed, speed):
    return {
        "epoch": 0,
        "step": step,
        "global_step": step,
        "time": time,
        "elapsed_seconds": elapsed,
        "tokens_per_second": speed,
    }


def test_speed_counts_all_time_between_the_warm_up_and_the_last_point(tmp_path):
    points = [
        point(1, 110, 10, 1),
        point(2, 112, 2, 100),
        point(3, 114, 2, 100),
        point(4, 118, 4, 50),
    ]
    result = speed_from_metrics(write_metrics(tmp_path / "m", points), warmup_seconds=11)
    assert result["tokens"] == 400  # of the last two: the second only starts the span
    assert result["seconds"] == 6
    assert result["warmup_seconds"] == 12
    with pytest.raises(BenchmarkError, match="raise --seconds"):
        speed_from_metrics(tmp_path / "m", warmup_seconds=17)


def test_verdicts_name_the_best_peer():
    speeds = {name: Spread.of([v]) for name, v in {"ours": 400, "upstream": 100, "hf": 390}.items()}
    lines = verdicts("512x8", SIZES["512x8"], speeds, {"measured": 1e12}, on_gpu=False)
    assert lines[0] == "- 512x8: ours / upstream: 4.00× (≥ 4.00×: met)"
    assert "1.03× (≥ 1.05×: **missed**)" in lines[1]


def test_padding():
    found = Padding.of([2, 4, 10], max_seq_len=4)
    assert found.fill == pytest.approx(10 / 12)
    assert found.lost == pytest.approx(6 / 16)


def test_regrouped_documents_keep_every_line_and_have_usual_lengths():
    texts = [f"text {n}\nits second line of words" for n in range(20_000)]
    documents = list(regroup(texts))
    kept = [line for document in documents for line in document.split("\n") if line]
    assert kept == [line for text in texts for line in text.split("\n")]
    mean_characters = np.mean([len(document) for document in documents])
    assert mean_characters == pytest.approx(MEAN_TOKENS * 2.74, rel=0.1)


def test_row_order_visits_every_row_in_each_epoch():
    order = row_order(5, 12)
    assert len(order) == 12
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]


def test_lost_seconds_are_the_copy_and_the_slow_steps_beside_the_write():
    def step(end, elapsed, copy=0.0):
        return {"time": end, "elapsed_seconds": elapsed, "checkpoint_seconds": copy}

    points = [step(1, 1), step(2, 1), step(3.6, 1.6, copy=0.1), step(4.6, 1), step(5.6, 1)]
    saves = [{"time": 3.0, "seconds": 0.9}]  # under way from 2.1 to 3.0
    assert lost_seconds(points, saves) == pytest.approx(0.1 + 0.5)
    points[2] = step(3.6, 0.7, copy=0.1)  # noise: faster than the free steps
    assert lost_seconds(points, saves) == pytest.approx(0.1)
    with pytest.raises(BenchmarkError, match="no save"):
        lost_seconds(points, [])


def test_ring_all_reduce_moves_each_byte_twice_less_a_share():
    assert ring_seconds(1e9, 1, LINK) == 0
    assert ring_seconds(1e9, 2, LINK) == pytest.approx(1.0)
    assert ring_seconds(1e9, 4, LINK) == pytest.approx(1.5)
    slow_start = Link("a link", 1e9, latency=0.1)
    assert ring_seconds(1e9, 4, slow_start) == pytest.approx(1.5 + 0.6)


def test_only_what_outlasts_the_backward_pass_is_waited_for():
    hidden = Step(gradient_bytes=1e9, micro_step_seconds=30, accumulation_steps=1)
    assert exposed_seconds(hidden, 2, LINK, bucket_bytes=1e7) == pytest.approx(0.01)
    bare = Step(gradient_bytes=1e9, micro_step_seconds=0.3, accumulation_steps=1)
    assert exposed_seconds(bare, 2, LINK, bucket_bytes=1e7) == pytest.approx(0.8)
    assert efficiency(bare, 2, LINK) == pytest.approx(0.3 / 1.1)
    assert efficiency(bare, 1, LINK) == 1
    often = Step(gradient_bytes=1e9, micro_step_seconds=0.3, accumulation_steps=8)
    assert efficiency(often, 2, LINK) > efficiency(bare, 2, LINK)


CURVE = [Point(0, 0, 8.0), Point(100, 10, 6.0), Point(200, 20, 5.0)]


def test_crossing_lies_between_two_scores():
    assert crossing(CURVE, 5.5) == Point(150, 15, 5.5)
    assert crossing(CURVE, 8.5) == CURVE[0]
    assert crossing(CURVE, 4.9) is None


def test_share_of_upstreams_tokens_and_time():
    theirs = [Point(0, 0, 8.0), Point(1000, 50, 5.5)]
    assert crossing_share(CURVE, theirs) == {"tokens": 15.0, "seconds": 30.0}
    assert crossing_share([Point(100, 10, 6.0)], theirs) is None


def test_mean_curve():
    shifted = [Point(p.tokens, p.seconds + 2, p.loss + 1) for p in CURVE]
    assert mean_curve([CURVE, shifted])[1] == Point(100, 11, 6.5)


def test_curve_counts_training_seconds_alone(tmp_path):
    def trained(step, elapsed, tokens):
        return {**point(step, 0, elapsed, 1), "tokens": tokens}

    def scored(step, loss):
        return {"time": 0, "epoch": 0, "step": step, "global_step": step, "eval_loss": loss}

    records = [trained(1, 2.5, 10), scored(1, 7.0), trained(2, 3.0, 20), scored(2, 6.0)]
    path = write_metrics(tmp_path / "m", records)
    assert curve_of(path) == [Point(10, 2.5, 7.0), Point(20, 5.5, 6.0)]
