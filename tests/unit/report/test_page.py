from __future__ import annotations

import base64
import hashlib
import json
import re
import string
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimind.report.figures import summary
from minimind.report.page import render
from minimind.report.read import read_run
from tests.unit.report.folders import (
    EVENTS,
    METRICS,
    START,
    evaluation,
    point,
    sample,
    write_done,
    write_lines,
    write_output,
    write_run,
)

HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(2)>\'"&\x07\ud800'
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """A page as a browser takes it: its elements, its text, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(*folders: Path, title: str = "", **values: Any) -> Page:
    return Page(render([read_run(folder, **values) for folder in folders], title))


def test_the_page_of_a_run_tells_what_it_has_to_tell(tmp_path: Path) -> None:
    run = write_done(tmp_path / "mine", samples=[sample(100)], hidden_size=256)
    page = page_of(run)
    charts = {label.partition(" over ")[0] for a in page.named("svg") if (label := a["aria-label"])}
    assert charts == {
        *("Loss", "Learning rate", "Gradient norm", "Throughput", "MFU", "Memory"),
        "Held-out bits per byte",
    }
    for words in (
        "mine done",
        "8 layers of 256, dense · 4.98M parameters · 2 ranks, Some CPU",
        "held-out loss 2.560 1.750 bits per byte",
        "steps 100 100% of 100",
        "speed 1,000 tokens a second",
        "MFU 25.0% of the peak",
        "interruptions 1 20 steps done twice",
        "1 lost a node 20 steps lost",
        "step 0 to 60 on n1, n2 · 72 s",
        "2 finished step 40 to 100 on n3, n4 · 66 s",
        "waiting for data 5.0% forward and backward 70.0% optimiser 10.0% checkpoint 5.0%",
        "The … 100 sea",
        "hidden_size 256",
        "more flags, left at the default",
        "partition low",
    ):
        assert words in page.text
    assert "private" not in page.html


def test_the_page_says_which_rank_the_others_wait_for(tmp_path: Path) -> None:
    slow = {"slowest_rank": 3, "slowest_node": "n<2>", "slowest_share": 0.25}
    run = write_run(tmp_path / "run", metrics=[point(step, **slow) for step in range(10, 60, 10)])
    said = "rank 3 on n<2> was the slowest in 5 of 5 log lines; the others waited 25% of the time"
    assert said in page_of(run).text


def test_the_page_says_that_an_attempt_went_back(tmp_path: Path) -> None:
    older = [{**e, "step": 20} if e["event"] in ("started", "resumed") else e for e in EVENTS[5:]]
    run = write_done(tmp_path / "mine", events=[*EVENTS[:5], *older])
    assert "2 finished went back from step 40 to 20" in page_of(run).text


def test_goodput_and_lost_time_are_those_of_the_summary(tmp_path: Path) -> None:
    run = read_run(write_done(tmp_path / "mine"))
    found = summary(run)
    ledger = found["ledger"]
    assert ledger["lost_steps"] == 20
    # A third of 62 s in which 60 steps were made and 40 saved.
    assert ledger["lost"] == pytest.approx(62 / 3)
    assert f"goodput {100 * ledger['goodput']:.1f}% of 2 min 46 s" in Page(render([run])).text
    assert [a["cause"] for a in found["attempts"]] == ["node_failure", "done"]
    assert found["loss"] == pytest.approx(2.06)
    json.dumps(found, allow_nan=False)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = page_of(write_done(tmp_path / "mine", samples=[sample(100)]))
    assert not re.search(r"https?://|//[a-z]|@import|url\(", page.html)
    assert not [a for _, a in page.elements if {"src", "href"} & a.keys()]
    (script,) = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (a["content"] for a in page.named("meta") if "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_text_is_text(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "").replace("\x07", "").replace("\ud800", "")
    metrics = [point(100), {**evaluation(100), "event": HOSTILE}]
    events = [
        {**EVENTS[0], "cluster": HOSTILE},
        {**EVENTS[1], "nodes": [HOSTILE]},
        {"time": START + 15, "event": "failed", "error": HOSTILE},
        {**EVENTS[4], "cause": HOSTILE},
    ]
    final = {"cause": HOSTILE, "reason": HOSTILE}
    samples = [sample(100, HOSTILE, HOSTILE)]
    run = write_run(tmp_path / name, events, metrics, final, samples, wandb_project=HOSTILE[:-1])
    for facts in ("spec.json", "out/environment.json"):
        keys = ("partition", "image", "device", "ranks", HOSTILE)
        (run / facts).write_text(json.dumps(dict.fromkeys(keys, HOSTILE)))
    other = write_run(tmp_path / "other", events, metrics, final, samples, wandb_project="b")
    for page in (page_of(run), page_of(run, other), page_of(run, title=HOSTILE)):
        assert len(page.named("script")) == 1
        assert page.named("img") == []
        assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
        assert '</script><script>alert("1")' in page.text
        page.html.encode("utf-8")


def test_chinese_and_other_writing_stays_as_it_is(tmp_path: Path) -> None:
    words = "今天\u3000天气很好。 naïve 👩\u200d🚀"
    run = write_done(tmp_path / "夜间训练", samples=[sample(100, "今天天气", words)])
    page = page_of(run)
    assert "夜间训练 done" in page.text
    assert words in page.html
    assert page.named("meta")[0] == {"charset": "utf-8"}


@pytest.mark.parametrize(
    "metrics",
    [[], [point(1)], [point(1, loss=float("nan"), grad_norm=float("inf"))], METRICS[:3]],
    ids=["no point", "one point", "not a number", "three points"],
)
def test_a_run_that_has_hardly_begun(tmp_path: Path, metrics: list[dict[str, Any]]) -> None:
    root = write_run(tmp_path / "young", EVENTS[:3], metrics)
    page = page_of(root, clock=lambda: START + 25)
    assert "young running" in page.text
    assert ("No point has been logged yet" in page.text) == (not metrics)
    early = page_of(root, clock=lambda: START - 1000)  # by a clock that is slow
    assert re.search(r"1 goes on step 0 to \d+ on n1, n2 · 0 s", early.text)
    assert "nan" not in " ".join(a["d"] or "" for a in page.named("path"))


def test_a_failed_run_tells_why(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "events.jsonl",
        [
            *EVENTS[:2],
            {"time": START + 12, "event": "failed", "error": "DataError: no such file"},
            {"time": START + 13, "event": "attempt_ended", "attempt": 1, "cause": "config"},
        ],
    )
    (tmp_path / "STOPPED").write_text('{"cause": "config", "reason": "bad flags or data"}')
    page = page_of(tmp_path)
    assert "failed bad flags or data" in page.text
    assert "1 refused its flags or data DataError: no such file no step on n1, n2" in page.text


def test_several_runs_are_compared(tmp_path: Path) -> None:
    samples = [sample(50, text="early"), sample(100, text="late")]
    a = write_done(tmp_path / "a", samples=samples, optimizer="adamw", hidden_size=64)
    b = write_done(tmp_path / "b", samples=samples, optimizer="muon", hidden_size=64)
    c = write_output(tmp_path / "c", METRICS[:3], optimizer="muon", hidden_size=64)
    page = page_of(a, b, c, title="three of a kind")
    assert "three of a kind a b c" in page.text
    assert "loss nats per token 2.060 2.060 2.200" in page.text
    assert "steps 100 100% of 100 100 100% of 100 30 30% of 100" in page.text
    assert "optimizer adamw muon muon" in page.text
    assert "Loss by text seen" in page.text
    # Of each run what it wrote last, and no more.
    assert "The … a late b late" in page.text
    assert "early" not in page.text
    # Alike in all: not in the table of what differs.
    assert "hidden_size 64 64" not in page.text
    labels = [a["data-label"] for a in page.named("path") if "data-label" in a]
    assert labels[:6] == ["a", "b", "c", "a, held out", "b, held out", "a"]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
)
KEYS = [*point(1), "event", "eval_loss", "bits_per_byte", "attempt", "cause", "nodes", "exit_code"]
NAMES = st.sampled_from(["submitted", "attempt_started", "started", "resumed", "attempt_ended"])


@given(
    events=st.lists(
        st.fixed_dictionaries({"event": NAMES, "time": st.floats(0, 1e9)})
        | st.dictionaries(st.sampled_from(KEYS), VALUES),
        max_size=8,
    ),
    metrics=st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES), max_size=5),
    raw=st.binary(max_size=40) | st.text(string.printable, max_size=40).map(str.encode),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_line_of_any_file_breaks_the_page(
    tmp_path: Path, events: list[Any], metrics: list[Any], raw: bytes
) -> None:
    full = [point(step) | changes for step, changes in enumerate(metrics, 1)]
    (tmp_path / "out").mkdir(exist_ok=True)
    for name, records in (("events.jsonl", events), ("out/metrics.jsonl", full)):
        lines = "\n".join(map(json.dumps, [*EVENTS[:3], *records] if "event" in name else records))
        (tmp_path / name).write_bytes(lines.encode() + b"\n" + raw)
    for name in (
        "DONE",
        "spec.json",
        "out/environment.json",
        "out/config.toml",
        "out/samples.jsonl",
    ):
        (tmp_path / name).write_bytes(raw)
    page_of(tmp_path)
    json.dumps(summary(read_run(tmp_path)), allow_nan=False)
