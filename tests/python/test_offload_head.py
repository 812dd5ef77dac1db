"""Head and loss of transformers' own classes over pieces, against the same model left whole."""

from __future__ import annotations

import contextlib
import copy
import inspect

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import offload_models as models  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from ebbtide import EbbtideError  # noqa: E402
from ebbtide._offload._head import HeadCut  # noqa: E402
from ebbtide._offload._options import Options  # noqa: E402

WORDS = models.VOCABULARY
# What a head may have beside what the architectures bring: a soft cap, a scale, routers' losses, ties.
VARIANTS = [(name, {}) for name in models.ARCHITECTURES] + [
    ("gemma2", {"final_logit_softcapping": 3.0}),
    ("cohere", {"logit_scale": 0.25}),
    ("granite", {"logits_scaling": 4.0}),
    ("phi3", {"tie_word_embeddings": True}),
    ("qwen3_moe", {"output_router_logits": True}),
]


def make(name="llama", dtype=torch.float64, **changes):
    return models.make(name, dtype, **changes)


def batch(tokens=29, batches=2):
    ids = models.tokens(tokens, batches)
    labels = ids.clone()
    labels[0, : tokens // 4] = -100
    return {"input_ids": ids, "labels": labels}


def train(model, scale=1.0, **inputs):
    model.zero_grad()
    with models.in_double() if model.dtype == torch.float64 else contextlib.nullcontext():
        loss = model(**inputs, use_cache=False).loss
        (scale * loss).backward()
    return {"loss": loss.detach()} | {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


def both(model, piece=8, options=None, scale=1.0, **inputs):
    whole = train(model, scale, **inputs)
    cut = HeadCut(model, options or Options(mini_sequence=piece))
    cut.install()
    pieces = train(model, scale, **inputs)
    assert cut.calls == 1
    cut.undo()
    return whole, pieces


def assert_same(whole, pieces, tolerance=1e-10):
    assert whole.keys() == pieces.keys()
    for name, expected in whole.items():
        scale = expected.double().norm() + 1e-12
        error = (pieces[name].double() - expected.double()).norm() / scale
        assert error < tolerance, f"{name}: {error}"


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_head_and_loss_over_pieces_are_the_whole(name, changes):
    assert_same(*both(make(name, **changes), **batch()))


@pytest.mark.parametrize("tokens", [2, 63, 64, 65])
def test_lengths_around_a_piece(tokens):
    assert_same(*both(make(), piece=32, **batch(tokens)))


def test_a_single_token_has_no_next_one_and_gives_what_transformers_gives():
    model = make()
    whole, pieces = both(model, **batch(1))
    assert whole["loss"].isnan() and pieces["loss"].isnan()


def test_mst_drops_the_tail_tokens():
    """Only the last token has a label; MsT cuts equal pieces and forgets the rest."""
    inputs = batch(66, 1)
    inputs["labels"][:, :-1] = -100
    whole, pieces = both(make(), piece=64, **inputs)
    assert whole["loss"] > 0
    assert_same(whole, pieces)


@pytest.mark.parametrize("tied", [False, True])
def test_mst_doubles_the_gradient_of_the_head(tied):
    """MsT returns weight.grad itself as the gradient, and autograd adds it to itself. Tied or not, and
    with a second micro-batch on top."""
    model = make(tie_word_embeddings=tied)
    whole, pieces = both(model, **batch())
    assert_same(whole, pieces)
    cut = HeadCut(model, Options(mini_sequence=8))
    cut.install()
    with models.in_double():
        model(**batch()).loss.backward()  # gradients of `pieces` are there already
    name = "model.embed_tokens.weight" if tied else "lm_head.weight"
    assert_same({name: 2 * whole[name]}, {name: model.lm_head.weight.grad})


@pytest.mark.parametrize("scale", [1 / 4, 65536.0])
def test_gradients_scale_with_the_loss(scale):
    assert_same(*both(make(), scale=scale, **batch()))


@pytest.mark.parametrize("items", [7, torch.tensor(40)])
def test_num_items_in_batch_is_the_divisor(items):
    inputs = batch() | {"num_items_in_batch": items}
    assert_same(*both(make(), **inputs))


def test_shift_labels_are_taken_as_they_are():
    inputs = batch()
    inputs["shift_labels"] = inputs["labels"].roll(-1, dims=1)
    assert_same(*both(make(), **inputs))


def test_padding_and_positions_reach_the_model():
    inputs = batch()
    mask = torch.ones_like(inputs["input_ids"])
    mask[1, -9:] = 0
    inputs |= {"attention_mask": mask, "labels": inputs["labels"].masked_fill(mask == 0, -100)}
    assert_same(*both(make(), **inputs))


def test_label_smoothing_and_z_loss_without_whole_logits():
    model, inputs = make(), batch()
    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1].flatten(0, 1)
    labels = inputs["labels"][:, 1:].flatten()
    squares = logits.logsumexp(-1)[labels != -100].square().mean()
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1) + 1e-3 * squares
    options = Options(mini_sequence=8, label_smoothing=0.1, z_loss=1e-3)
    HeadCut(model, options).install()
    assert abs(model(**inputs).loss.item() - expected.item()) < 1e-10


