import pytest
import torch

from benchmarks.peers.upstream import CurveHook, HookedLoader, SpeedHook, TimeIsUp, check_clone


class Recorder:
    def __init__(self):
        self.seen = []

    def begin(self):
        self.seen.append("begin")

    def micro_step(self, tokens):
        self.seen.append(tokens)


def batch(*scored):
    labels = torch.full((len(scored), 4), -100)
    for row, count in enumerate(scored):
        labels[row, :count] = 7
    return torch.zeros_like(labels), labels


def test_counts_the_positions_with_a_label_once_they_are_trained():
    recorder = Recorder()
    loader = HookedLoader([batch(3, 1), batch(4)], recorder)
    assert len(loader) == 2
    seen_at_each_batch = [list(recorder.seen) for _ in loader]
    assert seen_at_each_batch == [["begin"], ["begin", 4]]
    assert recorder.seen == ["begin", 4, 4]


def test_speed_counts_whole_windows_and_ends_the_run():
    hook = SpeedHook(warmup_seconds=0, seconds=0, accumulation_steps=2)
    hook.begin()
    for tokens in (1, 2, 10):  # the first window starts the clock; the next is half done
        hook.micro_step(tokens)
    hook.begin()  # an epoch's end cuts a window short
    hook.micro_step(20)
    with pytest.raises(TimeIsUp):
        hook.micro_step(30)
    assert hook.clock.result()["tokens"] == 50


def test_curve_keeps_weights_tokens_and_time(tmp_path):
    hook = CurveHook(tmp_path / "weights", interval=2)
    hook.model = torch.nn.Linear(2, 2, bias=False)
    hook.begin()
    for tokens in (5, 6, 7):
        hook.micro_step(tokens)
    hook.finish()
    assert [(p["micro_step"], p["tokens"]) for p in hook.points] == [(2, 11), (3, 18)]
    assert hook.points[0]["seconds"] <= hook.points[1]["seconds"]
    saved = torch.load(hook.points[1]["weights"], weights_only=True)
    assert torch.equal(saved["weight"], hook.model.weight)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="clone of upstream"):
        check_clone(tmp_path)
