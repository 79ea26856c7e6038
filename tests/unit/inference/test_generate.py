import json
import shutil

import pytest
import torch

from minimind.cli.generate import main
from minimind.data.tokenizer import load_tokenizer
from minimind.errors import ConfigError, WeightsError
from minimind.inference.chat import Conversation
from minimind.inference.generate import generate, read_prompts
from minimind.inference.sampling import Sampling, TextStream
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.weights.pretrained import load_weights
from tests.unit.data.helpers import make_tokenizer

TEXT = ["The cat sat on the mat.", "the dog ate the bone.", "猫坐在垫子上。", "a b c d e f"]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    """A byte-level BPE of 300 entries, with MiniMind's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(str(tokenizer_folder))


def make_model(vocab_size=300, **changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "initializer_range": 0.3,
        **changes,
    }
    return MiniMindForCausalLM(MiniMindConfig(**settings)).eval()


@torch.inference_mode()
def greedy(model, tokenizer, prompt, length):
    """The same without a cache, a batch or transformers' generate."""
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = [*begin, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    start = len(ids)
    for _ in range(length):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_a_greedy_batch_equals_each_prompt_recomputed(tokenizer, moe):
    model = make_model(use_moe=moe)
    prompts = ["The cat", "猫坐在垫子上。 the dog ate", "", "a"]
    texts = generate(model, tokenizer, prompts, max_new_tokens=12, temperature=0)
    assert texts == [greedy(model, tokenizer, prompt, 12) for prompt in prompts]
    assert len(set(texts)) > 1


def test_a_seed_repeats_and_another_differs(tokenizer):
    model = make_model()
    first, again, other = (
        generate(model, tokenizer, ["The"], max_new_tokens=30, temperature=1.0, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_sampling_limits_reach_the_model(tokenizer):
    model = make_model()
    sure = generate(model, tokenizer, ["The"], max_new_tokens=20, temperature=0)
    assert generate(model, tokenizer, ["The"], 20, temperature=1.0, top_k=1) == sure
    assert generate(model, tokenizer, ["The"], 20, temperature=1.0, top_p=1e-6) == sure


def test_a_training_model_is_left_as_it_was(tokenizer):
    model = make_model().train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generate(model, tokenizer, ["The"], max_new_tokens=3)
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    loss = model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss
    loss.backward()


def test_the_end_token_ends_a_text(tokenizer):
    model = make_model(tie_word_embeddings=False, eos_token_id=7)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.eos_token_id] = model.model.norm.weight
        bias = torch.zeros(300)
        bias[tokenizer.eos_token_id] = 100.0
        model.lm_head.bias = torch.nn.Parameter(bias)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert generate(model, tokenizer, ["The", "a b c"], max_new_tokens=9) == ["", ""]
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["pth", "pt", "folder"])
def test_the_command_writes_the_prompts_and_their_continuations(
    tokenizer, tokenizer_folder, tmp_path, capsys, kind
):
    model = make_model()
    words = []
    if kind == "folder":
        weight = tmp_path / "model"
        model.save_pretrained(weight)
        tokenizer.save_pretrained(weight)
    else:
        weight = tmp_path / f"pretrain_32.{kind}"
        state = model.state_dict()
        torch.save(state if kind == "pth" else {"model": state, "optimizer": {}}, weight)
        words = ["--tokenizer-path", str(tokenizer_folder)]
    prompts = ["The cat", "a b"]
    words += ["--weight", str(weight), "--temperature", "0", "--device", "cpu"]
    words += ["--max-new-tokens", "8", "--prompt", prompts[0], "--prompt", prompts[1]]
    assert main(words) == 0
    expected = [p + greedy(model, tokenizer, p, 8) for p in prompts]
    assert capsys.readouterr().out == "".join(f"{text}\n\n" for text in expected)


def test_experts_per_token_of_a_file_are_given(tokenizer, tokenizer_folder, tmp_path):
    model = make_model(use_moe=True, num_experts_per_tok=2)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    loaded, _ = load_weights(
        tmp_path / "w.pth", tokenizer_path=str(tokenizer_folder), num_experts_per_tok=2
    )
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_tokenizer_of_another_size_is_named(tokenizer_folder, tmp_path):
    torch.save(make_model(vocab_size=200).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="--tokenizer_path"):
        load_weights(tmp_path / "w.pth", tokenizer_path=str(tokenizer_folder))


@pytest.mark.parametrize(
    "words",
    [
        ["--max_new_tokens", "0"],
        ["--temperature", "-1"],
        ["--top_p", "0"],
        ["--top_p", "1.5"],
        ["--top_k", "-1"],
        ["--repetition_penalty", "0"],
        ["--batch_size", "0"],
    ],
)
def test_values_out_of_range_are_named(words):
    with pytest.raises(ConfigError, match=words[0]):
        main(["--weight", "absent.pth", "--prompt", "a", *words])


def test_a_repetition_penalty_reaches_the_model(tokenizer):
    """A model that would say one token for ever says it once."""
    model = make_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        bias = torch.zeros(300)
        bias[50], bias[60] = 1.0, 0.9
        model.lm_head.bias = torch.nn.Parameter(bias)
    calm = generate(model, tokenizer, ["a"], 2, temperature=0)
    wary = generate(model, tokenizer, ["a"], 2, temperature=0, repetition_penalty=1.5)
    assert calm == [tokenizer.decode([50, 50])]
    assert wary == [tokenizer.decode([50, 60])]


def test_a_stream_is_the_text_and_never_half_a_character(tokenizer):
    model = make_model()
    for seed in range(4):
        pieces = []
        stream = TextStream(tokenizer, pieces.append)
        settings = {"max_new_tokens": 30, "temperature": 1.5, "seed": seed}
        (text,) = generate(model, tokenizer, ["猫坐在"], stream=stream, **settings)
        assert "".join(pieces) == text
        assert len(pieces) > 2
    pieces = []
    stream = TextStream(tokenizer, pieces.append)
    stream.put(torch.tensor([[1]]))
    for token in tokenizer("a 鱼🙂b", add_special_tokens=False)["input_ids"]:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(pieces) == "a 鱼🙂b"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_prompts_come_from_a_file(tokenizer, tokenizer_folder, tmp_path, capsys, suffix):
    model = make_model()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    prompts = ["The cat", "a b", "猫坐", "the dog", "c"]
    file = tmp_path / f"prompts{suffix}"
    rows = [json.dumps({"prompt": p}) if suffix == ".jsonl" else p for p in prompts]
    file.write_text("\n".join([*rows, ""]), encoding="utf-8")
    words = ["--weight", str(tmp_path / "w.pth"), "--tokenizer_path", str(tokenizer_folder)]
    words += ["--prompts-file", str(file), "--batch_size", "2", "--temperature", "0"]
    assert main([*words, "--max_new_tokens", "6", "--device", "cpu", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [{"prompt": p, "text": greedy(model, tokenizer, p, 6)} for p in prompts]
    assert lines == expected


def test_a_bad_prompts_file_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    with pytest.raises(ConfigError, match=r"p\.jsonl:2"):
        read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(ConfigError, match="absent"):
        read_prompts(tmp_path / "absent.txt")
    with pytest.raises(ConfigError, match="--prompt"):
        main(["--weight", "absent.pth"])


def test_half_precision_weights_keep_the_rotary_tables(tokenizer_folder, tmp_path):
    model = make_model()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    loaded, _ = load_weights(
        tmp_path / "w.pth", tokenizer_path=str(tokenizer_folder), dtype=torch.bfloat16
    )
    assert loaded.lm_head.weight.dtype == torch.bfloat16
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        difference = loaded(input_ids=ids).logits.float() - model(input_ids=ids).logits
    assert 0 < difference.abs().max() < 0.5


def test_a_byte_order_mark_is_no_prompt(tmp_path):
    for name, line in (("p.txt", "hello"), ("p.jsonl", '{"prompt": "hello"}')):
        (tmp_path / name).write_text(line + "\n", encoding="utf-8-sig")
        assert read_prompts(tmp_path / name) == ["hello"]


@pytest.mark.parametrize("prompts", [["The cat", "a"], ["The cat"]])
def test_a_tokenizer_without_pad_and_end_writes_all_the_same(tmp_path, prompts):
    folder = make_tokenizer(tmp_path / "whole", bos=False, eos=False)
    (tmp_path / "bare").mkdir()
    shutil.copy(f"{folder}/tokenizer.json", tmp_path / "bare")
    tokenizer = load_tokenizer(str(tmp_path / "bare"))
    assert tokenizer.pad_token_id is tokenizer.eos_token_id is tokenizer.bos_token_id is None
    model = make_model()
    texts = generate(model, tokenizer, prompts, 6, temperature=0)
    assert texts == [greedy(model, tokenizer, prompt, 6) for prompt in prompts]
    talk = Conversation(model, tokenizer, Sampling(6, temperature=0), context=64, plain=True)
    assert talk.answer(prompts[0], lambda text: None) == texts[0]
    with pytest.raises(ConfigError, match="an empty prompt"):
        generate(model, tokenizer, [*prompts, ""], 6)
