"""Fourier transforms on simulated devices."""

from __future__ import annotations

from dryrun_run import ASKED_FOR, simulate

WORK = """
def wave(*shape, device):
    return torch.randn(*shape, device=device)

def window(device):
    return torch.hann_window(64, device=device)

def spectrum(on):
    return torch.stft(wave(4, 1600, **on), 64, 16, window=window(**on), return_complex=True)

WORK = {
    "fft": lambda on: torch.fft.fft(wave(8, 1024, **on)),
    "ifft of a prime length": lambda on: torch.fft.ifft(wave(8, 1009, **on)),
    "rfft": lambda on: torch.fft.rfft(wave(8, 1000, **on), n=1024),
    "irfft": lambda on: torch.fft.irfft(torch.fft.rfft(wave(8, 1000, **on)), n=999),
    "hfft": lambda on: torch.fft.hfft(wave(8, 33, **on)),
    "fft2": lambda on: torch.fft.fft2(wave(4, 64, 64, **on)),
    "fft over tokens and features": lambda on: torch.fft.fft(torch.fft.fft(wave(4, 64, 32, **on)), dim=1).real,
    "irfft2": lambda on: torch.fft.irfft2(torch.fft.rfft2(wave(4, 64, 64, **on))),
    "fftn": lambda on: torch.fft.fftn(wave(2, 8, 8, 8, 8, **on)),
    "stft": spectrum,
    "istft": lambda on: torch.istft(spectrum(on), 64, 16, window=window(**on), length=1600),
}
"""


def test_results_have_the_shapes_and_types_that_the_host_gives_them(tmp_path):
    done = simulate(
        WORK + """
def form(result):
    return [list(result.shape), str(result.dtype)]

wrong = {name: forms for name, work in WORK.items()
         if (forms := [form(work({"device": device})) for device in ("cuda", "cpu")]) and forms[0] != forms[1]}
half = torch.fft.rfft(torch.ones(4, 128, device="cuda", dtype=torch.float16))
print(json.dumps([wrong, form(half)]))
""",
        tmp_path,
    )
    assert done.answer() == [{}, [[4, 65], "torch.complex32"]]
    assert "not simulated" not in done.stderr


def test_gradients_pass_through(tmp_path):
    done = simulate(
        """
x = torch.randn(4, 64, 64, device="cuda", requires_grad=True)
mixed = torch.fft.fft2(x).real + torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(x))
mixed.sum().backward()
print(json.dumps([list(x.grad.shape), reads()]))
""",
        tmp_path,
    )
    assert done.answer() == [[4, 64, 64], 0]


def test_long_and_many_dimensional_transforms_work_in_a_copy(tmp_path):
    done = simulate(
        ASKED_FOR + """
def sizes(shape, work):
    x = torch.randn(*shape, device="cuda", dtype=torch.complex64)
    work(x)
    return asked_for(lambda: work(x))[1]

print(json.dumps([sizes((64, 4096), torch.fft.fft), sizes((512, 512), torch.fft.fft2), sizes((4, 65536), torch.fft.fft)]))
""",
        tmp_path,
    )
    whole = 8 * 512 * 512  # all three have as many numbers
    assert done.answer() == [[whole], [whole, whole], [whole, whole]]


def test_a_transform_takes_its_bytes_once_for_each_dimension(tmp_path):
    done = simulate(
        """
x = torch.randn(16, 4096, 1024, device="cuda", dtype=torch.complex64)
times = []
for work in (torch.fft.fft, torch.fft.fft2):
    work(x)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work(x)
    end.record()
    torch.cuda.synchronize()
    times.append(begin.elapsed_time(end))
print(json.dumps(times))
""",
        tmp_path,
    )
    bytes_once = 2 * 8 * 16 * 4096 * 1024 / (4.8e12 * 0.84) * 1e3
    one, two = done.answer()
    assert bytes_once <= one < 1.1 * bytes_once
    assert 2 * bytes_once <= two < 2.1 * bytes_once
