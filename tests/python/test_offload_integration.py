"""Offload under what people train with: Trainer, SFTTrainer, PEFT, autocast, DDP, FSDP2, checkpoint."""

from __future__ import annotations

import copy
import gc

import pytest
from conftest import PROGRAMS, our_lines

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import ebbtide  # noqa: E402
import offload_models as models  # noqa: E402
from ebbtide._offload._offloaded import offloaded_of  # noqa: E402

PIECES = {"mini_sequence": 8, "keep_last": 0, "host": "64MiB"}
EIGHTHS = [eighth / 8 for eighth in range(9)]


def make(**changes):
    return models.make("llama", torch.float32, **changes)


def batch(seed=3, tokens=29, batches=2):
    ids = models.tokens(tokens, batches, seed)
    return {"input_ids": ids, "labels": ids.clone()}


def train(model, steps=20):
    """Losses, the last gradients, and the parameters after some steps of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = {}
    for step in range(steps):
        loss = model(**batch(seed=step)).loss
        loss.backward()
        optimizer.step()
        found[f"loss {step}"] = loss.detach()
        if step + 1 < steps:
            optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        found[f"gradient of {name}"] = parameter.grad.clone()
        found[name] = parameter.detach().clone()
    return found


@pytest.fixture(scope="module")
def kept():
    """Everything kept on the device, in the same pieces."""
    from ebbtide._offload._layer import wrap_layers
    from ebbtide._offload._pieces import Policy
    from ebbtide._offload._store import KeepStore

    model = make()
    ebbtide.offload(model, alpha=0.0, mini_sequence=8, host=0)
    state = offloaded_of(model)
    state.layers.undo()
    state.layers = wrap_layers(
        model, state.options, KeepStore(), lambda _, spans: [Policy.KEEP] * len(spans)
    )
    return train(model)


@pytest.mark.parametrize("alpha", EIGHTHS)
def test_20_steps_are_bit_for_bit_those_of_keeping_everything(native, kept, alpha):
    model = make()
    ebbtide.offload(model, alpha=alpha, **PIECES)
    models.assert_same_bits(train(model), kept)
    layers = ebbtide.stats().offload.models[-1].layers
    assert all(layer.swapped_bytes > 0 for layer in layers)
    assert any(layer.recomputed_bytes > 0 for layer in layers) == (alpha < 1)
    assert [layer.attention_forwards for layer in layers] == [20, 20]


def test_accumulated_gradients_are_those_of_the_whole_model():
    model = make()

    def accumulate():
        model.zero_grad()
        for micro in range(3):
            (model(**batch(seed=micro), num_items_in_batch=150).loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return {"norm": norm} | {name: p.grad.clone() for name, p in model.named_parameters()}

    whole = accumulate()
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0)
    assert models.worst_error(accumulate(), whole) < 1e-3


def test_two_forwards_before_one_backward_and_an_evaluation_between():
    model = make()

    def run():
        model.zero_grad()
        first = model(**batch(seed=1)).loss
        model.eval()
        with torch.no_grad():
            model(**batch(seed=2))
        model.train()
        (first + model(**batch(seed=3)).loss).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    whole = run()
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0)
    assert models.worst_error(run(), whole) < 1e-3


def test_autocast_gives_what_it_gives_the_whole_model():
    """As StreamBP's rule: no worse than 1.5 times the whole model's own error against float32."""
    model = make()

    def run(autocast):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(**batch()).loss
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    exact, whole = run(False), run(True)
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0)
    found = run(True)
    for name, value in exact.items():
        usual, ours = ((one[name] - value).norm() for one in (whole, found))
        assert ours <= 1.5 * usual + 1e-6, name


def test_a_gradient_scaler_and_clipping_see_the_gradients_of_the_whole_model():
    model = make()
    twin = copy.deepcopy(model)
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0)

    def run(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        for _ in range(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**batch()).loss
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        return {"scale": torch.tensor(scaler.get_scale()), **dict(model.named_parameters())}

    assert models.worst_error(run(model), run(twin)) < 1e-2


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_around_an_offloaded_model(reentrant):
    from torch.utils.checkpoint import checkpoint

    model = make()
    inputs = batch()
    embedded = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()

    def loss_of(embedded):
        return model(inputs_embeds=embedded, labels=inputs["labels"]).loss

    def run():
        model.zero_grad()
        embedded.grad = None
        checkpoint(loss_of, embedded, use_reentrant=reentrant).backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return found | {"embedded": embedded.grad.clone()}

    whole = run()
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0)
    assert models.worst_error(run(), whole) < 1e-3


def test_checkpoint_inside_an_offloaded_layer():
    from torch.utils.checkpoint import checkpoint

    model = make()
    mlp = model.model.layers[0].mlp
    own = mlp.forward
    mlp.forward = lambda x: checkpoint(own, x, use_reentrant=False)

    def run():
        model.zero_grad()
        model(**batch()).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    whole = run()
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0, strict=True)
    assert models.worst_error(run(), whole) < 1e-3


@pytest.mark.parametrize("mini_sequence", [8, None])
def test_the_form_that_a_mark_tells_is_the_number_of_pieces_that_run(mini_sequence):
    """By it rounds are told apart before they begin: a wrong one costs a plan."""
    from ebbtide._offload._registry import registry

    gc.collect()  # the form is that of all models: none of another test may end in this one
    model = make()
    ebbtide.offload(model, alpha=0.5, mini_sequence=mini_sequence, keep_last=0, host="64MiB")
    state = offloaded_of(model)
    model(**batch(tokens=29, batches=2)).loss.backward()  # in which a few tokens tell what nobody needs
    runs = {"layer": 0, "head": 0}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: runs.update({name: runs[name] + 1}))
        for name, module in (("layer", model.model.layers[0].mlp), ("head", model.lm_head))
    ]
    forms = {}
    for tokens, batches in ((29, 2), (30, 2), (41, 1), (29, 2)):
        runs.update(layer=0, head=0)
        of_layers, of_head = state.forms(batches, tokens)
        forms[tokens, batches], pieces = registry.form([batches, tokens, batches, tokens])
        loss = model(**batch(tokens=tokens, batches=batches)).loss
        layer_pieces, swapped, *_ = of_layers.counts
        (head_pieces,) = of_head.counts
        assert pieces == [*of_layers.pieces, *of_head.pieces]
        for form in (of_layers, of_head):  # all of one length, but for the last
            first, last = form.pieces
            assert (form.counts[0] - 1) * first + last == batches * tokens
        # The head is asked once more, for an empty sequence.
        assert (layer_pieces, head_pieces) == (runs["layer"], runs["head"] - 1)
        assert swapped == round(layer_pieces / 2 + 0.01) or mini_sequence is None
        loss.backward()
    counts = [[form.counts for form in state.forms(2, tokens)] for tokens in (29, 30)]
    assert (forms[29, 2] == forms[30, 2]) is (counts[0] == counts[1])
    assert all(0 < form < 1 << 16 for form in forms.values())
    ebbtide.offload(model, off=True)
    assert registry.form([2, 29]) == (0, []) or registry.models()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_what_they_train_without_offload(run_python, native, kind):
    """Under DDP, Liger's tiled MLP marks a parameter ready once a tile, and raises."""
    program = PROGRAMS / "offload_distributed.py"
    done = run_python([program, kind, "0.5"], EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"]


def lora(model):
    peft = pytest.importorskip("peft", reason="peft is not installed here")
    targets = ["q_proj", "v_proj", "up_proj", "lm_head"]
    config = peft.LoraConfig(r=2, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zeros at first: then nothing would reach lora_A
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def test_lora_adapters_get_the_gradients_of_the_whole_model():
    model = lora(make())

    def run():
        model.zero_grad()
        model(**batch()).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole = run()
    assert ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0, strict=True) is model
    found = run()
    assert all("lora" in name for name in found) and models.worst_error(found, whole) < 1e-3
    assert offloaded_of(model).head.calls == 1
    ebbtide.offload(model, off=True)
    assert offloaded_of(model) is None


def trainer_arguments(tmp_path, kind=None, **changes):
    pytest.importorskip("accelerate", reason="accelerate is not installed here")
    from transformers import TrainingArguments

    return (kind or TrainingArguments)(
        output_dir=str(tmp_path),
        use_cpu=True,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=4,
        learning_rate=1e-3,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
        **changes,
    )


def examples(count=16):
    rows = [models.tokens(20 + 3 * (n % 3), 1, seed=n)[0].tolist() for n in range(count)]
    return [{"input_ids": row, "labels": row} for row in rows]


def pad(rows):
    """Rows of different lengths, padded; padding has no label."""
    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {
        name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])
        for name, value in fill.items()
    }


