"""Tokens per second and peak memory of PyTorch on the networks of model=gpt, fake-quantised just as Tern trains them.

    python3 bench/torch_gpt.py [--width 768] [--depth 12] [--heads 12] [--context 1024] [--batch 32]
                               [--vocabulary 50304] [--seconds 5] [--eager] [--float]

The same block, shapes and optimiser as Tern's: RMSNorm, rotary attention, squared ReLU, norms in front of both output projections;
embedding and head apart. Values in bf16, parameters and AdamW in fp32, gradients clipped to norm 1. Weights absmean per tensor and
activations int8 absmax per token, both with the straight-through estimator; --float: without. Prints one JSON object, the median of
rounds of steps between device events.
"""
import argparse
import json
import statistics
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
for key, value in dict(width=768, depth=12, heads=12, context=1024, batch=32, vocabulary=50304).items():
    parser.add_argument("--" + key, type=int, default=value)
parser.add_argument("--seconds", type=float, default=5)
parser.add_argument("--eager", action="store_true")
parser.add_argument("--float", action="store_true")
o = parser.parse_args()


def ste(x, quantised):
    return x + (quantised - x).detach()


def ternary(w):
    m = w.abs().mean().clamp(min=1e-5)
    return ste(w, (w / m).round().clamp(-1, 1) * m)


def int8(x):
    x32 = x.float()
    s = 127 / x32.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return ste(x, ((x32 * s).round().clamp(-128, 127) / s).to(x.dtype))


class BitLinear(nn.Linear):
    def forward(self, x):
        if o.float:
            return F.linear(x, self.weight.to(x.dtype))
        return F.linear(int8(x), ternary(self.weight).to(x.dtype))


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        v = x.float()
        return (v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-5) * self.gain).to(x.dtype)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        c = o.width
        self.norm1, self.norm2 = RMSNorm(c), RMSNorm(c)
        self.sub1, self.sub2 = RMSNorm(c), RMSNorm(4 * c)
        self.qkv, self.out = BitLinear(c, 3 * c, bias=False), BitLinear(c, c, bias=False)
        self.up, self.down = BitLinear(c, 4 * c, bias=False), BitLinear(4 * c, c, bias=False)

    def forward(self, x, cos, sin):
        b, t, c = x.shape

        def rotate(z):
            u, v = z.chunk(2, -1)
            return torch.cat((u * cos - v * sin, v * cos + u * sin), -1).to(z.dtype)

        q, k, v = (z.view(b, t, o.heads, -1).transpose(1, 2) for z in self.qkv(self.norm1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + self.out(self.sub1(y.transpose(1, 2).reshape(b, t, c)))
        return x + self.down(self.sub2(F.relu(self.up(self.norm2(x))).square()))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(o.vocabulary, o.width)
        self.blocks = nn.ModuleList(Block() for _ in range(o.depth))
        self.norm = RMSNorm(o.width)
        self.head = nn.Linear(o.width, o.vocabulary, bias=False)
        half = o.width // o.heads // 2
        angle = torch.arange(o.context)[:, None] * (10000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens, target):
        x = self.embedding(tokens).to(torch.bfloat16)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.head.weight.to(torch.bfloat16))
        return F.cross_entropy(logits.view(-1, o.vocabulary).float(), target.view(-1))


def main():
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    net = Network().cuda()
    run = net if o.eager else torch.compile(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    tokens, target = (torch.randint(0, o.vocabulary, (o.batch, o.context), device="cuda") for _ in range(2))

    def steps(count):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            optimiser.zero_grad(set_to_none=True)
            run(tokens, target).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
            optimiser.step()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000 / count

    steps(5)
    torch.cuda.reset_peak_memory_stats()
    once = steps(5)
    print("warm", file=sys.stderr, flush=True)
    each = max(3, int(o.seconds / 5 / once))
    seconds = statistics.median(steps(each) for _ in range(5))
    print(json.dumps({"engine": f"PyTorch {torch.__version__}" + ("" if o.eager else " compiled"),
                      "weights": "float" if o.float else "BitLinear", "device": torch.cuda.get_device_name(),
                      "width": o.width, "depth": o.depth, "heads": o.heads, "context": o.context, "batch": o.batch,
                      "vocabulary": o.vocabulary, "ms_per_step": round(1000 * seconds, 3),
                      "tokens_per_second": round(o.batch * o.context / seconds),
                      "device_bytes": torch.cuda.max_memory_allocated()}))


main()
