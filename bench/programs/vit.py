"""An image classifier: epochs whose last batch is smaller, evaluation with larger ones."""

import torch
import transformers
from common import DEVICE, steps

BATCH = 64
config = transformers.ViTConfig(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
)
epochs = steps(2)
images = BATCH * 20 + 17
model = transformers.ViTForImageClassification(config).to(DEVICE)
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
for _ in epochs:
    model.train()
    for first in range(0, images, BATCH):
        batch = torch.randn(min(BATCH, images - first), 3, 224, 224, device=DEVICE)
        with torch.autocast("cuda", dtype=torch.float16):
            loss = model(batch).logits.float().logsumexp(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(2 * BATCH, 3, 224, 224, device=DEVICE))
