from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from minimind.system.signals import (
    IGNORED_BY_BATCH_SHELL,
    IGNORED_BY_WORKERS,
    STOP_SIGNALS,
    StopFlag,
    StopRequested,
    heeded,
    ignore,
)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_in_preparation_a_signal_raises(number: signal.Signals) -> None:
    with StopFlag().installed(), pytest.raises(StopRequested, match=number.name):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_in_training_a_signal_sets_the_flag_only(number: signal.Signals) -> None:
    with StopFlag().installed() as flag:
        flag.raising = False
        os.kill(os.getpid(), number)
        assert flag.signal_number == number
        assert flag.signal_name == number.name


def test_the_first_signal_is_remembered() -> None:
    with StopFlag().installed() as flag:
        flag.raising = False
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.signal_name == "SIGUSR2"


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with StopFlag().installed():
        assert [signal.getsignal(number) for number in STOP_SIGNALS] != before
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_second_interrupt_ends_the_process_at_once() -> None:
    code = (
        "import os, signal; from minimind.system.signals import StopFlag\n"
        "with StopFlag().installed() as flag:\n"
        "    flag.raising = False\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('one', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('two', flush=True)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 130
    assert out.stdout == "one\n"


def test_outside_of_the_main_thread_nothing_is_installed() -> None:
    seen: list[int] = []

    def work() -> None:
        with StopFlag().installed() as flag:
            seen.append(flag.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


def test_no_stop_signal_ends_what_outlives_it() -> None:
    assert set(STOP_SIGNALS) <= set(IGNORED_BY_WORKERS)
    assert set(STOP_SIGNALS) - {signal.SIGHUP} <= set(IGNORED_BY_BATCH_SHELL)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag().installed() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
            assert flag.signal_number == 0
            with pytest.raises(StopRequested, match="SIGTERM"):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_a_hangup_is_left_to_who_ignores_it() -> None:
    before = {n: signal.signal(n, signal.SIG_IGN) for n in STOP_SIGNALS}
    try:
        assert set(heeded(STOP_SIGNALS)) == set(STOP_SIGNALS) - {signal.SIGHUP}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert heeded(STOP_SIGNALS) == list(STOP_SIGNALS)


def test_an_ignored_signal_does_nothing() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    try:
        ignore([signal.SIGUSR1])
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
