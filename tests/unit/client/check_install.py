#!/usr/bin/env python3
"""Installs the client into a folder of its own and builds a program against it, by find_package and by pkg-config, in C and
in C++, shared and static; then runs what was built. Without a daemon every program must say "a miss".

usage: check_install.py BUILD_FOLDER EXAMPLES_FOLDER CXX_COMPILER C_COMPILER
"""

import os
import subprocess
import sys
import tempfile

CMAKE_LISTS = """cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C CXX)
find_package(Terrace 0.1 REQUIRED)
add_executable(shared {examples}/five_lines.cc)
target_link_libraries(shared PRIVATE Terrace::terrace)
add_executable(static {examples}/five_lines.cc)
target_link_libraries(static PRIVATE Terrace::terrace_static)
add_executable(in_c {examples}/event_loop.c)
target_link_libraries(in_c PRIVATE Terrace::terrace)
"""


def run(*command, **environment):
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def expect_miss(program, folder, **environment):
    said = run(program, TERRACE_RUNTIME=folder, **environment)
    if "a miss" not in said:
        sys.exit(f"{program} said: {said}")


def main():
    build, examples, cxx, cc = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="terrace-install-") as folder:
        prefix = os.path.join(folder, "stage")
        run("cmake", "--install", build, "--prefix", prefix, "--component", "client")
        libraries = next(root for root, _, names in os.walk(prefix) if "libterrace.so" in names)
        source = os.path.join(folder, "consumer")
        os.mkdir(source)
        with open(os.path.join(source, "CMakeLists.txt"), "w", encoding="utf-8") as stream:
            stream.write(CMAKE_LISTS.format(examples=examples))
        consumer = os.path.join(folder, "consumer-build")
        run("cmake", "-S", source, "-B", consumer, f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_CXX_COMPILER={cxx}",
            f"-DCMAKE_C_COMPILER={cc}")
        run("cmake", "--build", consumer)
        for program in ("shared", "static", "in_c"):
            expect_miss(os.path.join(consumer, program), folder)

        found = {"PKG_CONFIG_PATH": os.path.join(libraries, "pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "terrace", **found).split()
        static_flags = run("pkg-config", "--cflags", "--libs", "--static", "terrace", **found).split()
        program = os.path.join(folder, "by-pkg-config")
        run(cxx, "-std=c++17", os.path.join(examples, "five_lines.cc"), "-o", program, *flags)
        expect_miss(program, folder, LD_LIBRARY_PATH=libraries)
        run(cc, "-std=c99", os.path.join(examples, "event_loop.c"), "-o", program, *flags)
        expect_miss(program, folder, LD_LIBRARY_PATH=libraries)
        static_flags = [os.path.join(libraries, "libterrace.a") if flag == "-lterrace" else flag for flag in static_flags]
        run(cc, "-std=c99", os.path.join(examples, "event_loop.c"), "-o", program, *static_flags, "-lm")
        expect_miss(program, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
