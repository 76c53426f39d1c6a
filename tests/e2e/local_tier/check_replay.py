"""A replay of the carried trace over both tiers, with a kill -9 in the middle, hits what placement alone says.

usage: check_replay.py TERRACE_BENCH TRACE
"""
import json
import subprocess
import sys

# The daemon writes while it goes on, and is killed while it does: a block may go a moment later than its turn.
TOLERANCE = 0.03

bench, trace = sys.argv[1:]
run = subprocess.run(
    [bench, "replay", "--trace", trace, "--block-bytes", "256KiB", "--dram", "64MiB", "--local", "4500MiB", "--kill-at", "50",
     "--json"], stdout=subprocess.PIPE, check=False)
report = json.loads(run.stdout)
print(json.dumps(report, indent=1))
ratio = report["figures"]["hit_ratio"]["ratio"]["median"]
local = report["figures"]["hit_ratio_g3"]["value"]
assert run.returncode == 0, run.returncode
assert report["wrong_bytes"] == 0 and report["errors"] == 0
assert abs(ratio - 1) <= TOLERANCE, f"hits are {ratio} of what placement alone says"
assert local > 1, "the local tier gave nothing"
