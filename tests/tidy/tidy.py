#!/usr/bin/env python3
"""Checks the house rules that no compiler checks. Prints one line per finding; exit status 1 if there is any.

usage: tests/tidy/tidy.py [--root DIR] [--list-rules] [PATH...]

Every rule is a function below with its name, and has a bad sample under tests/tidy/samples/NAME that it must catch
(tidy_selftest.py). A file that needs to break a rule goes into EXCEPTIONS, with the reason.
"""

import argparse
import ast
import fnmatch
import os
import re
import subprocess
import sys

# (rule, path pattern, reason). An exception that no longer excuses anything is itself a finding.
EXCEPTIONS = [
]

MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 600
MAX_PYTHON_COLUMNS = 100  # of the package; clang-format keeps C++ as narrow
MAX_BLOB_BYTES = 1 << 20

CPP = (".h", ".hpp", ".cc", ".cpp", ".c", ".cu")
HEADERS = (".h", ".hpp")
SOURCES = (".cc", ".cpp", ".c", ".cu")

# Which rooms a room may include besides itself. Siblings meet only in the daemon.
ROOMS = {
    "tiers/vocab": (),
    "tiers/os": ("tiers/vocab",),
    "tiers/copy": ("tiers/vocab",),
    "tiers/dram": ("tiers/vocab", "tiers/os"),
    "tiers/segment": ("tiers/vocab", "tiers/os"),
    "tiers/shared": ("tiers/vocab", "tiers/os", "tiers/copy", "tiers/segment"),
    "tiers/index": ("tiers/vocab", "tiers/os"),
    "tiers/placement": ("tiers/vocab", "tiers/os"),
    "tiers/gpu": ("tiers/vocab", "tiers/os"),
    "proto": (),
    "client": ("proto",),
    "daemon": ("tiers", "proto"),
    "tools": ("tiers", "proto", "client", "daemon"),
    "tests": ("tiers", "proto", "client", "daemon", "tools"),
}

# What an #include of a third party looks like, where it may stand, and whether headers may have it: a header hands it on
# to everyone who includes it.
THIRD_PARTY = [
    (r"(grpc|grpcpp|grpc\+\+)/|.*\.grpc\.pb\.h$", ("daemon/", "tools/", "tests/"), True),
    (r"google/protobuf/|.*\.pb\.h$", ("daemon/", "tools/", "tests/"), True),
    (r"protozero/", ("client/", "tests/"), True),
    (r"rocksdb/", ("tiers/index/", "tests/"), False),
    (r"liburing", ("tiers/os/", "tests/"), False),
    (r"prometheus/", ("daemon/",), False),
    (r"CLI/", ("daemon/", "tools/"), True),
    (r"toml\+\+/|toml\.hpp", ("daemon/",), False),
    (r"(spdlog|fmt)/", ("daemon/",), False),
    (r"systemd/", ("daemon/",), False),
    (r"openssl/", ("daemon/", "tools/", "tests/"), False),
    (r"cuda|nvml", ("tiers/gpu/", "tests/"), False),
    (r"zmq", ("daemon/events/event_sockets.cc", "tests/"), False),
    (r"nlohmann/", ("tools/", "tests/"), True),
    (r"xxhash", ("tiers/", "daemon/", "client/", "tools/", "tests/"), False),
    (r"fuse", ("tests/",), False),
    (r"(gtest|gmock|benchmark)/", ("tests/",), True),
]

BANNED_WORDS = {
    "util", "utils", "common", "misc", "helper", "helpers", "manager", "managers", "base", "data", "info", "infos",
    "handler", "handlers", "processor", "processors", "wrapper", "wrappers",
}


