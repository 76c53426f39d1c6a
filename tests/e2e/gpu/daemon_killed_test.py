"""A real daemon that is killed while it loads blocks into the memory of a GPU, and started again: the engine's calls end
when no copy can touch its memory any more, and its region is registered anew by itself.

usage: daemon_killed_test.py TERRACE_CALLS_FOLDER LIBTERRACE DRIVER      (TERRACE_BUILD: where the programs are)
"""
import ctypes
import hashlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest

FOLDER, LIBRARY, DRIVER = (pathlib.Path(argument) for argument in sys.argv[1:4])
sys.path.insert(0, str(FOLDER))
import terrace_calls  # noqa: E402

BLOCKS, PLANES, SEGMENT = 64, 4, 8192
BLOCK = PLANES * SEGMENT
COUNT = BLOCKS * BLOCK
KILLS = 8
UNAVAILABLE = 14


def worker_of(daemon):
    """The pid of the daemon's worker of a GPU; None: it has none."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == daemon.pid and b"--worker=gpu:" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except (OSError, ValueError, IndexError):
            continue
    return None


def has_ended(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


class KilledDaemonTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="terrace-killed.")
        self.root = pathlib.Path(self.folder.name)
        self.hold = self.root / "hold"
        (self.root / "terraced.toml").write_text('[dram]\ncapacity = "128MiB"\n[local]\ncapacity = "3GiB"\n'
                                                 'max_block = "4MiB"\n[metrics]\nlisten = "off"\n')
        self.daemon = None
        self.driver = terrace_calls.Driver(str(DRIVER))
        self.memory = self.driver.allocate(COUNT)
        self.content = random.Random(4).randbytes(COUNT)
        self.keys = [hashlib.blake2b(bytes([block]), digest_size=32).digest() for block in range(BLOCKS)]
        self.start()
        self.client = terrace_calls.Client(LIBRARY, self.root / "run")
        self.connect()
        self.namespace = self.client.open_namespace("killed", 16, BLOCK, "float32")
        self.region = self.client.register_device_memory(self.driver, self.memory, COUNT, BLOCKS, PLANES, 2)

    def tearDown(self):
        self.client.close()
        self.daemon.kill()
        self.daemon.wait()
        self.driver.free(self.memory)
        self.folder.cleanup()

    def start(self):
        env = dict(os.environ, TERRACE_CUDA_DRIVER=str(DRIVER), STAND_IN_CUDA=f"hold={self.hold}")
        program = terrace_calls.find_built(FOLDER, "bin/terraced", "daemon/terraced")
        with open(self.root / "terraced.log", "ab") as log:
            self.daemon = subprocess.Popen([program, "--config", self.root / "terraced.toml", "--data", self.root / "data",
                                            "--runtime", self.root / "run"], env=env, stdout=log, stderr=log)

    def connect(self):
        until = time.monotonic() + 60
        while not self.client.connected(200):
            self.assertIsNone(self.daemon.poll(), (self.root / "terraced.log").read_text())
            self.assertLess(time.monotonic(), until)

    def write(self, content):
        self.driver.write(self.memory, ctypes.addressof(ctypes.create_string_buffer(content, COUNT)), COUNT)

    def read(self):
        seen = ctypes.create_string_buffer(COUNT)
        self.driver.read(ctypes.addressof(seen), self.memory, COUNT)
        return seen.raw

    def load_all(self):
        """As soon as the daemon has the region again."""
        until = time.monotonic() + 60
        while True:
            try:
                if self.client.get(self.namespace, self.region, self.keys, range(BLOCKS)) == BLOCKS:
                    return
            except terrace_calls.Refused:
                pass
            self.assertLess(time.monotonic(), until, "the region does not come back")

    def test_its_calls_end_with_its_worker_and_its_regions_come_back(self):
        self.write(self.content)
        self.client.put(self.namespace, self.region, self.keys, range(BLOCKS), terrace_calls.LEVEL_LOCAL_SYNCED)
        for _ in range(KILLS):
            self.write(bytes(COUNT))
            self.load_all()
            self.assertTrue(self.read() == self.content)
            worker = worker_of(self.daemon)
            self.assertIsNotNone(worker)
            self.hold.touch()
            load = self.client.submit_get(self.namespace, self.region, self.keys, range(BLOCKS))
            self.daemon.send_signal(signal.SIGKILL)
            with self.assertRaisesRegex(terrace_calls.Refused, f"status {UNAVAILABLE}"):
                self.client.finish("get", load)
            self.assertTrue(has_ended(worker), "its copies may still touch the memory")
            self.daemon.wait()
            self.hold.unlink()
            self.start()
            self.connect()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
