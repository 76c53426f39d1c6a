#!/usr/bin/env python3
"""Checks what libterrace.so shows and needs: it exports terrace_* alone, all of the headers, and links nothing of ours.

usage: check_exports.py LIBRARY HEADER...
"""

import re
import subprocess
import sys

FOREIGN = re.compile(r"protobuf|grpc|absl|protozero|spdlog|xxhash|libssl|libcrypto", re.IGNORECASE)


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    library, headers = sys.argv[1], sys.argv[2:]
    findings = []
    symbols = [line.split()[-2:] for line in output_of("nm", "-D", "--defined-only", library).splitlines()]
    exported = {name.split("@")[0] for kind, name in symbols if kind not in ("A",)}
    findings += [f"exports {name}" for name in sorted(exported) if not name.startswith("terrace_")]
    declared = set()
    for header in headers:
        with open(header, encoding="utf-8") as stream:
            found = re.findall(r"^TERRACE_API\b[^;(]*?\b(terrace_\w+)\(", stream.read(), re.MULTILINE)
        if not found:
            findings.append(f"{header} declares nothing: the pattern of this check is out of date")
        declared.update(found)
    findings += [f"does not export {name}" for name in sorted(declared - exported)]
    findings += [f"exports {name}, which no header declares" for name in sorted(exported - declared)]
    for line in output_of("ldd", library).splitlines():
        if FOREIGN.search(line):
            findings.append(f"links {line.strip()}")
    for finding in findings:
        print(f"{library}: {finding}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
