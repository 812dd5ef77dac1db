"""cuDNN's recurrent layers on simulated devices: where torch takes them, with their memory and their time."""

from __future__ import annotations

import textwrap

import pytest
from dryrun_run import ASKED_FOR, SECONDS, simulate

# Layer, inputs, size, layers, numbers, options; steps and batch. cuDNN 9.19 itself answers with these bytes for an H200:
# weights, workspace of an evaluation, workspace of a training forward, what is kept for the backward.
SPACES = {
    ("LSTM", 512, 1024, 2, "float16", "", 100, 32): (29392896, 83493376, 83493376, 72089856),
    ("LSTM", 512, 1024, 2, "float32", "", 100, 32): (58785792, 150209024, 150209024, 144179456),
    ("LSTM", 512, 512, 3, "float32", "", 10, 8): (25214976, 51806528, 51855680, 2785536),
    ("LSTM", 512, 512, 3, "float32", "bidirectional=True", 10, 8): (67207168, 121078080, 121078080, 5570816),
    ("LSTM", 512, 512, 3, "float32", "bidirectional=True, proj_size=256", 10, 8): (40992768, 94929216, 94929216, 7045376),
    ("LSTM", 64, 128, 1, "float32", "", 100, 32): (397312, 44139008, 44139008, 8192256),
    ("GRU", 512, 512, 2, "float32", "", 10, 8): (12607488, 30343488, 30507328, 2130176),
    ("RNN", 512, 512, 2, "float32", "", 10, 8): (4202496, 21561664, 22118720, 491776),
}

KERNEL = "CudnnRnnBackward0"

LAYER = """
def made(kind, inputs, size, layers, numbers, options, *_):
    layer = eval(f"torch.nn.{kind}({inputs}, {size}, {layers}, {options})")
    return layer.to("cuda", getattr(torch, numbers))

def sequences(layer, steps, batch):
    weight = layer.weight_ih_l0
    return torch.empty(steps, batch, layer.input_size, device="cuda", dtype=weight.dtype, requires_grad=True)
"""


def answer(tmp_path, program, device="h200"):
    return simulate(ASKED_FOR + SECONDS + LAYER + textwrap.dedent(program), tmp_path, device=device).answer()


def test_spaces_are_those_that_cudnn_asks_for(tmp_path):
    program = f"""
    found = []
    for shape in {list(SPACES)}:
        layer, asked = asked_for(lambda: made(*shape))
        inputs = sequences(layer, *shape[-2:])
        _, forward = asked_for(lambda: layer(inputs))
        with torch.no_grad():
            _, evaluation = asked_for(lambda: layer.eval()(inputs))
        found.append([max(asked), max(evaluation), forward])
    print(json.dumps(found))
    """
    for (weights, evaluation, forward), expected in zip(answer(tmp_path, program), SPACES.values(), strict=True):
        assert weights == expected[0]
        assert evaluation == pytest.approx(expected[1], rel=0.01)
        assert max(forward) == pytest.approx(expected[2], rel=0.03)
        assert expected[3] in forward


def test_on_an_a100_the_layers_do_not_each_have_a_workspace_of_their_own(tmp_path):
    program = """
    layer = made("LSTM", 512, 512, 3, "float32", "").eval()
    with torch.no_grad():
        _, asked = asked_for(lambda: layer(sequences(layer, 10, 8)))
    print(json.dumps(max(asked)))
    """
    assert answer(tmp_path, program, "a100-80g") == pytest.approx(26640704, rel=0.01)


def test_every_kind_runs_forward_and_backward_with_its_weights_in_one_piece(tmp_path):
    program = """
    found = []
    for options in ("num_layers=2, dropout=0.5", "bidirectional=True, batch_first=True", "proj_size=16", "bias=False, proj_size=16"):
        layer = eval(f"torch.nn.LSTM(32, 64, {options})").cuda()
        out, (state, cell) = layer(torch.empty(7, 3, 32, device="cuda"))
        (out.sum() + cell.sum()).backward()
        pieces = {weight.untyped_storage().data_ptr() for weight in layer.parameters()}
        known = all(weight.grad is not None and weight.grad.shape == weight.shape for weight in layer.parameters())
        found.append([type(cell.grad_fn).__name__, list(out.shape), list(state.shape), len(pieces), known])
    print(json.dumps(found))
    """
    assert answer(tmp_path, program) == [
        [KERNEL, [7, 3, 64], [2, 3, 64], 1, True],
        [KERNEL, [7, 3, 128], [2, 7, 64], 1, True],
        [KERNEL, [7, 3, 16], [1, 3, 16], 1, True],
        [KERNEL, [7, 3, 16], [1, 3, 16], 1, True],
    ]


