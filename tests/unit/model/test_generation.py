from __future__ import annotations

import pytest
import torch

from .helpers import ARCHITECTURES, random_ids, small_model

GREEDY = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "cache", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"]
)
def test_cached_generation_equals_full_recomputation(architecture, cache):
    model = small_model(**architecture)
    prompt = random_ids(2, 5)
    options = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    cached = model.generate(prompt, use_cache=True, **cache, **options)
    plain = model.generate(prompt, use_cache=False, **options)
    assert cached.sequences.shape == (2, 17)
    assert torch.equal(cached.sequences, plain.sequences)
    assert len(cached.sequences[0, 5:].unique()) > 2
    for ours, theirs in zip(cached.logits, plain.logits, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cache_may_be_filled_in_pieces(architecture):
    model = small_model(**architecture)
    ids = random_ids(2, 11)
    with torch.no_grad():
        whole = model(ids).logits
        past, pieces = None, []
        for start, end in ((0, 4), (4, 5), (5, 11)):
            outputs = model(ids[:, start:end], past_key_values=past, use_cache=True)
            past = outputs.past_key_values
            pieces.append(outputs.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("use_cache", [True, False])
def test_left_padded_batch_equals_single_sequences(architecture, use_cache):
    model = small_model(**architecture)
    prompts = [random_ids(length, seed=length) for length in (3, 7, 10)]
    batch = torch.zeros(3, 10, dtype=torch.long)
    mask = torch.zeros(3, 10, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        batch[row, -len(prompt) :] = prompt
        mask[row, -len(prompt) :] = 1
    options = {**GREEDY, "use_cache": use_cache}
    together = model.generate(batch, attention_mask=mask, **options)
    with torch.no_grad():
        logits = model(batch, attention_mask=mask).logits
        for row, prompt in enumerate(prompts):
            alone = model.generate(prompt.unsqueeze(0), **options)
            assert torch.equal(together[row, 10:], alone[0, len(prompt) :])
            torch.testing.assert_close(
                logits[row, -len(prompt) :], model(prompt.unsqueeze(0)).logits[0], rtol=0, atol=1e-5
            )


def test_logits_to_keep():
    model = small_model()
    ids = random_ids(2, 9)
    whole = model(ids).logits
    assert torch.equal(model(ids, logits_to_keep=0).logits, whole)
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, whole[:, -2:])
    index = torch.tensor([1, 4])
    torch.testing.assert_close(model(ids, logits_to_keep=index).logits, whole[:, index])


def test_beams_and_samples_run():
    model = small_model(use_moe=True)
    prompt = random_ids(2, 5)
    beams = model.generate(prompt, num_beams=3, **GREEDY)
    assert beams.shape == (2, 17)
    torch.manual_seed(0)
    samples = model.generate(prompt, **{**GREEDY, "do_sample": True}, num_return_sequences=2)
    assert samples.shape == (4, 17)


def test_ids_and_embeddings_are_alternatives():
    model = small_model()
    ids = random_ids(2, 9)
    embeds = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embeds).logits, model(ids).logits)
    with pytest.raises(ValueError, match="exactly one"):
        model(ids, inputs_embeds=embeds)
    with pytest.raises(ValueError, match="exactly one"):
        model()
