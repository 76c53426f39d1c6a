"""What `make install` makes of the package: that the distribution's python3 finds it, and it the library by its soname.

usage: installed_test.py SOURCE_DIR BUILD_DIR
"""
import ast
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD = (pathlib.Path(argument) for argument in sys.argv[1:3])
PACKAGE = SOURCE / "client/python/terrace"
SYSTEM_PYTHON = "/usr/bin/python3"


class InstalledTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="terrace-install.")
        cls.root = pathlib.Path(cls.folder.name)
        for prefix in ("/usr", "/usr/local"):
            subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix, "--component", "client"],
                           env={"DESTDIR": str(cls.root), "PATH": "/usr/bin:/bin"}, capture_output=True, check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @unittest.skipUnless(pathlib.Path(SYSTEM_PYTHON).exists(), "no python3 of the distribution")
    def test_every_file_lies_where_python3_of_the_distribution_looks(self):
        looked = subprocess.run([SYSTEM_PYTHON, "-c", "import sys; print('\\n'.join(sys.path))"], capture_output=True,
                                text=True, check=True).stdout.splitlines()
        for prefix in ("/usr/lib", "/usr/local/lib"):
            folders = [self.root / path[1:] / "terrace" for path in looked if path.startswith(prefix)]
            found = [folder for folder in folders if folder.exists()]
            self.assertEqual(len(found), 1, (prefix, looked))
            self.assertEqual({file.name for file in found[0].iterdir()}, {file.name for file in PACKAGE.glob("*.py")})

    @unittest.skipUnless(pathlib.Path(SYSTEM_PYTHON).exists(), "no python3 of the distribution")
    def test_it_loads_the_library_by_its_soname(self):
        library = next(self.root.glob("usr/local/lib/**/libterrace.so.0"))
        package = next(self.root.glob("usr/local/lib/**/terrace/abi.py")).parent.parent
        script = "import terrace.abi; print(terrace.__version__, terrace.abi.load().terrace_version().decode())"
        done = subprocess.run([SYSTEM_PYTHON, "-B", "-c", script], capture_output=True, text=True, check=False,
                              env={"PYTHONPATH": str(package), "LD_LIBRARY_PATH": str(library.parent)})
        self.assertEqual(done.returncode, 0, done.stderr)
        ours, theirs = done.stdout.split()
        self.assertEqual(ours, theirs)

    def test_the_project_file_names_the_package(self):
        project = (SOURCE / "client/python/pyproject.toml").read_text()
        self.assertIn('packages = ["terrace"]', project)
        self.assertIn('attr = "terrace.__version__"', project)
        self.assertTrue(re.search(r'requires-python = ">=3.9"', project))

    def test_every_file_is_of_python_3_9(self):
        for file in PACKAGE.glob("*.py"):
            ast.parse(file.read_text(), str(file), feature_version=(3, 9))

    def test_only_plug_ins_know_engines(self):
        engines = {"vllm", "sglang", "lmcache", "torch", "numpy"}
        allowed = {"vllm.py": {"vllm"}, "vllm_facts.py": {"vllm"}, "vllm_connector.py": {"vllm", "torch"},
                   "sglang.py": {"sglang", "torch"}}
        for file in PACKAGE.glob("*.py"):
            names = set()
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(node.module.split(".")[0])
            self.assertLessEqual(names & engines, allowed.get(file.name, set()), file.name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
