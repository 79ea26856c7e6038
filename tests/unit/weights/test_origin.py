"""A weight file knows its tokenizer, wherever it is copied and whatever it is written as."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from minimind.cli.export import main as export
from minimind.config import TrainConfig
from minimind.data.tokenizer import SpecialTokens, load_tokenizer, tokenizer_identity
from minimind.errors import DataError, WeightsError
from minimind.training.inputs import open_tokenizer
from minimind.weights.origin import UNKNOWN, Origin, origin_of, with_origin
from minimind.weights.pretrained import open_pretrained
from minimind.weights.state_dict import read_weights
from tests.unit.data.helpers import TEXTS, make_tokenizer
from tests.unit.export.helpers import make_model


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_tokenizer(tmp_path_factory.mktemp("own")))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one of the same size."""
    texts = [text[::-1] for text in TEXTS]
    return Path(make_tokenizer(tmp_path_factory.mktemp("other"), texts=texts))


def origin(tokenizer: Path) -> Origin:
    return Origin.of_tokenizer(load_tokenizer(str(tokenizer)))


def write(file: Path, said: Origin = UNKNOWN) -> Path:
    torch.save(with_origin(make_model(vocab_size=300).state_dict(), said), file)
    return file


def bare(tokenizer: Path, folder: Path) -> Path:
    """The same tokenizer as ``tokenizer.json`` alone: it names no begin and no end."""
    folder.mkdir()
    shutil.copy(tokenizer / "tokenizer.json", folder)
    return folder


def test_an_identity_outlives_saving_anew(own: Path, other: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(own))
    tokenizer.save_pretrained(tmp_path / "again")
    content = json.loads((tmp_path / "again" / "tokenizer.json").read_text())
    (tmp_path / "again" / "tokenizer.json").write_text(json.dumps(content, indent=7))
    again = load_tokenizer(str(tmp_path / "again"))
    assert tokenizer_identity(again) == tokenizer_identity(tokenizer)
    assert tokenizer_identity(load_tokenizer(str(other))) != tokenizer_identity(tokenizer)


