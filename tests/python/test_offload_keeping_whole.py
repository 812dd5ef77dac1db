"""Layers that run whole (those that cannot be cut) and keep all they save: no bit differs, and nothing outlives its step."""

from __future__ import annotations

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import ebbtide  # noqa: E402
import offload_models as om  # noqa: E402
from ebbtide._offload._keeping import Keeping, Level  # noqa: E402
from ebbtide._offload._layer import wrap_layers  # noqa: E402
from ebbtide._offload._offloaded import offloaded_of  # noqa: E402
from ebbtide._offload._options import Options  # noqa: E402
from ebbtide._offload._peak import Peak  # noqa: E402
from ebbtide._offload._length import Length  # noqa: E402
from ebbtide._offload._spare import Spare  # noqa: E402
from test_offload_api import batch, train  # noqa: E402
from test_offload_choosing import STEPS_TO_SETTLE, clock, let_forward_take  # noqa: E402, F401
from test_offload_keeping import K, S, Room, device, keeping, kept_by, settle  # noqa: E402, F401

LINEAR, FULL = "linear_attention", "full_attention"


def hybrid(*kinds, **changes):
    """Layers of kind LINEAR run whole, the others are cut."""
    return om.make("qwen3_next", torch.float32, layer_types=list(kinds), num_hidden_layers=len(kinds), **changes)


def saved_bytes(layer, model, length):
    """What autograd keeps of this layer's own forward in a call, but for parameters: as it is, without offload."""
    found, inside = {}, []

    def pack(tensor):
        if inside:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    hooks = [layer.register_forward_pre_hook(lambda *_: inside.append(1)), layer.register_forward_hook(lambda *_: inside.clear())]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        om.body_loss(model, om.tokens(length, 2))
    for hook in hooks:
        hook.remove()
    own = {one.untyped_storage().data_ptr() for one in (*layer.parameters(), *layer.buffers())}
    return sum(storage.nbytes() for address, storage in found.items() if address not in own)


def run(model, store, steps=3, **options):
    cuts = wrap_layers(model, Options(**{"keep_last": 0, "mini_sequence": 16, **options}), store)
    torch.manual_seed(11)
    found = {}
    for step in range(steps):
        found |= {f"{step}, {name}": value for name, value in om.gradients(model, om.tokens(50, 2, step)).items()}
    counts = cuts.counts()
    cuts.undo()
    return found, counts


@pytest.mark.parametrize("kinds", [(LINEAR, LINEAR), (LINEAR, FULL), (FULL, LINEAR), (LINEAR, FULL, LINEAR)])
@pytest.mark.parametrize("every", [True, False])
def test_keeping_changes_no_bit_and_nothing_of_it_is_swapped_or_recomputed(monkeypatch, kinds, every):
    Room(monkeypatch)
    model = hybrid(*kinds, attention_dropout=0.1)
    again, before = run(model, om.CopyStore())
    store, stays = om.CopyStore(), [every or kind == LINEAR for kind in kinds]
    found, counts = run(model, store, keeping=keeping(*stays))
    om.assert_same_bits(found, again)
    assert store.live == 0
    for count, seen, one in zip(counts, before, stays, strict=True):
        assert (count.swapped_bytes == 0) == one and seen.swapped_bytes > 0
        assert not (one and count.recomputed_bytes)


def test_what_such_a_layer_would_save_is_measured_while_it_runs_again():
    model = hybrid(LINEAR, FULL)
    expected = saved_bytes(om.layers_of(model)[0], model, 50)
    _, (whole, cut) = run(model, om.CopyStore())
    assert whole.whole_length == (2 * 50, 50) and 0 < whole.whole_bytes <= expected
    # The rest is what lives on anyway: the layer's input, rotary tables.
    assert expected - whole.whole_bytes <= 8 * 2 * 50 * om.HIDDEN * 4
    assert whole.recomputed_bytes == 3 * whole.whole_bytes and cut.whole_bytes == 0


