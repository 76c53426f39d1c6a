"""tools/gpu/pack and what it packs: that it runs from an empty environment with nothing but its own libraries, and says
what it cannot do.

usage: pack_test.py PACK BUILD_DIR
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

PACK, BUILD = sys.argv[1:3]
OF_THE_MACHINE = re.compile(r"^(ld-linux.*|libc|libm|libdl|librt|libpthread|libresolv)\.so(\.|$)")


class PackedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="terrace-pack.")
        cls.out = pathlib.Path(cls.folder.name) / "packed"
        done = subprocess.run([sys.executable, "-B", PACK, BUILD, "--out", cls.out], capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_packed(self, *arguments):
        return subprocess.run(
            [sys.executable, "-B", self.out / "run", "--out", pathlib.Path(self.folder.name) / "results", *arguments],
            capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})

    @property
    def stand_in(self):
        return str(self.out / "lib/libterrace_cuda_stand_in.so")

    def with_facts(self, **changed):
        file = self.out / "pack.json"
        before = file.read_text()
        self.addCleanup(file.write_text, before)
        file.write_text(json.dumps({**json.loads(before), **changed}))

    def test_every_library_is_carried_or_the_machines(self):
        for program in sorted((self.out / "bin").iterdir()):
            listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True,
                                    env={"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": f"{self.out}/lib:{self.out}/lib/cxx"}).stdout
            for name, path in re.findall(r"^\s*(\S+) => (\S+)", listed, re.MULTILINE):
                if not OF_THE_MACHINE.match(name):
                    self.assertTrue(path.startswith(str(self.out)), f"{program.name}: {name} is {path}")

    def test_it_runs_from_an_empty_environment_and_prints_one_table(self):
        done = self.run_packed("--driver", self.stand_in, "--blocks", "24", "--model", "tiny", "--max-tokens", "1024")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"tests +\d+ passed, 0 failed")
        self.assertRegex(done.stdout, r"pieces that are gathered, as measured +up to \d+ bytes in loads")
        self.assertRegex(done.stdout, r"load, pieces of 32k +\S+ GB/s")
        self.assertRegex(done.stdout, r"bytes that are wrong, errors \(bench\) +0 ")
        self.assertRegex(done.stdout, r"bytes that are wrong, errors \(ring\) +0 ")
        self.assertRegex(done.stdout, r"load by the ring, pieces of 256k +\S+ GB/s")
        # Where there is PyTorch, the logits; else why not.
        self.assertRegex(done.stdout, r"logits of the first token.*the same|ttft +not run: .*PyTorch")
        self.assertTrue((pathlib.Path(self.folder.name) / "results/table.txt").exists())
        if pathlib.Path("/usr/local/cuda/bin/nvcc").exists():
            self.assertRegex(done.stdout, r"gather kernels +compiled here by .*nvcc +well")

    def test_what_a_machine_is_not_fit_for_is_said(self):
        self.assertEqual(self.run_packed("--driver", "/nowhere/libcuda.so").returncode, 2)
        self.assertIn("no CUDA driver", self.run_packed("--driver", "/nowhere/libcuda.so").stderr)
        self.assertEqual(self.run_packed("--steps", "dance").returncode, 2)
        self.with_facts(glibc="99.0")
        self.assertRegex(self.run_packed("--driver", self.stand_in).stderr, r"glibc \d+\.\d+ is older than the 99\.0")
        self.with_facts(machine="vax")
        self.assertIn("packed for vax", self.run_packed("--driver", self.stand_in).stderr)
        os.rename(self.out / "pack.json", self.out / "gone")
        self.addCleanup(os.rename, self.out / "gone", self.out / "pack.json")
        done = self.run_packed("--driver", self.stand_in)
        self.assertEqual(done.returncode, 2)
        self.assertIn("no folder of tools/gpu/pack", done.stderr)

    def test_a_failure_is_one(self):
        (self.out / "bin/terrace-bench").rename(self.out / "bench")
        self.addCleanup((self.out / "bench").rename, self.out / "bin/terrace-bench")
        (self.out / "bin/terrace-bench").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
        (self.out / "bin/terrace-bench").chmod(0o755)
        done = self.run_packed("--driver", self.stand_in, "--steps", "bench")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r"terrace-bench gpu \(bench\) +exit 1: no room +FAILED")

    def replace(self, program, text):
        """With a script of the shell, until the test is over."""
        path = self.out / "bin" / program
        path.rename(self.out / program)
        self.addCleanup((self.out / program).rename, path)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)

    def test_a_test_that_dies_hides_no_other(self):
        self.replace("cuda_hardware_test", """case $1 in
            --gtest_list_tests) printf 'Suite.\\n  Dies\\n  Lives\\n  Misses\\n' ;;
            *Dies) kill -SEGV $$ ;;
            *Lives) echo '[  PASSED  ] 1 test.' ;;
            *) printf 'x.cc:1: Skipped\\nno such call\\n[  SKIPPED ] Suite.Misses\\n[  PASSED  ] 0 tests.\\n' ;;
            esac""")
        done = self.run_packed("--driver", self.stand_in, "--steps", "tests")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r"tests +1 passed, 1 failed, 1 skipped +FAILED")
        self.assertRegex(done.stdout, r"Dies +failed: exit -11")
        self.assertRegex(done.stdout, r"Misses +skipped: no such call")

    def test_a_step_that_hangs_ends_with_the_time_and_the_table_is_there(self):
        self.replace("terrace-bench", "exec sleep 600")
        done = self.run_packed("--driver", self.stand_in, "--steps", "bench,ring", "--minutes", "0.5")
        self.assertEqual(done.returncode, 1, done.stderr)
        for step in ("bench", "ring"):
            self.assertRegex(done.stdout, rf"terrace-bench gpu \({step}\) +no time left +FAILED")
        self.assertIn("no time left", (pathlib.Path(self.folder.name) / "results/table.txt").read_text())

    def test_what_is_not_built_or_would_be_lost_is_refused(self):
        for build, out, said in ((self.folder.name, self.out, "is not built"), (BUILD, BUILD, "holds something else")):
            done = subprocess.run([sys.executable, "-B", PACK, build, "--out", out], capture_output=True, text=True,
                                  check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
