"""Speech: sound of one length, text of any, two passes a step."""

import random

import torch
import transformers
from common import DEVICE, steps, update

config = transformers.WhisperConfig(
    d_model=768, encoder_layers=12, decoder_layers=12, encoder_attention_heads=12,
    decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)
training = steps(20)
model = transformers.WhisperForConditionalGeneration(config).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
for _ in training:
    for _ in range(2):
        sound = torch.randn(16, 80, 3000, device=DEVICE)
        labels = torch.randint(3, 50000, (16, random.randint(20, 440)), device=DEVICE)
        with torch.autocast("cuda", dtype=torch.float16):
            loss = model(input_features=sound, labels=labels).loss / 2
        loss.backward()
    update(model, optimizer)
