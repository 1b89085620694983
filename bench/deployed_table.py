"""docs/deployment.md's table of what packing saves, from the lines of `tern bench layer|model --device cuda --json`."""
import json
import sys

VARIANTS = {"weights": ("bytes_weights", ("fp32", "bf16", "packed")),
            "peak": ("bytes_peak", ("fp32", "bf16", "training layer", "packed")),
            "µs": ("seconds", ("fp32", "bf16", "training layer", "packed", "packed, bf16"))}


def size(value):
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def microseconds(value):
    return f"{value * 1e6:.3g}" if value < 1e-3 else f"{value * 1e6:.0f}"


def title(row):
    rows = f"{row['m']} row{'s' * (row['m'] > 1)}"
    return f"{rows}, {row['k']} → {row['n']}" if row["op"] == "linear" else f"`{row['name']}`, batch {row['m']}"


def measured(lines):
    """{title: {variant: row}}, in the order of the lines, those with emptied caches left out."""
    found = {}
    for line in lines:
        row = None if line.startswith("#") else json.loads(line)
        if row and row.get("variant") and not row.get("cold"):
            found.setdefault(title(row), {})[row["variant"]] = row
    return found


heads = [f"{group} {name}" if name == names[0] else name for group, (_, names) in VARIANTS.items() for name in names]
print("| | " + " | ".join(heads) + " |")
print("|---|" + "--:|" * len(heads))
for name, row in measured(sys.stdin).items():
    cells = [(microseconds if key == "seconds" else size)(row[v][key]) if v in row else ""
             for key, names in VARIANTS.values() for v in names]
    print(f"| {name} | " + " | ".join(cells) + " |")
