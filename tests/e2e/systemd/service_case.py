"""What the tests of the installed service have in common: the operator's and the engine's ways of using it."""
import pathlib
import re
import tempfile
import unittest

import machine

HERE = pathlib.Path(__file__).parent
BLOCKS = 300
DRAM_ALONE = '[dram]\ncapacity = "192MiB"\n[local]\ncapacity = "0B"\n'
WITH_DRIVE = '[dram]\ncapacity = "192MiB"\n[local]\ncapacity = "2GiB"\nfree_reserve = "0B"\n'


class ServiceCase(unittest.TestCase):
    """Has a machine with an engine, all tests of a class the same one. `config`: where the service's file lies."""

    config = "usr/local/etc/terrace/terraced.toml"

    @classmethod
    def make_machine(cls, build, installed=True):
        folder = tempfile.TemporaryDirectory(prefix="terrace-machine.")
        cls.addClassCleanup(folder.cleanup)
        cls.machine = machine.Machine(folder.name, build)
        cls.addClassCleanup(cls.machine.close)
        cls.machine.make(installed)
        cls.machine.boot()
        cls.root = cls.machine.root
        (cls.root / "opt/engine.py").write_text((HERE / "engine.py").read_text())

    # ---- the operator

    def systemctl(self, *words, check=True):
        return self.machine.run("systemctl", *words, check=check)

    def shown(self, name):
        return self.systemctl("show", "--value", "--property", name, "terraced").strip()

    def configure(self, text):
        (self.root / self.config).write_text(text)

    def drop_in(self, name, text):
        (self.drop_ins / name).write_text(text)
        self.systemctl("daemon-reload")

    def make_folders(self, *paths):
        self.machine.run("install", "-d", "-o", "terraced", "-m", "0700", *paths)

    def journal(self):
        """What the service said since its last start, and what systemd said of it."""
        life = self.shown("InvocationID")
        return self.machine.run("journalctl", "--no-pager", "--output", "cat", f"_SYSTEMD_INVOCATION_ID={life}", "+",
                                f"INVOCATION_ID={life}")

    def metric(self, name):
        text = self.machine.run("curl", "--silent", "--fail", "http://127.0.0.1:9464/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))

    def until_running_as_another(self, pid):
        """After an end that systemd itself answers with a start."""
        self.assertTrue(machine.until(lambda: self.shown("MainPID") not in ("0", pid) and self.shown("SubState") == "running"),
                        self.journal())

    # ---- the engine

    def as_user(self, user, *words):
        return self.machine.run("setpriv", f"--reuid={user}", "--regid=nogroup", "--init-groups", *words)

    def engine(self, *words):
        return self.as_user("engine", "python3", "-B", "/opt/engine.py", *words)

    def store(self, first=0, count=BLOCKS, *level):
        self.assertEqual(self.engine("store", first, count, *level).split(), [str(count)])

    def assert_all_there(self, first=0, count=BLOCKS):
        self.assertEqual(self.engine("read", first, count).split(), [str(count), "0"])

    def assert_all_come(self):
        """As soon as the pool is open, which no start waits for."""
        self.assertTrue(machine.until(lambda: self.engine("read", 0, BLOCKS).split() == [str(BLOCKS), "0"]), self.journal())

    def assert_none_there(self, first=0, count=BLOCKS):
        self.assertEqual(self.engine("read", first, count).split(), ["0", "0"])
