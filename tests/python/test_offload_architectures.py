"""Models that offload was not written for: each trains with the gradients that it has left whole, cut
where it can be and whole, with a reason, where not."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import ebbtide
import offload_models as om
from conftest import our_lines
from ebbtide._offload._offloaded import offloaded_of

_LATENT = {
    "num_key_value_heads": om.HEADS, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "moe_intermediate_size": 16, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip
CUT = {
    "phi": {},  # attention and MLP side by side
    "mixtral": {"num_local_experts": 4},
    "deepseek_v3": _LATENT,  # values narrower than keys
    "olmo": {},
    "stablelm": {},
    "nemotron": {"head_dim": 8},
    "opt": {"ffn_dim": om.MLP, "word_embed_proj_dim": om.HIDDEN, "dropout": 0.0},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": om.MLP, "head_dim": 8},
    "gptj": {"n_embd": om.HIDDEN, "n_layer": 2, "n_head": om.HEADS, "rotary_dim": 4, "n_positions": 256,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    # Its head looks at the shape of the model's input.
    "gemma4_text": {"head_dim": 8, "hidden_size_per_layer_input": 0, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip
OWN_ATTENTION = "before it asks transformers for its attention"
WHOLE = {
    "falcon": ({"num_kv_heads": 2, "new_decoder_architecture": True, "alibi": False}, OWN_ATTENTION),
    "bloom": ({"n_layer": 2, "n_head": om.HEADS, "hidden_dropout": 0.0}, OWN_ATTENTION),
    "mamba": ({}, "it calls no attention that transformers knows of"),
    "diffllama": ({}, "it calls attention more than once"),
}


def train(model):
    ids = om.tokens(50, 2)
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}}


def assert_same_training(model, **settings):
    """Gradients that are zero but for rounding (biases of keys) are held against those of the others."""
    expected = train(model)
    typical = max(float(value.abs().max()) for value in expected.values())
    ebbtide.offload(model, mini_sequence=16, host=0, **settings)
    found = train(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = float((found[name] - value).abs().max())
        assert error <= 1e-4 * max(float(value.abs().max()), 1e-2 * typical), name
    return [tally.whole_because for tally in offloaded_of(model).layers.counts()]


@pytest.mark.parametrize("architecture", CUT)
def test_unseen_architectures_are_cut(architecture, capsys):
    model = om.make(architecture, torch.float32, extra=CUT[architecture])
    assert assert_same_training(model, strict=True) == [None, None]
    assert offloaded_of(model).head.calls == 1
    assert our_lines(capsys.readouterr().err) == []


@pytest.mark.parametrize("architecture", WHOLE)
def test_what_cannot_be_cut_is_whole_with_a_reason(architecture, capsys):
    extra, reason = WHOLE[architecture]
    model = om.make(architecture, torch.float32, extra=extra)
    reasons = assert_same_training(model)
    assert all(reason in why for why in reasons)
    assert offloaded_of(model).head.calls == 1
    (line,) = our_lines(capsys.readouterr().err)
    assert "is not cut into pieces but saved and run whole" in line


GEMMA4 = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "vocab_size": om.VOCABULARY,
          "hidden_size": om.HIDDEN, "intermediate_size": om.MLP, "num_hidden_layers": 2, "num_attention_heads": om.HEADS,
          "num_key_value_heads": om.KV_HEADS, "num_kv_shared_layers": 0, "sliding_window": 24, "use_cache": False,
          "vocab_size_per_layer_input": om.VOCABULARY}  # fmt: skip


def test_a_body_with_a_single_part_is_called_by_the_class_that_names_the_body():
    """Gemma 4 without towers: its body does more than its one part. OPT's class calls the part itself."""
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration

    config = Gemma4Config(text_config={**GEMMA4, "hidden_size_per_layer_input": 0}, vision_config=None, audio_config=None)
    torch.manual_seed(7)
    model = Gemma4ForConditionalGeneration(config).train()
    assert list(model.model._modules) == ["language_model"]
    assert assert_same_training(model, strict=True) == [None, None]
    assert offloaded_of(model).head.calls == 1


def test_the_final_norm_is_not_a_norm_of_something_narrower():
    model = om.make("gemma4_text", torch.float32, extra={**GEMMA4, "hidden_size_per_layer_input": 8})
    assert list(model.model._modules)[-1] == "per_layer_projection_norm"
    assert_same_training(model)
    assert offloaded_of(model).head.norm == "norm"


def make_clip():
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    text, vision = {**tower, "vocab_size": 61, "eos_token_id": 2}, {**tower, "image_size": 28, "patch_size": 4}
    torch.manual_seed(7)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).train()


def test_a_model_whose_embeddings_transformers_does_not_find_is_cut_by_its_layers(capsys):
    model = make_clip()
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))

    def gradients():
        model.zero_grad()
        model(input_ids=om.tokens(40, 2), pixel_values=pixels, return_loss=True).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if "k_proj.bias" not in name}

    expected = gradients()
    ebbtide.offload(model, mini_sequence=16, host=0, strict=True)
    assert om.worst_error(gradients(), expected) < 1e-3
    assert [(t.calls, t.whole_because) for t in offloaded_of(model).layers.counts()] == [(1, None)] * 4
    assert our_lines(capsys.readouterr().err) == []
