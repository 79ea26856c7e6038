import sys

import pytest

from benchmarks.common import (
    BenchmarkError,
    Spread,
    alternate,
    environment,
    number,
    read_result,
    run_process,
    spread,
    table,
    trainer_command,
    verdict,
    write_section,
)


def test_spread_is_a_median_with_its_range():
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0, 3)
    assert Spread.of([1.0, 2.0]).median == 1.5
    assert spread([{"a": 4}, {"a": 6}], "a").median == 5
    with pytest.raises(BenchmarkError, match="no run"):
        Spread.of([])


def test_spread_shows_its_noise_only_where_there_are_runs_to_compare():
    assert str(Spread.of([1234.5, 1300, 1200])) == "1,234 (1,200–1,300)"
    assert str(Spread.of([0.5])) == "0.5"


@pytest.mark.parametrize(
    "value, text",
    [(0, "0.00"), (0.01234, "0.0123"), (1.234, "1.23"), (56.78, "56.8"), (1e6, "1,000,000")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_table_is_markdown():
    assert table(["a", "b"], [["x|y", 2.0], ["z", "3"]]) == (
        "| a | b |\n| :-- | --: |\n| x\\|y | 2.00 |\n| z | 3 |"
    )
    with pytest.raises(ValueError, match="1 values for 2 columns"):
        table(["a", "b"], [["x"]])


def test_a_miss_is_named():
    assert verdict(4.5, 4.0) == "4.50× (≥ 4.00×: met)"
    assert verdict(3.9, 4.0) == "3.90× (≥ 4.00×: **missed**)"
    assert verdict(0.5, 1.0, at_most=True, unit=" s") == "0.5 s (≤ 1.00 s: met)"
    assert "**missed**" in verdict(1.5, 1.0, at_most=True)


def test_runs_alternate(capsys):
    order = []
    results = alternate(["a", "b"], lambda name: order.append(name) or {"n": len(order)}, 2)
    assert order == ["a", "b", "a", "b"]
    assert [run["n"] for run in results["a"]] == [1, 3]


def test_section_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- a -->\nold\n<!-- /a -->\n\nafter\n")
    write_section(page, "a", "new\n")
    assert page.read_text() == "before\n\n<!-- a -->\nnew\n<!-- /a -->\n\nafter\n"
    write_section(page, "b", "more")
    assert page.read_text().endswith("after\n\n<!-- b -->\nmore\n<!-- /b -->\n")
    fresh = tmp_path / "docs" / "fresh.md"
    write_section(fresh, "a", "text")
    assert fresh.read_text() == "<!-- a -->\ntext\n<!-- /a -->\n"


def test_trainer_command():
    words = trainer_command(
        {"epochs": 2, "data_path": ["a", "b c"], "deterministic": True}, "--x 'y z'"
    )
    assert words[1:3] == ["-m", "minimind.train_pretrain"]
    assert words[3:] == [
        "--epochs",
        "2",
        "--data_path",
        "a",
        "b c",
        "--deterministic",
        "--x",
        "y z",
    ]


def test_a_failed_program_shows_its_last_lines():
    with pytest.raises(BenchmarkError, match=r"ended with 3:\n(.*\n)*why it failed"):
        run_process([sys.executable, "-c", "print('why it failed'); exit(3)"])


def test_the_last_result_line_counts():
    assert read_result('x\nBENCHMARK_RESULT {"a": 1}\nBENCHMARK_RESULT {"a": 2}\ny\n') == {"a": 2}
    with pytest.raises(BenchmarkError, match="no result"):
        read_result("x\n")


def test_peers_packages_stay_away_from_our_trainer(monkeypatch):
    monkeypatch.setenv("MINIMIND_EVENTS", "/somewhere")
    ours = environment(2)
    assert "peers" not in ours["PYTHONPATH"]
    assert "MINIMIND_EVENTS" not in ours
    assert ours["OMP_NUM_THREADS"] == "2"
    assert environment(peers=True)["PYTHONPATH"].endswith("peers")
