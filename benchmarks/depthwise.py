"""A training step of a network with depthwise convolutions on a CPU in bfloat16: our gradients against the library's.

    python benchmarks/depthwise.py [--backbone timm:tf_efficientnet_lite0] [--side 160]

Random weights, pictures of noise; CPU time of one thread, the ways taken in turns, best of their steps.
"""

import argparse
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from ray_app.models.backbones import build_backbone
from ray_app.models.depthwise import FastDepthwise

WAYS: dict[str, tuple[torch.dtype, type[AbstractContextManager]]] = {
    "float32": (torch.float32, nullcontext),
    "bfloat16": (torch.bfloat16, nullcontext),
    "bfloat16, FastDepthwise": (torch.bfloat16, FastDepthwise),
}
STEPS, PICTURES = 5, 32


def step(network: torch.nn.Module, pictures: Tensor, way: str) -> Tensor:
    """Forward and backward; all gradients in a row."""
    dtype, context = WAYS[way]
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16), context():
        loss = network(pictures).float().square().mean()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--side", type=int, default=160)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_backbone(options.backbone).to(memory_format=torch.channels_last).eval()  # statistics held
    pictures = torch.randn(PICTURES, 3, options.side, options.side).to(memory_format=torch.channels_last)
    exact = {way: step(network, pictures, way) for way in WAYS}
    seconds = {way: float("inf") for way in WAYS}
    for _ in range(STEPS):
        for way in WAYS:
            began = time.process_time()
            step(network, pictures, way)
            seconds[way] = min(seconds[way], time.process_time() - began)
    slowest = seconds["bfloat16"]
    print(f"{options.backbone} at {options.side} px, batches of {PICTURES}")
    for way, taken in seconds.items():
        cosine = functional.cosine_similarity(exact[way], exact["float32"], dim=0)
        rate = f"{PICTURES / taken:6.1f} pictures per CPU-second, {slowest / taken:.2f} x bfloat16"
        print(f"{way:24s} {rate}, gradient's cosine with float32 {cosine:.4f}")


if __name__ == "__main__":
    main()
