"""The report as one HTML page that needs nothing else: no network, no other file.

Everything that comes from a run passes through ``words.text``. The content policy in the head
allows this page's own script and no other, so that not even a slip there could run anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from minimind import __version__
from minimind.charts.charts import Chart, Curve, build_charts
from minimind.config import TrainConfig
from minimind.report.figures import figures
from minimind.report.read import RunRecord
from minimind.report.svg import COLOURS, draw
from minimind.report.tidy import Record
from minimind.report.timeline import time_cards
from minimind.report.words import counted, moment, share, text
from minimind.system.terminal import count_text, number_text, size_text

SHOWN_SAMPLES = 6
"""Samples of one prompt that are in sight; the others unfold."""


def render(runs: Sequence[RunRecord], title: str = "", logs: Sequence[str] | None = None) -> str:
    """The whole page.

    Args:
        logs: the last lines of each run's log, in a page that asks for itself again and again.
    """
    title = title or " · ".join(run.label for run in runs)
    script = _asset("page.js") + ("" if logs is None else _asset("live.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    if logs is not None:
        policy += "; connect-src 'self'"
    sections = [
        _header(runs, title),
        _tiles(runs[0]) if len(runs) == 1 else _comparison(runs),
        _charts(runs),
        _section("Time", time_cards(runs)),
        _samples(runs),
        _logs(runs, logs or ()),
        _configuration(runs),
        _environment(runs),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{_asset('page.css')}</style></head>\n"
        f"<body><main>\n{chr(10).join(filter(None, sections))}\n"
        f"<footer>Written by minimind report {text(__version__)} on "
        f"{moment(max(run.now for run in runs))}, from the run folder alone.</footer>\n"
        f"</main>\n<script>{script}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}</section>" if body else ""


def _header(runs: Sequence[RunRecord], title: str) -> str:
    if len(runs) > 1:
        names = "".join(
            f'<span class="c{n % COLOURS}"><span class="swatch"></span>{text(run.label)}</span>'
            for n, run in enumerate(runs)
        )
        return f'<header><h1>{text(title)}</h1><div class="keys">{names}</div></header>'
    run = runs[0]
    lines = [_model_words(run), text(run.reason)]
    said = "".join(f'<p class="soft">{line}</p>' for line in lines if line)
    return (
        f'<header><h1>{text(title)} <span class="state {text(run.state)}">{text(run.state)}'
        f"</span></h1>{said}</header>"
    )


def _model_words(run: RunRecord) -> str:
    config, environment = run.config, run.environment
    words = []
    if "hidden_size" in config:
        kind = f"{config.get('num_experts')} experts" if config.get("use_moe") else "dense"
        words.append(f"{config.get('num_hidden_layers')} layers of {config['hidden_size']}, {kind}")
    parameters = environment.get("parameters")
    if isinstance(parameters, int) and 0 < parameters < 1 << 50:
        words.append(f"{count_text(parameters)} parameters")
    if "ranks" in environment:
        ranks = environment["ranks"]
        words.append(f"{ranks} {'rank' if ranks == 1 else 'ranks'}, {environment.get('device')}")
    return text(" · ".join(map(str, words)))


def _tiles(run: RunRecord) -> str:
    tiles = "".join(
        f'<div class="tile"><span>{name}</span><b>{text(figure)}</b>'
        f"<small>{text(remark)}</small></div>"
        for name, figure, remark in figures(run)
        if figure != "–"
    )
    return f'<div class="tiles">{tiles}</div>'


def _comparison(runs: Sequence[RunRecord]) -> str:
    heads = "".join(
        f'<th class="c{n % COLOURS}">{text(run.label)}<small>{text(run.state)}</small></th>'
        for n, run in enumerate(runs)
    )
    rows = "".join(_row(row) for row in zip(*map(figures, runs), strict=True))
    return (
        f'<div class="card scroll"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(row: Sequence[tuple[str, str, str]]) -> str:
    """One figure of all runs; a remark that they share stands once, by the name."""
    shared = row[0][2] if len({remark for _, _, remark in row}) == 1 else ""
    cells = "".join(
        f"<td>{text(figure)}<small>{'' if shared else text(remark)}</small></td>"
        for _, figure, remark in row
    )
    return f"<tr><th>{row[0][0]}<small>{text(shared)}</small></th>{cells}</tr>"


def _charts(runs: Sequence[RunRecord]) -> str:
    charts = build_charts(runs)
    if not charts:
        return _section("Curves", '<div class="card soft">No point has been logged yet.</div>')
    first, *others = (_figure_of(chart, len(runs)) for chart in charts)
    wide = f'<div class="card wide">{first}</div>'
    rest = "".join(f'<div class="card">{figure}</div>' for figure in others)
    return _section("Curves", f'{wide}<div class="grid2 below">{rest}</div>')


def _figure_of(chart: Chart, n_runs: int) -> str:
    alone = n_runs == 1 and len(chart.curves) == 1
    shown = [curve for curve in chart.curves if curve.x]
    # Of several runs, held-out curves have their run's colour and need no name each.
    named = [curve for curve in shown if n_runs == 1 or curve.style != "dashed"]
    keys = "".join(_key(chart, curve, alone) for curve in named)
    if len(named) < len(shown):
        keys += '<span><span class="swatch dashed"></span>held out</span>'
    if chart.marks and chart.key == "loss":
        keys += '<span><span class="swatch upright"></span>resumed</span>'
    unit = ", ".join(filter(None, (chart.unit, "logarithmic" if chart.log else "")))
    unit = f'<span class="soft small">{unit}</span>' if unit else ""
    return (
        f"<figure><figcaption><h3>{chart.title}</h3>{unit}"
        f'<span class="keys">{keys}</span></figcaption>{draw(chart)}</figure>'
    )


def _key(chart: Chart, curve: Curve, alone: bool) -> str:
    last = ""
    if curve.last is not None and curve.style != "faint":
        shown = share(curve.last) if chart.percent else number_text(curve.last)
        last = f" <b>{text(shown)}</b>"
    if alone:
        return f"<span>last{last}</span>"
    swatch = f'<span class="swatch {curve.style} c{curve.run % COLOURS}"></span>'
    return f"<span>{swatch}{text(curve.label)}{last}</span>"


def _samples(runs: Sequence[RunRecord]) -> str:
    """What a run wrote over time; of several runs, what each wrote last."""
    by_prompt: dict[str, list[tuple[int, Record]]] = {}
    for number, run in enumerate(runs):
        for record in run.samples:
            by_prompt.setdefault(record["prompt"], []).append((number, record))
    cards = []
    for prompt, found in by_prompt.items():
        found.sort(key=lambda entry: (entry[0], entry[1]["global_step"]))
        if len(runs) > 1:
            newest = dict(found)
            body = _sample_list(
                (f'<span class="c{n % COLOURS}">{text(runs[n].label)}</span>', record)
                for n, record in newest.items()
            )
        else:
            body = _samples_over_time([record for _, record in found])
        kind = "sample each" if len(runs) > 1 else "sample"
        cards.append(f'<div class="card {kind}"><h3>{text(prompt)} …</h3>{body}</div>')
    return _section("What it writes", f'<div class="grid2">{"".join(cards)}</div>' * bool(cards))


def _samples_over_time(records: list[Record]) -> str:
    last = len(records) - 1
    shown = {round(last * i / (SHOWN_SAMPLES - 1)) for i in range(SHOWN_SAMPLES)}
    rows = [(f"{record['global_step']:,}", record) for record in records]
    rest = [row for i, row in enumerate(rows) if i not in shown]
    more = f"<details><summary>{len(rest)} more</summary>{_sample_list(rest)}</details>"
    return _sample_list(rows[i] for i in sorted(shown)) + more * bool(rest)


def _sample_list(rows: Iterable[tuple[str, Record]]) -> str:
    """``rows``: a label in HTML, and the record."""
    shown = "".join(
        f'<dt>{label}</dt><dd dir="auto">{text(_close_up(record["text"]))}</dd>'
        for label, record in rows
    )
    return f"<dl>{shown}</dl>"


def _close_up(sample: str) -> str:
    """Without empty lines, which a young model writes many of."""
    return "\n".join(line.strip() for line in sample.splitlines() if line.strip())


def _logs(runs: Sequence[RunRecord], logs: Sequence[str]) -> str:
    cards = []
    for run, log in zip(runs, logs, strict=False):
        name = f'<h3 class="head">{text(run.label)}</h3>' if len(runs) > 1 else ""
        if log:
            cards.append(f'<div class="card">{name}<pre class="log">{text(log)}</pre></div>')
    return _section("Log", "".join(cards))


def _configuration(runs: Sequence[RunRecord]) -> str:
    """What was chosen, in sight; what was left at its default, or is alike in all runs, folded."""
    keys = sorted(dict.fromkeys(key for run in runs for key in run.config), key=_is_place)
    if not keys:
        return ""
    if len(runs) == 1:
        config = {key: runs[0].config[key] for key in keys}
        defaults = TrainConfig().to_dict()
        chosen = {key: value for key, value in config.items() if value != defaults.get(key)}
        rest = {key: value for key, value in config.items() if key not in chosen}
        body = f"{_pairs(chosen)}{_folded(rest, 'left at the default')}"
        return _section("Configuration", f'<div class="card">{body}</div>')
    unlike = [key for key in keys if len({repr(run.config.get(key)) for run in runs}) > 1]
    alike = {key: runs[0].config.get(key) for key in keys if key not in unlike}
    heads = "".join(
        f'<th class="c{n % COLOURS}">{text(run.label)}</th>' for n, run in enumerate(runs)
    )
    rows = "".join(
        f"<tr><th>{text(key)}</th>"
        + "".join(f"<td>{text(run.config.get(key, '–'))}</td>" for run in runs)
        + "</tr>"
        for key in unlike
    )
    table = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    if not unlike:
        table = '<p class="soft">The same in all runs.</p>'
    return _section(
        "Configuration",
        f'<div class="card"><div class="scroll">{table}</div>'
        f"{_folded(alike, 'alike in all runs')}</div>",
    )


def _is_place(flag: str) -> bool:
    """Whether a flag names a folder or a file: what was trained comes before where."""
    return flag.endswith(("_dir", "_path"))


def _folded(values: Record, words: str) -> str:
    if not values:
        return ""
    number = counted(len(values), "more flag")
    return f"<details><summary>{number}, {words}</summary>{_pairs(values)}</details>"


def _pairs(values: Record) -> str:
    rows = "".join(
        f"<div><dt>{text(key)}</dt><dd>{text(value) or '–'}</dd></div>"
        for key, value in values.items()
    )
    return f'<dl class="pairs">{rows}</dl>'


def _environment(runs: Sequence[RunRecord]) -> str:
    cards = []
    for run in runs:
        facts = {key: value for key, value in run.environment.items() if key != "time"}
        facts |= run.submission
        for file, size, written in run.checkpoints:
            facts[file] = f"{size_text(size)}, {moment(written)}"
        if facts:
            name = f'<h3 class="head">{text(run.label)}</h3>' if len(runs) > 1 else ""
            cards.append(f'<div class="card">{name}{_pairs(facts)}</div>')
    return _section("Environment", "".join(cards))
