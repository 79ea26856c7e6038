"""What reads files that others wrote, each as a function of their bytes, with valid files to begin
from. An error that is meant for the user is an answer; any other exception is a finding."""

from __future__ import annotations

import atexit
import bz2
import functools
import gzip
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import tomli_w
import torch
import zstandard

from launcher.inspect import run_state as state
from launcher.slurm import client as slurm
from launcher.slurm.sbatch import batch_script
from launcher.spec.job_spec import JobSpec
from launcher.spec.profile import load_profile
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import build_spec
from launcher.submit.sweep import points, read_grid
from minimind.cli.export import main as export
from minimind.config import TrainConfig, parse_args, read_config_file, write_config_file
from minimind.data.chunks import BadRow
from minimind.data.rows import read_texts
from minimind.data.token_store import DamagedStoreError, TokenStore
from minimind.data.tokenize.build import open_corpus
from minimind.data.tokenizer import load_tokenizer
from minimind.errors import ConfigError, DataError
from minimind.model import MiniMindForCausalLM
from minimind.report.page import render
from minimind.report.read import read_run
from minimind.telemetry.samples import sample_prompts
from tests.corpus import write_corpus, write_tokenizer
from tests.fuzz import test_run_folder as runs
from tests.fuzz import test_settings as given
from tests.fuzz.damage import in_one_line, say, to_json, weights_taken
from tests.fuzz.test_slurm_output import FILES as SLURM_ANSWERS
from tests.fuzz.test_slurm_output import read_answers
from tests.fuzz.test_text import JSON_FORMS, ROWS, tables
from tests.unit.export.helpers import make_model, write_checkpoint

