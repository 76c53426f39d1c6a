"""terrace.abi against terrace.h and watch.h: every struct, field and enumerator, as a C++ compiler sees them.

usage: abi_test.py ABI_LAYOUT HEADER...
"""
import ctypes
import pathlib
import re
import subprocess
import sys
import unittest

from terrace import abi

LAYOUT, HEADERS = sys.argv[1], sys.argv[2:]


def declarations():
    """The headers without comments."""
    text = "".join(pathlib.Path(header).read_text() for header in HEADERS)
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def structs_of_header():
    """Name -> fields in their order."""
    found = {}
    for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", declarations(), re.S):
        fields = []
        for field in body.split(";"):
            pointer = re.search(r"\(\*(\w+)\)", field)
            plain = re.search(r"(\w+)\s*(\[\d+\])?\s*$", field)
            if field.strip():
                fields.append((pointer or plain).group(1))
        found[name] = fields
    del found["terrace_id128"]  # an array of bytes by another name
    return found


class AbiTest(unittest.TestCase):
    def test_every_struct_has_the_fields_of_the_header_in_their_order(self):
        ours = {name: [field[0] for field in struct._fields_] for name, struct in abi.STRUCTS.items()}
        self.assertEqual(ours, structs_of_header())

    def test_every_field_lies_where_the_compiler_puts_it(self):
        printed = subprocess.run([LAYOUT], capture_output=True, text=True, check=True).stdout
        sizes = {name: int(size) for name, size in re.findall(r"^struct (\w+) (\d+)$", printed, re.M)}
        self.assertEqual(sizes, {name: ctypes.sizeof(struct) for name, struct in abi.STRUCTS.items()})
        fields = {}
        for name, field, offset, size in re.findall(r"^field (\w+) (\w+) (\d+) (\d+)$", printed, re.M):
            fields[name, field] = (int(offset), int(size))
        ours = {(name, field[0]): (getattr(struct, field[0]).offset, getattr(struct, field[0]).size)
                for name, struct in abi.STRUCTS.items() for field in struct._fields_}
        self.assertEqual(ours, fields)

    def test_every_enumerator_has_its_value(self):
        seen = set()
        for body, name in re.findall(r"typedef enum \w+ \{(.*?)\} (\w+);", declarations(), re.S):
            prefix, ours = abi.ENUMS[name]
            theirs = {word: int(value) for word, value in re.findall(r"(TERRACE_\w+) = (\d+)", body)}
            self.assertEqual({prefix + member.name: member.value for member in ours}, theirs, name)
            seen.add(name)
        self.assertEqual(seen, set(abi.ENUMS))

    def test_every_function_is_declared_and_there(self):
        header = set(re.findall(r"TERRACE_API [\w\s*]*?\b(terrace_\w+)\(", declarations()))
        self.assertEqual(header, set(abi._FUNCTIONS))
        library = abi.load()
        for name in header:
            self.assertIsNotNone(getattr(library, name))

    def test_a_library_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(OSError, "nowhere.*TERRACE_LIBRARY"):
            abi.load("/nowhere/libterrace.so")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
