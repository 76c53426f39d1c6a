#!/usr/bin/env python3
"""Proves that a source is passed over only while nothing that decides over it has changed."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

from clean_sources import CleanSources

BUILD_NINJA = """
rule cc
  command = c++ -MD -MF $out.d -o $out -c $in
  deps = gcc
  depfile = $out.d
build a.o: cc ../a.cc
"""


class CleanSourcesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = os.path.realpath(folder.name)
        self.build = os.path.join(self.root, "build")
        self.source = os.path.join(self.root, "a.cc")
        os.mkdir(self.build)
        self.write("a.cc", '#include "a.h"\nint One() { return kOne; }\n')
        self.write("a.h", "constexpr int kOne = 1;\n")
        self.write("build/build.ninja", BUILD_NINJA)
        self.write_command("c++ -o a.o -c ../a.cc")

    def write(self, path, text):
        with open(os.path.join(self.root, path), "w", encoding="utf-8") as stream:
            stream.write(text)

    def write_command(self, command):
        self.write("build/compile_commands.json", json.dumps([{"directory": self.build, "command": command, "file": self.source}]))

    def compile(self):
        subprocess.run(["ninja", "-C", self.build], stdout=subprocess.DEVNULL, check=True)

    def find_clean(self):
        self.compile()
        clean = CleanSources(self.build, b"checker 1")
        clean.remember(self.source, clean.digest(self.source))

    def is_known(self, checker=b"checker 1"):
        clean = CleanSources(self.build, checker)
        return clean.knows(self.source, clean.digest(self.source))

    def test_what_was_found_clean_is_known_until_it_changes(self):
        self.compile()
        self.assertFalse(self.is_known())
        self.find_clean()
        self.assertTrue(self.is_known())
        self.write("a.cc", '#include "a.h"\nint Two() { return kOne + 1; }\n')
        self.assertFalse(self.is_known())

    def test_a_header_counts(self):
        self.find_clean()
        self.write("a.h", "constexpr int kOne = 11;\n")
        self.assertFalse(self.is_known())

    def test_a_header_that_is_gone_counts(self):
        self.find_clean()
        os.remove(os.path.join(self.root, "a.h"))
        self.assertFalse(self.is_known())

    def test_the_command_counts(self):
        self.find_clean()
        self.write_command("c++ -DX -o a.o -c ../a.cc")
        self.assertFalse(self.is_known())

    def test_the_checker_counts(self):
        self.find_clean()
        self.assertFalse(self.is_known(b"checker 2"))

    def test_a_source_that_was_not_compiled_is_never_known(self):
        clean = CleanSources(self.build, b"checker 1")
        self.assertIsNone(clean.digest(self.source))
        clean.remember(self.source, clean.digest(self.source))
        self.assertFalse(self.is_known())

    def test_a_damaged_memory_is_an_empty_one(self):
        self.find_clean()
        self.write("build/clang-tidy-clean.json", '{"format": 1, "clean"')
        self.assertFalse(self.is_known())


if __name__ == "__main__":
    sys.exit(unittest.main())
