#!/usr/bin/env python3
"""Runs clang-tidy over our sources. Exit status 1 if it finds anything, 77 if there is no clang-tidy.

usage: tests/tidy/clang_tidy.py --build DIR [--jobs N] [--fresh] [--changed BASE | PATH...]

By default every source of the build. That takes the better part of an hour of one core, so what was found clean is remembered
in DIR/clang-tidy-clean.json and passed over while nothing of it changes: neither the source, nor any header that it includes,
nor its compile command, nor .clang-tidy, nor clang-tidy itself. Sources with findings are looked at every time. The build has to
be up to date: the lists of headers are those that the compiler wrote down. --fresh looks at everything again.

--changed checks the sources that differ from a commit. --canary proves that .clang-tidy still finds something: clang-tidy
silently leaves out what it cannot parse.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

from clean_sources import CleanSources, compile_commands

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
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
    paths = {os.path.relpath(path, ROOT) for path in compile_commands(build)}
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
    return sources


def identity(clang_tidy):
    """What decides over a source beside the source itself."""
    version = subprocess.run([clang_tidy, "--version"], capture_output=True, check=True).stdout
    with open(os.path.join(ROOT, ".clang-tidy"), "rb") as stream:
        return version + stream.read()


def check(clang_tidy, build, source):
    """The source, and what clang-tidy found in it: "" when it is clean."""
    result = subprocess.run([clang_tidy, "--quiet", "-p", build, os.path.join(ROOT, source)], capture_output=True, text=True, check=False)
    return source, "" if result.returncode == 0 else result.stdout or result.stderr or f"exit status {result.returncode}"


def check_all(clang_tidy, arguments, chosen):
    """Checks what is not known to be clean; returns the number of sources with findings."""
    clean = CleanSources(os.path.abspath(arguments.build), identity(clang_tidy))
    digests = {source: clean.digest(os.path.join(ROOT, source)) for source in chosen}
    left = [source for source in chosen if arguments.fresh or not clean.knows(os.path.join(ROOT, source), digests[source])]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(check, clang_tidy, arguments.build, source) for source in left]
        for run in concurrent.futures.as_completed(runs):
            source, findings = run.result()
            if findings:
                failed += 1
                print(f"{source}:\n{findings}", flush=True)
            else:
                clean.remember(os.path.join(ROOT, source), digests[source])
    print(f"clang-tidy: {len(left)} sources, findings in {failed}; {len(chosen) - len(left)} more are as they were when they were clean")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage=argparse.SUPPRESS)
    parser.add_argument("--build", help="the build folder, with compile_commands.json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--fresh", action="store_true", help="also what is known to be clean")
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
    return 1 if check_all(clang_tidy, arguments, chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
