"""torch's fused attention called directly: its backward takes a few heads at a time, and little memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ._attention_call import FusedCall, Parts
from ._attention_groups import head_groups
from ._attention_kernel import FusedResult, Kernel
from ._layer_saving import AnyLanding, landing_for
from ._store import Saved, Store


class FusedAttention:
    """One attention of one call. Saves its log-sum-exp; q, k, v and the output come back from others."""

    is_heavy = False
    runs_again = False
    left_bytes = 0

    def __init__(self, call: FusedCall, kernel: Kernel) -> None:
        self._call, self._kernel = call, kernel
        self._lse: Saved | None = None
        self._lse_size = torch.Size()
        self._random: tuple[torch.Tensor, torch.Tensor] | None = None
        self._parts: Parts = ()

    def forward(self, parts: Parts, store: Store) -> tuple[torch.Tensor, AnyLanding]:
        """The output, batch x tokens x heads x width, and its landing."""
        result = self._kernel.forward(self._call, *parts)
        self._random = result.seed, result.offset
        self._lse_size = result.lse.size()
        self._lse = store.save(result.lse.contiguous().view(-1))
        out = result.out.transpose(1, 2).contiguous()
        landing = landing_for(store, out)
        landing.drop()
        return out, landing

    @property
    def saved_bytes(self) -> int:
        return self._lse.size_bytes if self._lse is not None else 0

    def prefetch(self) -> None:
        if self._lse is not None:
            self._lse.prefetch()

    def writes_over(self, parts: Parts) -> bool:
        """Whether backward needs the memory of q, k, v: not if one call takes all heads, and gives all gradients."""
        groups = list(head_groups(parts[0].shape, parts[1].shape[1]))
        return len(groups) > 1 or len(groups[0][0]) > 1

    def put_back(self, parts: Parts) -> None:
        """q, k, v for backward, which may write over them."""
        self._parts = parts

    def backward(
        self, dout: torch.Tensor, parameters: Sequence[torch.Tensor], out: torch.Tensor
    ) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
        """Gradients of q, k, v, in the memory of q, k, v where writes_over(); `parameters` have none."""
        assert self._lse is not None and self._random is not None
        lse = self._lse.get().view(self._lse_size)
        parts, self._parts = self._parts, ()
        dout, out = dout.transpose(1, 2), out.transpose(1, 2)
        if not self.writes_over(parts):
            result = FusedResult(out, lse, *self._random)
            found = list(self._kernel.backward(self._call, dout, *parts, result))
            self._lse.release()
            return found, [None] * len(parameters)
        for of_q, of_k in head_groups(parts[0].shape, parts[1].shape[1]):
            sums: list[torch.Tensor] = []
            for heads in of_q:
                result = FusedResult(out[:, heads], lse[:, heads].contiguous(), *self._random)
                q, k, v = parts[0][:, heads], parts[1][:, of_k], parts[2][:, of_k]
                dq, *dkv = self._kernel.backward(self._call, dout[:, heads], q, k, v, result)
                q.copy_(dq)
                sums = _added(sums, dkv, len(of_q))
                del dq, dkv  # or they would be there beside those of the next group
            for part, gradient in zip(parts[1:], sums, strict=True):
                part[:, of_k].copy_(gradient)
            del sums, gradient
        self._lse.release()
        return list(parts), [None] * len(parameters)


def _added(sums: list[torch.Tensor], found: list[torch.Tensor], groups: int) -> list[torch.Tensor]:
    if groups == 1:
        return found
    if not sums:
        return [gradient.to(torch.promote_types(gradient.dtype, torch.float32)) for gradient in found]
    return [held.add_(gradient) for held, gradient in zip(sums, found, strict=True)]
