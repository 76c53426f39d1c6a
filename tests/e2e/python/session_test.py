"""terrace.Session against a real daemon: what it stores and delivers, and what happens without one."""
import ctypes
import mmap
import os
import pathlib
import random
import subprocess
import sys
import threading
import unittest

import terrace
from private_daemon import PrivateDaemon, until
from terrace import GetOutcome, KeyState, Part, Piece, PutOutcome, Rule, Session, Status
from terrace.backing import Span, backing_of, span_of

EXAMPLE = pathlib.Path(__file__).parents[3] / "client/examples/a_few_lines.py"
BLOCK = 8192
ROWS = 64


def record(**changed):
    fields = {"model": "m", "weights_revision": "r", "kv_dtype": "bf16", "layout": "rows", "hash_algorithm": "sha256",
              "block_bytes": BLOCK, "block_tokens": 16}
    return terrace.NamespaceRecord(**{**fields, **changed})


def keys_of(count, seed=0):
    source = random.Random(seed)
    return [source.randbytes(36) for _ in range(count)]


class Rows:
    """Memory in a memfd of which only a mapping is left, as engines have it."""

    def __init__(self, session, rows=ROWS, block=BLOCK):
        self.fd = os.memfd_create("rows")
        os.ftruncate(self.fd, rows * block)
        self.memory = mmap.mmap(self.fd, rows * block)
        self.block = block
        self.region = session.region(self.fd, rows * block, rows, [Piece(0, block, block)])

    def fill(self, row, content):
        self.memory[row * self.block:(row + 1) * self.block] = content

    def row(self, row):
        return self.memory[row * self.block:(row + 1) * self.block]


