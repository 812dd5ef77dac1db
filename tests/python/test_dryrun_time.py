"""Virtual time of the real torch on a simulated H200, against times worked out by hand."""

from __future__ import annotations

import os

import pytest
from dryrun_run import ROOT, dryrun_module, simulate

# The H200's file: what large bfloat16 products, attention and pinned copies reach.
MATRIX = 989.4e12 * 0.728
FLASH, FLASH_BACKWARD = 989.4e12 * 0.323, 989.4e12 * 0.315
CUDNN, CUDNN_BACKWARD = 989.4e12 * 0.717, 989.4e12 * 0.62
LINK = 63e9 * 0.882
MEMORY = 4.8e12 * 0.84
OPERATOR = 6e-6  # of the host, before a kernel that waits for nothing else

TIMED = """
def timed(work):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3

def timed_behind(work):  # the host is ahead: without its time
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    big = torch.empty(8192, 8192, dtype=torch.bfloat16, device="cuda")
    big @ big
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3
"""


def test_events_measure_what_operators_take(tmp_path):
    done = simulate(
        TIMED
        + """
import torch.utils.flop_counter
a = torch.empty(8192, 8192, dtype=torch.bfloat16, device="cuda")
q = torch.empty(1, 8, 16384, 128, dtype=torch.bfloat16, device="cuda")
attend = torch.nn.functional.scaled_dot_product_attention
batch = a.view(64, 1024, 1024)
side, copied = torch.cuda.Stream(), torch.cuda.Event()
def beside():
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        host[: 1 << 20].copy_(device_bytes[: 1 << 20], non_blocking=True)
        copied.record()
    a @ a
host = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
device_bytes = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
with torch.utils.flop_counter.FlopCounterMode(display=False):
    in_mode = timed(lambda: a + a)  # Python runs the operator
print(json.dumps([
    timed(lambda: a @ a), timed(lambda: torch.bmm(batch, batch)),
    timed(lambda: attend(q, q, q, is_causal=True)), timed(lambda: attend(q, q, q)),
    timed(lambda: a + a), timed(lambda: host.copy_(device_bytes, non_blocking=True)),
    timed(beside), beside(), copied.query(), copied.synchronize() or copied.query(),
    in_mode,
]))
""",
        tmp_path,
    )
    product, batched, causal, whole, summed, copied, beside, _, early, late, in_mode = done.answer()
    # 2048 tiles of 256 x 128 on 132 multiprocessors: 15 waves and a half take as long as 16
    assert product == pytest.approx(16 * 132 / 2048 * 2 * 8192**3 / MATRIX, rel=0.005)
    assert batched == pytest.approx(16 * 132 / 2048 * 64 * 2 * 1024**3 / MATRIX, rel=0.05)
    key = 4 * 16384 * 1024 / CUDNN  # two products of all queries over 8 heads of 128
    # and keys that are of no use: 245, 460 under a mask
    assert whole == pytest.approx(OPERATOR + (16384 + 245) * key, rel=0.002)
    assert causal == pytest.approx(OPERATOR + (8192 + 460) * key, rel=0.002)
    assert summed == pytest.approx(OPERATOR + 2 * 2 * 8192**2 / MEMORY, rel=0.01)  # one tensor, read once
    assert in_mode == pytest.approx(summed, rel=0.1)
    assert copied == pytest.approx((1 << 30) / LINK, rel=0.01)
    # a copy beside a product is hidden, and queries see whether it is over
    assert beside == pytest.approx(product, rel=0.01)
    assert (early, late) == (False, True)


ATTENTION = """
from torch.nn.attention import SDPBackend, sdpa_kernel

def attended(backend, size, value_size, tokens=8192, keys=8192, causal=True):
    q, k, v = (
        torch.empty(1, length, 8, width, dtype=torch.bfloat16, device="cuda", requires_grad=True).transpose(1, 2)
        for length, width in ((tokens, size), (keys, size), (keys, value_size))
    )
    def attend():
        with sdpa_kernel(getattr(SDPBackend, f"{backend}_ATTENTION")):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    out = attend()
    gradient = torch.empty_like(out)
    times = timed_behind(attend), timed_behind(lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True))
    torch.ones(1, device="cuda", requires_grad=True).sum().backward()  # autograd's thread lets go of the pass before
    return times
"""