@pytest.mark.parametrize("kinds", [(LINEAR,) * 3, (LINEAR, FULL, LINEAR)])
def test_auto_keeps_them_where_there_is_room_and_says_how_much_that_is(native, clock, device, kinds):  # noqa: F811
    model = hybrid(*kinds)
    chosen, found = settle(device, model, clock)
    assert kept_by(chosen) == (K, K, K) and len(found) < STEPS_TO_SETTLE
    for one in found[1:]:
        om.assert_same_bits(one, found[0])
    # AND each call from now on counts what a layer keeps, and nothing else (a first one may find out how it is cut)
    before = ebbtide.stats().offload.models[-1]
    train(model, **batch())
    told = ebbtide.stats().offload.models[-1]
    assert told.kept_layers == 3
    for layer, earlier in zip(told.layers, before.layers, strict=True):
        assert layer.calls == earlier.calls + 1 and layer.kept_bytes > earlier.kept_bytes
        assert (layer.swapped_bytes, layer.recomputed_bytes) == (earlier.swapped_bytes, earlier.recomputed_bytes)


def test_auto_keeps_layers_whose_calls_ask_for_what_is_inside_of_them(native, clock, device):  # noqa: F811
    """As training with the routers' loss does: such calls run whole, though the layers could be cut."""
    model = om.make("qwen3_moe", torch.float32, output_router_logits=True, router_aux_loss_coef=0.1)
    whole = train(model, **batch())
    chosen, found = settle(device, model, clock)
    assert kept_by(chosen) == (K, K) and len(found) < STEPS_TO_SETTLE
    for one in found[1:]:
        om.assert_same_bits(one, found[0])
    assert om.worst_error(found[0], whole) < 1e-4
    assert [layer.recomputed_bytes for layer in ebbtide.stats().offload.models[-1].layers] == [0, 0]


def test_of_such_layers_alone_some_are_kept_and_nothing_is_shared_out(native, clock, device):  # noqa: F811
    model = hybrid(*[LINEAR] * 6)
    ebbtide.offload(model, alpha=0, host="64MiB")
    train(model, **batch())
    tally = ebbtide.stats().offload.models[-1].layers[0]
    ebbtide.offload(model, off=True)
    device.room = 3.5 * tally.recomputed_bytes + 6.5 * tally.swapped_bytes
    chosen, found = settle(device, model, clock)
    assert kept_by(chosen) == (S, K, S, K, S, K) and (chosen.options.alpha, chosen.limit) == (0, "")
    for one in found[1:]:
        om.assert_same_bits(one, found[0])


@pytest.mark.parametrize("settings", [{"host": 0}, {"keep_last": 3}])
def test_they_are_kept_where_nothing_leaves_the_device(native, clock, device, settings):  # noqa: F811
    model = device.model = hybrid(*[LINEAR] * 3)
    ebbtide.offload(model, **{"host": "64MiB", **settings})
    let_forward_take(model, clock, lambda: 3600)
    for _ in range(STEPS_TO_SETTLE):
        train(model)
    assert kept_by(offloaded_of(model)) == (K, K, K)


def test_a_decoder_that_is_longer_than_its_encoder_keeps_what_there_is_room_for_then(monkeypatch):
    """T5's layers run whole: the others' position bias needs a gradient."""
    room = Room(monkeypatch, there=1000)
    config = transformers.T5Config(
        vocab_size=om.VOCABULARY, d_model=32, d_kv=8, d_ff=40, num_layers=2, num_decoder_layers=2, num_heads=4,
        decoder_start_token_id=0, dropout_rate=0.0)  # fmt: skip
    torch.manual_seed(5)
    model = transformers.T5ForConditionalGeneration(config).train()
    levels = Level((K, K, K, K), 0, 600), Level((S, S, S, K), 0, 100)
    short, long = om.tokens(10), om.tokens(30)

    def gradients(labels):
        model.zero_grad()
        model(input_ids=short, labels=labels).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = [gradients(labels) for labels in (short, long)]
    cuts = wrap_layers(model, Options(keep_last=0, keeping=Keeping(levels[0], levels, Length(10, 10), 0, 0)), om.CopyStore())
    found = [(gradients(labels), cuts.shared.level) for labels in (short, long)]
    cuts.undo()
    # THEN a longer decoder asks once more, and keeps what nine times as many pairs of tokens leave room for
    assert found[0][1] == levels[0] and found[1][1] == Level(levels[1].stays, 0, 900)
    assert room.asked == [600, 600, 5400, 900]
    for (gradient, _), plain in zip(found, expected, strict=True):
        assert om.worst_error(gradient, plain) < 1e-5