FOLDER = Path(tempfile.mkdtemp(prefix="minimind-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


@dataclass(frozen=True)
class Reader:
    """Something that reads."""

    read: Callable[[bytes], bool]
    """True when it took the input, False when it refused it in words for the user."""
    valid: Callable[[], list[bytes]]
    longest: int = 4096
    """Bytes of an input: most of what breaks a reader is small."""


READERS: dict[str, Reader] = {}


def reader(
    valid: Callable[[], list[bytes]], longest: int = 4096
) -> Callable[[Callable[[bytes], bool]], Callable[[bytes], bool]]:
    """Add a function to the list."""

    def add(read: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        READERS[read.__name__] = Reader(read, functools.cache(valid), longest)
        return read

    return add


def written(name: str, data: bytes) -> Path:
    """A file with this content, always at the same place."""
    path = FOLDER / name
    path.write_bytes(data)
    return path


@reader(lambda: [tomli_w.dumps(given.CONFIG).encode()])
def config(data: bytes) -> bool:
    """A file for ``--config``."""
    path = written("config.toml", data)
    try:
        found = parse_args(["--config", str(path)])
    except ConfigError as error:
        in_one_line(error)
        return False
    write_config_file(found, path)
    assert TrainConfig(**read_config_file(path)) == found
    return True


@reader(lambda: [tomli_w.dumps(given.PROFILE).encode()])
def profile(data: bytes) -> bool:
    """A cluster's profile, up to the batch script that it makes."""
    path = written("profile.toml", data)
    try:
        options = {"name": "fuzz", "runs_dir": str(FOLDER)}
        spec = build_spec(options, [], load_profile(path), cluster="slurm", site=None)
    except ConfigError as error:
        in_one_line(error)
        return False
    assert JobSpec.from_json(spec.to_json()) == spec
    lines = batch_script(spec).split("\n")
    assert all(line.isprintable() for line in lines if line.startswith("#SBATCH"))
    return True


@reader(lambda: [tomli_w.dumps(given.GRID).encode()])
def grid(data: bytes) -> bool:
    """A sweep's grid."""
    try:
        assert points(read_grid(written("grid.toml", data)))
    except ConfigError as error:
        in_one_line(error)
        return False
    return True


@reader(lambda: [to_json(runs.SPEC)])
def job_spec(data: bytes) -> bool:
    """The description of a job in its run folder."""
    run = RunFolder(FOLDER)
    run.spec_file.write_bytes(data)
    try:
        spec = run.spec()
    except ConfigError as error:
        in_one_line(error)
        return False
    run.write_spec(spec)
    assert run.spec() == spec
    return True


@reader(lambda: [runs.lines(runs.EVENTS) + b"\0" + runs.lines(runs.POINTS)])
def run_folder(data: bytes) -> bool:
    """Event log and metrics, through ``launcher status`` and ``minimind report``."""
    events, _, metrics = data.partition(b"\0")
    root = FOLDER / "run"
    out = root / "out"
    out.mkdir(parents=True, exist_ok=True)
    run = RunFolder(root)
    run.spec_file.write_bytes(to_json({**runs.SPEC, "run_dir": str(root), "save_dir": str(out)}))
    run.events_file.write_bytes(events)
    (out / "metrics.jsonl").write_bytes(metrics)
    assert state.read_state(run, {}, state.Records.read(run)).name == "run"
    render([read_run(root)], None).encode("utf-8")
    return True


@reader(lambda: [path.read_bytes() for path in SLURM_ANSWERS])
def slurm_answer(data: bytes) -> bool:
    """What squeue, sinfo and scontrol print."""
    text = data.decode(errors="replace")
    done = subprocess.CompletedProcess([], 0, text, "")
    with mock.patch.object(slurm, "run", return_value=done):
        read_answers(text)
    return True


def _corpora() -> list[bytes]:
    plain = runs.lines(ROWS)
    pressed = [press(plain) for press in (gzip.compress, zstandard.compress, lzma.compress)]
    return [plain, *pressed, bz2.compress(plain), *JSON_FORMS, *tables().values()]


@reader(_corpora, 1 << 14)
def rows(data: bytes) -> bool:
    """A corpus; what it begins with says what it is."""
    path = written("rows", data)
    try:
        for row in read_texts(path):
            assert row.reason if isinstance(row, BadRow) else row.encode("utf-8") is not None
    except DataError as error:
        in_one_line(error)
        return False
    return True


def _store() -> Path:
    corpus = write_corpus(FOLDER / "tiny.jsonl", count=5)
    words = write_tokenizer(FOLDER / "tokenizer")
    return open_corpus([str(corpus)], str(words), cache_dir=str(FOLDER), n_workers=1).path


@reader(lambda: [(_store() / name).read_bytes() for name in ("meta.json", "offsets.npy")])
def token_store(data: bytes) -> bool:
    """A store's description, or one of its arrays."""
    store = FOLDER / "store"
    if not store.exists():
        shutil.copytree(_store(), store)
    name = "offsets.npy" if data.startswith(b"\x93") else "meta.json"
    whole = (store / name).read_bytes()
    (store / name).write_bytes(data)
    try:
        opened = TokenStore.open(store)
        assert opened.offsets[-1] == len(opened.tokens)
    except DamagedStoreError:
        return False
    finally:
        (store / name).write_bytes(whole)
    return True


@reader(lambda: [(write_tokenizer(FOLDER / "tokenizer") / "tokenizer.json").read_bytes()], 1 << 16)
def tokenizer(data: bytes) -> bool:
    """A tokenizer's own file."""
    folder = FOLDER / "tokenizer"
    if not folder.exists():
        write_tokenizer(folder)
    (folder / "tokenizer.json").write_bytes(data)
    try:
        load_tokenizer(str(folder))
    except DataError as error:
        in_one_line(error)
        return False
    return True


@reader(lambda: [b"The\n\xe4\xbb\x8a\xe5\xa4\xa9\n", b'{"prompt": "The"}\n'])
def prompts(data: bytes) -> bool:
    """Prompts for texts over training; what they begin with says of which kind."""
    path = written(f"prompts{'.jsonl' if data[:1] in b'{[' else '.txt'}", data)
    try:
        found = sample_prompts(TrainConfig(sample_interval=1, sample_prompts=str(path)))
    except ConfigError as error:
        in_one_line(error)
        return False
    assert all(prompt.encode("utf-8") for prompt in found if prompt)
    return True


def _model() -> MiniMindForCausalLM:
    """So small that an input of some kilobytes is all of it."""
    return make_model(hidden_size=8, num_hidden_layers=1, vocab_size=16)


def _weights() -> list[bytes]:
    path, state = FOLDER / "valid.pth", _model().half().state_dict()
    torch.save(state, path)
    zipped = path.read_bytes()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return [zipped, path.read_bytes()]


@reader(_weights, 1 << 14)
def weights(data: bytes) -> bool:
    """What torch.save wrote."""
    return weights_taken(written("w.pth", data))


def _exported() -> list[bytes]:
    _model().save_pretrained(FOLDER / "valid")
    return [(FOLDER / "valid" / name).read_bytes() for name in ("config.json", "model.safetensors")]


@reader(_exported, 1 << 14)
def model_folder(data: bytes) -> bool:
    """An exported folder's settings, or its tensors."""
    folder = FOLDER / "hf"
    if not folder.exists():
        _model().save_pretrained(folder)
    name = "config.json" if data[:1] in (b"{", b"[", b" ") else "model.safetensors"
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(data)
    taken = weights_taken(folder)
    (folder / name).write_bytes(whole)
    return taken


def _gguf() -> list[bytes]:
    words = write_tokenizer(FOLDER / "words")
    weight = write_checkpoint(FOLDER / "valid.pt", make_model(hidden_size=16), words)
    path = FOLDER / "valid.gguf"
    arguments = ["--weight", str(weight), "--format", "gguf", "--out", str(path)]
    assert say(export, arguments)[0] == 0
    return [path.read_bytes()]


@reader(_gguf, 1 << 17)
def gguf_file(data: bytes) -> bool:
    """A file for llama.cpp."""
    return weights_taken(written("w.gguf", data))


def signal_nobody() -> None:
    """From now on, no process of this machine is signalled, whatever a file says."""

    def refuse(*_: object) -> None:
        raise AssertionError("a process was to be signalled")

    os.kill = refuse  # type: ignore[assignment]
