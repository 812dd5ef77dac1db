"""Small training programs, one for each way of training that must not change a single bit.

    python train_cases.py CASE OUT.pt [--device cuda]

Nothing here asks whether Ebbtide is on. Saved are the losses, gradients and parameters, and
Ebbtide's statistics where there are any.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Callable

import ebbtide
import torch

STEPS = 20
VOCABULARY = 128
WIDTH = 64
GPU_BATCHES = 32  # times as large there: tensors up to 1 MiB are not planned on CUDA, and on the CPU below 4 KiB


class Model(torch.nn.Module):
    """A language model of two encoder layers; every activation is large enough to be planned."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True
        )
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(tokens)))


class Program:
    """What a case trains with, and what it leaves to be compared."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(1)
        self.device = device
        self.draw = random.Random(1)
        self.model = Model().to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.losses: list[torch.Tensor] = []
        self.extra: dict[str, torch.Tensor] = {}

    def tokens(self, batch: int, length: int) -> torch.Tensor:
        if self.device == "cuda":
            batch *= GPU_BATCHES
        return torch.randint(0, VOCABULARY, (batch, length)).to(self.device)

    def loss(self, tokens: torch.Tensor, model: torch.nn.Module | None = None) -> torch.Tensor:
        logits = (model or self.model)(tokens)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        self.losses.append(loss.detach().clone())
        return loss

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if len(self.losses) < STEPS:  # the last gradients are compared
            self.optimizer.zero_grad()
        # Tiny steps would outrun the planner, which works beside them.
        ebbtide.wait_for_plans()

    def step(self, batch: int, length: int) -> None:
        self.loss(self.tokens(batch, length)).backward()
        self.update()


def fixed_length(program: Program) -> None:
    for _ in range(STEPS):
        program.step(4, 64)


def varying_length(program: Program) -> None:
    for _ in range(STEPS):
        program.step(4, program.draw.randint(24, 160))


def varying_length_and_batch(program: Program) -> None:
    for _ in range(STEPS):
        program.step(program.draw.randint(1, 6), program.draw.randint(24, 160))


def gradient_accumulation(program: Program) -> None:
    for _ in range(STEPS // 4):
        for _ in range(4):
            (program.loss(program.tokens(2, program.draw.randint(24, 96))) / 4).backward()
        program.update()


def evaluation_between_steps(program: Program) -> None:
    for step in range(STEPS):
        program.step(4, program.draw.randint(24, 96))
        if step % 4 == 3:
            program.model.eval()
            with torch.no_grad():
                tokens = program.tokens(8, 128)
                program.extra[f"evaluation {step}"] = program.model(tokens).clone()
            program.model.train()


def generation_between_steps(program: Program) -> None:
    for step in range(STEPS):
        program.step(4, 64)
        if step % 5 == 4:
            program.model.eval()
            with torch.no_grad():
                tokens = program.tokens(2, 32)
                for _ in range(16):
                    following = program.model(tokens)[:, -1:].argmax(-1)
                    tokens = torch.cat((tokens, following), dim=1)
            program.extra[f"generated {step}"] = tokens
            program.model.train()


def changed_batch_size(program: Program) -> None:
    for step in range(STEPS):
        program.step(4 if step < STEPS // 2 else 7, 64)


def late_zero_grad(program: Program) -> None:
    for step in range(STEPS):
        loss = program.loss(program.tokens(4, program.draw.randint(24, 96)))
        program.optimizer.zero_grad()
        loss.backward()
        program.optimizer.step()
        ebbtide.wait_for_plans()


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise ArithmeticError("in mid-backward")


def exception_in_backward(program: Program) -> None:
    def break_it(module, inputs, output):
        return _Fails.apply(output)

    for step in range(STEPS):
        if step in (8, 13):
            middle = program.model.encoder.layers[0].register_forward_hook(break_it)
            loss = program.loss(program.tokens(4, 64))
            try:
                loss.backward()
            except ArithmeticError:
                program.optimizer.zero_grad()
            else:
                raise AssertionError("the backward pass was meant to fail")
            middle.remove()
            del loss
        program.step(4, 64)


def two_models(program: Program) -> None:
    other = Model().to(program.device)
    its_optimizer = torch.optim.SGD(other.parameters(), lr=0.05)
    for _ in range(STEPS // 2):
        program.step(4, 64)
        program.loss(program.tokens(6, 48), other).backward()
        its_optimizer.step()
        its_optimizer.zero_grad()
        ebbtide.wait_for_plans()
    program.extra |= {f"other {name}": value for name, value in other.state_dict().items()}


def no_optimizer(program: Program) -> None:
    for _ in range(STEPS):
        program.loss(program.tokens(4, 64)).backward()
        with torch.no_grad():
            for parameter in program.model.parameters():
                parameter -= 0.05 * parameter.grad
                parameter.grad = None
        ebbtide.wait_for_plans()


def kept_tensor(program: Program) -> None:
    """The user holds on to activations of step 5 until step 15, while the plan wants their place."""
    kept: list[torch.Tensor] = []
    handle = program.model.encoder.layers[0].register_forward_hook(
        lambda module, inputs, output: kept.append(output) if keeping else None
    )
    copies: list[torch.Tensor] = []
    for step in range(STEPS):
        keeping = step in (5, 6)
        program.step(4, 64)
        if keeping:
            copies.append(kept[-1].detach().clone())
        if step == 15:
            for original, copy in zip(kept, copies, strict=True):
                assert torch.equal(original, copy), "a kept tensor was overwritten"
            program.extra["kept"] = torch.stack([t.detach() for t in kept]).sum(0)
            kept.clear()
    handle.remove()


CASES: dict[str, Callable[[Program], None]] = {
    case.__name__: case
    for case in (
        fixed_length,
        varying_length,
        varying_length_and_batch,
        gradient_accumulation,
        evaluation_between_steps,
        generation_between_steps,
        changed_batch_size,
        late_zero_grad,
        exception_in_backward,
        two_models,
        no_optimizer,
        kept_tensor,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("out")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    program = Program(options.device)
    CASES[options.case](program)
    parameters = dict(program.model.named_parameters())
    tensors = {f"parameter {name}": value.detach() for name, value in parameters.items()}
    tensors |= {
        f"gradient {name}": value.grad for name, value in parameters.items() if value.grad is not None
    }
    tensors |= {f"loss {number}": loss for number, loss in enumerate(program.losses)}
    tensors |= program.extra
    stats = dataclasses.asdict(ebbtide.stats(options.device)) if ebbtide.is_active() else None
    saved = {name: value.cpu() for name, value in tensors.items()}
    torch.save({"tensors": saved, "stats": stats}, options.out)


if __name__ == "__main__":
    main()
