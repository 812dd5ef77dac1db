"""ebbtide.offload, ebbtide.tag, EBBTIDE_OFFLOAD: settings, errors, undoing, numbers."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import ebbtide  # noqa: E402
import offload_models as models  # noqa: E402
from conftest import our_lines  # noqa: E402
from ebbtide import EbbtideError  # noqa: E402
from ebbtide._offload import _options, _self_check  # noqa: E402
from ebbtide._offload._offloaded import offloaded_of  # noqa: E402
from ebbtide._offload._swap_engine import ALIGNMENT  # noqa: E402

PIECES = {"mini_sequence": 8, "host": 0}  # host=0: without the native library


def make(**changes):
    return models.make("llama", torch.float32, **changes)


def batch(tokens=29, batches=2):
    ids = models.tokens(tokens, batches)
    return {"input_ids": ids, "labels": ids}


def train(model, **inputs):
    model.zero_grad()
    loss = model(**(inputs or batch())).loss
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def is_offloaded(model):
    return offloaded_of(model) is not None


def only_line(capsys):
    (line,) = our_lines(capsys.readouterr().err)
    return line


def test_a_model_trains_in_pieces_and_is_returned(capsys):
    model = make()
    whole = train(model)
    assert ebbtide.offload(model, alpha=0.5, **PIECES) is model and is_offloaded(model)
    assert models.worst_error(train(model), whole) < 1e-4
    state = offloaded_of(model)
    assert state.head.calls == 1
    assert [tally.attention_forwards for tally in state.layers.counts()] == [1, 1]
    assert our_lines(capsys.readouterr().err) == []


def test_what_is_no_module_is_named():
    with pytest.raises(EbbtideError, match=r"^offload\(3\): allowed is a torch.nn.Module$"):
        ebbtide.offload(3)


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_every_architecture_passes_its_self_check(architecture, capsys):
    model = models.make(architecture, torch.float32)
    ebbtide.offload(model, **PIECES)
    state = offloaded_of(model)
    assert state.head is not None and state.head.norm is not None
    lines = our_lines(capsys.readouterr().err)
    whole = [tally for tally in state.layers.counts() if tally.whole_because]
    if architecture == "qwen3_next":  # its linear attention mixes tokens in its own way
        assert len(whole) == 1 and len(lines) == 1
    else:
        assert not whole and not lines


WRONG = [
    ({"alpha": 1.5}, ["alpha=1.5", "0 to 1"]),
    ({"alpha": "half"}, ["alpha=half", "auto", "0 to 1"]),
    ({"mini_sequence": 0}, ["mini_sequence=0", "tokens"]),
    ({"host": "1000TiB"}, ["host=", "this machine has", "EBBTIDE_HOST"]),
    ({"host": 110}, ["host=110: that is 110 bytes; did you mean 110GiB"]),
    ({"hbm": "40"}, ["hbm=40: that is 40 bytes; did you mean 40GiB"]),
    ({"host": "plenty"}, ["host=plenty", "120GiB"]),
    ({"hbm": -1}, ["hbm=-1", "120GiB"]),
    ({"keep_last": -1}, ["keep_last=-1"]),
    ({"attention": "drop"}, ["attention='drop'", "save", "recompute"]),
    ({"z_loss": -1.0}, ["z_loss=-1.0"]),
    ({"label_smoothing": 2}, ["label_smoothing=2", "0 to 1"]),
    ({"logits": "yes"}, ["logits=yes", "True, False or None"]),
]


@pytest.mark.parametrize(("settings", "named"), WRONG)
def test_a_wrong_setting_is_named_and_training_goes_on(settings, named, capsys):
    model = make()
    whole = train(model)
    ebbtide.offload(model, **settings)
    line = only_line(capsys)
    assert all(word in line for word in named) and "goes on without offload" in line, line
    assert not is_offloaded(model)
    models.assert_same_bits(train(model), whole)


@pytest.mark.parametrize(("settings", "named"), WRONG[:2])
def test_a_wrong_setting_stops_a_strict_program(settings, named, monkeypatch):
    for strict in ({"strict": True}, {}):
        with pytest.raises(EbbtideError, match=named[0]):
            ebbtide.offload(make(), **settings, **strict)
        monkeypatch.setenv("EBBTIDE_STRICT", "1")


def test_a_frozen_model_is_left_alone(capsys):
    model = make().requires_grad_(False)
    ebbtide.offload(model)
    assert "frozen" in only_line(capsys) and not is_offloaded(model)


class Prompted(torch.nn.Module):
    """Learns embeddings that go before the tokens' of a frozen model, as prompt tuning does."""

    def __init__(self):
        super().__init__()
        self.lm = make(use_cache=False).requires_grad_(False)
        self.prompt = torch.nn.Parameter(torch.linspace(-1, 1, 3 * models.HIDDEN).view(1, 3, models.HIDDEN))

    def forward(self, input_ids, labels):
        words = self.lm.get_input_embeddings()(input_ids)
        embedded = torch.cat([self.prompt.expand(len(words), -1, -1), words], dim=1)
        ignored = labels.new_full((len(words), 3), -100)
        return self.lm(inputs_embeds=embedded, labels=torch.cat([ignored, labels], dim=1))


