"""CUDA graphs on the simulated GPU: what a launch does, what it takes, and what a capture forbids."""

from __future__ import annotations

from dryrun_run import simulate

GRAPHS = """
given = torch.arange(4096, device="cuda")
square = torch.ones(2048, 2048, device="cuda")
pinned = torch.zeros(4096, dtype=torch.int64).pin_memory()
side = torch.cuda.Stream()
answer = {}

graphs = []  # none ends: torch goes on asking one whose capture failed (pytorch#180395)

def captured(work):
    graphs.append(torch.cuda.CUDAGraph())
    with torch.cuda.graph(graphs[-1]):
        work()
    return graphs[-1]

def work():
    global summed, counted, product
    summed = given + 1
    summed[:2].zero_()                       # a cudaMemset
    counted.add_(given)                      # changes what was there before
    product = square @ square
    pinned.copy_(counted, non_blocking=True)

counted = torch.zeros_like(given)
before = counter("copies")
graph = captured(work)
answer["captured"] = [counter("copies") - before, counted[5].item(), pinned[5].item()]
times, launches = [], []
for _ in range(3):
    before = counter("kernel_launches")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    times.append(start.elapsed_time(end))
    launches.append(counter("kernel_launches") - before)
answer["times"], answer["launches"] = times, launches
answer["replayed"] = [summed[:4].tolist(), counted[5].item(), pinned[5].item()]
start.record(); square @ square; end.record(); end.synchronize()
answer["product"] = start.elapsed_time(end)

errors = answer["errors"] = []
event = torch.cuda.Event()
event.record()
def leave_unjoined():
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        given + 1
for breaking in (torch.cuda.synchronize, lambda: torch.cuda.current_stream().synchronize(), lambda: given.sum().item(),
                 lambda: torch.cuda.current_stream().wait_event(event), leave_unjoined, lambda: event.query()):
    try:
        captured(breaking)
    except RuntimeError as error:
        errors.append(str(error).splitlines()[0])
    else:
        errors.append("")
    torch.cuda.set_stream(torch.cuda.default_stream())
answer["usable"] = [captured(lambda: given + 1).replay(), torch.cuda.is_current_stream_capturing(), (given + 1)[1].item()]
print(json.dumps(answer))
"""


def test_a_graph_does_at_each_launch_what_was_captured(tmp_path):
    answer = simulate(GRAPHS, tmp_path).answer()
    assert answer["captured"] == [0, 0, 0]  # nothing is done in a capture
    assert answer["replayed"] == [[0, 0, 3, 4], 15, 15]
    assert answer["launches"] == answer["launches"][:1] * 3 and answer["launches"][0] >= 2
    first, *others = answer["times"]
    assert first > answer["product"] > 0  # it takes as long as its parts
    assert all(abs(time - first) < 1e-6 * first for time in others)
    invalid = "CUDA error: operation failed due to a previous error during capture"
    assert answer["errors"] == [invalid] * 4 + ["CUDA error: capturing stream has unjoined work", invalid]
    assert answer["usable"] == [None, False, 2]
