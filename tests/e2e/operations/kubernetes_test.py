"""The manifests: that what they say in several places agrees, and that the daemon takes their configuration. They are not
applied to a cluster.

usage: kubernetes_test.py TERRACED SOURCE_FOLDER [unittest arguments]      exit status 77: no PyYAML
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import yaml
except ImportError:
    print("skipped: no PyYAML")
    sys.exit(77)

TERRACED, SOURCE = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
FOLDER = SOURCE / "deploy/kubernetes"
UNITS = {"MiB": 1 << 20, "Mi": 1 << 20, "GiB": 1 << 30, "Gi": 1 << 30, "TiB": 1 << 40}


def size(text):
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return int(number) * UNITS[unit]


class ManifestTest(unittest.TestCase):
    def setUp(self):
        documents = list(yaml.safe_load_all((FOLDER / "terrace.yaml").read_text()))
        by_kind = {document["kind"]: document for document in documents}
        self.config = by_kind["ConfigMap"]["data"]["terraced.toml"]
        self.pod = by_kind["DaemonSet"]["spec"]["template"]["spec"]
        self.daemon = self.pod["containers"][0]
        self.engine = yaml.safe_load((FOLDER / "engine.yaml").read_text())["spec"]
        self.names = {document["metadata"].get("namespace", "terrace") for document in documents}
        self.sets = by_kind["DaemonSet"]

    def test_the_daemon_takes_the_configuration(self):
        with tempfile.TemporaryDirectory(prefix="terrace-manifest.") as folder:
            file = pathlib.Path(folder) / "terraced.toml"
            file.write_text(self.config)
            os.chmod(folder, 0o755)
            done = subprocess.run([TERRACED, "--config", file, "--check-config"], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_limit_of_memory_holds_what_is_configured(self):
        dram = size(re.search(r'\[dram\]\s+capacity = "(\w+)"', self.config)[1])
        resources = self.daemon["resources"]
        self.assertGreaterEqual(size(resources["limits"]["memory"]), dram + (1 << 30))
        self.assertEqual(resources["limits"]["memory"], resources["requests"]["memory"])

    def test_every_mount_has_a_volume_and_every_volume_is_mounted(self):
        for spec in (self.pod, self.engine):
            volumes = {volume["name"] for volume in spec["volumes"]}
            mounted = {mount["name"] for container in spec["containers"] + spec.get("initContainers", [])
                       for mount in container["volumeMounts"]}
            self.assertEqual(mounted, volumes)

    def test_engines_look_where_the_daemon_listens(self):
        where = {volume["name"]: volume["hostPath"]["path"] for volume in self.pod["volumes"] if "hostPath" in volume}
        mounts = {mount["mountPath"]: mount["name"] for mount in self.daemon["volumeMounts"]}
        self.assertEqual(where[mounts["/run/terrace"]], self.engine["volumes"][0]["hostPath"]["path"])
        self.assertEqual(self.engine["containers"][0]["volumeMounts"][0]["mountPath"], "/run/terrace")
        self.assertIn("/var/lib/terrace", mounts)
        self.assertNotIn("runtime_dir", self.config)

    def test_user_and_group_are_those_of_the_image(self):
        image = (FOLDER / "Dockerfile").read_text()
        user, group = re.search(r"USER (\d+):(\d+)", image).groups()
        context = self.pod["securityContext"]
        self.assertEqual((context["runAsUser"], context["runAsGroup"]), (int(user), int(group)))
        self.assertIn(f"--uid {user} ", image)
        self.assertIn(f"--gid {group} ", image)
        self.assertEqual(self.engine["securityContext"]["supplementalGroups"], [int(group)])
        self.assertIn(f"--owner={user}", self.pod["initContainers"][0]["command"])

    def test_the_set_selects_its_own_pods(self):
        spec = self.sets["spec"]
        self.assertEqual(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"])
        self.assertEqual(self.names, {"terrace"})

    def test_a_stop_has_the_time_that_the_unit_gives_it(self):
        unit = (SOURCE / "deploy/systemd/terraced.service.in").read_text()
        self.assertGreaterEqual(self.pod["terminationGracePeriodSeconds"], int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
