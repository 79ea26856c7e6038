from __future__ import annotations

import io

import pytest
import torch

from minimind.cli.chat import main
from minimind.data.tokenizer import load_tokenizer
from minimind.errors import ConfigError
from minimind.inference.chat import Conversation
from minimind.inference.sampling import Sampling
from tests.unit.export.helpers import make_model, write_weight

TEMPLATE = (
    "{% for m in messages %}{{ bos_token + m.role + '\n' + m.content + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ bos_token + 'assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def recomputed(model, tokenizer, turns, length, plain=False):
    """The greedy answer, with no cache at all."""
    text = "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns)
    text += "<|im_start|>assistant\n"
    if plain:
        text = "<|im_start|>" + "".join(turn["content"] for turn in turns)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    new = []
    with torch.inference_mode():
        while len(new) < length and tokenizer.eos_token_id not in new:
            new.append(int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax()))
    return tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("plain", [False, True], ids=["roles", "plain"])
def test_answers_over_the_kept_cache_equal_recomputed_ones(tokenizer, plain):
    model = make_model()
    talk = Conversation(model, tokenizer, Sampling(9, temperature=0), context=500, plain=plain)
    turns = []
    for said in ("The harbour", "雨下了一整夜", "and then"):
        turns.append({"role": "user", "content": said})
        pieces = []
        answer = talk.answer(said, pieces.append)
        assert "".join(pieces) == answer
        assert answer == recomputed(model, tokenizer, turns, 9, plain)
        turns.append({"role": "assistant", "content": answer})
    assert talk.turns == turns


def test_what_was_read_is_not_read_again(tokenizer):
    model = make_model()
    read = []
    model.register_forward_pre_hook(
        lambda _, __, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    talk = Conversation(model, tokenizer, Sampling(4, temperature=0), context=500)
    talk.answer("The old clock in the hall was wrong twice a day as well.", lambda _: None)
    first = read[0]
    read.clear()
    talk.answer("no", lambda _: None)
    whole = len(talk._ids(talk.turns[:-1]))
    assert read[0] <= whole - first


def test_old_turns_are_left_out_when_they_do_not_fit(tokenizer):
    model = make_model()
    sampling = Sampling(8, temperature=0)
    talk = Conversation(model, tokenizer, sampling, context=80)
    system = {"role": "system", "content": "short"}
    talk.turns.append(system)
    for said in ("Every queue looks short until you stand in it.", "b b b b b b b b", "c"):
        talk.answer(said, lambda _: None)
    shown = tokenizer.decode(talk._fitting_ids())
    assert len(talk._fitting_ids()) <= 72
    assert "short" in shown.partition("user")[0]
    assert "Every queue" not in shown


def test_an_interrupt_stops_the_answer_alone(tokenizer):
    model = make_model()
    talk = Conversation(model, tokenizer, Sampling(30, temperature=0), context=500)
    seen = []

    def impatient(text):
        seen.append(text)
        if len(seen) == 3:
            raise KeyboardInterrupt

    answer = talk.answer("The", impatient)
    assert answer.startswith("".join(seen[:2]))
    turns = [*talk.turns, {"role": "user", "content": "go on"}]
    assert talk.answer("go on", lambda _: None) == recomputed(model, tokenizer, turns, 30)


def test_the_command_talks_until_the_input_ends(tiny_tokenizer, tmp_path, capsys, monkeypatch):
    model = make_model()
    weight = write_weight(tmp_path / "run", model, tiny_tokenizer)
    monkeypatch.setattr("sys.stdin", io.StringIO("The harbour\n\n/wat\n/reset\nThe harbour\n"))
    words = ["--weight", str(weight), "--plain", "--temperature", "0", "--max_new_tokens", "5"]
    words += ["--repetition_penalty", "1", "--device", "cpu"]
    assert main(words) == 0
    first, complaint, again = capsys.readouterr().out.splitlines()
    half = load_tokenizer(str(tiny_tokenizer))
    turns = [{"role": "user", "content": "The harbour"}]
    rounded = make_model()
    rounded.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
    assert first == again == recomputed(rounded, half, turns, 5, plain=True)
    assert "/wat" in complaint


def test_a_model_of_short_rows_gives_short_answers(tiny_tokenizer, tmp_path, monkeypatch):
    """Of the 128 tokens that it was trained with, an answer takes half."""
    weight = write_weight(tmp_path / "run", make_model(), tiny_tokenizer)
    config = weight.with_name("config.toml")
    written = config.read_text()
    assert "max_seq_len = 512" in written
    config.write_text(written.replace("max_seq_len = 512", "max_seq_len = 128"))
    found = []
    monkeypatch.setattr(Conversation, "answer", lambda talk, *_: found.append(talk) or "")
    for words in ([], ["--context", "1000"], ["--max_new_tokens", "100"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("The harbour\n"))
        assert main(["--weight", str(weight), "--plain", "--device", "cpu", *words]) == 0
    sizes = [(talk.context, talk.sampling.max_new_tokens) for talk in found]
    assert sizes == [(128, 64), (1000, 128), (128, 100)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--plain"),
        (["--plain", "--system", "be kind"], "--system"),
        (["--plain", "--context", "10", "--max_new_tokens", "10"], "--context"),
        (["--plain", "--context", "1"], "--context"),
        (["--plain", "--temperature", "-1"], "--temperature"),
    ],
)
def test_mistakes_are_named(words, complaint, tiny_tokenizer, tmp_path):
    weight = write_weight(tmp_path / "run", make_model(), tiny_tokenizer)
    with pytest.raises(ConfigError, match=complaint):
        main(["--weight", str(weight), "--device", "cpu", *words])
