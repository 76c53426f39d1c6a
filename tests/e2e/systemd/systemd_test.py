"""The service as it is installed, under a systemd of its own: that the unit's hardening lets it do all of its work, and that
blocks in DRAM outlive what systemd does to it.

usage: systemd_test.py BUILD_DIR SICK_MOUNT_SERVER [unittest arguments]      exit status 77: this host cannot do it (says why);
SICK_MOUNT_SERVER may be "none"
"""
import json
import pathlib
import socket
import subprocess
import sys
import unittest

import machine
from service_case import BLOCKS, DRAM_ALONE, WITH_DRIVE, ServiceCase

BUILD, SICK_MOUNT = sys.argv.pop(1), sys.argv.pop(1)
DEPLOY = pathlib.Path(__file__).parents[3] / "deploy/systemd"


class ServiceTest(ServiceCase):
    @classmethod
    def setUpClass(cls):
        cls.make_machine(BUILD)
        cls.machine.run("useradd", "--system", "--groups", "terrace", "engine")
        cls.machine.run("useradd", "--system", "stranger")

    def setUp(self):
        self.drop_ins = self.root / "etc/systemd/system/terraced.service.d"
        self.drop_ins.mkdir(parents=True, exist_ok=True)
        self.addCleanup(self.clean)
        self.configure(DRAM_ALONE)

    def clean(self):
        """As before the first start."""
        self.systemctl("stop", "terraced", check=False)
        self.systemctl("reset-failed", "terraced", check=False)
        for file in self.drop_ins.glob("*.conf"):
            file.unlink()
        self.machine.run("sh", "-c", "rm -rf /var/lib/terrace/* /mnt/*")
        self.systemctl("daemon-reload")

    # ---- the unit

    def test_it_serves_without_privileges_and_without_a_complaint(self):
        self.configure(WITH_DRIVE)
        self.systemctl("start", "terraced")
        self.store(0, BLOCKS, "LOCAL_SYNCED")
        self.assert_all_there()
        status = self.machine.run("cat", f"/proc/{self.shown('MainPID')}/status")
        for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
            self.assertIn(line, status)
        self.assertEqual(self.machine.run("stat", "--format=%U %G %a", "/run/terrace", "/run/terrace/session.sock",
                                          "/run/terrace/admin.sock", "/var/lib/terrace").splitlines(),
                         ["terraced terrace 750", "terraced terrace 660", "terraced terrace 600", "terraced terrace 700"])
        self.assertNotRegex(self.journal(), "level=(warning|error)")

    def test_who_is_not_in_the_group_does_not_get_in(self):
        self.systemctl("start", "terraced")
        connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/terrace/session.sock')"
        self.as_user("engine", "python3", "-c", connect)
        for user in ("stranger", "nobody"):
            self.assertRaisesRegex(AssertionError, "PermissionError", self.as_user, user, "python3", "-c", connect)

    def test_a_wrong_configuration_is_named_and_not_tried_again(self):
        self.configure("[dram]\ncapacity = 12 apples\n")
        self.assertRaises(AssertionError, self.systemctl, "start", "terraced")
        self.assertEqual(self.shown("ExecMainStatus"), "78")
        self.assertEqual((self.shown("ActiveState"), self.shown("NRestarts")), ("failed", "0"))
        self.assertRegex(self.journal(), r"terraced\.toml:2")

    def test_a_reload_takes_over_what_is_live_and_refuses_what_is_wrong(self):
        self.systemctl("start", "terraced")
        self.store()
        pid = self.shown("MainPID")
        self.configure(DRAM_ALONE + '[daemon]\nlog_level = "debug"\n')
        self.systemctl("reload", "terraced")
        self.assertTrue(machine.until(lambda: "configuration reloaded" in self.journal()))
        self.configure("[dram]\ncapacity = 12 apples\n")
        self.assertRaises(AssertionError, self.systemctl, "reload", "terraced")
        self.assertEqual((self.shown("MainPID"), self.shown("SubState")), (pid, "running"))
        self.assert_all_there()

    def test_drives_that_the_drop_in_names_are_written_to(self):
        self.drop_in("local-drives.conf", (DEPLOY / "local-drives.conf").read_text())
        drives = "".join(f'[[tier]]\nname = "g3"\nkind = "local"\npath = "/mnt/nvme{drive}/terrace/g3"\ncapacity = "2GiB"\n'
                         for drive in range(2))
        self.configure('[dram]\ncapacity = "192MiB"\n[local]\nfree_reserve = "0B"\n' + drives)
        self.make_folders("/mnt/nvme0/terrace", "/mnt/nvme1/terrace")
        self.systemctl("start", "terraced")
        self.store(0, BLOCKS, "LOCAL_SYNCED")
        self.systemctl("stop", "terraced")
        self.systemctl("start", "terraced")
        self.assert_all_there()
        self.assertNotRegex(self.journal(), "level=error")

    def pool(self, more=""):
        self.drop_in("shared-pools.conf", (DEPLOY / "shared-pools.conf").read_text())
        self.configure(DRAM_ALONE + '[[tier]]\nname = "g4"\nkind = "shared"\npath = "/mnt/fleet/terrace"\ncapacity = "4GiB"\n'
                       'free_reserve = "0B"\n' + more)

    def hang(self):
        """Mounts a file system there that hangs when it is told to: what tells it."""
        if SICK_MOUNT == "none":
            self.skipTest("built without libfuse3")
        (self.root / "opt/sick_mount_server").write_bytes(pathlib.Path(SICK_MOUNT).read_bytes())
        (self.root / "opt/sick_mount_server").chmod(0o755)
        (self.root / "etc/fuse.conf").write_text("user_allow_other\n")
        self.machine.run("sh", "-c", "test -e /dev/fuse || mknod -m 0666 /dev/fuse c 10 229")
        self.make_folders("/mnt/fleet", "/opt/backing", "/opt/backing/terrace")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3<&{theirs.fileno()}', "sh",
             *self.machine.command("setpriv", "--reuid=terraced", "--regid=terrace", "--clear-groups", "/opt/sick_mount_server",
                                   "/opt/backing", "/mnt/fleet", "-o", "allow_other")], pass_fds=[theirs.fileno()])
        theirs.close()

        def say(command):
            ours.send(command.encode())
            return ours.recv(64)

        def end():
            server.kill()
            server.wait()
            ours.close()
            self.machine.run("umount", "--lazy", "/mnt/fleet", check=False)

        self.addCleanup(end)
        self.assertTrue(ours.recv(64))
        return say

    def test_a_mount_that_hangs_holds_up_neither_stop_nor_start(self):
        say = self.hang()
        self.pool()
        self.systemctl("start", "terraced")
        self.store_when_open()
        for operation in ("write", "stat", "open"):
            say(f"hang {operation}")
        self.store(BLOCKS, BLOCKS)
        self.assertTrue(machine.until(lambda: say("hanging") != b"0"))
        for _ in range(2):
            hanging = int(say("hanging"))
            self.systemctl("restart", "terraced")
            self.assertEqual((self.shown("ActiveState"), self.shown("Result")), ("active", "success"))
            self.assert_all_there(0, 2 * BLOCKS)
            # The worker of this life hangs, too.
            self.assertTrue(machine.until(lambda: int(say("hanging")) > hanging))
        self.systemctl("stop", "terraced")
        self.assertEqual((self.shown("ActiveState"), self.shown("Result")), ("inactive", "success"))
        self.systemctl("start", "terraced")
        self.assert_none_there(BLOCKS, BLOCKS)
        say("heal")
        self.assert_all_come()
        self.store_when_open(2 * BLOCKS)

    def store_when_open(self, first=0):
        self.assertTrue(machine.until(lambda: self.engine("store", first, BLOCKS, "POOL").split() == [str(BLOCKS)]),
                        self.journal())

    def test_a_pool_is_published_to_with_the_drop_in(self):
        self.make_folders("/mnt/fleet", "/mnt/fleet/terrace")
        self.pool()
        self.systemctl("start", "terraced")
        self.store_when_open()
        self.systemctl("stop", "terraced")
        self.systemctl("start", "terraced")
        self.assert_all_come()
        self.assertNotRegex(self.journal(), "level=error")

    def test_a_key_comes_as_a_credential(self):
        self.make_folders("/mnt/fleet", "/mnt/fleet/terrace")
        self.pool('auth = "encrypt"\nkey_credential = "g4.key"\n')
        (self.root / "etc/terrace").mkdir(exist_ok=True)
        (self.root / "etc/terrace/g4.key").write_bytes(bytes(range(32)))
        (self.root / "etc/terrace/g4.key").chmod(0o600)
        self.drop_in("key.conf", "[Service]\nLoadCredential=g4.key:/etc/terrace/g4.key\n")
        self.systemctl("start", "terraced")
        self.store_when_open()
        self.systemctl("stop", "terraced")
        self.systemctl("start", "terraced")
        self.assert_all_come()

    def test_without_internet_sockets_it_serves(self):
        self.drop_in("no-internet.conf", (DEPLOY / "no-internet.conf").read_text())
        self.configure(DRAM_ALONE + '[metrics]\nlisten = "off"\n')
        self.systemctl("start", "terraced")
        self.store()
        self.assert_all_there()

    # ---- DRAM that outlives the process

    def test_blocks_outlive_restarts_upgrades_kills_and_the_watchdog(self):
        # A slab for each life.
        self.configure(DRAM_ALONE.replace("192MiB", "640MiB"))
        self.drop_in("watchdog.conf", "[Service]\nWatchdogSec=5\n[Unit]\nStartLimitBurst=100\n")
        self.systemctl("start", "terraced")
        self.store()
        program = "/usr/local/bin/terraced"

        def kill(signal):
            pid = self.shown("MainPID")
            self.systemctl("kill", f"--signal={signal}", "--kill-who=main", "terraced")
            self.until_running_as_another(pid)

        def restart():
            self.systemctl("restart", "terraced")

        def upgrade():
            self.machine.run("sh", "-c", f"cp {program} {program}.new && mv {program}.new {program}")
            self.systemctl("daemon-reload")
            restart()

        def systemd_itself():
            self.systemctl("daemon-reexec")
            restart()

        ends = [restart, lambda: kill("KILL"), upgrade, lambda: kill("STOP"), systemd_itself, lambda: kill("ABRT")]
        for life, end in enumerate(ends, 1):
            with self.subTest(life=life):
                end()
                before = BLOCKS + 10 * (life - 1)
                self.assertEqual(self.metric("terrace_recovered_blocks"), before)
                status = json.loads(self.machine.run("terracectl", "--json", "status"))
                self.assertEqual((int(status["recovered_blocks"]), int(status["recovered_bytes"])), (before, before * 65536))
                self.store(BLOCKS + 10 * (life - 1), 10)
                self.assert_all_there(0, BLOCKS + 10 * life)

    def test_a_stop_lets_go_of_all_memory(self):
        self.systemctl("start", "terraced")
        self.store()
        self.assertGreaterEqual(int(self.shown("NFileDescriptorStore")), 2)
        self.systemctl("stop", "terraced")
        self.assertEqual(self.shown("NFileDescriptorStore"), "0")
        self.systemctl("start", "terraced")
        self.assert_none_there()
        self.assertEqual(self.metric("terrace_recovered_blocks"), 0)

    def test_what_an_engine_reads_in_place_stays_what_it_was(self):
        self.systemctl("start", "terraced")
        self.store()
        held = subprocess.Popen(
            self.machine.command("setpriv", "--reuid=engine", "--regid=nogroup", "--init-groups", "python3", "-B",
                                 "/opt/engine.py", "hold", "0", "200"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(held.kill)
        self.assertEqual(held.stdout.readline(), "held\n")
        for _ in range(2):
            pid = self.shown("MainPID")
            self.systemctl("kill", "--signal=KILL", "--kill-who=main", "terraced")
            self.until_running_as_another(pid)
            # More than there is room for: slabs are given up for it.
            self.engine("store", 1000, 4000)
        out, _ = held.communicate()
        self.assertEqual(out.split(), ["200", "0"])

    def test_a_machine_that_is_switched_off_has_the_blocks_of_its_drive(self):
        self.configure(WITH_DRIVE)
        self.systemctl("start", "terraced")
        self.store()
        self.machine.power_off()
        self.machine.boot()
        self.systemctl("start", "terraced")
        self.assert_all_there()


if __name__ == "__main__":
    if reason := machine.prepare():
        print(f"skipped: {reason}")
        sys.exit(77)
    unittest.main(verbosity=2)