# Keys of no use, and by how many elements softmax makes a head wider, forward and backward.
@pytest.mark.parametrize(
    ("backend", "flops", "idle", "softmax"),
    [("FLASH", (FLASH, FLASH_BACKWARD), (150, 220), (23, 16)), ("EFFICIENT", (FLASH, FLASH_BACKWARD), (150, 220), (23, 16)), ("CUDNN", (CUDNN, CUDNN_BACKWARD), (460, 640), (120, 32))],
)
def test_attention_takes_its_kernels_share_and_longer_for_narrow_heads(tmp_path, backend, flops, idle, softmax):
    done = simulate(TIMED + ATTENTION + f"print(json.dumps([attended('{backend}', size, size) for size in (64, 128)]))", tmp_path)
    for size, times in zip((64, 128), done.answer(), strict=True):
        for products, reached, keys, width, seconds in zip((2, 5), flops, idle, softmax, times, strict=True):
            slower = (size + width) / size * 128 / (128 + width)
            work = products * 2 * 8192 * (4096.5 + keys) * 8 * size
            beside = 0.01 if backend == "EFFICIENT" else 0.002  # a sum of gradient times output
            assert seconds == pytest.approx(slower * work / reached, rel=beside), (size, products)


def test_packed_sequences_see_their_own_keys(tmp_path):
    program = """
q = torch.empty(1, 16384, 8, 128, dtype=torch.bfloat16, device="cuda")
begins = torch.arange(0, 16385, 2048, dtype=torch.int32, device="cuda")
efficient = lambda: torch.ops.aten._efficient_attention_forward(q, q, q, None, begins, begins, 2048, 2048, 0.0, 1, True)
flash = lambda: torch.ops.aten._flash_attention_forward(q[0], q[0], q[0], begins, begins, 2048, 2048, 0.0, True, False)
print(json.dumps([timed_behind(efficient), timed_behind(flash)]))
"""
    one = 4 * 16384 * (1024.5 + 150) * 1024 / FLASH
    assert simulate(TIMED + program, tmp_path).answer() == pytest.approx([one, one], rel=0.01)


def test_attention_of_cudnn_counts_two_head_sizes_and_its_mask_from_the_first_key(tmp_path):
    program = """
print(json.dumps([attended("CUDNN", 128, 64), attended("CUDNN", 128, 128, tokens=4096, causal=True)]))
"""
    narrow, masked = done = simulate(TIMED + ATTENTION + program, tmp_path).answer()
    assert len(done) == 2
    of_width = 2 * 8192 * (4096.5 + 460) * 8 / CUDNN, 2 * 8192 * (4096.5 + 640) * 8 / CUDNN_BACKWARD
    assert narrow[0] == pytest.approx(of_width[0] * (128 + 64), rel=0.002)
    assert narrow[1] == pytest.approx(of_width[1] * (3 * 128 + 2 * 64), rel=0.002)
    # 4096 queries see 1 to 4096 keys of 8192
    assert masked[0] == pytest.approx(2 * 4096 * (2048.5 + 460) * 8 * 256 / CUDNN, rel=0.002)


def test_without_shares_of_its_own_cudnn_reaches_those_of_flash_attention(tmp_path):
    program = TIMED + ATTENTION + "print(json.dumps(attended('CUDNN', 128, 128)))"
    peak = 312e12
    forward, backward = simulate(program, tmp_path, device="a100-80g").answer()
    assert forward == pytest.approx(4 * 8192 * (4096.5 + 460) * 1024 / (peak * 0.67), rel=0.002)
    assert backward == pytest.approx(10 * 8192 * (4096.5 + 640) * 1024 / (peak * 0.63), rel=0.002)


def test_a_loss_reads_of_its_logarithms_what_the_labels_name_and_fills_their_gradient_once(tmp_path):
    done = simulate(
        TIMED
        + """
logarithms = torch.empty(16384, 32768, device="cuda")
labels = torch.zeros(16384, dtype=torch.long, device="cuda")
loss, weight = torch.ops.aten.nll_loss_forward(logarithms, labels, None, 1, -100)
print(json.dumps([
    timed(lambda: torch.ops.aten.nll_loss_forward(logarithms, labels, None, 1, -100)),
    timed(lambda: torch.ops.aten.nll_loss_backward(loss, logarithms, labels, None, 1, -100, weight)),
]))
""",
        tmp_path,
    )
    forward, backward = done.answer()
    assert forward < 50e-6  # all of them: 533 us
    # zeros are filled in; all logarithms read, too, and twice as much written: 2.1 ms
    assert backward == pytest.approx(4 * 16384 * 32768 / MEMORY, rel=0.05)