class File:
    """One file of the tree; text and code are read once."""

    def __init__(self, root, path):
        self.root = root
        self.path = path
        self.name = os.path.basename(path)
        self.extension = os.path.splitext(path)[1]
        self.bytes = os.path.getsize(os.path.join(root, path))
        self._text = None
        self._code = None

    @property
    def text(self):
        """The content; empty for what isn't text."""
        if self._text is None:
            self._text = ""
            if self.bytes <= MAX_BLOB_BYTES:
                with open(os.path.join(self.root, self.path), "rb") as stream:
                    content = stream.read()
                if b"\0" not in content:
                    self._text = content.decode("utf-8", "replace")
        return self._text

    @property
    def code(self):
        """C++ with comments and literals blanked; lines and columns stay."""
        if self._code is None:
            self._code = blank_literals(self.text)
        return self._code

    @property
    def is_cpp(self):
        return self.extension in CPP

    def includes(self):
        """(line number, '<' or '"', what is included)."""
        for number, line in enumerate(self.text.splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if match:
                yield number, match.group(1), match.group(2)


LITERALS = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def blank_literals(text):
    return LITERALS.sub(lambda match: re.sub(r"[^\n]", " ", match.group(0)), text)


def room_of(path):
    """The longest room that the path lies in, or None."""
    best = None
    for room in ROOMS:
        if path.startswith(room + "/") and (best is None or len(room) > len(best)):
            best = room
    return best


def line_of(text, position):
    return text.count("\n", 0, position) + 1


# ---- rules: each yields (line number, message) for one file ---------------------------------------------------------


def include_arrow(file, tree):
    """Includes follow the arrows between rooms, and are written from the root."""
    room = room_of(file.path)
    if not file.is_cpp or room is None:
        return
    for number, style, included in file.includes():
        if ".." in included.split("/"):
            yield number, f'"{included}" climbs; write it from the root of the repository'
        target = room_of(included)
        if re.match(r"terrace/v\d+/", included):
            target = "proto"
        elif included.startswith("terrace/") or included == "terrace.h":
            target = "client"
        if target is None or target == room:
            continue
        if not any(target == allowed or target.startswith(allowed + "/") for allowed in ROOMS[room]):
            yield number, f"{room} must not know {target} ({included})"


def third_party(file, tree):
    """Third-party headers stand only in the rooms, and mostly only in the .cc files, that wrap them."""
    if not file.is_cpp or room_of(file.path) is None:
        return
    for number, _, included in file.includes():
        for pattern, places, in_headers in THIRD_PARTY:
            if not re.match(pattern, included):
                continue
            if not file.path.startswith(places):
                yield number, f"<{included}> belongs under {', '.join(places)} only"
            elif file.extension in HEADERS and not in_headers and not file.path.startswith("tests/"):
                yield number, f"<{included}> belongs into the .cc that wraps it, not into a header"
            break


def client_header(file, tree):
    """Public client headers include the standard library and each other, nothing else."""
    if not file.path.startswith("client/include/"):
        return
    for number, style, included in file.includes():
        standard = style == "<" and re.fullmatch(r"[a-z_0-9]+(\.h)?", included)
        own = re.match(r"terrace/(?!v\d)|terrace\.h$", included)
        if not standard and not own:
            yield number, f"a public client header includes {included}"


def words_of(name):
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def banned_name(file, tree):
    """Names of files and types say what a thing is; the banned words say nothing."""
    if file.extension in CPP + (".py", ".proto", ".cmake", ".sh"):
        for part in file.path.split("/"):
            for word in words_of(part.split(".")[0]):
                if word in BANNED_WORDS:
                    yield 1, f"'{word}' in the file name says nothing"
    if file.is_cpp:
        pattern = r"\b(?:class|struct|enum(?:\s+class)?|union)\s+(?:\[\[[^]]*\]\]\s*|[A-Z_]+\([^)]*\)\s*)*([A-Za-z_]\w*)(?=[^;(>,&*]*\{)|\busing\s+([A-Z]\w*)\s*="
    elif file.extension == ".proto":
        pattern = r"^\s*(?:message|enum|service)\s+(\w+)()"
    elif file.extension == ".py" and not file.path.startswith("tests/"):  # stand-ins bear the names of others
        pattern = r"^\s*class\s+(\w+)()"
    else:
        return
    for match in re.finditer(pattern, file.code, re.MULTILINE):
        name = match.group(1) or match.group(2)
        for word in words_of(name):
            if word in BANNED_WORDS:
                yield line_of(file.code, match.start()), f"'{word}' in the type name {name} says nothing"


def cpp_functions(code):
    """(first line, last line, head) of every function body that stands in a namespace or a class."""
    code = re.sub(r"^[ \t]*#(?:[^\n\\]|\\.)*(?:\\\n[^\n]*)*", lambda m: re.sub(r"[^\n]", " ", m.group(0)), code, flags=re.M)
    kinds = []  # of the open blocks: container, function, inner
    head_start = 0
    opened_at = 0
    head = ""
    pending = None  # a constructor's "member_{...}" may be followed by more of its initialisers, or by its body
    for match in re.finditer(r"[{};]", code):
        character, position = match.group(0), match.start()
        in_declarations = all(kind == "container" for kind in kinds)
        if character == "{":
            if not in_declarations:
                kinds.append("inner")
                continue
            text = code[head_start:position]
            if pending and re.match(r"\s*(,|$)", text):
                opened_at, head = pending
                kinds.append("function")
            else:
                declared = re.sub(r"^\s*(?:(?:public|private|protected)\s*:(?!:)\s*)*", "", text)
                opened_at, head = position - len(declared), " ".join(declared.split())
                declaration = re.sub(r"^template\s*<.*?>\s*(?=class|struct|union)", "", head)
                container = re.match(r"(inline\s+)?namespace\b|extern\b\s*$|(class|struct|union|enum)\b(?!.*\)\s*(const)?$)",
                                     declaration)
                kinds.append("container" if container else "function" if "(" in head else "inner")
            pending = None
        elif character == "}":
            kind = kinds.pop() if kinds else "inner"
            if kind == "function":
                rest = code[position + 1:position + 200].lstrip()
                if rest[:1] in (",", "{"):
                    pending = (opened_at, head)
                else:
                    yield line_of(code, opened_at), line_of(code, position), head
            if all(k == "container" for k in kinds):
                head_start = position + 1
        elif in_declarations:
            head_start = position + 1
            pending = None


def function_length(file, tree):
    """A function fits on a screen."""
    functions = []
    if file.is_cpp:
        functions = cpp_functions(file.code)
    elif file.extension == ".py":
        try:
            nodes = ast.walk(ast.parse(file.text))
        except SyntaxError as error:
            yield error.lineno or 1, "Python cannot parse this"
            return
        functions = [(node.lineno, node.end_lineno, node.name)
                     for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for first, last, head in functions:
        if last - first + 1 > MAX_FUNCTION_LINES:
            yield first, f"{last - first + 1} lines, at most {MAX_FUNCTION_LINES}: {head[:60]}"


def file_length(file, tree):
    """A source file has one subject."""
    if file.is_cpp or file.extension in (".py", ".proto", ".cmake", ".sh"):
        lines = file.text.count("\n")
        if lines > MAX_FILE_LINES:
            yield 1, f"{lines} lines, at most {MAX_FILE_LINES}"


def line_length(file, tree):
    """The package's lines fit beside each other."""
    if file.extension == ".py" and file.path.startswith("client/"):
        for number, line in enumerate(file.text.splitlines(), 1):
            if len(line) > MAX_PYTHON_COLUMNS:
                yield number, f"{len(line)} columns, at most {MAX_PYTHON_COLUMNS}"


def source_in_no_target(file, tree):
    """Every source is named by a CMakeLists.txt of its folder or of one above."""
    if file.extension not in SOURCES:
        return
    folder = os.path.dirname(file.path)
    while True:
        lists = tree.get(os.path.join(folder, "CMakeLists.txt"))
        relative = os.path.relpath(file.path, folder or ".")
        if lists and re.search(r"(?<![\w./-])(\S*/)?" + re.escape(relative) + r"(?![\w.-])", strip_hash(lists.text)):
            return
        if not folder:
            break
        folder = os.path.dirname(folder)
    yield 1, "no CMakeLists.txt names this source"


def strip_hash(text):
    return re.sub(r"#[^\n]*", "", text)


def pragma_once(file, tree):
    """Headers begin with #pragma once."""
    if file.extension in HEADERS and not re.search(r"^#pragma once$", file.text, re.MULTILINE):
        yield 1, "no #pragma once"


def types_at_namespace(code):
    """(name, position) of every type that stands at the left margin, which is in a namespace and in nothing else."""
    for match in re.finditer(r"^(?:class|struct|enum class)\s+(?:alignas\([^)]*\)\s*)?([A-Z]\w*)[^;{]*\{", code, re.MULTILINE):
        yield match.group(1), match.start()


def one_type_a_name(file, tree):
    """No two headers of the daemon define types of one name: their inline functions would replace each other."""
    folders = ("tiers/", "daemon/")
    if file.extension not in HEADERS or not file.path.startswith(folders):
        return
    for name, position in types_at_namespace(file.code):
        for path, other in tree.items():
            if path != file.path and path.startswith(folders) and other.extension in HEADERS and name in other.code:
                if any(name == theirs for theirs, _ in types_at_namespace(other.code)):
                    yield line_of(file.code, position), f"{path} defines another {name}"


def std_mutex(file, tree):
    """absl::Mutex carries the annotations that clang's thread-safety analysis needs; the standard's doesn't."""
    if not file.is_cpp or not file.path.startswith(("tiers/", "daemon/")):
        return
    pattern = r"\bstd::(recursive_|shared_|timed_|shared_timed_)?(mutex|lock_guard|unique_lock|scoped_lock|shared_lock|condition_variable)\w*"
    for match in re.finditer(pattern, file.code):
        yield line_of(file.code, match.start()), f"{match.group(0)}: use absl::Mutex"


def no_throw(file, tree):
    """Nothing in the project throws."""
    if not file.is_cpp or not file.path.startswith(("tiers/", "daemon/", "client/", "tools/")):
        return
    for match in re.finditer(r"\bthrow\b", file.code):
        yield line_of(file.code, match.start()), "nothing here throws; return a Status"


def raw_release(file, tree):
    """Kernel objects are released by their owning types in tiers/os and client, nowhere else."""
    if not file.is_cpp or not file.path.startswith(("tiers/", "daemon/", "tools/")) or file.path.startswith("tiers/os/"):
        return
    for match in re.finditer(r"(?<![\w.>:~])(?:::)?(close|munmap|free)\s*\(", file.code):
        yield line_of(file.code, match.start()), f"raw {match.group(1)}(): an owner from tiers/os releases"


def leftover(file, tree):
    """Work that is left belongs into an issue, not into the source."""
    for match in re.finditer(r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b", file.text):
        yield line_of(file.text, match.start()), f"leftover {match.group(1)}"


def test_library_shipped(file, tree):
    """No test library is linked into anything outside tests/."""
    if file.name != "CMakeLists.txt" or file.path.startswith("tests/"):
        return
    for match in re.finditer(r"\bGTest::\w+|\bgmock\w*|\bgtest\w*|\bbenchmark::\w+|\bterrace_test\w*", strip_hash(file.text)):
        yield line_of(file.text, file.text.find(match.group(0))), f"{match.group(0)} outside tests/"


def machine_path(file, tree):
    """Nothing speaks of the machine that somebody worked on."""
    for match in re.finditer(r"(?<![\w.$}\])-])/(?:home|Users|root|work)/\w*", file.text):
        yield line_of(file.text, match.start()), f"a path of somebody's machine: {match.group(0)}"


def generated_file(file, tree):
    """What a build makes is not kept."""
    by_name = re.search(r"\.(pb\.(h|cc)|o|a|so|pyc|gcda|gcno|profraw|orig|rej)$|_pb2(_grpc)?\.py$|(^|/)(CMakeCache\.txt|core)$",
                        file.path)
    if by_name:
        yield 1, "made by a build"
    elif re.search(r"Generated by the (protocol buffer compiler|gRPC C\+\+ plugin)|DO NO[T] EDIT", file.text[:2000]):
        yield 1, "made by a generator"


def blob(file, tree):
    """Large files make every clone pay."""
    if file.bytes > MAX_BLOB_BYTES:
        yield 1, f"{file.bytes} bytes, at most {MAX_BLOB_BYTES}"


RULES = {
    rule.__name__.replace("_", "-"): rule
    for rule in (include_arrow, third_party, client_header, banned_name, function_length, file_length, line_length,
                 source_in_no_target, pragma_once, one_type_a_name, std_mutex, no_throw, raw_release, leftover,
                 test_library_shipped, machine_path, generated_file, blob)
}


def read_tree(root):
    """path -> File for all that is, or would be, in version control; without git, for all but builds."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, check=False)
    if listed.returncode == 0 and os.path.exists(os.path.join(root, ".git")):
        paths = listed.stdout.decode().split("\0")
    else:
        paths = []
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in (".git", "build", "__pycache__")]
            paths += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    tree = {}
    for path in paths:
        full = os.path.join(root, path)
        if path and not path.startswith("tests/tidy/samples/") and os.path.isfile(full) and not os.path.islink(full):
            tree[path] = File(root, path)
    return tree


def check(root, exceptions=(), only=()):
    """All findings of the tree, as (path, line, rule, message)."""
    tree = read_tree(root)
    findings = []
    used = set()
    for path in sorted(tree):
        for name, rule in RULES.items():
            for line, message in rule(tree[path], tree):
                excuse = next((e for e in exceptions if e[0] == name and fnmatch.fnmatch(path, e[1])), None)
                if excuse:
                    used.add(excuse)
                else:
                    findings.append((path, line, name, message))
    for excuse in exceptions:
        if excuse not in used:
            findings.append(("tests/tidy/tidy.py", 1, "stale-exception", f"excuses nothing: {excuse[0]} {excuse[1]}"))
    if only:
        findings = [f for f in findings if any(f[0] == p or f[0].startswith(p.rstrip("/") + "/") for p in only)]
    return findings


def main():
    parser = argparse.ArgumentParser(description="Checks the house rules.")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    parser.add_argument("--list-rules", action="store_true", help="name every rule and what it is for")
    parser.add_argument("paths", nargs="*", help="report on these files or folders alone")
    arguments = parser.parse_args()
    if arguments.list_rules:
        for name, rule in RULES.items():
            print(f"{name:22} {rule.__doc__}")
        return 0
    findings = check(os.path.abspath(arguments.root), EXCEPTIONS, arguments.paths)
    for path, line, rule, message in findings:
        print(f"{path}:{line}: [{rule}] {message}")
    print(f"house rules: {len(findings)} finding{'' if len(findings) == 1 else 's'}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