def test_a_prompt_in_front_of_a_frozen_model_is_learned_in_pieces(capsys):
    model = Prompted()
    whole = train(model)
    ebbtide.offload(model, strict=True, alpha=0.5, **PIECES)
    found = train(model)
    assert found.keys() == {"loss", "prompt"} and models.worst_error(found, whole) < 1e-4
    assert [tally.calls for tally in offloaded_of(model).layers.counts()] == [1, 1]
    assert our_lines(capsys.readouterr().err) == []


def test_a_model_without_attention_is_left_alone(capsys):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    ebbtide.offload(model)
    line = only_line(capsys)
    assert "no layer was found" in line and "before_attention" in line
    assert not is_offloaded(model) and "forward" not in model.__dict__


class Block(torch.nn.Module):
    """Plain torch, with the three parts that docs/offload.md asks for."""

    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)

    def before_attention(self, x):
        return self.qkv(x).chunk(3, dim=-1)

    def attention(self, q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def after_attention(self, x, out):
        return x + self.out(out).relu()

    def forward(self, x):
        return self.after_attention(x, self.attention(*self.before_attention(x)))


def test_a_model_of_plain_torch_may_offer_its_parts():
    torch.manual_seed(0)
    model = torch.nn.Sequential(Block(16), Block(16))
    x = torch.randn(2, 29, 16, requires_grad=True)

    def run():
        model.zero_grad()
        x.grad = None
        model(x).square().sum().backward()
        return {"x": x.grad.clone()} | {n: p.grad.clone() for n, p in model.named_parameters()}

    whole = run()
    ebbtide.offload(model, alpha=0.5, **PIECES)
    assert is_offloaded(model) and models.worst_error(run(), whole) < 1e-4
    ebbtide.offload(model, off=True)
    models.assert_same_bits(run(), whole)


def test_a_cache_in_training_is_ignored_and_named_once(capsys):
    model = make()
    ebbtide.offload(model, **PIECES)
    for _ in range(2):
        assert model(**batch(), use_cache=True).past_key_values is None
    assert "use_cache=True" in only_line(capsys)
    model.config.use_cache = True  # transformers' default: nobody asked for it
    assert model(**batch()).past_key_values is None
    assert our_lines(capsys.readouterr().err) == []
    ebbtide.offload(model, strict=True, **PIECES)
    with pytest.raises(EbbtideError, match="use_cache=True"):
        model(**batch(), use_cache=True)


def test_documents_that_a_cache_would_have_joined_are_named_once(capsys):
    """transformers looks for documents in positions only where no cache is filled, and fills one by default."""
    model, positions = make(use_cache=True), torch.cat([torch.arange(15), torch.arange(14)]).expand(2, -1)
    apart = train(model, **batch(), position_ids=positions, use_cache=False)
    joined = train(model, **batch(), position_ids=positions)
    assert models.worst_error(joined, apart) > 0.1
    ebbtide.offload(model, **PIECES)
    for inputs in ({"use_cache": False}, {"attention_mask": torch.ones(2, 29)}):
        train(model, **batch(), position_ids=positions, **inputs)
    assert our_lines(capsys.readouterr().err) == []
    for _ in range(2):
        found = train(model, **batch(), position_ids=positions)
        assert models.worst_error(found, apart) < 1e-4
    assert "documents are kept apart" in only_line(capsys)


def test_activation_checkpointing_is_switched_off_until_offload_is(capsys):
    model = make()
    model.gradient_checkpointing_enable()
    ebbtide.offload(model, **PIECES)
    assert "activation checkpointing" in only_line(capsys)
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()  # as a trainer does
    assert not model.is_gradient_checkpointing and our_lines(capsys.readouterr().err) == []
    train(model)
    assert [t.attention_forwards for t in offloaded_of(model).layers.counts()] == [1, 1]
    ebbtide.offload(model, off=True)
    assert model.is_gradient_checkpointing
    with pytest.raises(EbbtideError, match="activation checkpointing"):
        ebbtide.offload(model, strict=True, **PIECES)
    assert model.is_gradient_checkpointing, "left as it was"


def test_switching_off_undoes_everything(capsys):
    model = make()
    before = {name: set(module.__dict__) for name, module in model.named_modules()}
    whole = train(model)
    ebbtide.offload(model, **PIECES)
    train(model)
    ebbtide.offload(model, off=True)
    assert {n: set(m.__dict__) - {"_ebbtide_decided"} for n, m in model.named_modules()} == before
    models.assert_same_bits(train(model), whole)
    assert ebbtide.offload(model, off=True) is model and our_lines(capsys.readouterr().err) == []


def test_other_settings_replace_the_former_ones():
    model = make()
    for alpha in (0.25, 1.0):
        ebbtide.offload(model, alpha=alpha, **PIECES)
        assert offloaded_of(model).options.alpha == alpha
    ebbtide.offload(model, off=True)
    assert "forward" not in model.model.layers[0].__dict__ and "forward" not in model.__dict__


def test_evaluation_and_generation_are_those_of_the_model():
    model = make()
    model.eval()
    ids = models.tokens(12)
    with torch.no_grad():
        logits = model(input_ids=ids, labels=ids).logits
        words = model.generate(ids, max_new_tokens=5, do_sample=False)
    ebbtide.offload(model, **PIECES)
    with torch.no_grad():
        output = model(input_ids=ids, labels=ids)
        assert torch.allclose(output.logits, logits, atol=1e-5) and output.loss.isfinite()
        assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False), words)
    model.train()
    assert model(input_ids=ids, labels=ids).loss.requires_grad