def test_elements_that_lie_apart_or_are_converted_are_taken_one_by_one(tmp_path):
    done = simulate(
        TIMED
        + """
x = torch.empty(8192, 8192, dtype=torch.bfloat16, device="cuda")
row, wide, y = x[0].clone(), x.float(), x.clone()
mask = torch.zeros(8192, 8192, dtype=torch.bool, device="cuda")
print(json.dumps([[timed(work) for work in works] for works in (
    (lambda: x * row, lambda: x + x.t(), lambda: x.float(), lambda: y.copy_(x.t()), lambda: y.masked_fill_(mask[0], 0.0),
     lambda: torch.cat((x[:, :4096], x[:, 4096:])), lambda: torch.add(x, row, out=y)),
    (lambda: x * 2, lambda: y.masked_fill_(mask, 0.0), lambda: wide.bfloat16(), lambda: y.copy_(x)),
)]))
""",
        tmp_path,
    )
    single, whole = done.answer()
    elements = 8192**2
    for seconds in single:
        assert seconds == pytest.approx(elements * 3.2e-12, rel=0.06)
    # vectors: what is read and written; the target of a copy is not read
    assert whole == pytest.approx([bytes_ * elements / MEMORY for bytes_ in (4, 5, 6, 4)], rel=0.13)


def test_kernels_of_rows_go_over_them_more_than_once(tmp_path):
    done = simulate(
        TIMED
        + """
long, short = torch.empty(8192, 65536, device="cuda"), torch.empty(65536, 8192, device="cuda")
weight = torch.empty(8192, device="cuda")
aten = torch.ops.aten
_, mean, scale = aten.native_layer_norm(short, [8192], weight, weight, 1e-5)
print(json.dumps([timed(work) for work in (
    lambda: long.log_softmax(-1), lambda: short.log_softmax(-1),
    lambda: aten._log_softmax_backward_data(long, long, -1, torch.float32),
    lambda: aten._log_softmax_backward_data(short, short, -1, torch.float32),
    lambda: torch.nn.functional.layer_norm(short, (8192,), weight, weight),
    lambda: aten.native_layer_norm_backward(short, short, [8192], mean, scale, weight, weight, [True] * 3),
    lambda: long.sum(-1),
)]))
""",
        tmp_path,
    )
    # rows of 256 KiB do not stay near, those of 32 KiB do
    passes = [4, 2, 4, 3, 3, 7, 1.5]
    one = 4 * 8192 * 65536 / MEMORY
    assert done.answer() == pytest.approx([number * one for number in passes], rel=0.03)


def test_few_and_short_rows_of_norms_take_their_blocks_of_threads(tmp_path):
    done = simulate(
        TIMED
        + """
aten, found = torch.ops.aten, []
for rows, columns in ((65536, 128), (65568, 128), (100, 16384)):
    x, weight = (torch.empty(*shape, dtype=torch.bfloat16, device="cuda") for shape in ((rows, columns), (columns,)))
    _, scale = aten._fused_rms_norm(x, [columns], weight, 1e-5)
    found.append([
        timed_behind(lambda: torch.nn.functional.rms_norm(x, (columns,), weight)),
        timed_behind(lambda: aten._fused_rms_norm_backward(x, x, [columns], scale, weight, [True] * 2)),
    ])
print(json.dumps(found))
""",
        tmp_path,
    )
    short, more, few = done.answer()
    at_once = 16 * 132
    block = 1.3e-6 + 128 * 2.4e-9
    assert short[0] == pytest.approx(65536 / at_once * block, rel=0.01)
    # the weight's gradient goes through all rows, but not of more than 65536: it is added up in parts
    assert short[1] == pytest.approx(short[0] + 65536 * 2.2e-9, rel=0.01)
    assert more[0] == pytest.approx(short[0], rel=0.01)
    assert more[0] < more[1] < 1.15 * more[0]
    assert few[0] == pytest.approx(1.3e-6 + 16384 * 2.4e-9, rel=0.01)


LOOP = """
model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 100)).cuda()
optimizer = torch.optim.{optimizer}
for _ in range(4):
    for _ in range({micro}):
        ids = torch.randint(0, 100, (2, 50), device="cuda")
        torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    {clip}
    optimizer.step()
    optimizer.zero_grad({zero})
print("null")
"""


