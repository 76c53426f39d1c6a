#!/usr/bin/env python3
"""Proves that every rule of tidy.py catches its bad sample, and that a clean tree passes."""

import os
import sys
import tempfile
import unittest

import tidy

SAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "samples")


def must_be_found(name, tree):
    """The files of a sample in which its rule has to find something."""
    paths = [path for path in tree
             if not os.path.basename(path).startswith("not_") and os.path.basename(path) != "CMakeLists.txt"]
    return paths or list(tree)


class Samples(unittest.TestCase):
    def test_every_rule_has_a_sample(self):
        have = set(os.listdir(SAMPLES)) - {"clean", "clang-tidy", "README.md"}
        self.assertEqual(have, set(tidy.RULES) - {"blob"})

    def test_every_rule_says_what_it_is_for(self):
        for name, rule in tidy.RULES.items():
            self.assertTrue(rule.__doc__, name)

    def test_each_sample_is_caught_by_its_rule_alone(self):
        for name in sorted(set(tidy.RULES) - {"blob"}):
            with self.subTest(rule=name):
                root = os.path.join(SAMPLES, name)
                findings = tidy.check(root)
                self.assertEqual({finding[2] for finding in findings}, {name}, findings)
                found_in = {finding[0] for finding in findings}
                self.assertEqual(found_in, set(must_be_found(name, tidy.read_tree(root))))

    def test_large_file_is_caught(self):
        with tempfile.TemporaryDirectory() as root:
            with open(os.path.join(root, "weights.bin"), "wb") as stream:
                stream.truncate(tidy.MAX_BLOB_BYTES + 1)
            self.assertEqual([finding[2] for finding in tidy.check(root)], ["blob"])

    def test_clean_tree_passes(self):
        self.assertEqual(tidy.check(os.path.join(SAMPLES, "clean")), [])

    def test_exception_excuses_its_file_and_a_stale_one_is_found(self):
        root = os.path.join(SAMPLES, "no-throw")
        excuse = ("no-throw", "client/session.cc", "a test")
        stale = ("no-throw", "client/absent.cc", "a test")
        self.assertEqual(tidy.check(root, [excuse]), [])
        self.assertEqual([finding[2] for finding in tidy.check(root, [excuse, stale])], ["stale-exception"])


if __name__ == "__main__":
    sys.exit(unittest.main())
