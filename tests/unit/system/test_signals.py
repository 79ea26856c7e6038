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


DEAF = """
import ctypes, sys, threading
from minimind.system import signals
signals.LEAVE_SECONDS = signals.LEAVE_SECONDS_AFTER_SAVE = 0.2
flag = signals.StopFlag()
flag.raising = sys.argv[1] != "saved"
with flag.leaving_in_time(), flag.installed():
    try:
        print("up", flush=True)
        while sys.argv[1] != "blocked" and not flag.signal_number:
            threading.Event().wait(0.01)
    except BaseException:
        threading.Event().wait()
    if sys.argv[1] == "saved":
        flag.saved.set()
    # To lock it twice is a wait in which no handler runs, as one for other ranks is.
    mutex = ctypes.create_string_buffer(64)
    while True:
        try:
            ctypes.CDLL(None).pthread_mutex_lock(mutex)
        except BaseException:
            pass
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("blocked", "SIGTERM before training began: nothing to save\n"),
        ("swallowed", "SIGTERM before training began: nothing to save\n"),
        ("saved", "the checkpoint is on the disk; what is left to do takes too long\n"),
    ],
)
def test_a_process_with_nothing_to_save_leaves_in_time(what: str, said: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF, what],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (75, said)


def test_a_process_that_leaves_by_itself_is_left_alone() -> None:
    flag = StopFlag()
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with pytest.raises(StopRequested), flag.leaving_in_time(), flag.installed():
        os.kill(os.getpid(), signal.SIGTERM)
    after = signal.set_wakeup_fd(before)
    assert after == before
    assert not [t for t in threading.enumerate() if t.name == "stop"]


def test_a_worker_that_lives_on_keeps_nobody_from_leaving() -> None:
    code = """
import os, signal
from minimind.system.signals import StopFlag
with StopFlag().leaving_in_time():
    worker = os.fork()
    if worker == 0:
        signal.pause()
os.kill(worker, signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
