"""A recommender: several embedding tables, ragged histories pooled in bags, an in-batch softmax."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

ROWS = [8_000_000, 2_000_000, 500_000, 50_000, 2_000]
WIDTH, BATCH = 64, 8192


def bag(table: nn.EmbeddingBag, longest: int) -> torch.Tensor:
    lengths = [random.randint(1, longest) for _ in range(BATCH)]
    offsets = torch.tensor([0, *lengths[:-1]]).cumsum(0).to(DEVICE)
    ids = torch.randint(0, table.num_embeddings, (sum(lengths),), device=DEVICE)
    return table(ids, offsets)


training = steps(25)
tables = nn.ModuleList(nn.EmbeddingBag(rows, WIDTH, mode="mean") for rows in ROWS).to(DEVICE)
items = nn.Embedding(1_000_000, WIDTH).to(DEVICE)
attend = nn.TransformerEncoderLayer(WIDTH, 4, 256, batch_first=True, norm_first=True).to(DEVICE)
pairs = len(ROWS) * (len(ROWS) - 1) // 2
tower = nn.Sequential(
    nn.Linear(len(ROWS) * WIDTH + pairs + WIDTH + 13, 2048), nn.ReLU(), nn.BatchNorm1d(2048),
    nn.Linear(2048, 1024), nn.ReLU(), nn.Dropout(0.1), nn.Linear(1024, WIDTH),
).to(DEVICE)
dense = nn.ModuleList([attend, tower])
sparse = nn.ModuleList([tables, items])
optimizers = [torch.optim.Adam(dense.parameters(), 1e-3), torch.optim.Adagrad(sparse.parameters(), 0.05)]
upper = torch.triu_indices(len(ROWS), len(ROWS), 1, device=DEVICE)
for _ in training:
    pooled = [bag(table, longest) for table, longest in zip(tables, (200, 80, 30, 10, 3), strict=True)]
    recent = attend(items(torch.randint(0, 1_000_000, (BATCH, random.randint(10, 60)), device=DEVICE)))
    stacked = torch.stack(pooled, 1)
    crossed = (stacked @ stacked.transpose(1, 2))[:, upper[0], upper[1]]
    numbers = torch.randn(BATCH, 13, device=DEVICE)
    users = tower(torch.cat([*pooled, crossed, recent.mean(1), numbers], 1))
    scores = users @ items(torch.randint(0, 1_000_000, (BATCH,), device=DEVICE)).T
    nn.functional.cross_entropy(scores, torch.arange(BATCH, device=DEVICE)).backward()
    update(dense, optimizers[0], clip=True)
    update(sparse, optimizers[1])
