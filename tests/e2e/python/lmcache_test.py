"""terrace.lmcache in a loop as the thread of LMCache's NativeConnectorL2Adapter has it, over a real daemon."""
import ctypes
import logging
import os
import random
import select
import threading
import types
import unittest
from unittest import mock

import terrace
from private_daemon import PrivateDaemon, until
from terrace.keys import digest
from terrace.lmcache import TerraceConnector
from terrace.workers import Bell, Workers

logging.getLogger("terrace").setLevel(logging.ERROR)
OBJECT = 300_000


def keys_of(count, model="org/model", seed=0, salt=""):
    source = random.Random(seed)
    return [f"{model}@{source.randrange(1 << 32):08x}@0@{source.randbytes(32).hex()}{salt}" for _ in range(count)]


def buffer_of(content):
    """As MemoryObj.byte_array: a view of memory somewhere."""
    return memoryview((ctypes.c_ubyte * len(content)).from_buffer(bytearray(content)))


def content_of(key, size=OBJECT):
    return random.Random(key).randbytes(size)


class Loop:
    """One descriptor, completions by future id; what is submitted is registered under the same lock."""

    def __init__(self, connector):
        self._connector = connector
        self._lock = threading.Lock()
        self._pending = {}
        self._stop = threading.Event()
        self.unknown = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def call(self, submit, *arguments):
        answered = threading.Event()
        answer = []
        with self._lock:
            self._pending[int(submit(*arguments))] = (answered, answer)
        assert answered.wait(120)
        return answer[0]

    def stop(self):
        self._stop.set()
        self._thread.join()

    def _run(self):
        poller = select.poll()
        poller.register(self._connector.event_fd(), select.POLLIN)
        while not self._stop.is_set():
            if not poller.poll(100):
                continue
            for future, ok, error, answers in self._connector.drain_completions():
                with self._lock:
                    entry = self._pending.pop(future, None)
                if entry is None:
                    self.unknown.append(future)
                    continue
                entry[1].append((ok, error, answers))
                entry[0].set()


