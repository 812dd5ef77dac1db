"""Two towers: images of one size, texts of any length, a matrix of their products; a ragged last batch."""

import random

import torch
import transformers
from common import DEVICE, steps, update

config = transformers.CLIPConfig(
    vision_config={"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                   "intermediate_size": 3072, "image_size": 224, "patch_size": 16},
    text_config={"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8,
                 "intermediate_size": 2048, "eos_token_id": 2},
)
training = steps(24)
model = transformers.CLIPModel(config).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
for step in training:
    batch = 256 if step % 8 < 7 else random.randint(1, 255)
    images = torch.randn(batch, 3, 224, 224, device=DEVICE)
    ids = torch.randint(3, 49000, (batch, random.randint(8, 77)), device=DEVICE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        scores = model(input_ids=ids, pixel_values=images).logits_per_image
        target = torch.arange(batch, device=DEVICE)
        cross_entropy = torch.nn.functional.cross_entropy
        loss = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
    loss.backward()
    update(model, optimizer)
