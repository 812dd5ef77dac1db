"""cuDNN's convolutions on simulated devices: where torch takes them, with their memory and their time."""

from __future__ import annotations

import textwrap

import pytest
from dryrun_run import ASKED_FOR, SECONDS, simulate

# Batch, channels, height, width, channels of the result, window, stride, padding; numbers; channels last. cuDNN 9.19's
# own plans for an H200 (built without a device, from its properties) want these bytes of workspace, forward and for the
# gradient of the input:
PLANS = {
    (32, 64, 56, 56, 128, 3, 1, 1, "bfloat16", True): (0, 0),
    (32, 64, 56, 56, 128, 3, 1, 1, "bfloat16", False): (38682640, 38682640),
    (32, 64, 56, 56, 128, 3, 1, 1, "float32", True): (25985040, 51675152),
    (32, 64, 56, 56, 128, 3, 1, 1, "float32", False): (25985040, 77365264),
    (64, 64, 56, 56, 256, 1, 1, 0, "float32", False): (51445776, 256966672),
    (16, 48, 120, 160, 96, 5, 2, 2, "float32", False): (59443216, 88934416),
    (16, 100, 28, 28, 36, 3, 1, 1, "bfloat16", True): (3687568, 3687568),
    (4, 320, 64, 64, 4, 3, 1, 1, "bfloat16", True): (308240, 308240),
    (4, 4, 64, 64, 320, 3, 1, 1, "bfloat16", False): (None, 10794000),
}

CONVOLUTION = """
LAST = torch.channels_last

def made(batch, channels, height, width, results, window, stride, padding, numbers="float32", is_last=False, **options):
    dtype, layout = getattr(torch, numbers), LAST if is_last else torch.contiguous_format
    layer = torch.nn.Conv2d(channels, results, window, stride, padding, bias=False, device="cuda", dtype=dtype, **options)
    image = torch.empty(batch, channels, height, width, device="cuda", dtype=dtype).to(memory_format=layout)
    return layer.to(memory_format=layout), image.requires_grad_()
"""


def answer(tmp_path, program, device="h200"):
    return simulate(ASKED_FOR + SECONDS + CONVOLUTION + textwrap.dedent(program), tmp_path, device=device).answer()


def rounded(size: int) -> int:
    """As torch's allocator tells it."""
    return (size + 511) // 512 * 512


def test_workspaces_are_those_of_cudnns_own_plans(tmp_path):
    program = f"""
    found = []
    for shape in {list(PLANS)}:
        layer, image = made(*shape)
        out, forward = asked_for(lambda: layer(image))
        gradient = torch.empty_like(out)
        _, backward = asked_for(lambda: out.backward(gradient))
        found.append([out.nbytes, forward, backward])
    print(json.dumps(found))
    """
    for (out, forward, backward), (bytes_forward, bytes_backward) in zip(
        answer(tmp_path, program), PLANS.values(), strict=True
    ):
        if bytes_forward is not None:
            assert forward == [rounded(out)] + ([bytes_forward] if bytes_forward else [])
        if bytes_backward:
            assert bytes_backward in backward


def test_channels_stay_last_without_a_copy(tmp_path):
    program = """
    layer, image = made(8, 64, 56, 56, 64, 3, 1, 1, "bfloat16", True)
    out = layer(image)
    out.backward(torch.empty_like(out))
    tensors = (out, image.grad, layer.weight.grad)
    print(json.dumps([tensor.is_contiguous(memory_format=LAST) for tensor in tensors]))
    """
    assert answer(tmp_path, program) == [True] * 3


@pytest.mark.parametrize("device, peak", [("h200", 989.4e12), ("a100-80g", 312e12)])
def test_they_take_the_time_of_the_product_that_they_are(tmp_path, device, peak):
    program = """
    layer, image = made(64, 256, 56, 56, 256, 3, 1, 1, "bfloat16", True)
    print(json.dumps(seconds(lambda: layer(image))))
    """
    flops = 2 * 64 * 56 * 56 * 256 * 256 * 9
    assert 0.6 < flops / peak / answer(tmp_path, program, device) < 0.9


def test_tensor_float_is_taken_where_it_is_allowed(tmp_path):
    program = """
    layer, image = made(32, 256, 28, 28, 256, 3, 1, 1)
    found = []
    for torch.backends.cudnn.allow_tf32 in (True, False):
        _, asked = asked_for(lambda: layer(image))
        found.append([len(asked), seconds(lambda: layer(image))])
    print(json.dumps(found))
    """
    (copies, fast), (no_copies, slow) = answer(tmp_path, program)
    assert (copies, no_copies) == (2, 1)
    assert slow > 3 * fast


def test_a_channel_by_itself_is_no_product_of_tensor_cores(tmp_path):
    program = """
    together = made(32, 96, 56, 56, 96, 7, 1, 3, "bfloat16", True)
    apart = made(32, 96, 56, 56, 96, 7, 1, 3, "bfloat16", True, groups=96)
    print(json.dumps([seconds(lambda: layer(image)) for layer, image in (together, apart)]))
    """
    together, apart = answer(tmp_path, program)
    flops = 2 * 32 * 56 * 56 * 96 * 49
    assert flops / 67e12 <= apart < together


def test_every_kind_runs_forward_and_backward(tmp_path):
    program = """
    def run(layer, *shape):
        image = torch.empty(shape, device="cuda", requires_grad=True)
        out = layer.cuda()(image)
        (gradient,) = torch.autograd.grad(out.sum(), image, create_graph=True)
        gradient.sum().backward()
        return list(out.shape)

    nn = torch.nn
    found = [run(nn.Conv1d(80, 384, 3, padding=1), 2, 80, 300), run(nn.Conv3d(3, 64, (2, 14, 14), (2, 14, 14)), 1, 3, 4, 56, 56),
             run(nn.ConvTranspose2d(64, 32, 2, 2), 2, 64, 16, 16), run(nn.Conv2d(32, 64, 3, dilation=2, groups=4), 2, 32, 20, 20)]
    torch.backends.cudnn.benchmark = True
    found.append(run(nn.Conv2d(16, 16, 3, padding="same"), 2, 16, 20, 20))
    torch.use_deterministic_algorithms(True)
    found.append(run(nn.Conv2d(16, 16, 3), 2, 16, 20, 20))
    print(json.dumps(found))
    """
    assert answer(tmp_path, program) == [
        [2, 384, 300],
        [1, 64, 2, 4, 4],
        [2, 32, 32, 32],
        [2, 64, 16, 16],
        [2, 16, 20, 20],
        [2, 16, 18, 18],
    ]


def test_they_can_be_captured_in_a_graph(tmp_path):
    program = """
    layer, image = made(8, 64, 28, 28, 64, 3, 1, 1, "bfloat16", True)
    layer(image)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = layer(image)
    print(json.dumps([seconds(graph.replay), seconds(lambda: layer(image))]))
    """
    replayed, called = answer(tmp_path, program)
    assert replayed == pytest.approx(called, rel=0.3)