class ConnectorTest(unittest.TestCase):
    def setUp(self):
        self.daemon = PrivateDaemon()
        self.addCleanup(self.daemon.close)
        self.open()

    def reopen(self, connect=True, **params):
        """The loop ends first, as LMCache's thread does."""
        self.loop.stop()
        self.connector.close()
        self.open(connect, **params)

    def open(self, connect=True, **params):
        params = {"weights_revision": "r", "kv_dtype": "bfloat16", "layout": "NHD", "exists_deadline_s": 30.0,
                  "runtime_dir": self.daemon.runtime_dir, **params}
        self.connector = TerraceConnector(**params)
        for method in ("event_fd", "submit_batch_get", "submit_batch_set", "submit_batch_exists", "submit_batch_delete",
                       "drain_completions", "close"):
            self.assertTrue(callable(getattr(self.connector, method)))
        self.loop = Loop(self.connector)
        self.addCleanup(self.connector.close)
        self.addCleanup(self.loop.stop)
        if connect:
            self.assertTrue(until(lambda: self.connector._session.wait_connected(0.5)))

    def set(self, keys, sizes=None):
        sizes = sizes or [OBJECT] * len(keys)
        buffers = [buffer_of(content_of(key, size)) for key, size in zip(keys, sizes)]
        return self.loop.call(self.connector.submit_batch_set, keys, buffers)

    def get(self, keys, sizes=None):
        buffers = [buffer_of(bytes(size)) for size in sizes or [OBJECT] * len(keys)]
        return self.loop.call(self.connector.submit_batch_get, keys, buffers), [bytes(buffer) for buffer in buffers]

    def exists(self, keys):
        return self.loop.call(self.connector.submit_batch_exists, keys)

    def test_objects_come_back_with_the_same_bytes(self):
        keys = keys_of(10) + keys_of(3, model="org/other", seed=1) + keys_of(2, seed=2, salt="@user")
        self.assertEqual(self.set(keys), (True, "", [True] * 15))
        asked = keys + keys_of(1, seed=9)
        self.assertEqual(self.exists(asked), (True, "", [True] * 15 + [False]))
        (ok, error, answers), contents = self.get(asked)
        self.assertEqual((ok, error, answers), (True, "", [True] * 15 + [False]))
        for key, content in zip(keys, contents):
            self.assertTrue(content == content_of(key), key)
        self.assertEqual(contents[15], bytes(OBJECT))
        self.assertEqual(self.loop.call(self.connector.submit_batch_delete, keys[:4])[0], True)
        self.assertEqual(self.exists(keys)[2], [False] * 4 + [True] * 11)
        self.assertEqual(self.loop.unknown, [])
        self.assertEqual(self.connector.counters()["faults"], 0)

    def test_sizes_differ_from_key_to_key_and_another_size_is_a_miss(self):
        self.daemon.close()
        self.daemon = PrivateDaemon(dram="256MiB")  # room for a slab of each size
        self.addCleanup(self.daemon.close)
        self.reopen()
        keys = keys_of(4)
        sizes = [1, 4096, 5000, 2 << 20]
        self.assertEqual(self.set(keys, sizes)[2], [True] * 4)
        (_, _, answers), contents = self.get(keys, sizes)
        self.assertEqual(answers, [True] * 4)
        self.assertEqual(contents, [content_of(key, size) for key, size in zip(keys, sizes)])
        self.assertEqual(self.get(keys, [2, 4095, 5001, 2 << 20])[0][2], [False, False, False, True])
        ok, error, answers = self.set(keys_of(2, seed=3), [0, 10])
        self.assertEqual((ok, answers), (False, [False, True]))
        self.assertIn("1 of 2", error)

    def test_a_batch_beyond_staging_and_leases_goes_in_waves(self):
        self.reopen(staging_bytes=4 << 20)
        keys = keys_of(40)
        sizes = [1 << 20] * 40
        self.assertEqual(self.set(keys, sizes)[2], [True] * 40)
        (_, _, answers), contents = self.get(keys, sizes)
        self.assertEqual(answers, [True] * 40)
        self.assertTrue(all(content == content_of(key, 1 << 20) for key, content in zip(keys, contents)))
        self.assertTrue(until(lambda: self.connector._session.state().leased_bytes == 0))

    def test_objects_that_may_not_be_leased_come_through_staging_memory(self):
        keys = keys_of(4)
        self.assertEqual(self.set(keys, [8 << 20] * 4)[2], [True] * 4)
        session = self.connector._session
        part = terrace.Part(self.connector._namespace_of("org/model"), [digest(key.encode()) for key in keys])
        call = session.get([part], deadline_s=60)
        self.assertTrue(session.wait(call, 60))
        with session.lease(call.answer):  # all that may be leased
            self.assertIn(terrace.GetOutcome.BUSY, call.answer.outcomes)
            (_, _, answers), contents = self.get(keys, [8 << 20] * 4)
        self.assertEqual(answers, [True] * 4)
        self.assertTrue(all(content == content_of(key, 8 << 20) for key, content in zip(keys, contents)))

    def test_what_is_not_the_same_is_not_found(self):
        keys = keys_of(2)
        self.set(keys)
        for params in ({"weights_revision": "other"}, {"kv_dtype": "fp8"}, {"layout": "HND"}, {"layout": None}):
            self.reopen(**params)
            self.assertEqual(self.exists(keys)[2], [False, False], params)
        self.reopen()
        self.assertEqual(self.exists(keys)[2], [True, True])

    def test_a_daemon_that_is_absent_dies_and_comes_back(self):
        self.daemon.kill()
        self.reopen(connect=False)
        keys = keys_of(3)
        for _ in range(2):
            self.assertFalse(self.set(keys)[0])
            self.assertEqual(self.exists(keys), (True, "", [False] * 3))
            self.assertEqual(self.get(keys)[0], (True, "", [False] * 3))
            self.assertFalse(self.loop.call(self.connector.submit_batch_delete, keys)[0])
            self.daemon.start()
            self.assertTrue(until(lambda: self.connector._session.wait_connected(0.5)))
            self.assertEqual(self.set(keys), (True, "", [True] * 3))
            (_, _, answers), contents = self.get(keys)
            self.assertEqual(answers, [True] * 3)
            self.assertEqual(contents, [content_of(key) for key in keys])
            self.daemon.kill()
        self.assertEqual(self.connector.counters()["faults"], 0)

    def test_a_daemon_killed_under_load_leaves_no_batch_unanswered(self):
        keys = keys_of(20)
        self.set(keys)
        results = []

        def work(number):
            for turn in range(20):
                mine = keys_of(2, seed=f"{number} {turn}")
                self.set(mine)
                (_, _, answers), contents = self.get(mine + keys[:3])
                for key, ok, content in zip(mine + keys[:3], answers, contents):
                    if ok:
                        results.append(content == content_of(key))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(results) > 30)
        self.daemon.kill()
        self.daemon.start()
        for thread in threads:
            thread.join()
        self.assertTrue(all(results))

    def test_what_makes_no_sense_is_answered(self):
        self.assertEqual(self.loop.call(self.connector.submit_batch_set, keys_of(2), [])[0], False)
        self.assertEqual(self.loop.call(self.connector.submit_batch_get, keys_of(1), [b"constant"])[2], [False])
        self.assertEqual(self.loop.call(self.connector.submit_batch_exists, [])[2], [])
        self.assertEqual(self.loop.call(self.connector.submit_batch_exists, ["", "@", "no model"])[2], [False] * 3)
        with self.assertRaises(TypeError):
            TerraceConnector(colour="red")
        with self.assertRaises(ValueError):
            TerraceConnector(threads=0)

    def test_a_closed_connector_answers_that_it_is(self):
        self.loop.stop()
        self.connector.close()
        self.connector.close()
        future = self.connector.submit_batch_exists(keys_of(1))
        self.assertEqual([(done[0], done[1]) for done in self.connector.drain_completions()], [(future, False)])

    def test_closing_does_not_wait_for_a_daemon_that_stands_still(self):
        keys = keys_of(2)
        self.set(keys)
        self.loop.stop()
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        threads = threading.active_count()
        self.connector.submit_batch_get(keys, [buffer_of(bytes(OBJECT)) for _ in keys])
        with mock.patch("terrace.lmcache.CLOSE_S", 0.05):
            self.connector.close()
        self.assertTrue(until(lambda: threading.active_count() == threads - 5))  # four that copy, one that asks

    def test_descriptors_and_threads_end_with_it(self):
        def open_and_close():
            connector = TerraceConnector(runtime_dir=self.daemon.runtime_dir)
            connector._session.wait_connected(30)
            connector.close()

        open_and_close()
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(5):
            open_and_close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)
        self.assertEqual(threading.active_count(), threads)


