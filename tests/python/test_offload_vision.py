"""Models with a vision tower whose layers take rows of all images at once, and so cannot be cut."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("transformers", reason="transformers is not installed here")

import ebbtide
import offload_models as om
from conftest import our_lines
from ebbtide import EbbtideError
from ebbtide._offload._offloaded import offloaded_of

pytestmark = pytest.mark.usefixtures("native")
PIECES = {"mini_sequence": 16, "alpha": 0.5}
IMAGE, BEGIN, END, PATCHES = 60, 58, 59, 16  # of which four make a token


def make():
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "use_cache": False,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "patch_size": 14, "out_hidden_size": 32,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56, "fullatt_block_indexes": [1],
    }  # fmt: skip
    words = {"image_token_id": IMAGE, "video_token_id": 61, "vision_start_token_id": BEGIN, "vision_end_token_id": END}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **words)
    return Qwen2_5_VLForConditionalGeneration(config).train()


def train(model):
    model.zero_grad()
    ids = om.tokens(50, 2).clamp(3, 57)
    ids[:, 5], ids[:, 6:10], ids[:, 10] = BEGIN, IMAGE, END
    pixels = torch.randn(2 * PATCHES, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(2))
    grid = torch.tensor([[1, 4, 4]] * 2)
    loss = model(
        input_ids=ids, labels=ids.masked_fill(ids >= BEGIN, -100), pixel_values=pixels, image_grid_thw=grid,
        mm_token_type_ids=(ids == IMAGE).int(),
    ).loss  # fmt: skip
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_a_strict_program_is_told_of_the_tower_at_the_call():
    model = make()
    with pytest.raises(EbbtideError, match="model.visual.blocks.0 .*not a tensor of batch x tokens x width"):
        ebbtide.offload(model, strict=True, **PIECES)
    assert offloaded_of(model) is None


def test_another_program_is_told_at_the_first_image(capsys):
    model = make()
    whole = train(model)
    ebbtide.offload(model, **PIECES)
    assert our_lines(capsys.readouterr().err) == []
    assert om.worst_error(train(model), whole) < 1e-4
    (line,) = our_lines(capsys.readouterr().err)
    assert "model.visual.blocks.0" in line


def test_a_frozen_tower_saves_nothing_and_nothing_is_said(capsys):
    model = make()
    model.model.visual.requires_grad_(False)
    whole = train(model)
    ebbtide.offload(model, strict=True, **PIECES)
    assert om.worst_error(train(model), whole) < 1e-4
    assert our_lines(capsys.readouterr().err) == []
    counts = {tally.name: (tally.calls, tally.whole_because) for tally in offloaded_of(model).layers.counts()}
    assert counts["model.visual.blocks.0"] == (0, None)
    assert counts["model.language_model.layers.0"] == (1, None)
