"""Gaussian splatting: no module at all; points are cloned and pruned every ten steps, with their Adam state."""

import random
from collections.abc import Callable

import torch
from common import DEVICE, steps

SHAPES = {"means": (3,), "features": (15, 3), "opacity": (1,), "scales": (3,), "rotation": (4,)}
IMAGES = [(1080, 1920), (720, 1280), (1200, 1600)]
Change = Callable[[torch.Tensor], torch.Tensor]

training = steps(120)
points = {name: torch.nn.Parameter(torch.rand(2_000_000, *shape, device=DEVICE)) for name, shape in SHAPES.items()}
groups = [{"params": [tensor], "name": name} for name, tensor in points.items()]
optimizer = torch.optim.Adam(groups, 1e-3, eps=1e-15)


def replace(change: Change, change_state: Change) -> None:
    for group in optimizer.param_groups:
        old = group["params"][0]
        state = optimizer.state.pop(old)
        new = torch.nn.Parameter(change(old.detach()))
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = change_state(state[name])
        group["params"][0] = points[group["name"]] = new
        optimizer.state[new] = state


def some(part: float) -> torch.Tensor:
    total = len(points["means"])
    return torch.randperm(total, device=DEVICE)[: int(total * part)]


def render(seen: torch.Tensor, pixels: int) -> torch.Tensor:
    means, turn = points["means"][seen], points["rotation"][seen]
    direction = means / means.norm(dim=-1, keepdim=True)
    colours = (points["features"][seen] * direction[:, None, :1]).sum(1).sigmoid()
    a, b, c, d = (turn / turn.norm(dim=-1, keepdim=True)).unbind(-1)
    matrix = torch.stack([a * a, b * c, c * d, b * b, a * d, c * c, d * d, a * b, b * d], -1).view(-1, 3, 3)
    spread = matrix @ torch.diag_embed(points["scales"][seen].exp())
    weights = points["opacity"][seen].sigmoid() * (spread @ spread.mT)[:, 0, :1].abs()
    at = torch.randint(0, pixels, (len(seen),), device=DEVICE)
    return torch.zeros(pixels, 3, device=DEVICE).index_add(0, at, colours * weights)


for step in training:
    height, width = random.choice(IMAGES)
    image = render(some(random.uniform(0.2, 0.7)), height * width).view(height, width, 3)
    smooth = (image[1:] - image[:-1]).square().mean()
    ((image - torch.rand_like(image)).abs().mean() + smooth).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 9 and step < 90:
        more = some(random.uniform(0.05, 0.15))
        replace(lambda old: torch.cat([old, old[more]]), lambda old: torch.cat([old, torch.zeros_like(old[more])]))
        kept = some(random.uniform(0.95, 1))
        replace(lambda old: old[kept], lambda old: old[kept])
