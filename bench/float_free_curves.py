"""Validation curves of the float-free study as one SVG: float_free_curves.py PRESET > picture.svg

Reads runs/float-free-PRESET-RULE-SEED/metrics.jsonl, seed 1; accuracy for images, nats for text."""
import glob
import json
import re
import sys

COLOURS = {"fp": "#888888", "ste": "#000000", "ortho": "#1b7837", "r2": "#2166ac", "r1": "#67a9cf", "vote": "#d6604d",
           "seed-corr": "#b2182b"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 60, 130, 34, 44


def read(path, key):
    points = []
    with open(path) as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            if key in row:
                points.append((row["step"], row[key]))
    return points


def ticks(low, high):
    """Multiples of 1, 2 or 5 times a power of ten, at most eight of them."""
    step, factors = 1e-3, [2, 2.5, 2]
    for i in range(60):
        if (high - low) / step <= 8:
            break
        step *= factors[i % 3]
    first = int(low / step)
    return [(first + i) * step for i in range(12) if low <= (first + i) * step <= high]


def main(preset):
    text = preset.startswith("charlm")
    key, scale = ("val_loss", 1) if text else ("val_accuracy", 100)
    curves = {}
    for path in sorted(glob.glob(f"runs/float-free-{preset}-*-1/metrics.jsonl")):
        rule = re.search(rf"float-free-{preset}-(.*)-1/", path).group(1)
        points = [(step, value * scale) for step, value in read(path, key)]
        if points:
            curves[rule] = points
    if not curves:
        sys.exit(f"float_free_curves.py: there are no runs of {preset}; see bench/float_free.sh")
    last = max(points[-1][0] for points in curves.values())
    # The seed's rule lies far below: it would press the others into a line. So do the first steps.
    values = [value for rule, points in curves.items() if rule != "seed-corr"
              for step, value in points if step >= last / 5] or [0, 1]
    low, high = min(values), max(values)

    def x(step):
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (min(max(value, low), high) - low) / (high - low))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="20" font-size="14">{preset}: validation {"loss, nats" if text else "accuracy, %"}</text>']
    for tick in ticks(low, high):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(0, last):
        out.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">steps</text>')
    labels = []
    for rule, points in curves.items():
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS.get(rule, "#444444")}" stroke-width="1.8"/>')
        labels.append((y(points[-1][1]), rule, points[-1][1]))
    floor = 0
    for place, rule, value in sorted(labels):
        floor = max(place + 4, floor + 14)
        out.append(f'<text x="{WIDTH - RIGHT + 8}" y="{floor:.1f}" fill="{COLOURS.get(rule, "#444444")}">{rule} {value:.{3 if text else 1}f}</text>')
    out.append("</svg>")
    print("\n".join(out))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: float_free_curves.py PRESET > picture.svg")
    main(sys.argv[1])