def run_trainer(model, tmp_path, **changes):
    from transformers import Trainer

    arguments = trainer_arguments(tmp_path, eval_strategy="steps", eval_steps=2, **changes)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=examples(), eval_dataset=examples(4), data_collator=pad
    )
    trainer.train()
    return trainer.state.log_history


def logged(history, name):
    return torch.tensor([entry[name] for entry in history if name in entry])


@pytest.mark.parametrize("changes", [{}, {"bf16": True}, {"gradient_checkpointing": True}])
def test_trainer_logs_the_losses_and_norms_of_the_whole_model(tmp_path, changes, capsys):
    plain = run_trainer(make(), tmp_path, **changes)
    model = make()
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0)
    found = run_trainer(model, tmp_path, **changes)
    assert offloaded_of(model).head.calls >= 8
    tolerance = 3e-2 if "bf16" in changes else 1e-3
    for name in ("loss", "grad_norm", "eval_loss"):
        assert len(logged(found, name)) == len(logged(plain, name)) > 0
        assert torch.allclose(logged(found, name), logged(plain, name), rtol=tolerance), name
    lines = our_lines(capsys.readouterr().err)
    assert len(lines) == ("gradient_checkpointing" in changes), lines


def test_trainers_own_label_smoothing_still_works_and_is_pointed_at(tmp_path, capsys):
    plain = run_trainer(make(), tmp_path, label_smoothing_factor=0.1)
    model = make()
    ebbtide.offload(model, alpha=0.5, mini_sequence=8, host=0)
    found = run_trainer(model, tmp_path, label_smoothing_factor=0.1)
    assert torch.allclose(logged(found, "loss"), logged(plain, "loss"), rtol=1e-3)
    (line,) = our_lines(capsys.readouterr().err)
    assert "label_smoothing" in line and "whole logits" in line