def test_a_copy_of_an_offloaded_model_is_one_of_its_own():
    model = make()
    ebbtide.offload(model, **PIECES)
    whole = train(model)
    twin = copy.deepcopy(model)
    models.assert_same_bits(train(twin), whole)
    with torch.no_grad():
        twin.lm_head.weight.zero_()
    models.assert_same_bits(train(model), whole)
    ebbtide.offload(twin, off=True)
    assert is_offloaded(model) and not is_offloaded(twin)


def test_a_head_that_computes_something_else_stays_whole_and_says_why(capsys, monkeypatch):
    model = make()
    model.loss_function = lambda logits, labels, vocab_size, **_: logits.std()  # no sum over tokens
    whole = train(model)
    ebbtide.offload(model, **PIECES)
    assert "head and loss of LlamaForCausalLM stay whole" in only_line(capsys)
    assert offloaded_of(model).head is None
    assert models.worst_error(train(model), whole) < 1e-4
    with pytest.raises(EbbtideError, match="stay whole"):
        ebbtide.offload(model, strict=True, **PIECES)


def test_layers_that_compute_something_else_are_treated_whole_and_say_why(capsys):
    model = make()
    mlp = model.model.layers[0].mlp
    own = mlp.forward
    mlp.forward = lambda x: own(x) + x.mean(dim=1, keepdim=True)  # mixes tokens
    whole = train(model)
    ebbtide.offload(model, **PIECES)
    assert "differs by" in capsys.readouterr().err
    assert all(tally.whole_because for tally in offloaded_of(model).layers.counts())
    assert models.worst_error(train(model), whole) < 1e-4


def test_a_model_may_change_its_embeddings_in_place():
    model = make()
    model.model.layers[0].register_forward_pre_hook(lambda _, args: (args[0].mul_(2.0), *args[1:]))
    whole = train(model)
    ebbtide.offload(model, strict=True, **PIECES)
    assert models.worst_error(train(model), whole) < 1e-4


def test_the_self_check_leaves_no_trace():
    model = make()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ebbtide.offload(model, **PIECES)
    assert torch.equal(torch.rand(3), expected)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(t.calls == 0 for t in offloaded_of(model).layers.counts())


def test_the_self_check_knows_nothing_of_a_simulated_device(monkeypatch):
    model = torch.nn.Linear(2, 2, device="meta")
    assert _self_check.cannot_be_checked(model)
    assert not _self_check.cannot_be_checked(make())


@pytest.mark.parametrize(
    ("text", "size"),
    [("120GiB", 120 << 30), ("1.5 GB", 1_500_000_000), ("8192", 8192), (8192, 8192), (0, 0), ("", None), (None, None)],
)
def test_sizes_are_numbers_or_have_units(text, size):
    assert _options.bytes_of("host", text) == size


@pytest.mark.parametrize(("layers", "keeps"), [(0, []), (1, [3]), (2.5, [2, 3]), (9, [0, 1, 2, 3])])
def test_as_many_last_layers_stay_as_fit_into_the_device_budget(native, layers, keeps):
    model = make(num_hidden_layers=4)
    input_bytes = 2 * 29 * models.HIDDEN * 4
    layer_bytes = 2 * input_bytes + 4 * ALIGNMENT  # its input, attention's output, and their ends
    ebbtide.offload(
        model, alpha=0, mini_sequence=8, host="64MiB", hbm=int(layers * layer_bytes), keep_last=4
    )
    train(model)
    counts = offloaded_of(model).layers.counts()
    assert [n for n, tally in enumerate(counts) if not tally.swapped_bytes] == keeps
