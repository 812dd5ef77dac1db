"""The loss of some tokens from their logits, as a sum: sums over pieces add up to the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

_REDUCED = (torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class TokenLoss:
    """Cross entropy with label smoothing (torch's) and z-loss: z * logsumexp^2 (PaLM, section 5)."""

    ignore_index: int = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """logits: tokens x words; labels: tokens. A scalar; float32 for reduced precisions."""
        if logits.dtype in _REDUCED:
            logits = logits.float()
        total = F.cross_entropy(
            logits,
            labels,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        if self.z_loss:
            squares = logits.logsumexp(-1).square() * (labels != self.ignore_index)
            total = total + self.z_loss * squares.sum()
        return total


@dataclasses.dataclass(frozen=True)
class ModelLoss:
    """A model's own loss function, if it keeps to transformers' contract.

    Given `num_items_in_batch` it returns the sum over tokens divided by it, and labels given as
    `shift_labels` are taken as they are.
    """

    function: Callable[..., torch.Tensor]
    arguments: dict[str, Any]

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.function(
            logits=logits, labels=labels, shift_labels=labels, num_items_in_batch=1, **self.arguments
        )


@dataclasses.dataclass(frozen=True)
class Targets:
    """What the logits of each position are to say, and what the sum is divided by."""

    labels: torch.Tensor  # one per position, shifted: ignore_index where there is none
    divisor: torch.Tensor | float

    @staticmethod
    def of(
        labels: torch.Tensor,
        shift_labels: torch.Tensor | None,
        num_items_in_batch: torch.Tensor | int | None,
        ignore_index: int,
        device: torch.device,
    ) -> Targets:
        """As transformers' ForCausalLMLoss: each token predicts the next; the mean, or sum / items."""
        if shift_labels is None:
            shift_labels = F.pad(labels, (0, 1), value=ignore_index)[..., 1:]
        flat = shift_labels.reshape(-1).to(device)
        if num_items_in_batch is None:
            return Targets(flat, (flat != ignore_index).sum())
        if torch.is_tensor(num_items_in_batch):
            num_items_in_batch = num_items_in_batch.to(device)
        return Targets(flat, num_items_in_batch)
