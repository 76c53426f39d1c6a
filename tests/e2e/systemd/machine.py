"""A small machine under a systemd of its own, on which Terrace is installed: the distribution's files below an overlay in
memory, booted by systemd-nspawn, without a network.

Needs root, systemd-nspawn and overlays: `prepare` comes first, and says what is missing. Everything is gone when the process ends,
however it ends: its mounts are its own, and the machine dies with it.
"""
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

# A busy host; a boot takes two seconds.
LIMIT_S = 120.0
CLONE_NEWNS = 0x20000
PR_SET_PDEATHSIG = 1
# What systemd-nspawn is sent to power off.
POWER_OFF = signal.SIGTERM


def until(condition, limit_s=LIMIT_S):
    """Whether the condition came to hold within a generous limit."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def prepare():
    """Puts this process into a mount namespace from which nothing reaches the host. What this host lacks for a machine; None:
    nothing."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("systemd-nspawn", "nsenter", "cmake"):
        if not shutil.which(program):
            return f"needs {program}"
    if not any(os.access(f"{folder}/systemd/systemd", os.X_OK) for folder in ("/lib", "/usr/lib")):
        return "needs systemd"
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return "needs mount namespaces"
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    with tempfile.TemporaryDirectory(prefix="terrace-machine.") as folder:
        machine = Machine(folder, None)
        try:
            machine.make(installed=False)
            tried = subprocess.run([*machine.nspawn(), "--pipe", "true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, check=False)
            return None if tried.returncode == 0 else f"systemd-nspawn cannot work here: {tried.stderr}"
        except subprocess.CalledProcessError as error:
            return f"needs overlays: {error}"
        finally:
            machine.close()


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Machine:
    """`folder`: an empty one, which the machine's memory is mounted at."""

    def __init__(self, folder, build):
        self.folder = pathlib.Path(folder)
        self.build = build
        self.root = self.folder / "root"
        self._nspawn = None
        self._leader = None

    def make(self, installed=True):
        """Its files, with Terrace installed as by `make install`."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=2G", "tmpfs", self.folder], check=True)
        upper, work = self.folder / "upper", self.folder / "work"
        for made in (upper, work, self.root):
            made.mkdir()
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", self.root],
                       check=True)
        if installed:
            subprocess.run(["cmake", "--install", self.build, "--strip"], stdout=subprocess.DEVNULL, check=True,
                           env={"DESTDIR": str(self.root), "PATH": os.environ["PATH"]})
            subprocess.run(["ldconfig", "-r", self.root], check=True)

    def nspawn(self):
        return ["systemd-nspawn", "--quiet", "--directory", self.root, "--machine", f"terrace-{os.getpid()}", "--register=no",
                "--keep-unit", "--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]

    def close(self):
        self.power_off()
        for mounted in (self.root, self.folder):
            subprocess.run(["umount", "--lazy", mounted], stderr=subprocess.DEVNULL, check=False)

    def boot(self):
        log = open(self.folder / "console", "ab")
        # No service of the distribution's: basic.target is sockets, system users and temporary files.
        self._nspawn = subprocess.Popen(
            [*self.nspawn(), "--boot", "--console=passive", "systemd.unit=basic.target"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        log.close()
        if not until(lambda: self._nspawn.poll() is not None or self._running()):
            raise AssertionError("the machine does not boot:\n" + self.console())
        if self._nspawn.poll() is not None:
            raise AssertionError("systemd-nspawn ended:\n" + self.console())

    def power_off(self):
        if self._nspawn is None:
            return
        self._nspawn.send_signal(POWER_OFF)
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = self._leader = None

    def console(self):
        return (self.folder / "console").read_text(errors="replace")

    def command(self, *words):
        """What runs a command in the machine, as its root."""
        return ["nsenter", "--target", str(self._leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/",
                "env", "--ignore-environment", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                *[str(word) for word in words]]

    def run(self, *command, check=True):
        """Such a command; what it wrote, as text."""
        done = subprocess.run(self.command(*command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _running(self):
        if self._leader is None:
            self._leader = self._find_leader()
        return self._leader is not None and "running" in self.run("systemctl", "is-system-running", check=False)

    def _find_leader(self):
        """Process 1 of the machine, as this host numbers it."""
        waiting = [self._nspawn.pid]
        while waiting:
            pid = waiting.pop()
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(numbers) > 1 and numbers[-1] == "1" and pathlib.Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
                waiting += [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            except (OSError, StopIteration):
                pass
        return None
