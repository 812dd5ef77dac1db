"""ebbtide.step_in_backward: each parameter is updated when its gradient is there, to the same bits."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from dryrun_run import ROOT, simulate  # noqa: E402

import ebbtide  # noqa: E402
from ebbtide import EbbtideError  # noqa: E402

OPTIMIZERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, lr=1e-2),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=1e-2, foreach=True),
}


def model():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 1))


def groups_of(module):
    """Weights and biases with settings of their own; one weight is frozen."""
    module[2].weight.requires_grad_(False)
    named = dict(module.named_parameters())
    return [
        {"params": [p for name, p in named.items() if "weight" in name]},
        {"params": [p for name, p in named.items() if "bias" in name], "lr": 1e-3},
    ]


def train(module, optimizer, steps=5):
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for step in range(steps):
        torch.manual_seed(step)
        module(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def assert_same(first, second):
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_give_the_same_bits_and_the_same_state(name, recwarn):
    plain, stepped = model(), model()
    optimizers = [OPTIMIZERS[name](groups_of(module)) for module in (plain, stepped)]
    ebbtide.step_in_backward(optimizers[1])
    for module, optimizer in zip((plain, stepped), optimizers, strict=True):
        train(module, optimizer, steps=20)
    assert_same(plain, stepped)
    expected, found = (optimizer.state_dict() for optimizer in optimizers)
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for index, values in expected["state"].items():
        assert all(torch.equal(found["state"][index][key], value) for key, value in values.items())
    assert not recwarn.list


def test_a_gradient_is_gone_once_it_was_used():
    module = model()
    alive = []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ebbtide.step_in_backward(optimizer)
    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(p.grad is not None for p in module.parameters()))
        )
    module(torch.randn(4, 8)).sum().backward()
    assert alive == [0] * 6


def test_a_state_that_is_loaded_goes_on_where_it_ended():
    whole = model()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-2)
    train(whole, optimizer)
    resumed = model()
    resumed.load_state_dict(whole.state_dict())
    again = torch.optim.AdamW(resumed.parameters(), lr=1e-2)
    ebbtide.step_in_backward(again)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for module, one in ((whole, optimizer), (resumed, again)):
        train(module, one)
    assert_same(whole, resumed)


def test_switched_off_it_waits_for_step_again():
    module = model()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ebbtide.step_in_backward(optimizer)
    ebbtide.step_in_backward(optimizer)  # twice is once
    ebbtide.step_in_backward(optimizer, off=True)
    before = copy.deepcopy(module)
    module(torch.randn(4, 8)).sum().backward()
    assert_same(module, before)
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_second_backward_before_the_step_is_an_error_that_says_what_to_do():
    module = model()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ebbtide.step_in_backward(optimizer)
    module(torch.randn(4, 8)).sum().backward()
    with pytest.raises(EbbtideError, match=r"gradient accumulation .* off=True"):
        module(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    module(torch.randn(4, 8)).sum().backward()


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("no memory")


def test_a_backward_that_failed_may_be_tried_again():
    module = model()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    ebbtide.step_in_backward(optimizer)
    with pytest.raises(torch.OutOfMemoryError):
        module[2:](_Fails.apply(module[:2](torch.randn(4, 8)))).sum().backward()
    optimizer.zero_grad()
    module(torch.randn(4, 8)).sum().backward()


def test_what_cannot_be_stepped_so_is_named():
    with pytest.raises(EbbtideError, match=r"step_in_backward\(Linear\): allowed is a torch.optim.Optimizer"):
        ebbtide.step_in_backward(torch.nn.Linear(1, 1))


class OfSamples(torch.optim.SGD):
    """Asks for its gradients itself, as LBFGS does."""

    def step(self, closure):
        closure()
        return super().step()


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, OfSamples])
def test_an_optimizer_whose_step_needs_a_closure_is_named(kind):
    line = rf"^step_in_backward\({kind.__name__}\): its step\(\) needs a closure, .*: use another optimizer, or leave it off$"
    with pytest.raises(EbbtideError, match=line):
        ebbtide.step_in_backward(kind(model().parameters(), lr=0.1))


def test_what_several_processes_hold_whole_is_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(EbbtideError, match="DDP sums their gradients after such a step: leave it off, or shard them"):
        ebbtide.step_in_backward(torch.optim.SGD(model().parameters(), lr=0.1))


def test_parameters_that_processes_share_out_are_updated_to_the_same_bits(run_python, tmp_path):
    program = ROOT / "tests" / "python" / "programs" / "step_in_backward_sharded.py"
    done = run_python([str(program), str(tmp_path / "meeting")])
    assert (done.returncode, done.stdout.split()) == (0, ["same", "same"]), done.stderr


def test_an_offloaded_model_trains_to_the_same_bits():
    pytest.importorskip("transformers")
    import offload_models

    plain, stepped = (offload_models.make("llama", torch.float32) for _ in range(2))
    stepped.load_state_dict(plain.state_dict())
    ids = offload_models.tokens(29, 2)
    for one in (plain, stepped):
        ebbtide.offload(one, alpha=0.5, mini_sequence=8, host=0)
        optimizer = torch.optim.AdamW(one.parameters(), lr=1e-3)
        ebbtide.step_in_backward(optimizer, off=one is plain)
        for _ in range(3):
            one(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert_same(plain, stepped)


PROGRAM = f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
import ebbtide
layers = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024, bias=False) for _ in range(16))).cuda()
optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
peaks = []
for on in (False, True):
    ebbtide.step_in_backward(optimizer, off=not on)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    layers(torch.ones(8, 1024, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    peaks.append(torch.cuda.max_memory_allocated() - before)
print(json.dumps(peaks))
"""


def test_at_the_peak_there_are_a_few_gradients_instead_of_all(tmp_path):
    all_of_them, few = simulate(PROGRAM, tmp_path).answer()
    weight = 4 * 1024 * 1024
    assert all_of_them >= 16 * weight
    assert few <= 4 * weight
