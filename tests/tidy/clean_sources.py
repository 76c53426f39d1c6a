"""Remembers which sources of a build a checker found clean, so that it need not look at them again.

A source is remembered by one digest over all that its findings depend on: the checker's version and configuration, the compile
command, and the content of the source and of every header that the compiler read, system headers included. A source for which
the build has no current list of headers is never remembered, and neither is one with findings.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import threading

FORMAT = 1


def compile_commands(build):
    """Absolute path of each source of the build, and its entry in compile_commands.json."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as stream:
        return {os.path.abspath(os.path.join(entry["directory"], entry["file"])): entry for entry in json.load(stream)}


def headers_of_objects(build):
    """What the compiler read for each object, as Ninja recorded it; without the objects whose record is out of date."""
    listed = subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True, check=False)
    read, current = {}, None
    for line in listed.stdout.splitlines():
        head = re.match(r"(\S.*): #deps \d+, .*\((VALID|STALE)\)$", line)
        if head:
            current = read.setdefault(head.group(1), []) if head.group(2) == "VALID" else None
        elif line.startswith("    ") and current is not None:
            current.append(os.path.join(build, line.strip()))
    return read


class CleanSources:
    """The memory of one build folder. Thread-safe."""

    def __init__(self, build, checker):
        """checker: bytes that change whenever the same source could be judged otherwise."""
        self._checker = checker
        self._path = os.path.join(build, "clang-tidy-clean.json")
        self._commands = compile_commands(build)
        self._headers = headers_of_objects(build)
        self._content = {}
        self._lock = threading.Lock()
        self._clean = self._load()

    def _load(self):
        try:
            with open(self._path, encoding="utf-8") as stream:
                stored = json.load(stream)
        except (OSError, ValueError):
            return {}
        return stored["clean"] if isinstance(stored, dict) and stored.get("format") == FORMAT else {}

    def _digest_of_file(self, path):
        if path not in self._content:
            with open(path, "rb") as stream:
                self._content[path] = hashlib.sha256(stream.read()).hexdigest()
        return self._content[path]

    def digest(self, source):
        """Stands for all that decides over the source; None where that is not known. Takes and gives absolute paths."""
        entry = self._commands.get(source)
        if entry is None:
            return None
        command = shlex.split(entry["command"])
        read = self._headers.get(command[command.index("-o") + 1] if "-o" in command else None)
        if not read:
            return None
        total = hashlib.sha256(self._checker + b"\0" + entry["command"].encode() + b"\0")
        try:
            for path in [source, *sorted(set(read))]:
                total.update(f"{path}\0{self._digest_of_file(path)}\0".encode())
        except OSError:
            return None
        return total.hexdigest()

    def knows(self, source, digest):
        """True when the source was found clean as it is now."""
        return digest is not None and self._clean.get(source) == digest

    def remember(self, source, digest):
        """Writes down that what `digest` stands for is clean. At once: a run over everything is long, and may be broken off."""
        if digest is None:
            return
        with self._lock:
            self._clean[source] = digest
            kept = {path: known for path, known in self._clean.items() if path in self._commands}
            with open(self._path + ".new", "w", encoding="utf-8") as stream:
                json.dump({"format": FORMAT, "clean": kept}, stream, indent=0, sort_keys=True)
            os.replace(self._path + ".new", self._path)
