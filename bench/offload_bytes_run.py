"""Peaks of training steps with offload beside what they must weigh, in this process: prints one JSON list.

    ebbtide dryrun -- python bench/offload_bytes_run.py llama --tokens 32768 131072
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
from typing import Any

import models
import offload_weights
import scenarios
import torch

PIECE = 2048
_KI = 1024
MODELS = {
    "llama": {"hidden": 4096, "mlp": 14336, "heads": 32, "kv_heads": 8},
    "gpt2": {"hidden": 2048, "mlp": 8192, "heads": 16, "kv_heads": 16},
}


def make_model(name: str, layers: int, longest: int) -> Any:
    row = scenarios.Scenario(
        "bytes", (longest, longest), model=name, layers=layers, steps=1, **MODELS[name]
    )
    model = models.make_model(row, torch.device("cuda"), real_values=False)
    for module in model.modules():  # masks of dropout would be saved, too
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if name == "gpt2":
        model.config.attn_pdrop = 0.0
        for block in model.transformer.h:
            block.attn.attn_dropout.p = 0.0
    return model


def layers_of(model: Any) -> Any:
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def arguments_of(model: Any, tokens: int) -> tuple[torch.Tensor, dict[str, Any]]:
    """What the first layer of a plain forward is called with."""
    found: list[Any] = []

    class Found(Exception):
        pass

    def look(_: Any, args: Any, kwargs: Any) -> None:
        found.append((args, kwargs))
        raise Found

    hook = layers_of(model)[0].register_forward_pre_hook(look, with_kwargs=True)
    ids = torch.zeros(1, tokens, dtype=torch.long, device="cuda")
    try:
        model(input_ids=ids)
    except Found:
        pass
    hook.remove()
    (x, *_), kwargs = found[0]
    return x.detach(), kwargs


def of_a_plain_layer(model: Any) -> tuple[float, int]:
    """Bytes a token that autograd saves beside input, attention's output and log-sum-exp; and the peak of
    forward and backward: of one unmodified layer for one piece."""
    layer = layers_of(model)[0]
    x, kwargs = arguments_of(model, PIECE)
    x.requires_grad_()
    parameters = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    outside = parameters | {x.untyped_storage().data_ptr()}
    outside |= {t.untyped_storage().data_ptr() for t in _tensors(kwargs)}
    saved: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_cuda and storage.data_ptr() not in outside:
            alive.append(storage)
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    begin = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x, **kwargs)
    y = y[0] if isinstance(y, tuple) else y
    alive.clear()
    y.backward(torch.empty_like(y))
    peak = torch.cuda.max_memory_allocated() - begin
    model.zero_grad()
    config = model.config
    always = PIECE * (2 * config.hidden_size + 4 * config.num_attention_heads)
    return (sum(saved.values()) - always) / PIECE, peak


def _tensors(kwargs: dict[str, Any]) -> list[torch.Tensor]:
    flat, _ = torch.utils._pytree.tree_flatten(kwargs)
    return [leaf for leaf in flat if isinstance(leaf, torch.Tensor)]


def step(model: Any, tokens: int) -> tuple[int, int]:
    """Peaks above the parameters, of forward and of backward."""
    gc.collect()
    weights = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ids = torch.zeros(1, tokens, dtype=torch.long, device="cuda")
    loss = model(input_ids=ids, labels=ids).loss
    forward = torch.cuda.max_memory_allocated() - weights
    torch.cuda.reset_peak_memory_stats()
    loss.backward()
    backward = torch.cuda.max_memory_allocated() - weights
    model.zero_grad()
    return forward, backward


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    import ebbtide
    from ebbtide import _stats  # noqa: F401 - the package is loaded before memory is counted

    model = make_model(options.model, options.layers, max(options.tokens))
    rest, work = of_a_plain_layer(model)
    sizes = {k: v for k, v in MODELS[options.model].items()}
    shapes = offload_weights.Shapes(
        layers=options.layers, words=model.config.vocab_size, gated=options.model == "llama",
        embedded=1 if options.model == "llama" else 2,  # ids alone, or ids and positions
        rest_per_token=rest, piece_work=work, piece=PIECE, **sizes,
    )  # fmt: skip
    rows = []
    for tokens, alpha, keep_last in itertools.product(options.tokens, options.alphas, options.keep_last):
        ample = offload_weights.Setting(tokens, alpha, keep_last, None)
        half = offload_weights.weights_of(shapes, ample).host // 2
        for host in (None, half):
            setting = dataclasses.replace(ample, host=host)
            rows.append(run(model, shapes, setting, options.turns))
    ebbtide.offload(model, off=True)
    return rows


def run(model: Any, shapes: offload_weights.Shapes, setting: offload_weights.Setting, turns: int) -> dict[str, Any]:
    import ebbtide

    ebbtide.offload(model, alpha=setting.alpha, mini_sequence=PIECE, keep_last=setting.keep_last,
                    host=1 << 44 if setting.host is None else setting.host, strict=True)
    peaks = [step(model, setting.tokens) for _ in range(turns)]
    expected = offload_weights.weights_of(shapes, setting)
    host = ebbtide.stats().offload.models[-1].host
    return {
        **dataclasses.asdict(setting),
        "forward": max(forward for forward, _ in peaks), "must_forward": expected.forward,
        "backward": max(backward for _, backward in peaks), "must_backward": expected.backward,
        "host_peak": host.peak_live_bytes, "must_host": expected.host,
        "host_pinned": host.pinned_bytes, "pinnings": host.pinnings,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", choices=MODELS)
    add("--tokens", type=int, nargs="+", default=[32 * _KI, 128 * _KI])
    add("--alphas", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    add("--keep-last", type=int, nargs="+", default=[1, 2])
    add("--layers", type=int, default=6)
    add("--turns", type=int, default=1, help="steps of each setting; the first one counts, too")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
