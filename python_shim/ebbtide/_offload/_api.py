"""`ebbtide.offload`: checks what is asked for, and answers in one line where it cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from .._errors import EbbtideError, print_line
from ._causal_lm import find_causal_lms
from ._environment import device_budget, host_budget, is_strict
from ._members import members, tell_left_out
from ._offloaded import Offloaded, all_offloaded_of
from ._options import AUTO, MEMO, Options, alpha_of, bytes_of

Model = TypeVar("Model", bound=torch.nn.Module)
_MEMO_KEEPS = 2  # last layers that MEMO does not swap
_SWAPPED_PIECES = 8  # or more: copies of some hide behind the work of others. "auto" sees whether they do
DECIDED = "_ebbtide_decided"  # on models about which nothing is left for EBBTIDE_OFFLOAD to decide


def offload(
    model: Model,
    *,
    alpha: float | str = AUTO,
    mini_sequence: int | None = None,
    hbm: int | str | None = None,
    host: int | str | None = None,
    keep_last: int = 1,
    attention: str = AUTO,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    logits: bool | None = None,
    strict: bool | None = None,
    off: bool = False,
) -> Model:
    """Train `model` in pieces, its activations swapped to host memory or recomputed. Returns it.

    model: a causal language model of transformers, as it is or inside of DDP, PEFT and the like; or
    any module with layers that offer before_attention, attention and after_attention
    (docs/offload.md). Its class, parameters and optimizer stay what they are. Of several language models in
    it, each that learns is offloaded, and they share the budgets alike.

    alpha          share of each layer's tokens whose activations are swapped; the others are computed
                   again in backward (MEMO, arXiv 2407.12117, 4.1). Layer inputs and attention's
                   output are always saved. "memo": MEMO's closed form from two measured steps, and
                   the last two layers stay. "auto": as many layers as the device has room for keep all
                   they save; of the others as much as hides and fits at most, and of that the part
                   with the shortest measured steps
    mini_sequence  tokens of a piece (MsT, arXiv 2407.15892); None: chosen from bytes
    hbm            most device memory for saved tensors, in bytes or as "20GiB": as many last layers
                   stay there as fit, and what a full host leaves over. None: EBBTIDE_HBM, else
                   keep_last layers, with "auto" more where there is room, and no limit but the device's
    host           most pinned host memory. None: EBBTIDE_HOST, else three quarters of what is available.
                   What finds no room there stays on the device, token by token. Where hbm and host
                   do not hold attention's outputs, its forward runs twice in as many layers as must
                   be; where they do not hold the layers' inputs, EbbtideError names both
    keep_last      last layers, at least, whose saved tensors stay on the device
    attention      "auto": its forward runs once, or again in backward where what it saves beside q, k, v and
                   its output weighs far more than these (eager attention's scores). "save": once, whatever
                   it saves. "recompute": not even its output is saved, where neither memory can hold it
    label_smoothing, z_loss   terms of the loss, which would otherwise need whole logits
    logits         whether evaluation with labels returns whole logits; None: where they are small
    strict         None: EBBTIDE_STRICT; True: what cannot be done raises EbbtideError before the
                   first step. Otherwise one line says what, and the model trains without it
    off            True: undo it all

    The model is first checked on a few tokens against itself left whole; what computes something
    else stays whole, and one line says why. May be called again with other settings. With labels
    the output has no logits in training. Not for one model in several threads.
    """
    if not isinstance(model, torch.nn.Module):
        raise EbbtideError(f"offload({model!r}): allowed is a torch.nn.Module")
    taken = members(model)
    for one in find_causal_lms(model) or [model]:
        setattr(one, DECIDED, True)
    for found in all_offloaded_of(model) if off else [found for one in taken for found in all_offloaded_of(one)]:
        found.undo()
    if off:
        return model
    must = is_strict() if strict is None else strict
    try:
        share = alpha_of("alpha", alpha)
        options = Options(
            alpha=0.0 if isinstance(share, str) else share,
            mini_sequence=mini_sequence,
            fewest_pieces=1 if share in (0, AUTO) else _SWAPPED_PIECES,
            hbm=device_budget() if hbm is None else bytes_of("hbm", hbm),
            host=host_budget() if host is None else bytes_of("host", host),
            keep_last=max(keep_last, _MEMO_KEEPS) if share == MEMO else keep_last,
            attention=attention,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            logits=logits,
            strict=must,
        )
        options.check()
        chosen = share if isinstance(share, str) else None
        tell_left_out(model, taken, must)
        _enable([Offloaded(one, options, chosen, model, len(taken)) for one in taken], must)
    except EbbtideError as error:
        if must:
            raise
        print_line("warning", f"offload: {error}; training goes on without offload")
    return model


def _enable(models: Sequence[Offloaded], strict: bool) -> None:
    """All of them, or, if it is `strict`, none. EbbtideError if it is none."""
    done, reasons = [], []
    for one in models:
        try:
            one.enable()
            done.append(one)
        except EbbtideError as error:
            reasons.append(error)
    if reasons and (strict or not done):
        for one in done:
            one.undo()
        raise reasons[0]
    for reason in reasons:
        print_line("warning", f"offload: {reason}; it trains on without offload")