def test_an_input_that_is_a_leaf_collects_no_hooks(monkeypatch):
    Room(monkeypatch)
    model = hybrid(LINEAR, LINEAR)
    x = torch.nn.Parameter(torch.randn(1, 20, om.HIDDEN))
    cuts = wrap_layers(model, Options(keep_last=0, keeping=keeping(K, K)), om.CopyStore(), peak=Peak(Spare(model)))
    for _ in range(3):
        model.base_model(inputs_embeds=x).last_hidden_state.square().sum().backward()
    cuts.undo()
    assert not x._backward_hooks


def alive_after(model, step):
    """The names of tensors that `step` returned beside a loss, of those that are still there, and the loss."""
    gc.collect()
    loss, tensors = step(model)
    alive = {name: weakref.ref(tensor.untyped_storage()) for name, tensor in tensors.items()}
    del tensors
    gc.disable()  # reference counts alone must do
    try:
        return sorted(name for name, one in alive.items() if one() is not None), loss
    finally:
        gc.enable()


@pytest.mark.parametrize("kinds", [(FULL, FULL), (LINEAR, LINEAR), (FULL, LINEAR)])
@pytest.mark.parametrize("stays", [(), (K, K)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_who_keeps_a_loss_keeps_no_mask_nor_input(monkeypatch, kinds, stays, attention):
    Room(monkeypatch)
    model = hybrid(*kinds, attn_implementation=attention)
    seen = {}

    def look(index):
        def hook(_, args, kwargs):
            for name, value in kwargs.items():
                if isinstance(value, torch.Tensor):
                    seen[f"{name} of {index}"] = value
            seen[f"input of {index}"] = args[0]

        return hook

    hooks = [layer.register_forward_pre_hook(look(i), with_kwargs=True) for i, layer in enumerate(om.layers_of(model))]

    def step(model):
        padding = torch.ones(2, 160, dtype=torch.long)
        padding[1, 100:] = 0
        loss = om.body_loss(model, om.tokens(160, 2), attention_mask=padding)
        loss.backward()
        told = dict(seen)
        seen.clear()
        return loss, told

    cuts = wrap_layers(model, Options(mini_sequence=32, keep_last=0, keeping=keeping(*stays) if stays else None), om.CopyStore())
    for _ in range(2):
        alive, loss = alive_after(model, step)
        del loss
    for hook in hooks:
        hook.remove()
    cuts.undo()
    assert alive == []


@pytest.mark.parametrize("stays", [(), (K, K)])
def test_the_peak_is_looked_at_when_backward_ends_with_a_layer_that_runs_whole(monkeypatch, stays):
    Room(monkeypatch)
    model = hybrid(LINEAR, LINEAR)
    peak, noted = Peak(Spare(model)), []
    monkeypatch.setattr(peak, "note_backward", lambda device: noted.append([p.grad is None for p in om.layers_of(model)[1].parameters()]))
    options = Options(mini_sequence=16, keep_last=0, keeping=keeping(*stays) if stays else None)
    cuts = wrap_layers(model, options, om.CopyStore(), peak=peak)
    om.gradients(model, om.tokens(50))
    cuts.undo()
    # THEN once, and not before the layer behind it is through
    assert len(noted) == 1 and not any(noted[0])