class SessionTest(unittest.TestCase):
    def setUp(self):
        self.daemon = PrivateDaemon()
        self.addCleanup(self.daemon.close)
        self.session = Session(self.daemon.runtime_dir, reconnect_s=0.05)
        self.addCleanup(self.session.close)
        self.namespace = self.session.namespace(record())
        self.rows = Rows(self.session)

    def ended(self, call):
        self.assertTrue(self.session.wait(call, 60, done=True))
        return call.answer

    def store(self, keys, first_row=0, **more):
        for place, key in enumerate(keys):
            self.rows.fill(first_row + place, random.Random(key).randbytes(BLOCK))
        part = Part(self.namespace, keys, region=self.rows.region, blocks=range(first_row, first_row + len(keys)))
        return self.ended(self.session.put(part, **more))

    def test_what_was_put_from_rows_comes_back_into_others_and_in_place(self):
        keys = keys_of(6)
        self.assertEqual(self.store(keys).outcomes, bytes([PutOutcome.STORED] * 6))
        self.assertEqual(self.store(keys).outcomes, bytes([PutOutcome.DUPLICATE] * 6))
        asked = [keys[3], keys_of(1, seed=9)[0], keys[5]]
        part = Part(self.namespace, asked, region=self.rows.region, blocks=[40, 41, 42])
        answer = self.ended(self.session.get([part]))
        self.assertEqual(answer.delivered(), [True, False, True])
        self.assertEqual(answer.delivered_whole(BLOCK), [True, False, True])
        self.assertEqual(answer.delivered_whole(BLOCK - 1), [False] * 3)
        self.assertTrue(self.rows.row(40) == random.Random(keys[3]).randbytes(BLOCK))
        self.assertTrue(self.rows.row(42) == random.Random(keys[5]).randbytes(BLOCK))
        self.assertEqual(self.rows.row(41), bytes(BLOCK))
        lease = self.session.lease(self.ended(self.session.get([Part(self.namespace, asked)])))
        views = list(lease)
        self.assertIsNone(views[1])
        self.assertTrue(views[0] == random.Random(keys[3]).randbytes(BLOCK))
        self.assertTrue(views[0].readonly)
        lease.release()
        self.assertRaises(ValueError, bytes, views[0])
        self.assertTrue(until(lambda: self.session.state().leased_bytes == 0))

    def test_a_view_keeps_its_lease_and_a_slice_of_one_keeps_it_from_being_released(self):
        keys = keys_of(1)
        self.store(keys)
        view = self.session.lease(self.ended(self.session.get([Part(self.namespace, keys)]))).view(0)
        self.assertEqual(self.session.state().leased_bytes, BLOCK)
        self.assertTrue(view == random.Random(keys[0]).randbytes(BLOCK))
        del view
        self.assertEqual(self.session.state().leased_bytes, 0)
        lease = self.session.lease(self.ended(self.session.get([Part(self.namespace, keys)])))
        part = lease.view(0)[100:200]
        self.assertRaises(BufferError, lease.release)
        self.assertEqual(self.session.state().leased_bytes, BLOCK)
        self.assertEqual(bytes(part), random.Random(keys[0]).randbytes(BLOCK)[100:200])
        del part
        lease.release()
        self.assertEqual(self.session.state().leased_bytes, 0)

    def test_blocks_in_pieces_are_one_block(self):
        half = BLOCK // 2
        pieces = [Piece(0, half, half), Piece(ROWS * half, half, half)]
        region = self.session.region(self.rows.fd, ROWS * BLOCK, ROWS, pieces)
        keys = keys_of(2)
        self.store(keys)
        self.ended(self.session.get([Part(self.namespace, keys, region=region, blocks=[30, 31])]))
        for place, key in enumerate(keys):
            content = random.Random(key).randbytes(BLOCK)
            begin = (30 + place) * half
            self.assertTrue(self.rows.memory[begin:begin + half] == content[:half])
            self.assertTrue(self.rows.memory[ROWS * half + begin:ROWS * half + begin + half] == content[half:])

    def test_a_probe_says_what_a_get_would_deliver_and_a_hold_ends_with_its_release(self):
        keys = keys_of(4)
        self.store(keys[:3])
        parts = [Part(self.namespace, keys, Rule.PREFIX), Part(self.namespace, keys[3:] + keys[:1])]
        answer = self.ended(self.session.probe(parts, hold_s=30.0, request_id=b"request"))
        self.assertEqual([answer.state(place) for place in range(6)],
                         [KeyState.READY] * 3 + [KeyState.MISS, KeyState.MISS, KeyState.READY])
        self.assertEqual(answer.found(), [True, True, True, False, False, True])
        self.assertEqual(answer.part_hits[0], 3)
        self.assertEqual(answer.boundary_tokens, 48)
        self.assertEqual(len(answer.hold_id), 16)
        self.session.release(holds=[answer.hold_id])

    def test_staging_memory_stands_in_for_a_region(self):
        staging = self.session.staging(5000, 4)
        content = random.Random(1).randbytes(5000)
        staging.view(2)[:] = content
        keys = keys_of(1)
        part = Part(self.namespace, keys, region=staging.region, blocks=[2])
        self.assertEqual(self.ended(self.session.put(part, payload_bytes=[5000])).kept(), [True])
        answer = self.ended(self.session.get([Part(self.namespace, keys, region=staging.region, blocks=[0])]))
        self.assertEqual(list(answer.payload_bytes), [5000])
        self.assertTrue(staging.view(0) == content)
        self.assertRaises(ValueError, staging.address, 4)
        self.assertTrue(staging.destroy())

    def test_small_blocks_go_inline_and_pins_tickets_deletes_and_clears_are_answered(self):
        keys = keys_of(3)
        part = Part(self.namespace, keys)
        answer = self.ended(self.session.put(part, payload=b"abcdefghi", payload_bytes=[2, 3, 4]))
        self.assertEqual(answer.kept(), [True] * 3)
        self.assertEqual([bytes(view) for view in self.session.lease(self.ended(self.session.get([part])))],
                         [b"ab", b"cde", b"fghi"])
        self.assertEqual(self.ended(self.session.pin(part, ttl_s=60)).status, Status.OK)
        self.assertEqual(self.ended(self.session.unpin(part)).count, 3)
        self.assertEqual(self.ended(self.session.prefetch([part])).status, Status.OK)
        self.assertEqual(self.ended(self.session.ticket(77, wait_s=1)).status, Status.NOT_FOUND)
        self.assertEqual(self.ended(self.session.delete(Part(self.namespace, keys[:1]))).count, 1)
        self.assertEqual(self.ended(self.session.probe([part])).found(), [False, True, True])
        self.assertGreater(self.ended(self.session.clear(self.namespace)).generation, 0)
        self.assertEqual(self.ended(self.session.probe([part])).found(), [False] * 3)

    def test_the_descriptor_says_when_to_advance_and_contexts_come_back(self):
        import select

        keys = keys_of(2)
        poller = select.poll()
        poller.register(self.session.fileno(), select.POLLIN)
        call = self.session.probe([Part(self.namespace, keys)], context="mine", deadline_s=30)
        came = []
        while not came:
            self.assertTrue(poller.poll(60000))
            came = self.session.advance()
        self.assertIs(came[0], call)
        self.assertEqual(call.context, "mine")

    def test_wrong_arguments_raise_and_say_which(self):
        keys = keys_of(2)
        region = self.rows.region
        for said, wrong in (
            ("one length", lambda: self.session.probe([Part(self.namespace, [keys[0], keys[1][:20]])])),
            ("key_bytes", lambda: self.session.probe([Part(self.namespace, [b"short"])])),
            ("one a key", lambda: self.session.get([Part(self.namespace, keys, region=region, blocks=[1])])),
            ("64 of a region", lambda: self.session.get([Part(self.namespace, keys, region=region, blocks=[1, 64])])),
            ("after_event: 64 bytes", lambda: self.session.get([Part(self.namespace, keys, after_event=b"event")])),
            ("with a region", lambda: self.session.get([Part(self.namespace, keys, blocks=[1, 2])])),
            ("payload_bytes", lambda: self.session.put(Part(self.namespace, keys), b"abc", payload_bytes=[1, 1])),
            ("payload_bytes: one", lambda: self.session.put(Part(self.namespace, keys), b"abc", payload_bytes=[3])),
            ("parent", lambda: self.session.put(Part(self.namespace, keys), b"abcd", parent=b"p" * 32)),
            ("parts", lambda: self.session.probe([])),
            ("block_bytes", lambda: self.session.namespace(record(block_bytes=0))),
            ("model: required", lambda: self.session.namespace(record(model=""))),
            ("descriptor", lambda: self.session.region(-1, BLOCK, 1, [Piece(0, BLOCK, BLOCK)])),
            ("multiple of 4096", lambda: self.session.region(self.rows.fd, BLOCK, 1, [Piece(0, 1, 1)], offset=1)),
            ("client_name", lambda: Session(self.daemon.runtime_dir, client_name="no spaces")),
        ):
            with self.assertRaisesRegex(ValueError, said):
                wrong()

    def test_leases_beyond_their_budget_are_busy(self):
        block = 8 << 20
        namespace = self.session.namespace(record(block_bytes=block))
        staging = self.session.staging(block, 1)
        keys = keys_of(6)
        for key in keys:
            part = Part(namespace, [key], region=staging.region, blocks=[0])
            self.assertEqual(self.ended(self.session.put(part, deadline_s=30)).kept(), [True])
        leases, outcomes = [], []
        for key in keys:
            answer = self.ended(self.session.get([Part(namespace, [key])], deadline_s=30))
            outcomes.append(answer.outcomes[0])
            leases.append(self.session.lease(answer))
        fitting = self.session.state().lease_limit_bytes // (block + 4096)  # a slot has a header page
        self.assertTrue(0 < fitting < len(keys))
        self.assertEqual(outcomes, [GetOutcome.OK] * fitting + [GetOutcome.BUSY] * (len(keys) - fitting))
        for lease in leases:
            lease.release()
        self.assertEqual(self.ended(self.session.get([Part(namespace, keys[5:])], deadline_s=30)).delivered(), [True])

    def test_a_region_that_shrank_fails_its_keys_and_harms_nothing(self):
        keys = keys_of(2)
        self.store(keys)
        os.ftruncate(self.rows.fd, BLOCK)
        part = Part(self.namespace, keys, region=self.rows.region, blocks=[0, 9])
        answer = self.ended(self.session.get([part]))
        self.assertEqual(answer.outcomes[1], GetOutcome.REGION_FAILED)
        views = list(self.session.lease(self.ended(self.session.get([Part(self.namespace, keys)]))))
        self.assertTrue(views[1] == random.Random(keys[1]).randbytes(BLOCK))


