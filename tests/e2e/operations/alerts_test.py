"""What deploy/ offers to Prometheus and Grafana: that every metric and label which it names is one that a daemon exports, and
that each alert fires when it should and is silent when it should be.

usage: alerts_test.py TERRACED TERRACECTL SOURCE_FOLDER [unittest arguments]      exit status 77: no promtool
"""
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

TERRACED, TERRACECTL = sys.argv.pop(1), sys.argv.pop(1)
SOURCE = pathlib.Path(sys.argv.pop(1))
ALERTS = SOURCE / "deploy/prometheus/terrace-alerts.yml"
DASHBOARD = SOURCE / "deploy/grafana/terrace.json"
LIMIT_S = 60.0

CONFIG = """
[dram]
capacity = "128MiB"
[local]
endurance_per_day = "1TiB"
free_reserve = "0B"
[metrics]
listen = "127.0.0.1:0"
[[tenant]]
alias = "search"
uids = [12345]
[[tier]]
name = "g3"
kind = "local"
path = "{folder}/g3"
capacity = "2GiB"
[[tier]]
name = "g4"
kind = "shared"
path = "{folder}/pool"
capacity = "2GiB"
[[events]]
tenant = "search"
zmq_endpoint = "ipc://{folder}/events.sock"
"""

# For each alert the series that make it fire, and some that must not, a value a minute: NAME{LABELS} START+STEPxCOUNT.
# The third is for how long.
CASES = {
    "TerraceDown": (["up{job='terrace'} 1x3 0x20"], ["up{job='terrace'} 1x3 0 1x20", "up{job='other'} 0x30"], 20),
    "TerraceKeepsRestarting": (
        ["terrace_start_time_seconds 1x5 2x5 3x5 4x20"],
        ["terrace_start_time_seconds 1x10 2x30"],
        25,
    ),
    "TerraceDraining": (["terrace_draining 1x90"], ["terrace_draining 1x30 0x60"], 80),
    "TerraceDramCorrupt": (
        ["terrace_corrupt_records_total{tier='g2'} 5x5 6x50"],
        ["terrace_corrupt_records_total{tier='g2'} 5x60"],
        20,
    ),
    "TerraceDriveDamaged": (
        ["terrace_local_damaged_records_total{what='payload'} 0x5 1x50"],
        ["terrace_local_damaged_records_total{what='stale'} 0x5 9x50"],
        20,
    ),
    "TerracePoolDamaged": (
        ["terrace_shared_corrupt_records_total{tier='g4'} 0x5 1x50"],
        ["terrace_shared_corrupt_records_total{tier='g4'} 7x60"],
        20,
    ),
    "TerracePoolForged": (
        ["terrace_shared_forged_records_total{tier='g4'} 0x5 1x50"],
        ["terrace_shared_forged_records_total{tier='g4'} 7x60"],
        20,
    ),
    "TerraceDriveAway": (
        ["terrace_local_drive_open{drive='1'} 0x20"],
        ["terrace_local_drive_open{drive='1'} 1x5 0 1x20"],
        10,
    ),
    "TerraceDriveFaults": (
        ["terrace_local_drive_faults_total{drive='1', kind='write'} 0+1x30"],
        [
            "terrace_local_drive_faults_total{drive='1', kind='damage'} 0+1x30",
            "terrace_local_drive_reads_suspended{drive='1'} 0x30",
        ],
        20,
    ),
    "TerraceLocalTierNotWritten": (
        ["terrace_local_state{state='read_only'} 1x20"],
        ["terrace_local_state{state='online'} 1x20"],
        10,
    ),
    "TerraceLosesBlocks": (
        ["terrace_lost_blocks_total{reason='deadline'} 0+10x60", "terrace_tier_evictions_total{tier='g2'} 0+100x60"],
        [
            "terrace_lost_blocks_total{reason='too_large'} 0+50x60",
            "terrace_lost_blocks_total{reason='deadline'} 0+1x60",
            "terrace_tier_evictions_total{tier='g2'} 0+100x60",
        ],
        50,
    ),
    "TerraceWritesBeyondBudget": (
        ["terrace_local_saved_up_bytes -300x90", "terrace_local_endurance_bytes_per_day 1000x90"],
        ["terrace_local_saved_up_bytes -200x90", "terrace_local_endurance_bytes_per_day 1000x90"],
        80,
    ),
    "TerracePoolAway": (
        ["terrace_shared_state{state='suspended'} 1x20"],
        ["terrace_shared_state{state='catching_up'} 1x20", "terrace_shared_state{state='suspended'} 0x20"],
        15,
    ),
    "TerraceMountHangs": (
        ["terrace_shared_worker_stuck{tier='g4'} 2x20"],
        ["terrace_shared_worker_stuck{tier='g4'} 0x20"],
        15,
    ),
    "TerraceClearNotTold": (
        ["terrace_shared_unraised_generations{tier='g4'} 1x20"],
        ["terrace_shared_unraised_generations{tier='g4'} 1x5 0x15"],
        15,
    ),
    "TerracePoolLags": (
        ["terrace_shared_lag_segments{tier='g4'} 100x30"],
        ["terrace_shared_lag_segments{tier='g4'} 3x30"],
        20,
    ),
    "TerracePoolTakesLittle": (
        [
            "terrace_shared_drops_total{tier='g4', reason='queue_full'} 0+50x60",
            "terrace_shared_published_total{tier='g4'} 0+100x60",
        ],
        [
            "terrace_shared_drops_total{tier='g4', reason='evicted'} 0+50x60",
            "terrace_shared_published_total{tier='g4'} 0+100x60",
        ],
        50,
    ),
    "TerraceMemoryNotReleased": (
        ["terrace_quarantined_bytes 4096x30"],
        ["terrace_quarantined_bytes 4096x10 0x20"],
        20,
    ),
    "TerraceLeasedOut": (
        ["terrace_leased_bytes 800x20", "terrace_tier_capacity_bytes{tier='g2'} 1000x20"],
        ["terrace_leased_bytes 600x20", "terrace_tier_capacity_bytes{tier='g2'} 1000x20"],
        15,
    ),
    "TerracePutsRefused": (
        ["terrace_put_refusals_total{reason='no_space'} 0+50x60", "terrace_put_keys_total{outcome='stored'} 0+100x60"],
        [
            "terrace_put_refusals_total{reason='admission'} 0+50x60",
            "terrace_put_keys_total{outcome='stored'} 0+100x60",
        ],
        50,
    ),
    "TerraceCallsFail": (
        ["terrace_calls_total{code='OK'} 0+100x40", "terrace_calls_total{code='DEADLINE_EXCEEDED'} 0+5x40"],
        ["terrace_calls_total{code='OK'} 0+100x40", "terrace_calls_total{code='INVALID_ARGUMENT'} 0+5x40"],
        30,
    ),
    "TerraceConnectionsRefused": (
        ["terrace_connections_total{kind='refused_limit'} 0+5x20"],
        ["terrace_connections_total{kind='accepted'} 0+50x20", "terrace_connections_total{kind='refused_limit'} 3x20"],
        15,
    ),
    "TerraceHitRatioFell": (
        [
            "terrace_tenant_hits_total{tenant='a'} 0+900x1440 1296000+100x300",
            "terrace_tenant_misses_total{tenant='a'} 0+100x1440 144000+900x300",
        ],
        ["terrace_tenant_hits_total{tenant='a'} 0+900x1740", "terrace_tenant_misses_total{tenant='a'} 0+100x1740"],
        1700,
    ),
    "TerraceGpuWorkersLost": (
        ["terrace_gpu_workers_lost_total{gpu='0'} 0+1x40"],
        ["terrace_gpu_workers_lost_total{gpu='0'} 0x5 1x40"],
        30,
    ),
    "TerraceEventsMissed": (
        ["terrace_events_unsent_batches_total{publisher='0'} 0x5 4x30"],
        ["terrace_event_gaps_total 9x30"],
        15,
    ),
    "TerraceSlowerThanItCouldBe": (
        ["terrace_io_fallback 1x30"],
        ["terrace_io_fallback 0x30", "terrace_io_registration_refused 0x30", "terrace_local_direct 1x30"],
        20,
    ),
    "TerraceLogLost": (["terrace_log_lines_dropped_total 0x5 10x30"], ["terrace_log_lines_dropped_total 10x30"], 15),
}


