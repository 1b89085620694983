"""Steps per second of PyTorch on the networks of two presets, fake-quantised just as Tern trains them.

    python3 bench/torch_step.py fashion-cnn|charlm [SECONDS] [--compile]

The same layers, shapes, batch and optimiser (AdamW); weights absmean per tensor and activations int8 absmax (per image of a convolution, per
token of a linear layer), both with the straight-through estimator, as published BitLinear layers do it. Prints one JSON object.
"""
import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def ste(x, quantised):
    return x + (quantised - x).detach()


def ternary(w):
    m = w.abs().mean().clamp(min=1e-5)
    return ste(w, (w / m).round().clamp(-1, 1) * m)


def int8(x, dims):
    s = 127 / x.abs().amax(dim=dims, keepdim=True).clamp(min=1e-5)
    return ste(x, (x * s).round().clamp(-128, 127) / s)


class BitLinear(nn.Linear):
    def forward(self, x):
        return F.linear(int8(x, (-1,)), ternary(self.weight), self.bias)


class BitConv2d(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(int8(x, (1, 2, 3)), ternary(self.weight), self.bias, self.stride, self.padding)


def fashion_cnn():
    def block(i, o):
        return [BitConv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                BitConv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]

    net = nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), nn.Dropout(0.3), BitLinear(3136, 128, bias=False),
                        nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.3), BitLinear(128, 10, bias=False))
    net = net.to(memory_format=torch.channels_last)
    x = torch.randn(128, 1, 28, 28).to(memory_format=torch.channels_last)
    return net, x, torch.randint(0, 10, (128,)), lambda y, t: F.cross_entropy(y, t)


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.gain


class Block(nn.Module):
    def __init__(self, width, heads, context):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.sub1, self.sub2 = RMSNorm(width), RMSNorm(4 * width)
        self.qkv, self.out = BitLinear(width, 3 * width, bias=False), BitLinear(width, width, bias=False)
        self.up, self.down = BitLinear(width, 4 * width, bias=False), BitLinear(4 * width, width, bias=False)
        half = width // heads // 2
        angle = torch.arange(context)[:, None] * (10000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def rotate(self, x):
        u, v = x.chunk(2, -1)
        return torch.cat((u * self.cos - v * self.sin, v * self.cos + u * self.sin), -1)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(self.norm1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        x = x + self.out(self.sub1(y.transpose(1, 2).reshape(b, t, c)))
        return x + self.down(self.sub2(F.relu(self.up(self.norm2(x))).square()))


def charlm(width=128, depth=4, heads=4, context=64, batch=12, vocabulary=65):
    net = nn.Sequential(nn.Embedding(vocabulary, width), *[Block(width, heads, context) for _ in range(depth)],
                        RMSNorm(width), nn.Linear(width, vocabulary, bias=False))
    tokens = torch.randint(0, vocabulary, (batch, context))
    return net, tokens, torch.randint(0, vocabulary, (batch, context)), \
        lambda y, t: F.cross_entropy(y.view(-1, vocabulary), t.view(-1))


def main():
    name = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2][0] != "-" else 10
    compiled = "--compile" in sys.argv
    torch.manual_seed(1)
    net, x, target, loss_of = {"fashion-cnn": fashion_cnn, "charlm": charlm}[name]()
    net.train()
    run = torch.compile(net) if compiled else net
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.02, fused=True)

    def step():
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(run(x), target)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    for _ in range(5):
        step()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    print(json.dumps({"preset": name, "engine": f"PyTorch {torch.__version__}" + (" compiled" if compiled else ""),
                      "threads": torch.get_num_threads(), "steps_per_second": steps / (time.perf_counter() - start)}))


main()
