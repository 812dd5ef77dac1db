"""The training loop of a scenario: what a user would write, with nothing of Ebbtide in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from scenarios import Scenario

PADDED_SHARE = 8  # with masks, one eighth of a row is padding


def make_batch(
    row: Scenario, shape: tuple[int, int], draw: torch.Generator, device: torch.device
) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, row.vocabulary, shape, generator=draw)
    batch = {"input_ids": ids, "labels": ids.clone()}
    if row.masks:
        keep = torch.ones(shape, dtype=torch.long)
        keep[-1, -(shape[1] // PADDED_SHARE) :] = 0
        batch["labels"][keep == 0] = -100
        batch["attention_mask"] = keep
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _loss(output: object) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.loss  # type: ignore[attr-defined]


def _evaluate(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    model.eval()
    with torch.no_grad():
        _loss(model(**batch))
    model.train()


def _accumulate(
    row: Scenario,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, torch.Tensor],
    first: bool,
) -> torch.Tensor:
    # The output stays alive through the backward pass, logits included, as in most programs.
    output = model(**batch)
    loss = _loss(output) / row.micro_batches
    if row.zero_grad == "after_forward" and first:
        optimizer.zero_grad()
    loss.backward()
    return loss.detach()


def train(
    row: Scenario,
    model: torch.nn.Module,
    device: torch.device,
    after_step: Callable[[int, torch.Tensor], None],
) -> None:
    """Runs row.steps steps. after_step(number from 1, detached loss) is called after each."""
    draw = torch.Generator().manual_seed(row.seed)
    shapes: Iterator[tuple[int, int]] = row.shapes()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, foreach=row.foreach, fused=not row.foreach
    )
    for step in range(1, row.steps + 1):
        if row.zero_grad == "start":
            optimizer.zero_grad()
        for micro in range(row.micro_batches):
            batch = make_batch(row, next(shapes), draw, device)
            loss = _accumulate(row, model, optimizer, batch, first=micro == 0)
        if row.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if row.zero_grad == "end":
            optimizer.zero_grad()
        after_step(step, loss)
        del loss, batch
        if row.evaluate_every and step % row.evaluate_every == 0:
            _evaluate(model, make_batch(row, next(shapes), draw, device))
