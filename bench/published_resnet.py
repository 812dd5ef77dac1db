"""ResNet-50, training steps of a batch of images, TF32 or mixed precision, eager; prints one JSON object.

    ebbtide dryrun --device a100-80g -- python bench/published_resnet.py --mixed

With stride 2 in the 3 x 3 convolution of a block (v1.5), SGD with momentum, smoothed labels; mixed precision is float16 by
autocast with scaled gradients and channels last.
"""

from __future__ import annotations

import argparse
import json

import torch
from published_gpt import seconds_of
from transformers import ResNetConfig, ResNetForImageClassification

_WARM, _STEPS = 2, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--mixed", action="store_true")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if options.mixed else torch.contiguous_format
    model = ResNetForImageClassification(ResNetConfig(num_labels=1000)).cuda().to(memory_format=layout)
    images = torch.randn(options.batch, 3, 224, 224, device="cuda").to(memory_format=layout)
    labels = torch.randint(0, 1000, (options.batch,), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), 0.256, momentum=0.875, weight_decay=3e-5)
    scaler = torch.amp.GradScaler("cuda", enabled=options.mixed)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def step() -> None:
        with torch.autocast("cuda", torch.float16, enabled=options.mixed):
            loss = loss_of(model(pixel_values=images).logits, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    for _ in range(_WARM):
        step()
    seconds = seconds_of(step, _STEPS)
    held, live = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "tokens": options.batch, "reserved": held, "live": live}))


if __name__ == "__main__":
    main()