def quoted(series):
    """With the instance that all alerts name, in the notation of promtool."""
    name, values = re.fullmatch(r"([a-z_]+(?:\{[^}]*\})?) (.*)", series).groups()
    if "{" in name:
        name = name[:-1].replace("'", '"') + ', instance="node"}'
    else:
        name += '{instance="node"}'
    if name.startswith("up{"):
        return {"series": name, "values": values}
    return {"series": name.replace("{", '{job="terrace", '), "values": values}


def without_suffix(name):
    return re.sub("_(bucket|count|sum)$", "", name)


class Metrics:
    """What a daemon with every tier and without a GPU exports: by name, of each label the values."""

    def __init__(self):
        folder = tempfile.mkdtemp(prefix="terrace-metrics.")
        self.labels = {}
        child = None
        try:
            (pathlib.Path(folder) / "pool").mkdir()
            config = pathlib.Path(folder) / "terraced.toml"
            config.write_text(CONFIG.format(folder=folder))
            log = pathlib.Path(folder) / "log"
            with open(log, "wb") as out:
                child = subprocess.Popen([TERRACED, "--config", config, "--data", f"{folder}/data",
                                          "--runtime", f"{folder}/run"], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            end = time.monotonic() + LIMIT_S
            while not (ready := re.search(r'msg="?ready"?.* metrics=(\S+)', log.read_text())):
                if child.poll() is not None or time.monotonic() > end:
                    raise AssertionError(log.read_text())
                time.sleep(0.05)
            # What counts calls is there from the first one on.
            subprocess.run([TERRACECTL, "--runtime", f"{folder}/run", "status"], stdout=subprocess.DEVNULL, check=True)
            with urllib.request.urlopen(f"http://{ready[1]}/metrics", timeout=LIMIT_S) as page:
                self._read(page.read().decode())
        finally:
            if child is not None:
                child.send_signal(signal.SIGTERM)
                child.wait()
            shutil.rmtree(folder)

    def _read(self, text):
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                self.labels.setdefault(line.split()[2], {})
        for name, labels in re.findall(r"^(terrace_\w+)(\{[^}]*\})? ", text, re.MULTILINE):
            of = self.labels.setdefault(without_suffix(name), {})
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
                of.setdefault(label, set()).add(value)


def expressions():
    """What is asked of Prometheus, by where."""
    found = {}
    for name, rule in re.findall(r"- alert: (\w+)\n(.*?)(?=\n      - alert|\Z)", ALERTS.read_text(), re.DOTALL):
        expression = re.search(r"expr: (?:>-\n)?(.*?)\n        \w+:", rule, re.DOTALL)[1]
        found[f"alert {name}"] = " ".join(expression.split())
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            found[f"panel {panel['title']}, {target['refId']}"] = target["expr"]
    return found


# Only what happened has a value yet.
VALUES_COME_LATER = {"code", "verb", "carrier", "tenant"}
# Made by Prometheus.
OF_THE_SCRAPE = {"job", "instance"}


class NamesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.metrics = Metrics()

    def test_every_metric_and_label_is_exported(self):
        of_gpus = (SOURCE / "daemon/metrics_gpu.cc").read_text()
        for where, expression in expressions().items():
            names = re.findall(r"\b(terrace_\w+)(\{[^}]*\})?", expression)
            if "up{" not in expression:
                self.assertTrue(names, where)
            for name, selector in names:
                if name.startswith("terrace_gpu_"):
                    self.assertIn(f'"{name[len("terrace_"):]}"', of_gpus, where)
                    continue
                name = without_suffix(name)
                self.assertIn(name, self.metrics.labels, where)
                for label, operation, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector):
                    if label in OF_THE_SCRAPE or label in VALUES_COME_LATER or "$" in value or label == "le":
                        continue
                    values = self.metrics.labels[name].get(label)
                    self.assertIsNotNone(values, f"{where}: {name} has no label {label}")
                    for one in value.split("|"):
                        self.assertIn(one, values, f"{where}: {name}, {label}")