def test_bfloat16_is_no_worse_than_one_and_a_half_times_the_whole():
    """StreamBP's rule. The exact gradients are those of the same values in float32."""
    model = make(dtype=torch.bfloat16)
    exact = train(copy.deepcopy(model).float(), **batch(65))
    whole, pieces = both(model, **batch(65))
    for name, value in exact.items():
        usual, ours = ((found[name].float() - value).norm() for found in (whole, pieces))
        assert ours <= 1.5 * usual + 1e-6 * value.norm(), name


def test_autocast_is_found_again_in_backward():
    model, inputs = make(dtype=torch.float32), batch()

    def run():
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**inputs, use_cache=False)
        output.loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    whole = run()
    HeadCut(model, Options(mini_sequence=8)).install()
    assert_same(whole, run(), tolerance=2e-2)


@pytest.mark.parametrize("frozen", ["lm_head", "model", "model.norm"])
def test_what_is_frozen_gets_no_gradient(frozen):
    model = make()
    model.get_submodule(frozen).requires_grad_(False)
    whole, pieces = both(model, **batch())
    assert not any(name.startswith(frozen) for name in pieces)
    assert_same(whole, pieces)


def test_no_logits_are_larger_than_a_piece():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dim() and result.shape[-1] == WORDS:
                self.rows = max(self.rows, result.numel() // WORDS)
            return result

    model = make()
    HeadCut(model, Options(mini_sequence=8)).install()
    with Largest() as seen:
        model(**batch()).loss.backward()
    assert seen.rows == 32  # the gradient of the head is 32 x 61 seen the other way round


def test_logits_that_were_not_kept_say_so_when_they_are_used():
    model = make()
    HeadCut(model, Options(mini_sequence=8)).install()
    output = model(**batch())
    for use in (lambda x: x.shape, lambda x: x[0], lambda x: torch.softmax(x, -1), lambda x: x * 2):
        with pytest.raises(EbbtideError, match="ebbtide.offload.*skip_logits=False"):
            use(output.logits)
    assert model(**batch(), return_dict=False)[0].item() == output.loss.item()


def test_logits_are_there_for_who_asks():
    model, inputs = make(), batch()
    whole = model(**inputs).logits
    HeadCut(model, Options(mini_sequence=8)).install()
    assert torch.equal(model(**inputs, skip_logits=False).logits, whole)
    assert torch.equal(model(input_ids=inputs["input_ids"]).logits, whole)
    last = inputs["labels"][:, -2:].contiguous()
    assert model(**inputs, logits_to_keep=2, shift_labels=last).logits.shape[1] == 2
    assert len(model(**inputs, output_hidden_states=True).hidden_states) == 3
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, whole)
    generated = model.generate(inputs["input_ids"][:1, :4], max_new_tokens=3, do_sample=False)
    assert 4 < generated.shape[1] <= 7


def test_an_evaluation_without_logits_has_the_same_loss_and_makes_no_gradient():
    model, inputs = make(), batch()
    model.eval()
    with torch.no_grad():
        whole = model(**inputs).loss
        HeadCut(model, Options(mini_sequence=8, logits=False)).install()
        output = model(**inputs)
    assert abs(output.loss.item() - whole.item()) < 1e-6 and not output.loss.requires_grad
    with pytest.raises(EbbtideError, match="logits=True"):
        output.logits.argmax(-1)


