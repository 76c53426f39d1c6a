"""A terraced on a private folder, which a test may kill, stop and start again.

Environment: TERRACED, TERRACE_LIBRARY (what `terrace` loads).
"""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

# A busy machine; a healthy daemon takes a fraction of a second.
LIMIT_S = 60.0


def until(condition, limit_s=LIMIT_S):
    """Whether the condition came to hold within a generous limit."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


class PrivateDaemon:
    """Use as a context, or call `close`."""

    def __init__(self, dram="128MiB", local="0B", start=True):
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="terrace-py."))
        self.runtime_dir = str(self._folder / "run")
        config = f'[dram]\ncapacity = "{dram}"\n[local]\ncapacity = "{local}"\n[metrics]\nlisten = "off"\n'
        (self._folder / "terraced.toml").write_text(config)
        self._child = None
        if start:
            self.start()

    def start(self):
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "TERRACE_CONFIG", "TERRACE_RUNTIME")}
        with open(self._folder / "log", "ab") as log:
            self._child = subprocess.Popen(
                [os.environ["TERRACED"], "--config", self._folder / "terraced.toml", "--data", self._folder / "data",
                 "--runtime", self.runtime_dir],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        answers = until(lambda: self._answers() or self._child.poll() is not None)
        if not answers or self._child.poll() is not None:
            raise AssertionError("terraced does not start:\n" + self.log())

    def _answers(self):
        import terrace

        with terrace.Session(self.runtime_dir) as session:
            return session.wait_connected(0.2)

    def kill(self):
        """As the kernel would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def gpu_worker(self):
        """The pid of its worker for a GPU; None: it has none."""
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == self._child.pid and b"--worker=gpu:" in (folder / "cmdline").read_bytes():
                    return int(folder.name)
            except (OSError, ValueError, IndexError):
                continue
        return None

    def freeze(self):
        """Returns when every thread stands still; the signal alone lets some go on for a moment."""
        self._child.send_signal(signal.SIGSTOP)
        if not until(lambda: set(self._thread_states()) == {"T"}):
            raise AssertionError("terraced does not stop")

    def _thread_states(self):
        for task in pathlib.Path(f"/proc/{self._child.pid}/task").iterdir():
            yield (task / "stat").read_text().rsplit(")", 1)[1].split()[0]

    def thaw(self):
        self._child.send_signal(signal.SIGCONT)

    def log(self):
        return (self._folder / "log").read_text(errors="replace")

    def close(self):
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