class WorkersTest(unittest.TestCase):
    def test_what_waits_is_done_before_they_end(self):
        done = []
        workers = Workers("test", 3, 100)
        for number in range(50):
            self.assertTrue(workers.submit(lambda number=number: done.append(number)))
        self.assertTrue(workers.close(60))
        self.assertEqual(sorted(done), list(range(50)))
        self.assertFalse(workers.submit(done.clear))
        self.assertTrue(workers.close(60))

    def test_a_full_queue_refuses_and_what_it_holds_is_dropped_when_time_is_up(self):
        begun, goes_on, done = threading.Event(), threading.Event(), []
        workers = Workers("test", 2, 1)

        def work():
            begun.set()
            goes_on.wait()

        self.assertTrue(workers.submit(work))
        self.assertTrue(begun.wait(60))
        begun.clear()
        self.assertTrue(until(lambda: workers.submit(work)))
        self.assertTrue(begun.wait(60))
        self.assertTrue(workers.submit(lambda: done.append(1)))
        self.assertFalse(workers.submit(lambda: done.append(2)))
        self.assertFalse(workers.close(0.01))
        goes_on.set()
        self.assertTrue(until(lambda: workers.close(1)))
        self.assertEqual(done, [])

    def test_an_exception_ends_no_thread(self):
        done = threading.Event()
        workers = Workers("test", 1, 10)
        with self.assertLogs("terrace.workers", "ERROR"):
            workers.submit(lambda: 1 // 0)
            workers.submit(done.set)
            self.assertTrue(done.wait(60))
        self.assertTrue(workers.close(60))


class BellTest(unittest.TestCase):
    def rings(self, bell):
        return bool(select.select([bell.fileno()], [], [], 0)[0])

    def expect_to_ring(self, bell):
        self.addCleanup(bell.close)
        self.assertFalse(self.rings(bell))
        for _ in range(100_000):  # more than a pipe holds
            bell.ring()
        self.assertTrue(self.rings(bell))
        bell.silence()
        self.assertFalse(self.rings(bell))
        bell.silence()
        bell.ring()
        self.assertTrue(self.rings(bell))

    def test_it_rings_until_it_is_silenced(self):
        self.expect_to_ring(Bell())

    def test_it_is_a_pipe_where_there_is_no_eventfd(self):
        without = types.SimpleNamespace(**{name: value for name, value in vars(os).items() if name != "eventfd"})
        with mock.patch("terrace.workers.os", without):
            bell = Bell()
        self.assertNotEqual(bell._read, bell._write)
        self.expect_to_ring(bell)


if __name__ == "__main__":
    unittest.main()
