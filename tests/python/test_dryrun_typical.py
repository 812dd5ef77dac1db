"""What a dry run's program reads where no kernel computes: typical values, and balanced routers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from dryrun_run import ROOT, simulate
from ebbtide import _typical

CASES = {
    "loss": ("torch.randn(9, device='cuda').sum().item()", 1.0),
    "half": ("torch.randn(9, device='cuda', dtype=torch.bfloat16).sum().item()", 1.0),
    "list": ("[0 < v < 1 for v in torch.randn(3, device='cuda').tolist()]", [True] * 3),
    "nan": ("bool(torch.randn(9, device='cuda').sum().isnan())", False),
    "finite": ("bool(torch.randn(300, 300, device='cuda').isfinite().all())", True),
    "best": ("bool(torch.randn(9, device='cuda').sum() < 2.5)", True),
    "argmax": ("torch.randn(6, 4, device='cuda').argmax(-1).tolist()", [0, 1, 2, 3, 0, 1]),
    "argmax_of_all": ("torch.randn(6, 4, device='cuda').argmax().item()", 0),
    "max": ("torch.randn(4, 2, 3, device='cuda').max(0)[1].tolist()", [[0, 1, 2], [3, 0, 1]]),
    "topk": ("torch.randn(3, 4, device='cuda').topk(2)[1].tolist()", [[0, 1], [2, 3], [0, 1]]),
    "sort": ("torch.randn(2, 3, device='cuda').argsort(-1).tolist()", [[0, 1, 2], [1, 2, 0]]),
    "sampled": (
        "torch.multinomial(torch.rand(4, 5, device='cuda').softmax(-1), 1).flatten().tolist()",
        [0, 1, 2, 3],
    ),
    "sampled_more": (
        "torch.multinomial(torch.rand(2, 5, device='cuda').softmax(-1), 3).tolist()",
        [[0, 1, 2], [3, 4, 0]],
    ),
    # A tenth of what is drawn from 0 to 1 lies below 0.1, however much it is.
    "mask": ("len(torch.rand(1000, device='cuda').lt(0.1).nonzero())", 100),
    "large_mask": (
        "round(len(x[torch.rand(x.shape, device='cuda') < 0.25]) / x.numel(), 3)",
        0.25,
    ),
    "large_zeros": ("len(torch.zeros(500, 500, device='cuda').ne(0).nonzero())", 0),
    "histogram": (
        "torch.histc(torch.arange(8, device='cuda', dtype=torch.int32) // 3, bins=4, min=0, max=3).tolist()",
        [3, 3, 2, 0],
    ),
    # Two steps without infinities double the scale.
    "scaled": ("scaled()", [4, 4096.0]),
}


SCALED = """
def scaled():
    model = torch.nn.Linear(8, 8, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=2)
    steps = []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    for _ in range(4):
        with torch.autocast("cuda", dtype=torch.float16):
            loss = model(torch.randn(4, 8, device="cuda")).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return [len(steps), scaler.get_scale()]
"""


# Values that a program gives, and the operations of grouped products.
SAID = f"""
sys.path.insert(0, {str(ROOT / "python_shim")!r})
import ebbtide
before = reads()
x = torch.randn(2, 3, device="cuda")
same = ebbtide.typical(x, [[1, 2, 3], [4, 5, 6]]) is x
loss = ebbtide.typical(x.sum(), 7)
complaints = []
for given in ((x.t(), 1), (x, [1, 2])):
    try:
        ebbtide.typical(*given)
    except ebbtide.EbbtideError as error:
        complaints.append(str(error))
on_host = ebbtide.typical(torch.ones(1), 9)
first = [same, x.tolist(), loss.item(), complaints, on_host.item(), reads() - before]