class WithoutADaemonTest(unittest.TestCase):
    def setUp(self):
        self.daemon = PrivateDaemon(start=False)
        self.addCleanup(self.daemon.close)
        self.session = Session(self.daemon.runtime_dir, reconnect_s=0.05)
        self.addCleanup(self.session.close)
        self.namespace = self.session.namespace(record())
        self.rows = Rows(self.session)

    def get(self, keys, rows, deadline_s=30.0):
        part = Part(self.namespace, keys, region=self.rows.region, blocks=rows)
        call = self.session.get([part], deadline_s=deadline_s)
        self.assertTrue(self.session.wait(call, 60, done=True))
        return call.answer

    def put(self, keys, rows, deadline_s=30.0):
        part = Part(self.namespace, keys, region=self.rows.region, blocks=rows)
        call = self.session.put(part, deadline_s=deadline_s)
        self.assertTrue(self.session.wait(call, 60, done=True))
        return call.answer

    def test_everything_is_a_miss_until_one_comes_and_after_it_died(self):
        keys = keys_of(2)
        self.assertEqual(self.get(keys, [0, 1]).status, Status.UNAVAILABLE)
        self.assertEqual(self.get(keys, [0, 1]).delivered(), [False, False])
        self.assertEqual(self.put(keys, [0, 1]).kept(), [False, False])
        self.assertFalse(self.session.wait_connected(0.01))
        self.daemon.start()
        self.assertTrue(until(lambda: self.put(keys, [0, 1]).kept() == [True, True]))
        self.rows.fill(0, b"x" * BLOCK)
        self.assertEqual(self.get(keys, [0, 1]).delivered(), [True, True])
        self.assertEqual(self.rows.row(0), bytes(BLOCK))
        self.daemon.kill()
        self.assertEqual(self.get(keys, [0, 1]).delivered(), [False, False])
        self.daemon.start()
        # Namespace and region are there again; the blocks were in DRAM alone.
        self.assertTrue(until(lambda: self.get(keys, [0, 1]).status == Status.OK))
        self.assertEqual(self.get(keys, [0, 1]).delivered(), [False, False])
        self.assertEqual(self.put(keys, [0, 1]).kept(), [True, True])
        self.assertGreater(self.session.state().reconnects, 0)

    def test_a_call_that_a_stopped_daemon_may_go_on_with_is_not_done(self):
        self.daemon.start()
        keys = keys_of(1)
        self.assertTrue(until(lambda: self.put(keys, [0]).kept() == [True]))
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        part = Part(self.namespace, keys, region=self.rows.region, blocks=[5])
        call = self.session.get([part], deadline_s=0.05)
        self.assertTrue(self.session.wait(call, 60))
        self.assertEqual(call.answer.status, Status.DEADLINE_EXCEEDED)
        self.assertEqual(call.answer.delivered(), [False])
        self.assertEqual(self.session.unconfirmed, 1)
        for _ in range(20):  # nobody confirms, however often it is asked for
            self.session.advance(0.02)
            self.assertFalse(call.done)
        self.daemon.thaw()
        self.assertTrue(self.session.wait(call, 60, done=True))
        self.rows.fill(5, b"y" * BLOCK)
        self.assertTrue(until(lambda: self.get(keys, [6]).delivered() == [True]))
        self.assertEqual(self.rows.row(5), b"y" * BLOCK)

    def test_a_call_that_a_daemon_died_over_is_done(self):
        self.daemon.start()
        keys = keys_of(1)
        self.assertTrue(until(lambda: self.put(keys, [0]).kept() == [True]))
        self.daemon.freeze()
        part = Part(self.namespace, keys, region=self.rows.region, blocks=[5])
        call = self.session.get([part], deadline_s=0.05)
        self.assertTrue(self.session.wait(call, 60))
        self.assertFalse(call.done)
        self.daemon.kill()
        self.assertTrue(self.session.wait(call, 60, done=True))

    def test_a_closed_session_answers_what_is_open(self):
        self.daemon.start()
        self.assertTrue(self.session.wait_connected(60))
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        call = self.session.probe([Part(self.namespace, keys_of(1))], deadline_s=60)
        waiter = threading.Thread(target=self.session.wait, args=(call,))
        waiter.start()
        self.session.close()
        waiter.join(60)
        self.assertFalse(waiter.is_alive())
        self.assertEqual(call.answer.status, Status.CANCELLED)
        self.session.close()
        late = self.session.probe([Part(self.namespace, keys_of(1))])
        self.assertTrue(late.done)
        self.assertEqual(late.answer.status, Status.CANCELLED)
        self.assertEqual(self.session.advance(), [])
        self.assertRaises(ValueError, self.session.namespace, record())