class ScaledHead(transformers.LlamaForCausalLM):
    """As Falcon-H1's: the head asks its model for a number."""

    def forward(self, input_ids=None, labels=None, **kwargs):
        hidden = self.model(input_ids=input_ids, **kwargs).last_hidden_state
        logits = self.lm_head(hidden) * self.model.logit_scale
        loss = self.loss_function(logits, labels, self.vocab_size) if labels is not None else None
        return transformers.modeling_outputs.CausalLMOutputWithPast(loss=loss, logits=logits)


class HeadOfEmbeddings(ScaledHead):
    """Asks its model for weights, which no piece knows of."""

    def forward(self, input_ids=None, labels=None, **kwargs):
        hidden = self.model(input_ids=input_ids, **kwargs).last_hidden_state
        logits = hidden @ self.model.embed_tokens.weight.T
        return transformers.modeling_outputs.CausalLMOutputWithPast(
            loss=self.loss_function(logits, labels, self.vocab_size), logits=logits
        )


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_who_looks_at_what_the_base_model_gives_back_sees_it_normed(scale):
    model, seen = make(), []

    def look(module, args, output):
        seen.append(output.last_hidden_state)
        output.last_hidden_state = scale * seen[-1]

    model.model.register_forward_hook(look)
    assert_same(*both(model, **batch()))
    torch.testing.assert_close(*seen)


def test_hidden_states_that_the_configuration_asks_for_are_normed():
    model, inputs = make(), batch()
    model.config.output_hidden_states = True
    whole = model(**inputs).hidden_states
    HeadCut(model, Options(mini_sequence=8)).install()
    assert all(map(torch.equal, model(**inputs).hidden_states, whole))
    assert len(model(**inputs, output_hidden_states=False).hidden_states or ()) == 0


def test_a_number_of_the_model_below_is_the_models_own():
    model = ScaledHead(make().config).double()
    model.model.logit_scale = 0.3
    assert_same(*both(model, **batch()))


def test_weights_of_the_model_below_are_refused_to_a_piece():
    model = HeadOfEmbeddings(make().config).double()
    with pytest.raises(AttributeError, match="embed_tokens of the model below"):
        both(model, **batch())


def test_undoing_leaves_nothing_behind():
    model = make()
    before, signature = dict(model.__dict__), inspect.signature(model.forward)
    cut = HeadCut(model, Options(mini_sequence=8))
    cut.install()
    assert inspect.signature(model.forward) == signature  # Trainer chooses columns by it
    model(**batch()).loss.backward()
    cut.undo()
    assert model.__dict__.keys() == before.keys() and type(model.model).__name__ == "LlamaModel"


def test_undoing_below_another_wrapper_leaves_the_wrapper():
    model, inputs = make(), batch()
    cut = HeadCut(model, Options(mini_sequence=8))
    cut.install()
    ours = model.forward
    model.forward = wrapper = lambda *args, **kwargs: ours(*args, **kwargs)
    cut.undo()
    assert model.forward is wrapper
    assert model(**inputs).logits.shape[1] == 29 and cut.calls == 0


def test_a_copy_of_a_model_drives_itself():
    model = make()
    HeadCut(model, Options(mini_sequence=8)).install()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.lm_head.weight.zero_()
    assert abs(twin(**batch()).loss.item() - torch.tensor(float(WORDS)).log().item()) < 1e-5
    assert model(**batch()).loss.item() != twin(**batch()).loss.item()


def test_an_error_in_the_model_leaves_it_as_it_was():
    model = make()
    HeadCut(model, Options(mini_sequence=8)).install()
    reference = model(**batch()).loss.item()
    with pytest.raises(IndexError):
        model(input_ids=torch.full((1, 5), WORDS + 3), labels=torch.ones(1, 5, dtype=torch.long))
    assert type(model.model).__name__ == "LlamaModel" and "_loss_function" not in model.__dict__
    assert model(**batch()).loss.item() == reference
