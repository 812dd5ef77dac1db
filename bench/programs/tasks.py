"""One BERT for three tasks in any order, each with a head, a batch and a length of its own."""

import random

import torch
import transformers
from common import DEVICE, steps, update
from torch import nn

training = steps(30)
config = transformers.BertConfig(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=16
)
trunk = transformers.BertModel(config)
heads = nn.ModuleDict(
    {"words": nn.Linear(1024, 30522), "class": nn.Linear(1024, 5), "span": nn.Linear(1024, 2)}
)
model = nn.ModuleList([trunk, heads]).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    task, size = random.choice([("words", (16, 512)), ("class", (64, 128)), ("span", (24, 384))])
    ids = torch.randint(0, 30522, size, device=DEVICE)
    hidden = trunk(ids).last_hidden_state
    if task == "words":
        loss = nn.functional.cross_entropy(heads[task](hidden).flatten(0, 1), ids.flatten())
    elif task == "class":
        loss = nn.functional.cross_entropy(heads[task](hidden[:, 0]), ids[:, 0] % 5)
    else:
        begin, end = heads[task](hidden).unbind(-1)
        loss = nn.functional.cross_entropy(
            begin, ids[:, 0] % size[1]
        ) + nn.functional.cross_entropy(end, ids[:, 1] % size[1])
    loss.backward()
    update(model, optimizer)
