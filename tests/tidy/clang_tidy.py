#!/usr/bin/env python3
"""Runs clang-tidy over our sources. Exit status 1 if it finds anything, 77 if there is no clang-tidy.

usage: tests/tidy/clang_tidy.py --build DIR [--jobs N] [--all | --changed BASE | PATH...]

By default every source under tiers/ and client/: those that include gRPC take a quarter of a minute each, and are checked
with --all. --changed checks the sources that differ from a commit. --canary proves that .clang-tidy still finds something:
clang-tidy silently leaves out what it cannot parse.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEFAULT_FOLDERS = ("tiers/", "client/")
CANARY = os.path.join(ROOT, "tests", "tidy", "samples", "clang-tidy")
CANARY_MUST_FIND = ("readability-identifier-naming", "modernize-use-nullptr", "readability-braces-around-statements")
SKIPPED = 77


def find_clang_tidy():
    return shutil.which("clang-tidy-14") or shutil.which("clang-tidy")


def run_canary(clang_tidy):
    """True when clang-tidy, with the repository's configuration, reports in a header what the canary has planted."""
    result = subprocess.run(
        [clang_tidy, "--quiet", f"--config-file={ROOT}/.clang-tidy", f"{CANARY}/daemon/canary.cc", "--", "-std=c++20", f"-I{CANARY}"],
        capture_output=True, text=True, check=False)
    silent = [check for check in CANARY_MUST_FIND
              if not re.search(r"canary\.h:\d+:\d+: .*" + re.escape(check), result.stdout)]
    for check in silent:
        print(f"clang-tidy no longer finds {check} in {CANARY}/daemon/canary.h")
    if silent:
        print(result.stdout + result.stderr)
    return not silent


def own_sources(build):
    """Sources of the build that lie in this repository, relative to its root."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as stream:
        paths = {os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT) for entry in json.load(stream)}
    return sorted(path for path in paths if not path.startswith(("..", "build/")))


def changed_since(commit):
    listed = subprocess.run(["git", "-C", ROOT, "diff", "--name-only", commit], capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def choose(sources, arguments):
    if arguments.paths:
        return [s for s in sources if any(s == p or s.startswith(p.rstrip("/") + "/") for p in arguments.paths)]
    if arguments.changed:
        changed = changed_since(arguments.changed)
        return [source for source in sources if source in changed]
    return [source for source in sources if arguments.all or source.startswith(DEFAULT_FOLDERS)]


def main():
    parser = argparse.ArgumentParser(description="Runs clang-tidy over the sources of a build.")
    parser.add_argument("--build", help="the build folder, with compile_commands.json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--all", action="store_true", help="every source")
    parser.add_argument("--changed", metavar="BASE", help="the sources that differ from this commit")
    parser.add_argument("--canary", action="store_true", help="only check that clang-tidy still finds something")
    parser.add_argument("paths", nargs="*", help="these sources, or those in these folders")
    arguments = parser.parse_args()

    clang_tidy = find_clang_tidy()
    if not clang_tidy:
        print("there is no clang-tidy here: skipped")
        return SKIPPED
    if not run_canary(clang_tidy):
        return 1
    if arguments.canary:
        print("the canary sings")
        return 0
    if not arguments.build:
        parser.error("--build is needed")

    chosen = choose(own_sources(arguments.build), arguments)
    command = [clang_tidy, "--quiet", "-p", arguments.build]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {path: pool.submit(subprocess.run, command + [os.path.join(ROOT, path)], capture_output=True, text=True, check=False)
                for path in chosen}
        for path, run in runs.items():
            result = run.result()
            if result.returncode != 0:
                failed += 1
                print(f"{path}:\n{result.stdout}{result.stderr if not result.stdout else ''}", flush=True)
    print(f"clang-tidy: {len(chosen)} sources, findings in {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
