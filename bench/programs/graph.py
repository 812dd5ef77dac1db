"""Message passing on graphs: nodes and edges of any number, drawn for every step."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

WIDTH = 512


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.message = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.node = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, target = edges
        messages = self.message(torch.cat([nodes[source], nodes[target]], -1))
        received = torch.zeros_like(nodes).index_add(0, target, messages)
        return nodes + self.node(torch.cat([nodes, received], -1))


training = steps(30)
first, layers, last = nn.Linear(64, WIDTH), nn.ModuleList([Layer() for _ in range(8)]), nn.Linear(WIDTH, 40)
model = nn.ModuleList([first, layers, last]).to(DEVICE)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
for _ in training:
    count = random.randint(20000, 120000)
    edges = torch.randint(0, count, (2, count * random.randint(3, 9)), device=DEVICE)
    nodes = first(torch.randn(count, 64, device=DEVICE))
    for layer in layers:
        nodes = layer(nodes, edges)
    last(nodes).logsumexp(-1).mean().backward()
    update(model, optimizer)