def flops(multiply):
    a, b = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for shape in ((256, 128), (4, 128, 512)))
    for _ in range(3):
        multiply(a, b).relu().sum().backward()
        torch.optim.SGD([a, b], lr=0.1).step()
    text = ctypes.create_string_buffer(1 << 16)
    device.ebbtide_dryrun_report(text, len(text))
    return json.loads(text.value)["time"]["flops"]

ends = torch.tensor([64, 64, 192, 256], device="cuda", dtype=torch.int32)
grouped = flops(lambda a, b: torch._grouped_mm(a, b, ends))
said_and_counted = [first, grouped, flops(lambda a, b: a @ b[0])]
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    lines = [f"seen[{name!r}] = {code}" for name, (code, _) in CASES.items()]
    first = "seen = {}\nx = torch.arange(400000, device='cuda')"
    # What is said first: its operations are those of all steps so far.
    code = "\n".join([SAID, first, SCALED, *lines, "print(json.dumps([seen, said_and_counted]))"])
    return simulate(code, tmp_path_factory.mktemp("typical")).answer()


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_computed_reads_as_typical(answers, name):
    assert answers[0][name] == CASES[name][1]


@pytest.fixture(scope="module")
def with_settings(tmp_path_factory):
    return simulate(
        SCALED
        + """
x = torch.randn(4, 6, device="cuda")
seen = [x.sum().item(), x.argmax(-1).tolist(), min(x[0].tolist()) > 5, reads()]
seen.append(scaled())
experts = torch.randn(4096, 4, device="cuda").topk(2)[1]
mask = torch.nn.functional.one_hot(experts, 4)
print(json.dumps([seen, [len((mask.sum((0, 1)) > 0).nonzero()), mask.numel() * 8]]))
""",
        tmp_path_factory.mktemp("settings"),
        EBBTIDE_DRYRUN_TYPICAL="number=2.5,choice=first,low=5,high=6,found_inf=1",
        EBBTIDE_DRYRUN_COMPUTE_LIMIT="200KiB",
    )


def test_typical_values_are_settings_and_the_report_names_them(with_settings):
    # THEN no scaled step is taken, and the scale is halved each time
    assert with_settings.answer()[0] == [2.5, [0, 0, 0, 0], True, 3, [0, 64.0]]
    assert with_settings.report["typical"] == "number=2.5,low=5,high=6,choice=first,found_inf=1"
    assert with_settings.report["typical_choices"] == 2


def test_the_summary_names_what_was_read_and_as_what_it_was_taken():
    report = {"uncomputed_reads": 0, "typical_choices": 0, "first_uncomputed_read": ""}
    report["typical"] = "number=1,low=0,high=1,choice=even,found_inf=0"
    assert _typical.line(report) == "values read that were not computed: 0"
    report |= {"uncomputed_reads": 3, "typical_choices": 48, "first_uncomputed_read": "aten::item (Float [])"}
    assert _typical.line(report) == (
        "values read that were not computed: 3 (first: aten::item (Float [])), and 48 choices among such values, "
        "taken as: numbers as 1, tensors spread from 0 to 1, choices (topk, argmax, ...) evenly spread, "
        "found_inf 0 (--typical)"
    )


def test_integers_that_are_too_large_are_counted_and_the_limit_is_named(with_settings):
    hit, size = with_settings.answer()[1]
    assert hit == 0 and size == 256 * 1024  # no expert has a token: the mask is zeros
    assert with_settings.report["large_integers"] > 0
    (line,) = _typical.large_line(with_settings.report)
    assert "EBBTIDE_DRYRUN_COMPUTE_LIMIT" in line and _typical.large_line({"large_integers": 0}) == []


