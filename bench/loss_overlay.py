"""The loss of 200 steps on real text, whole and in pieces with offload: a picture, and how far apart.

The model and the text are those of examples/train_llama.py (the Python standard library's source);
real numbers, so on CPU tensors or a real GPU. In float32 pieces only change the order of sums.

    python bench/loss_overlay.py --svg overlay.svg
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "examples"))
import ebbtide  # noqa: E402
import train_llama  # noqa: E402

_WIDTH, _HEIGHT, _MARGIN = 900, 420, 50
_COLOURS = {"whole": "#888888", "offloaded": "#0b62a4"}


def losses(options: argparse.Namespace, offloaded: bool) -> list[float]:
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    model = train_llama.make_model("small", options.length, device, simulated=False).train()
    if offloaded:
        ebbtide.offload(
            model, alpha=options.alpha, mini_sequence=options.mini_sequence, host=options.host
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = []
    for text in train_llama.documents(options.steps, options.length, options.seed):
        tokens = torch.tensor(list(text), device=device).unsqueeze(0)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def picture(curves: dict[str, list[float]]) -> str:
    """An SVG: the later curve is drawn thin over the earlier, thick one."""
    highest = max(map(max, curves.values()))
    steps = len(next(iter(curves.values())))
    right, bottom = _WIDTH - _MARGIN, _HEIGHT - _MARGIN

    def point(step: int, loss: float) -> str:
        x = _MARGIN + step / max(steps - 1, 1) * (right - _MARGIN)
        y = bottom - loss / highest * (bottom - _MARGIN)
        return f"{x:.1f},{y:.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f'<path d="M{_MARGIN},{_MARGIN} V{bottom} H{right}" fill="none" stroke="black"/>',
        f'<text x="{_MARGIN}" y="{_MARGIN - 12}">loss, 0 to {highest:.2f}</text>',
        f'<text x="{right}" y="{bottom + 24}" text-anchor="end">{steps} steps</text>',
    ]
    for number, (name, curve) in enumerate(curves.items()):
        points = " ".join(point(step, loss) for step, loss in enumerate(curve))
        colour, thick = _COLOURS[name], 5 - 3.5 * number
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
        lines.append(f'<text x="{right - 120}" y="{_MARGIN + 20 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--length", type=int, default=300, help="documents are cut to this")
    parser.add_argument("--mini-sequence", type=int, default=64)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--host", default="1GiB", help="host budget")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=pathlib.Path, metavar="FILE", help="draw both curves there")
    options = parser.parse_args()
    curves = {"whole": losses(options, False), "offloaded": losses(options, True)}
    apart = [abs(a - b) / a for a, b in zip(*curves.values(), strict=True)]
    if options.svg:
        options.svg.write_text(picture(curves))
    summary = {name: {"first": curve[0], "last": curve[-1]} for name, curve in curves.items()}
    print(json.dumps({**summary, "steps": options.steps, "largest_relative_difference": max(apart)}))


if __name__ == "__main__":
    main()
