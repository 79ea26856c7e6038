from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import library

from minimind.model import layers
from minimind.model.layers import (
    MiniMindSparseMoeBlock,
    grouped_linear,
    load_balancing_loss,
)

from .helpers import gradients, random_ids, small_config, small_model


def small_block(**overrides) -> MiniMindSparseMoeBlock:
    torch.manual_seed(0)
    block = MiniMindSparseMoeBlock(small_config(use_moe=True, **overrides))
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block


def one_expert_after_another(block: MiniMindSparseMoeBlock, x: torch.Tensor) -> torch.Tensor:
    """What the block should compute, token by token, expert by expert."""
    output = torch.zeros_like(x)
    for row in range(x.shape[0]):
        for position in range(x.shape[1]):
            token = x[row, position]
            probabilities = F.softmax(block.gate(token).float(), dim=-1)
            chosen = probabilities.argsort(descending=True)[: block.top_k]
            total = probabilities[chosen].sum() if block.norm_topk_prob else 1.0
            for expert in chosen.tolist():
                weight = (probabilities[expert] / total).to(x.dtype)
                output[row, position] += weight * block.experts[expert](token)
    return output


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("normalise", [True, False])
def test_output_equals_one_expert_after_another(top_k, normalise):
    block = small_block(num_experts_per_tok=top_k, norm_topk_prob=normalise)
    x = torch.randn(2, 9, 32)
    expected = one_expert_after_another(block, x)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(block(x, None)[0], expected, rtol=1e-5, atol=1e-5)


