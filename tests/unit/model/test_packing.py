"""Packed rows: several documents in one row, as the trainer calls the model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from minimind.model import layers, modeling_minimind

from .helpers import ARCHITECTURES, gradients, random_ids, small_config, small_model

ROWS = [[5, 3, 7], [9, 6], [1, 14]]
LENGTH = 16  # so that each row ends in one token of padding


def packed_batch() -> tuple[list[list[torch.Tensor]], dict[str, torch.Tensor]]:
    """Documents of each row, and the batch that holds them."""
    documents = [
        [random_ids(length, seed=10 * row + index) for index, length in enumerate(lengths)]
        for row, lengths in enumerate(ROWS)
    ]
    shape = (len(ROWS), LENGTH)
    batch = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "position_ids": torch.zeros(shape, dtype=torch.long),
        "document_ids": torch.full(shape, -1),
        "shift_labels": torch.full(shape, -100),
    }
    for row, row_documents in enumerate(documents):
        start = 0
        for index, ids in enumerate(row_documents):
            end = start + len(ids)
            batch["input_ids"][row, start:end] = ids
            batch["position_ids"][row, start:end] = torch.arange(len(ids))
            batch["document_ids"][row, start:end] = index
            batch["shift_labels"][row, start : end - 1] = ids[1:]
            start = end
    batch["token_mask"] = batch["document_ids"] >= 0
    return documents, batch


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks a row, and a shorter last one."""
    monkeypatch.setattr(layers, "ATTENTION_BLOCK", 6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["sdpa", "eager", "blockwise"])
def test_packed_rows_equal_separate_documents(architecture, attention, small_blocks):
    model = small_model(**architecture)
    model.set_attn_implementation(attention)
    documents, batch = packed_batch()
    with torch.no_grad():
        packed = model(**batch, num_items_in_batch=1)
        total = torch.zeros(())
        for row, row_documents in enumerate(documents):
            start = 0
            for ids in row_documents:
                end = start + len(ids)
                alone = model(ids.unsqueeze(0)).logits[0]
                here = packed.logits[row, start:end]
                torch.testing.assert_close(here, alone, rtol=0, atol=1e-5)
                loss_alone = F.cross_entropy(alone[:-1], ids[1:], reduction="sum")
                loss_here = F.cross_entropy(here[:-1], ids[1:], reduction="sum")
                torch.testing.assert_close(loss_here, loss_alone, rtol=1e-5, atol=1e-5)
                total += loss_alone
                start = end
    torch.testing.assert_close(packed.loss, total, rtol=1e-5, atol=0)
    assert packed.logits.isfinite().all()