def test_the_environment_offloads_under_trainer(run_python, native, tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is not installed here")
    code = f"""
        import sys, pathlib
        sys.path.insert(0, "tests/python")
        import test_offload_integration as tests
        history = tests.run_trainer(tests.make(), pathlib.Path({str(tmp_path)!r}))
        print(tests.logged(history, "loss").tolist())
    """
    settings = {"EBBTIDE_NATIVE_DIR": str(native), "EBBTIDE_REPORT": "off"}
    plain = run_python(code, **settings)
    done = run_python(code, EBBTIDE_OFFLOAD="0.5", EBBTIDE_HOST="64MiB", EBBTIDE_STRICT="1", **settings)
    assert done.returncode == 0 and our_lines(done.stderr) == [], done.stderr
    losses = [torch.tensor(eval(one.stdout.splitlines()[-1])) for one in (plain, done)]
    assert len(losses[0]) == 4 and torch.allclose(*losses, rtol=1e-3)


def tokenizer():
    from tokenizers import Tokenizer, models as kinds
    from transformers import PreTrainedTokenizerFast

    words = {f"w{n}": n for n in range(models.VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(kinds.WordLevel(words, unk_token="w0")), eos_token="w1", pad_token="w2"
    )


@pytest.mark.parametrize("first", ["offload", "trainer"])
def test_sft_trainer_logs_the_losses_of_the_whole_model(tmp_path, first):
    trl = pytest.importorskip("trl", reason="trl is not installed here")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed here")
    rows = datasets.Dataset.from_list([{"input_ids": row["input_ids"]} for row in examples()])

    def run(offloads):
        model = make()
        settings = {"alpha": 0.5, "mini_sequence": 8, "host": 0}
        if offloads and first == "offload":
            ebbtide.offload(model, **settings)
        arguments = trainer_arguments(tmp_path, trl.SFTConfig, gradient_checkpointing=False)
        trainer = trl.SFTTrainer(
            model=model, args=arguments, train_dataset=rows, processing_class=tokenizer()
        )
        if offloads and first == "trainer":
            ebbtide.offload(model, **settings)
        trainer.train()
        assert not offloads or offloaded_of(model).layers.counts()[0].attention_forwards >= 8
        return logged(trainer.state.log_history, "loss")

    assert torch.allclose(run(True), run(False), rtol=1e-3)
