"""Speech from raw samples (wav2vec): seven convolutions, masked frames, drawn negatives; batches of so many seconds."""

import random

import torch
from common import DEVICE, steps, update
from torch import nn

KERNELS = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]


class Model(nn.Module):
    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.waves = nn.ModuleList(
            nn.Conv1d(512 if number else 1, 512, kernel, stride, bias=False)
            for number, (kernel, stride) in enumerate(KERNELS)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, 512) for _ in KERNELS)
        self.project, self.goal = nn.Linear(512, width), nn.Linear(512, 256)
        layer = nn.TransformerEncoderLayer(width, 12, 4 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)
        self.guess = nn.Linear(width, 256)
        self.mask = nn.Parameter(torch.zeros(width))

    def forward(self, wave: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        frames = wave[:, None]
        for convolution, norm in zip(self.waves, self.norms, strict=True):
            frames = nn.functional.gelu(norm(convolution(frames)))
        frames = frames.transpose(1, 2)
        masked = masked[:, : frames.shape[1]]
        hidden = torch.where(masked[..., None], self.mask, self.project(frames))
        places = masked.flatten().nonzero()[:, 0]
        guesses = self.guess(self.encoder(hidden)).flatten(0, 1)[places]
        goals = self.goal(frames).flatten(0, 1)[places]
        drawn = torch.randint(0, len(goals), (len(goals), 50), device=DEVICE)
        others = torch.cat([goals[:, None], goals[drawn]], 1)
        return nn.functional.cosine_similarity(guesses[:, None], others, dim=-1)


training = steps(24)
model = Model().to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for _ in training:
    seconds = random.uniform(3, 16)
    rows = int(160 / seconds)
    wave = torch.randn(rows, int(seconds * 16000), device=DEVICE)
    masked = torch.randint(0, 2, (rows, 1000), device=DEVICE).bool()
    alike = model(wave, masked)
    first = torch.zeros(len(alike), dtype=torch.long, device=DEVICE)
    nn.functional.cross_entropy(alike / 0.1, first).backward()
    update(model, optimizer, clip=True)