class AlertsTest(unittest.TestCase):
    def promtool(self, *words):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_has_a_case(self):
        self.assertEqual(set(CASES), set(re.findall(r"- alert: (\w+)", ALERTS.read_text())))

    def test_each_fires_when_it_should_and_not_when_it_should_not(self):
        tests = []
        for name, (firing, silent, minutes) in CASES.items():
            for what, series in (("fires", firing), ("is silent", silent)):
                query = {"expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                         "eval_time": f"{minutes}m", "exp_samples": [{"labels": "{}", "value": 1 if what == "fires" else 0}]}
                tests.append({"name": f"{name} {what}", "interval": "1m", "input_series": [quoted(one) for one in series],
                              "promql_expr_test": [query]})
        with tempfile.TemporaryDirectory(prefix="terrace-alerts.") as folder:
            file = pathlib.Path(folder) / "test.yml"
            file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
            self.promtool("test", "rules", str(file))

    def test_each_says_how_bad_it_is_and_what_to_do(self):
        for name, rule in re.findall(r"- alert: (\w+)\n(.*?)(?=\n      - alert|\Z)", ALERTS.read_text(), re.DOTALL):
            self.assertRegex(rule, r"severity: (critical|warning|info)", name)
            self.assertRegex(rule, r'summary: ".*\$labels\.instance', name)
            self.assertRegex(rule, r'description: ".{30}', name)

    def test_prometheus_understands_every_panel(self):
        rules = [{"record": "panel", "labels": {"of": where}, "expr": re.sub(r"\$__\w+", "5m", expression)}
                 for where, expression in expressions().items()]
        with tempfile.TemporaryDirectory(prefix="terrace-alerts.") as folder:
            file = pathlib.Path(folder) / "rules.yml"
            file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
            self.promtool("check", "rules", str(file))


if __name__ == "__main__":
    if not shutil.which("promtool"):
        print("skipped: no promtool")
        sys.exit(77)
    unittest.main(verbosity=2)
