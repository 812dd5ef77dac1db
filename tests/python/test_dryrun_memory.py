"""The simulated device's memory: capacity, out of memory, virtual memory, pinned memory, devices."""

from __future__ import annotations

import pytest
from dryrun_run import dryrun_module, simulate


@pytest.mark.parametrize(
    ("device", "name", "multiprocessors", "capability"),
    [
        ("h200", "NVIDIA H200", 132, [9, 0]),
        ("h100-80g", "NVIDIA H100 80GB HBM3", 132, [9, 0]),
        ("a100-80g", "NVIDIA A100-SXM4-80GB", 108, [8, 0]),
        ("rtx4090", "NVIDIA GeForce RTX 4090", 128, [8, 9]),
    ],
)
def test_a_device_answers_as_its_model_does(tmp_path, device, name, multiprocessors, capability):
    done = simulate(
        """
        facts = torch.cuda.get_device_properties(0)
        total = torch.cuda.mem_get_info()[1]
        print(json.dumps([torch.cuda.is_available(), facts.name, facts.multi_processor_count,
                          [facts.major, facts.minor], facts.total_memory == total]))
        """,
        tmp_path,
        device=device,
    )
    assert done.answer() == [True, name, multiprocessors, capability, True]


@pytest.mark.parametrize(
    ("settings", "first", "too_much", "rest"),
    # torch takes 2 MiB steps from cudaMalloc, and maps expandable segments in steps of 20 MiB.
    [("", 1002, 24, 22), ("expandable_segments:True", 1000, 40, 20)],
)
def test_memory_ends_exactly_at_the_capacity(tmp_path, settings, first, too_much, rest):
    # GIVEN as much memory as two allocations need, and the first of them
    done = simulate(
        f"""
        def take(mib):
            return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")
        first = take({first})
        left = torch.cuda.mem_get_info()[0]
        try:
            fits = take({too_much}) is not None
        except torch.OutOfMemoryError:
            fits = False
        second = take({rest})
        print(json.dumps([left, fits, torch.cuda.mem_get_info()[0], used()]))
        """,
        tmp_path,
        capacity=f"{first + rest}MiB",
        PYTORCH_CUDA_ALLOC_CONF=settings,
    )
    # WHEN a step more is asked for THEN it does not fit, and what is left does, to the last byte
    assert done.answer() == [rest << 20, False, 0, (first + rest) << 20]
    assert done.report["devices"][0]["peak_bytes"] == (first + rest) << 20
    assert done.report["torch"][0]["out_of_memory"] == 1


def test_freed_memory_goes_back_and_reads_as_zero(tmp_path):
    done = simulate(
        """
        first = torch.full((8 * MIB,), 7, dtype=torch.int32, device="cuda")
        address, held = first.data_ptr(), used()
        del first
        torch.cuda.empty_cache()
        after = used()
        second = torch.empty(8 * MIB, dtype=torch.int32, device="cuda")
        print(json.dumps([held, after, second.data_ptr() == address, second[5].item(), reads()]))
        """,
        tmp_path,
    )
    assert done.answer() == [32 << 20, 0, True, 0, 1]


def test_expandable_segments_map_and_unmap(tmp_path):
    done = simulate(
        """
        kept = torch.arange(1000, device="cuda")
        large = torch.empty(100 * MIB, dtype=torch.uint8, device="cuda")
        held, mapped = used(), counter("maps")
        del large
        torch.cuda.empty_cache()
        print(json.dumps([held, mapped > 0, counter("unmaps") > 0, used(), kept.sum().item(),
                          counter("mallocs")]))
        """,
        tmp_path,
        PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True",
    )
    assert done.answer() == [102 << 20, True, True, 2 << 20, 499500, 0]


def test_large_memory_costs_no_host_memory(tmp_path):
    done = simulate(
        """
        import resource
        x = torch.zeros(100 << 30, dtype=torch.uint8, device="cuda")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        y = (x[: 30 << 30] + 1) * 2
        mask = torch.ones(100000, 100000, dtype=torch.bool, device="cuda").tril()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([used() >> 30, (after - before) >> 10]))
        """,
        tmp_path,
        capacity="400GiB",
    )
    held_gib, grown_mib = done.answer()
    assert held_gib >= 160
    assert grown_mib < 200