def test_documents_would_see_each_other_without_ids():
    model = small_model()
    _, batch = packed_batch()
    separate = model(batch["input_ids"], document_ids=batch["document_ids"]).logits
    together = model(batch["input_ids"]).logits
    assert torch.allclose(separate[0, :5], together[0, :5], atol=1e-5)
    assert (separate[0, 5:8] - together[0, 5:8]).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_gradient_crosses_a_document_border(architecture):
    model = small_model(**architecture)
    _, batch = packed_batch()
    embeds = model.model.embed_tokens(batch["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=embeds, document_ids=batch["document_ids"]).logits
    logits[0, 5:8].pow(2).sum().backward()
    touched = embeds.grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [False] * 5 + [True] * 3 + [False] * 8


def test_mask_by_hand():
    config = small_config()
    config._attn_implementation = "sdpa"
    ids = torch.tensor([[0, 0, 1, 1, -1, -1]])
    mask = layers.create_packed_mask(config, torch.zeros(1, 6, 32), ids)
    assert mask.int().tolist() == [
        [
            [
                [1, 0, 0, 0, 0, 0],
                [1, 1, 0, 0, 0, 0],
                [0, 0, 1, 0, 0, 0],
                [0, 0, 1, 1, 0, 0],
                [0, 0, 0, 0, 1, 0],
                [0, 0, 0, 0, 1, 1],
            ]
        ]
    ]


def test_flex_attention_gets_the_same_mask():
    config = small_config()
    config._attn_implementation = "flex_attention"
    _, batch = packed_batch()
    ids = batch["document_ids"]
    block_mask = layers.create_packed_mask(config, torch.zeros(*ids.shape, 32), ids)
    config._attn_implementation = "sdpa"
    expected = layers.create_packed_mask(config, torch.zeros(*ids.shape, 32), ids)
    rows, queries, keys = torch.meshgrid(*map(torch.arange, (3, LENGTH, LENGTH)), indexing="ij")
    found = block_mask.mask_mod(rows, torch.zeros_like(rows), queries, keys)
    assert torch.equal(found, expected[:, 0])


@pytest.mark.parametrize("documents", [True, False])
def test_blockwise_attention_computes_what_eager_does(documents, small_blocks):
    _, batch = packed_batch()
    if not documents:
        batch = {"input_ids": batch["input_ids"], "shift_labels": batch["shift_labels"]}
    found = {}
    for attention in ("eager", "blockwise"):
        model = small_model().train()
        model.set_attn_implementation(attention)
        loss = model(**batch, num_items_in_batch=1).loss
        loss.backward()
        found[attention] = (loss.detach(), gradients(model))
    torch.testing.assert_close(found["blockwise"], found["eager"], rtol=1e-5, atol=1e-5)


def test_blockwise_attention_leaves_out_what_no_token_may_see(monkeypatch, small_blocks):
    seen = []
    whole = layers.eager_attention_forward
    monkeypatch.setattr(
        layers,
        "eager_attention_forward",
        lambda module, query, key, *rest: (
            seen.append((query.shape[2], key.shape[2])) or whole(module, query, key, *rest)
        ),
    )
    model = small_model(num_hidden_layers=1)
    model.set_attn_implementation("blockwise")
    model(**packed_batch()[1])
    assert seen == [(6, 6), (6, 12), (4, 16)]


@pytest.mark.parametrize("attention", ["sdpa", "eager", "blockwise", "flex_attention"])
def test_packed_rows_compile_to_one_graph(attention):
    """A break would keep mask, layers and head from being fused, and costs time at every step."""
    torch.compiler.reset()
    model = small_model()
    model.set_attn_implementation(attention)
    graphs = CompileCounter()
    model.compile(backend=graphs, dynamic=False)
    _, batch = packed_batch()
    with torch.no_grad():
        model(**batch, num_items_in_batch=1)
    assert graphs.frame_count == 1


def test_mask_is_built_once_a_forward(monkeypatch):
    calls = []
    build = layers.create_packed_mask
    monkeypatch.setattr(
        modeling_minimind,
        "create_packed_mask",
        lambda *arguments: calls.append(1) or build(*arguments),
    )
    _, batch = packed_batch()
    small_model(num_hidden_layers=4)(**batch)
    assert len(calls) == 1


@pytest.mark.parametrize("training", [True, False])
def test_plain_rows_take_the_causal_fast_path(monkeypatch, training):
    seen = []
    attend = F.scaled_dot_product_attention

    def spy(*arguments, **keywords):
        seen.append((keywords["attn_mask"], keywords["is_causal"]))
        return attend(*arguments, **keywords)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    batch = {
        "input_ids": random_ids(2, 8),
        "position_ids": torch.arange(8).expand(2, 8),
        "token_mask": torch.ones(2, 8, dtype=torch.bool),
    }
    small_model().train(training)(**batch, use_cache=False)
    assert seen == [(None, True)] * 2


def test_training_keeps_no_cache():
    model = small_model()
    assert model(random_ids(1, 8)).past_key_values is not None
    assert model.train()(random_ids(1, 8)).past_key_values is None
    _, batch = packed_batch()
    assert model.eval()(**batch).past_key_values is None


@pytest.mark.parametrize(
    "extra",
    [{"attention_mask": torch.ones(3, LENGTH, dtype=torch.long)}, {"use_cache": True}],
    ids=["attention_mask", "use_cache"],
)
def test_document_ids_exclude_other_masks_and_caching(extra):
    _, batch = packed_batch()
    with pytest.raises(ValueError, match="document_ids exclude"):
        small_model()(batch["input_ids"], document_ids=batch["document_ids"], **extra)


def test_attention_that_cannot_take_the_mask_is_refused():
    config = small_config()
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2"):
        layers.create_packed_mask(config, torch.zeros(1, 2, 32), torch.zeros(1, 2))