class ManyTest(unittest.TestCase):
    def setUp(self):
        self.daemon = PrivateDaemon(dram="256MiB")
        self.addCleanup(self.daemon.close)
        self.session = Session(self.daemon.runtime_dir, reconnect_s=0.05)
        self.addCleanup(self.session.close)

    def test_threads_share_a_session(self):
        threads, rounds = 8, 40
        namespace = self.session.namespace(record())
        rows = Rows(self.session, rows=threads * 4)
        wrong = []

        def work(number):
            source = random.Random(number)
            kept = {}
            for _ in range(rounds):
                key = source.randbytes(32)
                kept[key] = content = source.randbytes(BLOCK)
                rows.fill(number * 4, content)
                put = self.session.put(Part(namespace, [key], region=rows.region, blocks=[number * 4]), deadline_s=60)
                self.session.wait(put, done=True)
                other = source.choice(sorted(kept))
                part = Part(namespace, [other], region=rows.region, blocks=[number * 4 + 1])
                get = self.session.get([part], deadline_s=60)
                self.session.wait(get, done=True)
                if put.answer.kept() != [True] or get.answer.delivered() != [True]:
                    wrong.append((put.answer, get.answer))
                elif rows.row(number * 4 + 1) != kept[other]:
                    wrong.append("bytes")

        running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        self.assertEqual(wrong, [])

    def test_a_child_of_fork_has_misses_and_leaves_the_parent_alone(self):
        namespace = self.session.namespace(record())
        keys = keys_of(1)
        put = self.session.put(Part(namespace, keys), b"content")
        self.assertTrue(self.session.wait(put, 60))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                call = self.session.get([Part(namespace, keys)])
                missed = call.done and call.answer.delivered() == [False]
                refused = call.answer.status == Status.FAILED_PRECONDITION
                self.session.close()
                code = 0 if missed and refused and self.session.fileno() == -1 else 2
            finally:
                os._exit(code)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        get = self.session.get([Part(namespace, keys)])
        self.assertTrue(self.session.wait(get, 60))
        self.assertEqual(bytes(self.session.lease(get.answer).view(0)), b"content")

    def test_more_calls_than_the_daemon_allows_are_refused_as_answers(self):
        namespace = self.session.namespace(record())
        self.assertTrue(self.session.wait_connected(60))
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        calls = [self.session.probe([Part(namespace, keys_of(1))], deadline_s=60) for _ in range(400)]
        refused = [call for call in calls if call.done]
        self.assertTrue(refused)
        self.assertEqual({call.answer.status for call in refused}, {Status.RESOURCE_EXHAUSTED})
        self.daemon.thaw()
        for call in calls:
            self.assertTrue(self.session.wait(call, 60))


