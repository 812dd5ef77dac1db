"""A recurrent language model: windows of any length, the state handed from one to the next."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

training = steps(25)
embed, lstm, head = nn.Embedding(50000, 1024), nn.LSTM(1024, 1024, 3, batch_first=True), nn.Linear(1024, 50000)
model = nn.ModuleList([embed, lstm, head]).to(DEVICE)
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
state = None
for _ in training:
    ids = torch.randint(0, 50000, (32, random.randint(64, 512)), device=DEVICE)
    hidden, state = lstm(embed(ids), state)
    state = tuple(part.detach() for part in state)
    nn.functional.cross_entropy(head(hidden).flatten(0, 1), ids.flatten()).backward()
    update(model, optimizer)