def test_packed_sequences_keep_and_take_what_their_places_do(tmp_path):
    program = """
    layer = made("LSTM", 256, 512, 1, "float32", "")
    def packed(lengths):
        padded = torch.empty(max(lengths), len(lengths), 256, device="cuda")
        return torch.nn.utils.rnn.pack_padded_sequence(padded, torch.tensor(lengths))
    found = []
    for lengths in ([100, 50, 25, 25], [100] * 4):
        inputs = packed(lengths)
        (out, _), asked = asked_for(lambda: layer(inputs))
        out.data.sum().backward()
        found.append([list(out.data.shape), asked, seconds(lambda: layer(inputs))])
    print(json.dumps(found))
    """
    (shape, asked, short), (_, _, long) = answer(tmp_path, program)
    assert shape == [200, 512]
    assert 2048256 in asked and max(asked) == pytest.approx(16367872, rel=0.01)
    assert short == pytest.approx(long, rel=0.1)  # as many steps


def test_steps_take_two_kernels_and_layers_run_beside_each_other(tmp_path):
    program = """
    found = []
    for layers, options in ((1, ""), (4, ""), (1, "bidirectional=True"), (4, "bidirectional=True")):
        layer = made("LSTM", 256, 512, layers, "float32", options)
        inputs = sequences(layer, 400, 8)
        found.append(seconds(lambda: layer(inputs)))
    large = made("LSTM", 4096, 4096, 1, "float16", "")
    inputs = sequences(large, 50, 2048)
    print(json.dumps([found, seconds(lambda: large(inputs))]))
    """
    (one, four, both, four_of_both), large = answer(tmp_path, program)
    step = 2 * 2.5e-6
    assert one == pytest.approx(400 * step, rel=0.1)
    assert four == pytest.approx(403 * step, rel=0.1)
    assert both == pytest.approx(one, rel=0.1)
    assert four_of_both == pytest.approx(4 * one, rel=0.1)
    flops = 2 * 2 * 4 * 4096**2 * 2048 * 50
    assert 0.6 < flops / 989.4e12 / large < 0.85


def test_small_layers_run_in_one_kernel_and_large_weights_are_read_in_each_step(tmp_path):
    program = """
    found = []
    for size in (128, 8192):
        layer = made("RNN", size, size, 1, "float32", "")
        inputs = sequences(layer, 100, 8)
        found.append(seconds(lambda: layer(inputs)))
    print(json.dumps(found))
    """
    small, large = answer(tmp_path, program)
    assert small == pytest.approx(100 * 2.5e-6, rel=0.15)
    assert large > 100 * 4 * 8192**2 / 4.8e12


def test_they_are_torchs_own_where_the_program_says_so(tmp_path):
    program = """
    layer = made("LSTM", 32, 64, 1, "float32", "")
    inputs = sequences(layer, 5, 2)
    kernels = [type(layer(inputs)[0].grad_fn).__name__]
    with torch.backends.cudnn.flags(enabled=False):
        kernels.append(type(layer(inputs)[0].grad_fn).__name__)
    torch.backends.cudnn.enabled = False
    kernels.append(type(layer(inputs)[0].grad_fn).__name__)
    print(json.dumps(kernels))
    """
    assert answer(tmp_path, program) == [KERNEL, "StackBackward0", "StackBackward0"]


def test_what_else_cudnn_would_do_is_done_by_torchs_own_kernels_and_leaves_it_enabled(tmp_path):
    program = """
    nn, functional = torch.nn, torch.nn.functional
    norm = nn.BatchNorm2d(16, device="cuda")
    image = torch.empty(4, 16, 32, 32, device="cuda", requires_grad=True)
    out = norm(image)
    out.sum().backward()
    norm.eval()(image).sum().backward()
    found = [list(out.shape), list(norm.weight.grad.shape)]
    grid = torch.empty(4, 8, 8, 2, device="cuda", requires_grad=True)
    sampled = functional.grid_sample(image, grid, align_corners=True)
    sampled.sum().backward()
    found += [list(sampled.shape), list(grid.grad.shape)]
    logarithms = torch.empty(50, 4, 20, device="cuda", requires_grad=True)
    lengths = torch.full((4,), 50, dtype=torch.int32), torch.full((4,), 10, dtype=torch.int32)
    loss = functional.ctc_loss(logarithms.log_softmax(2), torch.ones(4, 10, dtype=torch.int32), *lengths)
    loss.backward()
    print(json.dumps(found + [torch.backends.cudnn.enabled]))
    """
    assert answer(tmp_path, program) == [[4, 16, 32, 32], [16], [4, 16, 8, 8], [4, 8, 8, 2], True]


def test_what_is_kept_as_bytes_counts_as_no_integers(tmp_path):
    program = """
    layer = made("LSTM", 1024, 1024, 2, "float32", "")
    layer(sequences(layer, 200, 64))[0].sum().backward()
    print("null")
    """
    done = simulate(LAYER + textwrap.dedent(program), tmp_path)
    done.answer()
    assert done.report["large_integers"] == 0