def test_a_wrong_setting_is_one_line(tmp_path):
    done = simulate("print(torch.cuda.device_count())", tmp_path, EBBTIDE_DRYRUN_TYPICAL="loss=1")
    assert 'EBBTIDE_DRYRUN_TYPICAL=loss=1: "loss=1": known are number' in done.stderr
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(
    ("command", "variables", "said"),
    [
        (["dryrun", "--typical", "loss=1"], {}, "ebbtide dryrun: --typical loss=1: "),
        (["dryrun"], {"EBBTIDE_DRYRUN_TYPICAL": "loss=1"}, "ebbtide dryrun: EBBTIDE_DRYRUN_TYPICAL=loss=1: "),
        (["fit"], {"EBBTIDE_DRYRUN_COMPUTE_LIMIT": "much"}, "ebbtide error fit: EBBTIDE_DRYRUN_COMPUTE_LIMIT=much: "),
    ],
)
def test_a_wrong_setting_ends_the_command_in_one_line_before_the_program_runs(tmp_path, command, variables, said):
    started = tmp_path / "started"
    program = ["--", sys.executable, "-c", f"open({str(started)!r}, 'w')", "{}"]
    done = subprocess.run(
        [sys.executable, "-m", "ebbtide", *command, *program],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not started.exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)


def test_a_program_says_what_its_tensors_typically_hold_and_grouped_products_count(answers):
    (same, values, loss, said, on_host, read), grouped, plain = answers[1]
    assert same and values == [[1, 2, 3], [4, 5, 6]] and loss == 7 and read == 2 and on_host == 1
    assert "not contiguous" in said[0] and "shape [2] for a tensor of [2, 3]" in said[1]
    # The mean of six steps is that of the first three: as the product of all their rows.
    assert grouped == plain == 3 * 2 * 256 * 128 * 512


MOE = """
import transformers
TOKENS, CHOSEN, HIDDEN, WIDTH, LAYERS = 8191, 3, 2048, 4096, 1
shape = dict(hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=16, num_key_value_heads=4,
             vocab_size=512, intermediate_size=WIDTH, num_experts_per_tok=CHOSEN)
mixtral = transformers.MixtralConfig(**shape, num_local_experts=8)
qwen = transformers.Qwen2MoeConfig(**shape, num_experts=16, moe_intermediate_size=WIDTH,
                                   shared_expert_intermediate_size=64, output_router_logits=True)
torch.set_default_dtype(torch.bfloat16)
ids = torch.zeros(1, TOKENS, dtype=torch.long, device="cuda")

def train(config, experts):
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation=experts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loads, moments = [], []

    def begin(module, given):
        loads.append(torch.bincount(given[1].flatten(), minlength=module.num_experts).tolist())
        moments.append(torch.cuda.Event(enable_timing=True))
        moments[-1].record()

    def end(*_):
        moments.append(torch.cuda.Event(enable_timing=True))
        moments[-1].record()

    for module in model.modules():
        if type(module).__name__.endswith("Experts"):
            module.register_forward_pre_hook(begin)
            module.register_forward_hook(end)
    for _ in range(2):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        assert not loss.isnan() and norm.isfinite()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return loads, [a.elapsed_time(b) / 1e3 for a, b in zip(moments[::2], moments[1::2])]

cases = ((mixtral, "grouped_mm"), (mixtral, "eager"), (qwen, "grouped_mm"))
products = 2 * TOKENS * CHOSEN * 3 * HIDDEN * WIDTH
print(json.dumps([TOKENS * CHOSEN, products, [train(*case) for case in cases]]))
"""


def test_a_mixture_of_experts_runs_with_balanced_loads_and_is_charged_for_them(tmp_path):
    pytest.importorskip("transformers")
    done = simulate(MOE, tmp_path, TRANSFORMERS_VERBOSITY="error")
    choices, products, cases = done.answer()
    peak = 989.4e12  # an H200's, bfloat16
    for loads, seconds in cases:
        # THEN each layer's experts get all choices of all tokens, evenly
        assert len(loads) == 2
        for counts in loads:
            assert sum(counts) == choices and max(counts) - min(counts) <= 1
        # AND their products take the time that they take in any form
        for spent in seconds:
            assert products / peak < spent < 3 * products / peak
    assert "cuTensorMap" not in done.stderr and "TMA" not in done.stdout
