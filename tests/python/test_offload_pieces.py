"""How long pieces are: a part of the layer's weights, of the sequence, and of what the device has to spare."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")

import offload_models  # noqa: F401 -- finds ebbtide
from ebbtide._offload import _piece_size, _spare
from ebbtide._offload._piece_size import head_piece
from ebbtide._offload._pieces import choose_piece
from ebbtide._offload._spare import Spare

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def piece_of_8b(tokens, spare=0, fewest=1):
    """Llama-8B: a layer of 416 MiB, 8 KiB a token of input, 252 KiB a token of a piece."""
    return choose_piece(tokens, 416 * MIB, 8 * KIB, 252 * KIB, spare, fewest)


def test_without_room_it_weighs_as_much_as_the_weights_or_half_a_whole_tensor():
    assert [piece_of_8b(tokens) for tokens in (100, 8192, 1 << 20)] == [100, 1664, 16640]
    assert piece_of_8b(8192, spare=-3 * GIB) == 1664


def test_where_there_is_room_a_short_sequence_is_one_piece():
    assert [piece_of_8b(tokens, spare=40 * GIB) for tokens in (1, 63, 4096, 16385)] == [1, 63, 4096, 16385]


def test_a_layer_that_takes_a_seventh_of_the_room_is_one_piece():
    # 16K tokens of 8B width on 48 GB, where two pieces took longer than checkpointing.
    assert piece_of_8b(16384, spare=7 * 252 * 16 * MIB + 24 * 8 * 16 * MIB) == 16384


def test_longer_ones_are_cut_into_pieces_that_are_alike():
    # Their number is a power of two: lengths that vary bring few numbers.
    assert [piece_of_8b(tokens, spare=40 * GIB) for tokens in (65536, 50000)] == [16384, 12544]


def test_the_room_is_that_beside_all_whole_tensors():
    # What pieces and whole tensors of 24 inputs need stays below what there is, up to the length that leaves none.
    for tokens in range(4096, 1 << 18, 4096):
        piece = piece_of_8b(tokens, spare=40 * GIB)
        assert piece == piece_of_8b(tokens) or 24 * 8 * KIB * tokens + 6 * 252 * KIB * piece <= 40 * GIB
    assert piece_of_8b(1 << 18, spare=40 * GIB) == piece_of_8b(1 << 18)


def test_pieces_to_be_swapped_are_several():
    assert [piece_of_8b(tokens, 100 * GIB, fewest=8) for tokens in (65536, 8192)] == [8192, 1664]


def test_spare_is_what_weights_gradients_and_states_leave(monkeypatch):
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(_spare, "device_bytes", lambda device: 10000)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.5)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.Linear(8, 2, bias=False))
    model[1].requires_grad_(False)
    assert Spare(model).bytes_on(cuda) == 5000  # its weights are elsewhere

    class There:
        def __init__(self, parameter):
            self.device, self.nbytes = cuda, parameter.nbytes
            self.numel, self.requires_grad = parameter.numel, parameter.requires_grad

    layers = list(model)
    for layer in layers:
        layer._parameters["weight"] = There(layer.weight)
    left = 5000 - 32 * (4 + 4 + 8) - 16 * 4
    spare = Spare(model)
    model._modules["0"] = torch.nn.Identity()  # as while a cut head runs
    assert spare.bytes_on(cuda) == left


def test_host_memory_is_not_counted():
    # Results depend on the pieces, and must not on the machine that they were found on.
    assert Spare(torch.nn.Linear(2, 2)).bytes_on(torch.device("cpu")) == 0


def test_pieces_stay_as_they_were_chosen_first(monkeypatch):
    monkeypatch.setattr(_spare, "device_bytes", lambda device: 10000)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    model = torch.nn.Linear(2, 2)
    spare = Spare(model)
    assert spare.bytes_on(torch.device("cuda", 0)) == 10000
    monkeypatch.setattr(_spare, "device_bytes", lambda device: 20000)
    assert spare.bytes_on(torch.device("cuda", 0)) == copy.deepcopy(spare).bytes_on(torch.device("cuda", 0)) == 10000


@pytest.mark.parametrize("wished", [None, 1000])
def test_a_head_with_room_has_one_piece_and_else_what_its_gradient_weighs(monkeypatch, wished):
    monkeypatch.setattr(_piece_size, "device_bytes", lambda device: 0)

    def piece(tokens, spare):  # 2 MiB a token; the gradient 2 GiB
        return head_piece(128256, 4096, 2, torch.device("cuda"), wished, tokens, spare)

    most = wished or 1 << 20
    assert piece(4096, 0) == min(most, 1024)
    assert piece(4096, 100 * GIB) == min(most, 4096)
    assert piece(32768, 100 * GIB) == min(most, 4096)  # eight, of up to 11.75 GiB