class ExampleTest(unittest.TestCase):
    def run_it(self, runtime_dir):
        done = subprocess.run([sys.executable, "-B", EXAMPLE], capture_output=True, text=True, check=False,
                              env={**os.environ, "TERRACE_RUNTIME": runtime_dir})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_the_example_reads_back_what_it_stored_and_misses_without_a_daemon(self):
        with PrivateDaemon() as daemon:
            self.assertEqual(self.run_it(daemon.runtime_dir), "stored: True, read back: the same bytes\n")
            daemon.kill()
            self.assertEqual(self.run_it(daemon.runtime_dir), "stored: False, read back: a miss\n")


class BackingTest(unittest.TestCase):
    """Which file lies behind memory."""

    def expect_same(self, memory, span, content=b"\x5a" * 64):
        found = backing_of(span)
        self.assertIsNotNone(found)
        self.addCleanup(os.close, found.fd)
        os.pwrite(found.fd, content, found.offset + 4096)
        self.assertEqual(ctypes.string_at(span.address + 4096, len(content)), content)
        del memory

    def test_a_mapping_leads_to_its_memfd_also_from_its_middle(self):
        fd = os.memfd_create("pool")
        os.ftruncate(fd, 1 << 20)
        memory = mmap.mmap(fd, 1 << 20)
        os.close(fd)  # mmap objects keep a descriptor of their own
        whole = span_of(memory)
        self.assertEqual(whole.bytes, 1 << 20)
        self.expect_same(memory, whole)
        self.expect_same(memory, Span(whole.address + 100_000, 50_000))

    def test_a_file_of_shared_memory_is_found_after_it_was_unlinked(self):
        path = f"/dev/shm/terrace_test_{os.getpid()}.mmap"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.ftruncate(fd, 1 << 20)
        memory = mmap.mmap(fd, 1 << 20)
        os.close(fd)
        os.unlink(path)
        self.expect_same(memory, span_of(memory))

    def test_two_mappings_of_one_file_in_other_places_are_none(self):
        fd = os.memfd_create("pool")
        self.addCleanup(os.close, fd)
        os.ftruncate(fd, 1 << 20)
        with mmap.mmap(fd, 1 << 20) as memory:
            span = span_of(memory)
            self.assertIsNone(backing_of(Span(span.address, span.bytes + (1 << 30))))

    def test_private_memory_has_none(self):
        memory = ctypes.create_string_buffer(1 << 20)
        self.assertIsNone(backing_of(span_of(memory)))
        with mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as anonymous:
            self.assertIsNone(backing_of(span_of(anonymous)))

    def test_no_descriptor_is_left_behind(self):
        fd = os.memfd_create("pool")
        os.ftruncate(fd, 1 << 20)
        memory = mmap.mmap(fd, 1 << 20)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            os.close(backing_of(span_of(memory)).fd)
            backing_of(span_of(ctypes.create_string_buffer(4096)))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        os.close(fd)

    def test_a_span_holds_nothing(self):
        memory = bytearray(100)
        span_of(memory, writable=True)
        memory.extend(b"x")  # refused while something is exported
        self.assertRaises(BufferError, span_of, b"constant", True)


if __name__ == "__main__":
    unittest.main()
