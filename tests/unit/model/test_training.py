"""What the trainer relies on: the loss it asks for, recomputation, compilation, no host syncs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from minimind.model import MiniMindForCausalLM

from .helpers import ARCHITECTURES, gradients, random_ids, small_config, small_model


def trainer_batch() -> dict[str, torch.Tensor]:
    """Two packed rows, the second one padded."""
    ids = random_ids(2, 12)
    document_ids = torch.tensor([[0] * 5 + [1] * 7, [0] * 8 + [-1] * 4])
    border = document_ids != document_ids.roll(-1, dims=1)
    border[:, -1] = True
    return {
        "input_ids": ids,
        "position_ids": torch.cat([torch.arange(5), torch.arange(7)]).expand(2, 12),
        "document_ids": document_ids,
        "token_mask": document_ids >= 0,
        "shift_labels": ids.roll(-1, dims=1).masked_fill(border | (document_ids < 0), -100),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shifted_labels_give_the_sum_over_targets(architecture):
    model = small_model(**architecture)
    batch = trainer_batch()
    outputs = model(**batch, num_items_in_batch=1)
    targets = batch["shift_labels"]
    assert (targets != -100).sum() == 17
    expected = F.cross_entropy(
        outputs.logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
    )
    torch.testing.assert_close(outputs.loss, expected)
    assert outputs.loss.dtype == torch.float32
    thirds = model(**batch, num_items_in_batch=3).loss
    torch.testing.assert_close(thirds, expected / 3)


def test_labels_are_shifted_inside():
    model = small_model()
    ids = random_ids(2, 9)
    labels = ids.clone()
    labels[0, :4] = -100
    outputs = model(ids, labels=labels)
    expected = F.cross_entropy(
        outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    torch.testing.assert_close(outputs.loss, expected)
    assert model(ids).loss is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(architecture, reentrant):
    found = []
    for checkpointing in (False, True):
        model = small_model(**architecture).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            assert model.is_gradient_checkpointing
        outputs = model(**trainer_batch(), num_items_in_batch=1)
        (outputs.loss + 10 * outputs.aux_loss).backward()
        found.append(gradients(model))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_gradient_checkpointing_recomputes_the_layers():
    model = small_model().train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    runs = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: runs.append(1))
    model(**trainer_batch()).loss.backward()
    assert len(runs) == 2


@pytest.mark.parametrize(
    "architecture, autocast, backend",
    [
        pytest.param({}, False, "inductor", id="dense-float32"),
        pytest.param({"use_moe": True}, False, "aot_eager", id="moe-float32"),
        pytest.param({"use_moe": True}, True, "inductor", id="moe-autocast-bfloat16"),
    ],
)
@pytest.mark.timeout(600)  # compiling is slow
def test_compiled_equals_eager(architecture, autocast, backend):
    """fullgraph: no graph break, hence no host sync and no data-dependent control flow.

    The C++ that inductor writes takes half a minute to compile; aot_eager runs the same graph.
    """
    model = small_model(**architecture, num_hidden_layers=1).train()
    results = []
    torch.compiler.reset()
    for run in (model, torch.compile(model, fullgraph=True, backend=backend)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = run(**trainer_batch(), num_items_in_batch=1)
        (outputs.loss + outputs.aux_loss).backward()
        results.append((outputs.loss, outputs.aux_loss, outputs.logits, gradients(model)))
    eager, compiled = results
    # Compiled code rounds to bfloat16 less often than eager code does.
    limit = 0.03 if autocast else 1e-5
    for ours, theirs in zip(compiled[:3], eager[:3], strict=True):
        assert (ours.float() - theirs.float()).norm() <= limit * theirs.float().norm()
    for name, gradient in compiled[3].items():
        error = (gradient - eager[3][name]).norm()
        assert error <= limit * eager[3][name].norm() + 1e-5, name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_step_reads_no_values(architecture):
    """Tensors of the meta device have none: reading one (``.item()``, ``if tensor``) raises."""
    with torch.device("meta"):
        model = MiniMindForCausalLM(small_config(**architecture)).to(torch.bfloat16).train()
    batch = {name: tensor.to("meta") for name, tensor in trainer_batch().items()}
    outputs = model(**batch, num_items_in_batch=1)
    (outputs.loss + outputs.aux_loss).backward()
    gradients(model)


@pytest.mark.parametrize("field", ["dropout", "attention_dropout"])
def test_dropout_acts_in_training_only(field):
    plain, noisy = small_model(), small_model(**{field: 0.5})
    ids = random_ids(2, 8)
    assert torch.equal(noisy(ids).logits, plain(ids).logits)
    noisy.train()
    torch.manual_seed(0)
    first = noisy(ids).logits
    assert (first - plain(ids).logits).abs().max() > 0.1
    assert not torch.equal(noisy(ids).logits, first)
    torch.manual_seed(0)
    assert torch.equal(noisy(ids).logits, first)


@pytest.mark.parametrize("architecture", ARCHITECTURES[:2])
@pytest.mark.parametrize("branch", ["attention", "mlp"])
def test_dropout_acts_on_each_residual_branch(architecture, branch):
    layer = small_model(**architecture, dropout=0.5).model.layers[0].train()
    silent = "down_proj" if branch == "attention" else "o_proj"
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if silent in name:
                parameter.zero_()
    torch.manual_seed(0)
    x = torch.randn(2, 64, 32)
    positions = (torch.ones(1, 64, 8), torch.zeros(1, 64, 8))
    output, _ = layer(x, position_embeddings=positions)
    dropped = (output == x).float().mean().item()
    assert 0.45 < dropped < 0.55


def test_hidden_states_and_attentions_on_request():
    model = small_model()
    model.set_attn_implementation("eager")
    outputs = model(random_ids(2, 8), output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in outputs.hidden_states] == [(2, 8, 32)] * 3
    assert [tuple(a.shape) for a in outputs.attentions] == [(2, 4, 8, 8)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(-1), torch.ones(2, 4, 8))
    as_tuple = model(random_ids(2, 8), labels=random_ids(2, 8), return_dict=False)
    assert as_tuple[0].ndim == 0
    assert as_tuple[1].shape == (2, 8, 97)
