"""tools/gpu/terrace_calls.py against a real daemon over the stand-in driver: what the transformer does, without one.

usage: terrace_calls_test.py TERRACE_CALLS_FOLDER LIBTERRACE DRIVER      (TERRACE_BUILD: where the programs are)
"""
import ctypes
import hashlib
import pathlib
import random
import sys
import tempfile
import time
import unittest

FOLDER, LIBRARY, DRIVER = (pathlib.Path(argument) for argument in sys.argv[1:4])
sys.path.insert(0, str(FOLDER))
import terrace_calls  # noqa: E402

BLOCKS, PLANES, SEGMENT = 32, 4, 4096
BLOCK = PLANES * SEGMENT
COUNT = BLOCKS * BLOCK


class EngineTest(unittest.TestCase):
    def setUp(self):
        self.driver = terrace_calls.Driver(str(DRIVER))
        self.memory = self.driver.allocate(COUNT)
        self.folder = tempfile.TemporaryDirectory(prefix="terrace-calls.")
        self.pool = pathlib.Path(self.folder.name) / "pool"
        self.pool.mkdir()
        self.keys = [hashlib.blake2b(bytes([block]), digest_size=32).digest() for block in range(BLOCKS)]
        self.content = random.Random(4).randbytes(COUNT)

    def tearDown(self):
        self.driver.free(self.memory)
        self.folder.cleanup()

    def node(self, local_bytes):
        return terrace_calls.Daemon(FOLDER, self.folder.name, self.pool, dram_bytes=128 << 20, local_bytes=local_bytes,
                                    pool_bytes=6 << 30, driver=str(DRIVER))

    def join(self, daemon):
        client = daemon.connect(LIBRARY, 60)
        namespace = client.open_namespace("calls", 16, BLOCK, "float32")
        region = client.register_device_memory(self.driver, self.memory, COUNT, BLOCKS, PLANES, 2)
        return client, namespace, region

    def write(self, content):
        self.driver.write(self.memory, ctypes.addressof(ctypes.create_string_buffer(content, COUNT)), COUNT)

    def expect_content(self, client, namespace, region):
        self.write(bytes(COUNT))
        self.assertEqual(client.get(namespace, region, self.keys, range(BLOCKS)), BLOCKS)
        seen = ctypes.create_string_buffer(COUNT)
        self.driver.read(ctypes.addressof(seen), self.memory, COUNT)
        self.assertTrue(seen.raw == self.content)

    def test_blocks_come_back_from_dram_the_drive_and_another_nodes_pool(self):
        with self.node(3 << 30) as daemon:
            client, namespace, region = self.join(daemon)
            self.assertEqual(client.get(namespace, region, self.keys, range(BLOCKS)), 0)
            self.write(self.content)
            for level in (terrace_calls.LEVEL_LOCAL_SYNCED, terrace_calls.LEVEL_POOL):
                client.put(namespace, region, self.keys[:20], range(20), level)
                client.put(namespace, region, self.keys[20:], range(20, BLOCKS), level, self.keys[19])
            self.expect_content(client, namespace, region)
            daemon.evict()
            self.expect_content(client, namespace, region)
            client.unregister(region)
            client.close()
        with self.node(0) as daemon:
            client, namespace, region = self.join(daemon)
            until = time.monotonic() + 120
            while client.get(namespace, region, self.keys, range(BLOCKS)) != BLOCKS and time.monotonic() < until:
                time.sleep(0.05)
            self.expect_content(client, namespace, region)
            client.close()

    def test_refusals_say_who_and_why(self):
        with self.assertRaisesRegex(terrace_calls.Refused, "no CUDA driver"):
            terrace_calls.Driver("/nowhere/libcuda.so")
        with self.assertRaisesRegex(terrace_calls.Refused, "libterrace"):
            terrace_calls.Client("/nowhere/libterrace.so", "/nowhere")
        client = terrace_calls.Client(LIBRARY, self.folder.name)
        self.assertFalse(client.connected(50))
        with self.assertRaisesRegex(terrace_calls.Refused, "block_bytes"):
            client.open_namespace("calls", 16, 0, "float32")
        with self.assertRaisesRegex(terrace_calls.Refused, "put: status 14"):
            namespace = client.open_namespace("calls", 16, BLOCK, "float32")
            region = client.register_device_memory(self.driver, self.memory, COUNT, BLOCKS, PLANES, 2)
            client.put(namespace, region, self.keys, range(BLOCKS), terrace_calls.LEVEL_DRAM)
        client.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