def test_two_devices_have_memory_of_their_own(tmp_path):
    done = simulate(
        """
        a = torch.arange(6, device="cuda:0")
        b = a.to("cuda:1") * 10
        torch.empty(50 * MIB, dtype=torch.uint8, device="cuda:1")
        print(json.dumps([torch.cuda.device_count(), b.tolist(), used(0), used(1), b.device.index,
                          torch.cuda.can_device_access_peer(0, 1)]))
        """,
        tmp_path,
        count=2,
    )
    assert done.answer() == [2, [0, 10, 20, 30, 40, 50], 2 << 20, 52 << 20, 1, False]


def test_pinned_memory_carries_values_both_ways(tmp_path):
    done = simulate(
        """
        pinned = torch.arange(100).pin_memory()
        moved = pinned.to("cuda", non_blocking=True) + 1
        back = torch.empty(100, dtype=torch.int64, pin_memory=True)
        back.copy_(moved, non_blocking=True)
        torch.cuda.synchronize()
        print(json.dumps([pinned.is_pinned(), torch.arange(3).is_pinned(), back.sum().item(), reads()]))
        """,
        tmp_path,
    )
    assert done.answer() == [True, False, 5050, 0]


def test_offloaded_activations_come_back_as_not_computed(tmp_path):
    done = simulate(
        """
        x = torch.randn(1000, 1000, device="cuda", requires_grad=True)
        with torch.autograd.graph.save_on_cpu(pin_memory=True):
            y = (x.exp() * x).sum()
        offloaded = reads()
        y.backward()
        print(json.dumps([offloaded > 0, list(x.grad.shape)]))
        """,
        tmp_path,
    )
    assert done.answer() == [True, [1000, 1000]]


def test_wrong_settings_of_the_library_simulate_no_device(tmp_path):
    done = simulate(
        "print(json.dumps(torch.cuda.is_available()))", tmp_path, EBBTIDE_DRYRUN_CAPACITY="many"
    )
    assert done.answer() is False
    assert "EBBTIDE_DRYRUN_CAPACITY=many: not a size" in done.stderr


def test_a_capacity_without_its_unit_is_told(tmp_path):
    environment = dryrun_module().environment
    for capacity, meant in (("10", "10GiB"), ("80000", "80000MiB")):
        with pytest.raises(dryrun_module().DryrunError, match=f"--capacity {capacity}: .*did you mean {meant}"):
            environment(capacity=capacity)
    assert environment(capacity="10MiB")["EBBTIDE_DRYRUN_CAPACITY"] == "10MiB"


def test_a_device_that_is_not_there_is_told_with_the_option_that_adds_it(tmp_path):
    done = simulate("torch.zeros(1, device='cuda:3')", tmp_path, count=2)
    assert done.status != 0
    assert "the program asks for device 3, and there are 2: give --count 4 or more" in done.stderr


def test_programs_that_log_the_device_are_told_of_it(tmp_path):
    done = simulate(
        """
        x = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        handle, name, rates = ctypes.c_void_p(), ctypes.create_string_buffer(80), (ctypes.c_uint * 2)()
        index, watts, version = ctypes.c_uint(9), ctypes.c_uint(), (ctypes.c_uint * 1)()
        memory = (ctypes.c_ulonglong * 5)()
        assert nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) == 0
        answers = [
            nvml.nvmlDeviceGetUtilizationRates(handle, rates), nvml.nvmlDeviceGetMemoryInfo_v2(handle, memory),
            nvml.nvmlDeviceGetIndex(handle, ctypes.byref(index)), nvml.nvmlSystemGetDriverVersion(name, 80),
            nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(watts)),
        ]
        print(json.dumps([answers, list(rates), index.value, memory[4] == used(), memory[1] == memory[3] + memory[4]]))
        """,
        tmp_path,
    )
    assert done.answer() == [[0, 0, 0, 0, 3], [100, 0], 0, True, True]


def test_what_a_stand_in_does_not_do_is_named(tmp_path):
    done = simulate(
        """
        try:
            torch.eye(8, device="cuda").to_sparse_csr() @ torch.ones(8, 8, device="cuda")
        except RuntimeError as error:
            print(json.dumps(str(error)))
        """,
        tmp_path,
    )
    assert "CUSPARSE_STATUS_NOT_SUPPORTED" in done.answer()
    for name in ("cusparseCreateCsr", "cuSPARSE"):
        assert f"ebbtide dryrun: {name} is not simulated; the call fails" in done.stderr