@pytest.mark.parametrize(
    ("optimizer", "micro", "clip", "zero"),
    [
        ("SGD(model.parameters(), lr=0.1, foreach=False)", 3, "", "set_to_none=False"),
        (
            "AdamW(model.parameters(), foreach=True)",
            2,
            "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
            "",
        ),
    ],
)
def test_steps_and_tokens_are_recognised(tmp_path, optimizer, micro, clip, zero):
    done = simulate(
        LOOP.format(optimizer=optimizer, micro=micro, clip=clip, zero=zero), tmp_path
    )
    done.answer()
    time = done.report["time"]
    assert time["steps"] == 4
    assert time["step_tokens"] == 100 * micro
    assert sum(time["each_step_seconds"]) <= time["total_seconds"]


def test_shares_of_streams_that_take_turns_add_up_to_the_step(tmp_path):
    """One stream's work is queued while another still has the last step's."""
    done = simulate(
        """
        weight = torch.nn.Parameter(torch.empty(4096, 4096, device="cuda"))
        optimizer, big = torch.optim.SGD([weight], 0.1), torch.empty(8192, 8192, device="cuda")
        streams = [torch.cuda.Stream() for _ in range(2)]
        for step in range(6):
            with torch.cuda.stream(streams[step % 2]):
                for _ in range(20):
                    big @ big
                (weight @ weight).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        """,
        tmp_path,
    )
    assert done.status == 0, done.stderr
    time = done.report["time"]
    shares = sum(time["busy_seconds"].values()) + sum(time["stalled_seconds"].values()) + time["waiting_for_host_seconds"]
    assert time["steps"] == 6
    assert shares <= 1.0001 * time["step_seconds"]


def test_a_training_step_counts_its_operations(tmp_path, needs_transformers):
    done = simulate(
        """
        from transformers import LlamaConfig, LlamaForCausalLM
        torch.set_default_dtype(torch.bfloat16)
        config = LlamaConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=2,
                             num_attention_heads=8, num_key_value_heads=2, vocab_size=1000)
        with torch.device("cuda"):
            model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(3):
            ids = torch.randint(0, 1000, (1, 4096), device="cuda")
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print("null")
        """,
        tmp_path,
    )
    done.answer()
    time = done.report["time"]
    weights = 2 * (2 * 1024 * 1024 + 2 * 1024 * 256 + 3 * 1024 * 4096) + 1000 * 1024
    attention = 2 * 2 * 4096**2 * 1024  # two layers, the causal half
    assert time["step_tokens"] == 4096
    assert time["forward_flops"] == pytest.approx(2 * weights * 4096 + attention, rel=0.01)
    assert time["flops"] == pytest.approx(6 * weights * 4096 + 3.5 * attention, rel=0.01)
    assert sum(time["stalled_seconds"].values()) == 0
    busy = sum(time["busy_seconds"].values()) + time["waiting_for_host_seconds"]
    assert busy == pytest.approx(time["step_seconds"], rel=0.01)
    text = dryrun_module().summary(done.report)
    assert f"a step takes {1e3 * time['step_seconds']:.3g} ms (" in text and "tokens/s, MFU" in text


def test_copies_of_swapped_tensors_take_their_bytes_over_the_link(tmp_path, needs_transformers):
    done = simulate(
        """
        import ebbtide
        from transformers import LlamaConfig, LlamaForCausalLM
        torch.set_default_dtype(torch.bfloat16)
        config = LlamaConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=3,
                             num_attention_heads=8, num_key_value_heads=2, vocab_size=1000)
        with torch.device("cuda"):
            model = LlamaForCausalLM(config)
        ebbtide.offload(model, alpha=0, host="8GiB")
        ids = torch.randint(0, 1000, (1, 65536), device="cuda")
        for _ in range(3):
            model(input_ids=ids, labels=ids).loss.backward()
        torch.cuda.synchronize()  # copies are timed once they have ended
        stats = ebbtide.stats().offload.models[0].host
        print(json.dumps([stats.swapped_out_bytes, stats.copying_out_ns, stats.swapped_in_bytes,
                          stats.copying_in_ns]))
        """,
        tmp_path,
        PYTHONPATH=str(ROOT / "python_shim"),
        EBBTIDE_NATIVE_DIR=os.environ.get("EBBTIDE_NATIVE_DIR", ""),
    )
    out, out_ns, back, back_ns = done.answer()
    assert out_ns / 1e9 == pytest.approx(out / LINK, rel=0.05)
    # What waits for backward to come to it is not copying.
    assert back_ns / 1e9 == pytest.approx(back / LINK, rel=0.25)