def test_output_in_bfloat16_equals_one_expert_after_another():
    block = small_block(num_experts_per_tok=2).to(torch.bfloat16)
    x = torch.randn(2, 9, 32, dtype=torch.bfloat16)
    output, _ = block(x, None)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, one_expert_after_another(block, x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("top_k", [1, 2])
def test_gradients_equal_one_expert_after_another(top_k):
    x = torch.randn(2, 5, 32)
    target = torch.randn(2, 5, 32)
    found = []
    for run in (lambda block: block(x, None)[0], lambda block: one_expert_after_another(block, x)):
        block = small_block(num_experts_per_tok=top_k)
        (run(block) * target).sum().backward()
        found.append({n: p.grad for n, p in block.named_parameters()})
    for name, gradient in found[0].items():
        expected = found[1][name]
        if expected is None:
            expected = torch.zeros_like(gradient)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ends", [[0, 3, 3, 7], [7, 7, 7, 7], [0, 0, 0, 7], [1, 2, 3, 7]])
def test_grouped_linear_with_empty_groups(dtype, ends):
    torch.manual_seed(0)
    x = torch.randn(7, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, 24, 16, dtype=dtype, requires_grad=True)
    pieces = [x[a:b] @ w.T for a, b, w in zip([0, *ends], ends, weight, strict=False)]
    expected = torch.cat(pieces)
    output = grouped_linear(x, weight, torch.tensor(ends, dtype=torch.int32))
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(output, (x, weight), upstream),
        torch.autograd.grad(expected, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_compilable_grouped_linear_is_a_sound_operator(dtype):
    """Schema, shape function and gradient, with torch's own checks; values against ``F``."""
    torch.manual_seed(0)
    x = torch.randn(7, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, 24, 16, dtype=dtype, requires_grad=True)
    ends = torch.tensor([0, 3, 3, 7], dtype=torch.int32)
    library.opcheck(torch.ops.minimind.grouped_linear.default, (x, weight, ends))
    upstream = torch.randn(7, 24, dtype=dtype)
    compiled_form = torch.ops.minimind.grouped_linear(x, weight, ends)
    plain_form = grouped_linear(x, weight, ends)
    assert torch.equal(compiled_form, plain_form)
    for ours, theirs in zip(
        torch.autograd.grad(compiled_form, (x, weight), upstream),
        torch.autograd.grad(plain_form, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast-bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_every_expert_gets_a_gradient(autocast, checkpointing, top_k):
    """Also those that no token goes to: theirs is zero, not None."""
    model = small_model(use_moe=True, num_experts=8, num_experts_per_tok=top_k).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = random_ids(1, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = model(ids, labels=ids)
    assert outputs.loss.dtype == torch.float32
    (outputs.loss + outputs.aux_loss).backward()
    found = gradients(model)
    idle = 0
    for layer in range(2):
        busy = 0
        for expert in range(8):
            prefix = f"model.layers.{layer}.mlp.experts.{expert}"
            sizes = [
                found[f"{prefix}.{part}_proj.weight"].abs().sum() for part in ("gate", "up", "down")
            ]
            assert all(s > 0 for s in sizes) or all(s == 0 for s in sizes)
            busy += bool(sizes[0] > 0)
        assert 1 <= busy <= 3 * top_k
        idle += 8 - busy
        assert found[f"model.layers.{layer}.mlp.gate.weight"].abs().sum() > 0
    assert idle > 0


def test_autocast_runs_the_experts_in_bfloat16(monkeypatch):
    dtypes = []

    def spy(x, weight, ends):
        dtypes.append((x.dtype, weight.dtype))
        return grouped_linear(x, weight, ends)

    monkeypatch.setattr(layers, "grouped_linear", spy)
    with torch.autocast("cpu", torch.bfloat16):
        small_model(use_moe=True)(random_ids(2, 8))
    assert dtypes == [(torch.bfloat16, torch.bfloat16)] * 4


def test_autocast_stays_near_float32():
    model = small_model(use_moe=True, num_experts_per_tok=2, initializer_range=0.1)
    ids = random_ids(2, 16)
    exact = model(ids).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(ids).logits
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def block_with_probabilities(probabilities: torch.Tensor, top_k: int) -> MiniMindSparseMoeBlock:
    """A block whose router gives token t (the t-th unit vector) these probabilities."""
    block = small_block(
        hidden_size=8, head_dim=8, num_experts=probabilities.shape[1], num_experts_per_tok=top_k
    )
    with torch.no_grad():
        block.gate.weight.zero_()
        block.gate.weight[:, : len(probabilities)] = probabilities.log().T
    return block


def test_aux_loss_by_hand():
    # Loads 3/4 and 1/4; mean probabilities 0.6 and 0.4; 2 · (0.45 + 0.10) = 1.1.
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    block = block_with_probabilities(probabilities, top_k=1)
    tokens = torch.eye(8)[:4].view(1, 4, 8)
    _, aux_loss = block(tokens, None)
    assert aux_loss.item() == pytest.approx(1.1 * 5e-4, rel=1e-5)

    # Without the third token: loads 1 and 0; mean probability 2.2/3; 2 · 2.2/3.
    _, aux_loss = block(tokens, torch.tensor([[True, True, False, True]]))
    assert aux_loss.item() == pytest.approx(4.4 / 3 * 5e-4, rel=1e-5)

    _, aux_loss = block(tokens, torch.zeros(1, 4, dtype=torch.bool))
    assert aux_loss.item() == 0


def test_aux_loss_of_two_experts_per_token_by_hand():
    # Assignments {0, 1} and {1, 2}: loads 1/4, 2/4, 1/4; mean probabilities 0.3, 0.45, 0.25;
    # 3 · (0.075 + 0.225 + 0.0625) = 1.0875.
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    block = block_with_probabilities(probabilities, top_k=2)
    _, aux_loss = block(torch.eye(8)[:2].view(1, 2, 8), None)
    assert aux_loss.item() == pytest.approx(1.0875 * 5e-4, rel=1e-5)


def test_aux_loss_sums_over_layers():
    """A router without preference has loss 1 per layer, whatever it chooses."""
    model = small_model(use_moe=True, num_hidden_layers=3, router_aux_loss_coef=0.01)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight.zero_()
    assert model(random_ids(2, 8)).aux_loss.item() == pytest.approx(0.03, rel=1e-5)


def test_aux_loss_of_no_tokens_has_a_finite_gradient():
    probabilities = torch.full((4, 2), 0.5, requires_grad=True)
    loss = load_balancing_loss(probabilities, torch.ones(4, 2), torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(probabilities.grad, torch.zeros(4, 2))


def test_aux_loss_of_a_dense_model_is_zero():
    outputs = small_model()(random_ids(2, 8))
    assert outputs.aux_loss.item() == 0
    assert outputs.aux_loss.dtype == torch.float32
    assert outputs.aux_loss.ndim == 0


@pytest.mark.parametrize("given_as", ["token_mask", "attention_mask", "document_ids"])
def test_aux_loss_ignores_padding(given_as):
    model = small_model(use_moe=True, num_experts_per_tok=2, router_aux_loss_coef=1.0)
    ids = random_ids(2, 8)
    expected = model(ids).aux_loss
    padded = torch.cat([ids, torch.zeros(2, 5, dtype=torch.long)], dim=1)
    mask = torch.arange(13).expand(2, 13) < 8
    masks = {
        "token_mask": mask,
        "attention_mask": mask.long(),
        "document_ids": torch.where(mask, 0, -1),
    }
    found = model(padded, **{given_as: masks[given_as]}).aux_loss
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert (model(padded).aux_loss - expected).abs() > 1e-3


def test_loss_leaves_the_aux_loss_out():
    outputs = {
        coefficient: small_model(use_moe=True, router_aux_loss_coef=coefficient)(
            random_ids(2, 8), labels=random_ids(2, 8)
        )
        for coefficient in (0.0, 1.0)
    }
    assert outputs[0.0].aux_loss == 0
    assert outputs[1.0].aux_loss > 0.5
    assert torch.equal(outputs[0.0].loss, outputs[1.0].loss)
