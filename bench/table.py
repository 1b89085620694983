"""The rows of `tern bench kernels --json`, as a table."""
import json
import sys

print(f"{'pack':4} {'acts':4} {'tier':7} {'thr':>3} {'m':>5} {'n':>6} {'k':>6} {'cache':>5} {'us':>11} {'GB/s':>8} "
      f"{'GOP/s':>9} {'bound':8} {'share':>6}")
for line in sys.stdin:
    r = json.loads(line)
    if r["op"] == "peak":
        print(f"peak {r['name']:8} {r['threads']} threads {r['peak']:10.1f} {r['unit']}")
    else:
        print(f"{r['weights']:4} {r['acts']:4} {r['tier']:7} {r['threads']:3} {r['m']:5} {r['n']:6} {r['k']:6} "
              f"{r['cache']:>5} {r['seconds'] * 1e6:11.1f} {r['gbps']:8.2f} {r['gops']:9.1f} {r['bound']:8} "
              f"{100 * r['share']:5.1f}%")