def test_another_way_of_cutting_is_another_tokenizer(own: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(own, tmp_path / "copy"))
    content = json.loads((copy / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (copy / "tokenizer.json").write_text(json.dumps(content))
    cut = load_tokenizer(str(copy))
    assert cut.get_vocab() == load_tokenizer(str(own)).get_vocab()
    assert tokenizer_identity(cut) != origin(own).tokenizer


def test_it_is_in_the_file_and_every_loader_of_state_dicts_takes_it(tmp_path: Path) -> None:
    said = Origin(step=7, tokenizer="abc", bos_id=1)
    model = make_model(vocab_size=300)
    torch.save(with_origin(model.state_dict(), said), tmp_path / "w.pth")
    found = torch.load(tmp_path / "w.pth", weights_only=True)
    assert origin_of(found) == said
    assert not make_model(vocab_size=300, seed=1).load_state_dict(found, strict=True).missing_keys
    assert set(found) == set(model.state_dict())
    # Whoever saves the tensors anew, as upstream's trainers do, leaves it behind.
    assert origin_of({name: tensor.half() for name, tensor in found.items()}) == UNKNOWN


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [1],
        {},
        {"minimind": 3},
        {"minimind": {"tokenizer": 5, "bos_id": -1, "eos_id": "2", "step": True}},
        {"minimind": {"bos_id": 1 << 40, "eos_id": 1 << 22}},
        {"minimind": {"tokenizer": "x" * 999}},
        {"minimind": {"tokenizer": "a\nb"}},
    ],
)
def test_what_others_wrote_there_says_nothing(tmp_path: Path, metadata: Any) -> None:
    state: Any = OrderedDict(w=torch.zeros(2))
    state._metadata = metadata
    torch.save(state, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").origin == UNKNOWN


def test_the_right_tokenizer_is_taken_in_silence(
    own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_pretrained(write(tmp_path / "w.pth", origin(own)), str(own))
    assert opened.tokenizer_folder == own
    assert caplog.text == ""


def test_another_tokenizer_of_the_same_size_is_refused(
    own: Path, other: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "w.pth", origin(own))
    with pytest.raises(WeightsError, match=r"ids of a text differ.*--allow_other_tokenizer") as e:
        open_pretrained(file, str(other))
    assert "\n" not in str(e.value)
    opened = open_pretrained(file, str(other), allow_other_tokenizer=True)
    assert opened.tokenizer_folder == other
    assert opened.origin.tokenizer == origin(own).tokenizer


def test_an_unknown_tokenizer_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(make_model(vocab_size=6400).state_dict(), tmp_path / "w.pth")
    opened = open_pretrained(tmp_path / "w.pth")
    assert opened.origin == UNKNOWN
    (record,) = caplog.records
    assert "does not say with which tokenizer it was trained; taking" in record.getMessage()


def test_who_names_a_tokenizer_is_believed_where_nothing_is_known(
    other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_pretrained(write(tmp_path / "w.pth"), str(other))
    assert opened.origin.tokenizer == origin(other).tokenizer
    assert caplog.text == ""


def test_begin_and_end_tokens_come_with_the_weights(own: Path, tmp_path: Path) -> None:
    """A tokenizer.json alone names none; the run's flags did."""
    folder = bare(own, tmp_path / "bare")
    opened = open_pretrained(write(tmp_path / "w.pth", origin(own)), str(folder))
    assert opened.special == SpecialTokens("<s>", "</s>")
    assert (opened.config.bos_token_id, opened.config.eos_token_id) == (1, 2)


def test_a_begin_token_that_the_weights_have_never_seen_is_refused(
    own: Path, tmp_path: Path
) -> None:
    folder = bare(own, tmp_path / "bare")
    file = write(tmp_path / "w.pth", origin(folder))
    assert open_pretrained(file, str(folder)).config.bos_token_id is None
    with pytest.raises(WeightsError, match="the begin token is 1, not none"):
        open_pretrained(file, str(own))


def test_a_token_that_is_not_there_is_named(own: Path) -> None:
    with pytest.raises(DataError, match=r"--bos_token <begin>: the tokenizer .* has no such token"):
        load_tokenizer(str(own), SpecialTokens(bos="<begin>"))


def words(source: Path, tokenizer: Path, form: str, out: Path) -> list[str]:
    flags = ["--weight", str(source), "--tokenizer_path", str(tokenizer), "--no_check"]
    return [*flags, "--format", form, "--out", str(out)]


@pytest.mark.parametrize(
    ("form", "name"), [("pth", "e.pth"), ("gguf", "e.gguf"), ("hf", "hf"), ("hf-minimind", "hm")]
)
def test_every_export_knows_its_tokenizer(
    own: Path, other: Path, tmp_path: Path, form: str, name: str
) -> None:
    source = write(tmp_path / "w.pth", origin(own))
    assert export(words(source, own, form, tmp_path / name)) == 0
    with pytest.raises(WeightsError, match="another tokenizer"):
        open_pretrained(tmp_path / name, str(other))
    assert open_pretrained(tmp_path / name, str(own)).origin.tokenizer == origin(own).tokenizer
    assert open_pretrained(tmp_path / name, str(other), allow_other_tokenizer=True)


def test_a_run_starts_from_a_folder_with_its_own_tokenizer_only(
    own: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, folder = write(tmp_path / "w.pth", origin(own)), tmp_path / "hf"
    assert export(words(source, own, "hf", folder)) == 0
    stored = read_weights(folder)
    caplog.clear()
    given = {"from_weight": str(folder), "tokenizer_path": str(other)}
    with pytest.raises(WeightsError, match=r"hf was trained with another tokenizer"):
        open_tokenizer(TrainConfig(**given), stored)
    insisted = open_tokenizer(TrainConfig(**given, allow_other_tokenizer=True), stored)
    assert insisted == origin(other)
    config = TrainConfig(from_weight=str(folder), tokenizer_path=str(own))
    assert open_tokenizer(config, stored) == origin(own)
    assert caplog.text == ""


def test_a_run_starts_from_weights_that_nothing_is_known_of_with_a_warning(
    own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "w.pth")
    config = TrainConfig(from_weight=str(file), tokenizer_path=str(own))
    assert open_tokenizer(config, read_weights(file)) == origin(own)
    assert "does not say with which tokenizer it was trained; this run takes" in caplog.text


def test_an_exported_folder_names_the_begin_and_end_of_the_run(own: Path, tmp_path: Path) -> None:
    folder = bare(own, tmp_path / "bare")
    source = write(tmp_path / "w.pth", origin(own))
    assert export(words(source, folder, "hf", tmp_path / "hf")) == 0
    tokenizer = load_tokenizer(str(tmp_path / "hf"))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert open_pretrained(tmp_path / "hf").special == SpecialTokens()
