"""The Debian packages: what is in them, and that they are installed, upgraded, removed and purged as an operator expects, on a
machine with a systemd of its own.

usage: package_test.py BUILD_DIR [unittest arguments]      exit status 77: this host cannot do it (says why)
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import machine
from service_case import BLOCKS, DRAM_ALONE, ServiceCase

BUILD = sys.argv.pop(1)
PACKAGES = ("terrace", "terrace-tools", "libterrace")


class PackageTest(ServiceCase):
    config = "etc/terrace/terraced.toml"

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="terrace-packages.")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        subprocess.run(["cpack", "--config", pathlib.Path(BUILD) / "CPackConfig.cmake", "-B", cls.folder], check=True,
                       stdout=subprocess.DEVNULL)
        cls.files = {name: next(cls.folder.glob(f"{name}_*.deb")) for name in PACKAGES}
        cls.make_machine(BUILD, installed=False)
        for file in cls.files.values():
            shutil.copy(file, cls.root / "opt")

    def setUp(self):
        self.addCleanup(self.machine.run, "dpkg", "--purge", *PACKAGES, check=False)

    def install(self, *names):
        return self.machine.run("dpkg", "--force-confold", "--install", *[f"/opt/{self.files[name].name}" for name in names])

    def running(self):
        """The service with blocks in it."""
        self.install("terrace", "libterrace")
        self.machine.run("useradd", "--system", "--groups", "terrace", "engine", check=False)
        self.machine.run("usermod", "--append", "--groups", "terrace", "engine")
        self.configure(DRAM_ALONE)
        self.systemctl("start", "terraced")
        self.store()
        return self.shown("MainPID")

    def test_nothing_lies_where_packages_must_not_write(self):
        for name, file in self.files.items():
            listed = subprocess.run(["dpkg-deb", "--contents", file], capture_output=True, text=True, check=True).stdout
            for line in listed.splitlines():
                mode, owner, path = line.split()[0], line.split()[1], line.split()[5]
                with self.subTest(package=name, path=path):
                    self.assertRegex(path, r"^\./($|usr/(?!local)|etc/($|terrace/))")
                    self.assertEqual(owner, "root/root")
                    self.assertRegex(mode, r"^(drwxr-xr-x|-rwxr-xr-x|-rw-r--r--|lrwxrwxrwx)$")

    def test_a_first_installation_starts_nothing_and_the_programs_run(self):
        self.install(*PACKAGES)
        self.assertEqual(self.shown("ActiveState"), "inactive")
        self.machine.run("terraced", "--config", "/etc/terrace/terraced.toml", "--check-config")
        for program in ("terraced", "terracectl", "terrace-bench", "terrace-sim"):
            self.assertIn("0.1.0", self.machine.run(program, "--version"))
        self.machine.run("python3", "-B", "-c", "import terrace; terrace.Session().close()")
        self.assertEqual(self.machine.run("pkg-config", "--modversion", "terrace").strip(), "0.1.0")
        self.systemctl("enable", "--now", "terraced")
        self.assertEqual(self.machine.run("stat", "--format=%U %G %a", "/run/terrace", "/var/lib/terrace").splitlines(),
                         ["terraced terrace 750", "terraced terrace 700"])

    def test_an_upgrade_restarts_the_service_and_keeps_dram_and_the_operators_file(self):
        pid = self.running()
        self.install("terrace")
        self.assertNotIn(self.shown("MainPID"), ("0", pid))
        self.assertEqual((self.root / self.config).read_text(), DRAM_ALONE)
        self.assertEqual(self.metric("terrace_recovered_blocks"), BLOCKS)
        self.assert_all_there()

    def test_an_upgrade_that_refuses_the_operators_file_leaves_the_service_running(self):
        pid = self.running()
        self.configure("[dram]\ncapacity = 12 apples\n")
        self.assertIn("terraced.toml", self.install("terrace"))
        self.assertEqual((self.shown("MainPID"), self.shown("SubState")), (pid, "running"))
        self.assert_all_there()

    def test_an_upgrade_does_not_start_what_was_stopped(self):
        self.running()
        self.systemctl("stop", "terraced")
        self.install("terrace")
        self.assertEqual(self.shown("ActiveState"), "inactive")

    def test_a_removal_stops_the_service_and_a_purge_leaves_nothing_that_was_cached(self):
        self.running()
        self.machine.run("dpkg", "--remove", "terrace")
        self.assertEqual(self.shown("ActiveState"), "inactive")
        self.assertTrue((self.root / self.config).exists())
        self.assertTrue((self.root / "var/lib/terrace").exists())
        self.machine.run("dpkg", "--purge", "terrace")
        self.assertFalse((self.root / "etc/terrace").exists())
        self.assertFalse((self.root / "var/lib/terrace").exists())


if __name__ == "__main__":
    lacking = [program for program in ("cpack", "dpkg-deb", "dpkg-shlibdeps") if not shutil.which(program)]
    if reason := f"needs {lacking}" if lacking else machine.prepare():
        print(f"skipped: {reason}")
        sys.exit(77)
    unittest.main(verbosity=2)
