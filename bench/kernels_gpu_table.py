"""The README's table of products on a GPU, from the lines that bench/kernels_gpu.sh keeps."""
import json
import sys

# Title of a column, and which rows fill it: weights, activations, rows, and the peer (None: Tern's own choice).
COLUMNS = [("1 row", "t2", "i8", 1, None), ("t5", "t5", "i8", 1, None), ("fp16", "t2", "f16", 1, None),
           ("8 rows", "t2", "i8", 8, None)]
for rows in (32, 128, 512, 2048):
    COLUMNS += [(f"{rows} rows", "t2", "i8", rows, None), ("bf16", "bf16", "bf16", rows, "cuBLAS bf16")]
COLUMNS += [("int8", "int8", "i8", 2048, "cuBLASLt int8")]


def microseconds(value):
    return f"{value * 1e6:#.3g}".rstrip(".")


found, read = {}, []
for line in sys.stdin:
    row = None if line.startswith("#") else json.loads(line)
    if row and row["op"] == "peak":
        read.append(row["read_gbps"] / 1e3)
    elif row:
        peer = row["tier"] if row["op"] == "peer" else None
        key = row["weights"], row["acts"], row["m"], peer
        found.setdefault((row["n"], row["k"]), {})[key] = row["seconds"]

print("| | " + " | ".join(title for title, *_ in COLUMNS) + " |")
print("|---|" + "--:|" * len(COLUMNS))
for (n, k), row in sorted(found.items(), key=lambda item: item[0][0] * item[0][1]):
    cells = [microseconds(row[tuple(key)]) if tuple(key) in row else "" for _, *key in COLUMNS]
    print(f"| {n} × {k} | " + " | ".join(cells) + " |")
print(f"\nmemory is read at {min(read):.2f} to {max(read):.2f} TB/s")
