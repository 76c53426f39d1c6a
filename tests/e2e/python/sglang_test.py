"""terrace.sglang under SGLang's storage threads, over a real daemon."""
import hashlib
import logging
import os
import random
import threading
import unittest
from unittest import mock

import sglang_stand_in as sglang
from private_daemon import PrivateDaemon, until

logging.getLogger("terrace").setLevel(logging.ERROR)
Backend = sglang.load_backend()


def chain(count, seed="prompt"):
    """Keys as SGLang's get_hash_str makes them: hashes in hexadecimal."""
    keys, last = [], b""
    for place in range(count):
        last = hashlib.sha256(last + f"{seed}{place}".encode()).digest()
        keys.append(last.hex())
    return keys


def content_of(key, pool):
    return random.Random(key).randbytes(pool.content_bytes)


class Case(unittest.TestCase):
    def setUp(self):
        self.daemon = PrivateDaemon()
        self.addCleanup(self.daemon.close)

    def backend(self, pool, connect=True, extra=None, **config):
        extra = {"weights_revision": "r", "runtime_dir": self.daemon.runtime_dir, "exists_deadline_s": 30,
                 "interface_v1": 1, **(extra or {})}
        backend = Backend(sglang.HiCacheStorageConfig(extra_config=extra, **config), {})
        self.addCleanup(backend.close)
        backend.register_mem_pool_host(pool)
        if connect:
            self.assertTrue(until(lambda: backend._session.wait_connected(0.5)))
        return backend

    def fill(self, pool, keys):
        indices = pool.alloc(len(keys))
        for key, first in zip(keys, indices[::pool.page_size]):
            pool.write(first // pool.page_size, content_of(key, pool))
        return indices

    def expect(self, pool, keys, indices):
        for key, first in zip(keys, indices[::pool.page_size]):
            self.assertTrue(pool.read(first // pool.page_size) == content_of(key, pool), key)

    def round_trip(self, pool, backend, keys):
        """Backed up, forgotten, prefetched into other pages."""
        controller = sglang.Controller(backend, pool)
        self.addCleanup(controller.stop)
        indices = self.fill(pool, keys)
        self.assertEqual(controller.back_up(keys, indices), len(keys))
        for page in (first // pool.page_size for first in indices[::pool.page_size]):
            pool.write(page, b"\xee" * pool.content_bytes)
        pool.free(indices)
        found, came = controller.prefetch(keys)
        self.assertEqual(came, len(keys))
        self.expect(pool, keys, found)
        pool.free(found)
        return controller


class PoolsTest(Case):
    def test_pages_of_k_and_v_come_back_into_other_pages(self):
        for layout in ("page_first", "page_first_direct"):
            pool = sglang.HostPool(layout=layout)
            backend = self.backend(pool)
            self.assertIsNotNone(backend._region)
            self.round_trip(pool, backend, chain(24))
            self.assertEqual(backend.counters()["faults"], 0)

    def test_batches_of_128_go_on_one_after_the_other(self):
        pool = sglang.HostPool(pages=600, token_bytes=32)
        backend = self.backend(pool)
        self.round_trip(pool, backend, chain(300))

    def test_a_store_says_what_precedes_it(self):
        pool = sglang.HostPool()
        backend = self.backend(pool)
        keys = chain(6)
        indices = self.fill(pool, keys)
        before = sglang.HiCacheStorageExtraInfo(prefix_keys=keys[:4])
        with mock.patch.object(backend._session, "put", wraps=backend._session.put) as put:
            self.assertEqual(backend.batch_set_v1(keys[:4], indices[:64]), [True] * 4)
            self.assertEqual(backend.batch_set_v1(keys[4:], indices[64:], before), [True] * 2)
        told = [(call.args[0].first_token, call.kwargs["parent"]) for call in put.mock_calls]
        self.assertEqual(told, [(0, b""), (4 * pool.page_size, bytes.fromhex(keys[3]))])
        self.assertEqual(backend.batch_exists(keys), 6)

    def test_pages_of_mla_are_written_by_rank_0_and_read_by_all(self):
        pool = sglang.HostPool(mla=True)
        keys = chain(8)
        other = self.backend(pool, is_mla_model=True, tp_rank=1, tp_size=2)
        indices = self.fill(pool, keys)
        self.assertEqual(other.batch_set_v1(keys, indices), [True] * 8)
        self.assertEqual(other.batch_exists(keys), 0)
        writer = self.backend(pool, is_mla_model=True, tp_rank=0, tp_size=2)
        self.assertEqual(writer.batch_set_v1(keys, indices), [True] * 8)
        self.assertEqual(other.batch_exists(keys), 8)
        into = pool.alloc(8)
        self.assertEqual(other.batch_get_v1(keys, into), [True] * 8)
        self.expect(pool, keys, into)

    def test_ranks_that_hold_different_bytes_do_not_find_each_others(self):
        pool = sglang.HostPool()
        keys = chain(4)
        indices = self.fill(pool, keys)
        first = self.backend(pool, tp_rank=0, tp_size=2)
        self.assertEqual(first.batch_set_v1(keys, indices), [True] * 4)
        for config in ({"tp_rank": 1, "tp_size": 2}, {"tp_rank": 0, "tp_size": 4}, {"tp_size": 2, "pp_size": 2},
                       {"tp_size": 2, "attn_cp_size": 2}, {"tp_size": 2, "model_name": "org/other"},
                       {"tp_size": 2, "extra": {"weights_revision": "other"}},
                       {"tp_size": 2, "extra": {"weights_revision": None}}):
            self.assertEqual(self.backend(pool, **config).batch_exists(keys), 0, config)
        self.assertEqual(self.backend(pool, tp_rank=0, tp_size=2).batch_exists(keys), 4)

    def test_a_pool_without_a_descriptor_is_copied(self):
        pool = sglang.HostPool(shm=False)
        backend = self.backend(pool)
        self.assertIsNone(backend._region)
        self.round_trip(pool, backend, chain(24))
        # And the bytes are the same for a rank whose pool has one.
        shared = sglang.HostPool()
        other = self.backend(shared)
        into = shared.alloc(24)
        self.assertEqual(other.batch_get_v1(chain(24), into), [True] * 24)
        self.expect(shared, chain(24), into)

    def test_the_interface_by_tensors_has_the_same_pages(self):
        pool = sglang.HostPool()
        backend = self.backend(pool)
        keys = chain(3)
        tensors = [sglang.FlatTensor(content_of(key, pool)) for key in keys]
        self.assertTrue(backend.batch_set(keys[:2], tensors[:2]))
        self.assertTrue(backend.set(keys[2], tensors[2]))
        self.assertTrue(backend.exists(keys[1]))
        self.assertFalse(backend.exists(chain(1, "other")[0]))
        targets = [sglang.FlatTensor(bytes(pool.content_bytes)) for _ in range(4)]
        found = backend.batch_get(keys + chain(1, "other"), targets)
        self.assertEqual([target.bytes() for target in found[:3]], [tensor.bytes() for tensor in tensors])
        self.assertIsNone(found[3])
        self.assertIsNone(backend.get(keys[0], sglang.FlatTensor(bytes(10))))
        self.assertIsNone(backend.get(keys[0]))
        into = pool.alloc(3)
        self.assertEqual(backend.batch_get_v1(keys, into), [True] * 3)
        self.expect(pool, keys, into)

    def test_what_cannot_be_served_is_refused_at_the_start(self):
        for layout in ("layer_first", "page_head"):
            with self.assertRaisesRegex(ValueError, "page_first"):
                self.backend(sglang.HostPool(layout=layout))
        with self.assertRaisesRegex(ValueError, "page-size"):
            self.backend(sglang.HostPool(pages=1, page_size=1024, token_bytes=1 << 16))
        uneven = sglang.HostPool()
        straight = uneven.get_page_buffer_meta
        uneven.get_page_buffer_meta = lambda indices: (
            [address + (indices[0] > 500) for address in straight(indices)[0]], straight(indices)[1])
        with self.assertRaisesRegex(ValueError, "even"):
            self.backend(uneven)

    def test_keys_of_any_form_are_served_and_a_clear_is_for_all(self):
        pool = sglang.HostPool()
        backend = self.backend(pool)
        keys = ["short", chain(1)[0] + ".component", "X" * 300, chain(1)[0].upper(), chain(1)[0], ""]
        indices = self.fill(pool, keys)
        self.assertEqual(backend.batch_set_v1(keys, indices), [True] * len(keys))
        into = pool.alloc(len(keys))
        self.assertEqual(backend.batch_get_v1(keys, into), [True] * len(keys))
        self.expect(pool, keys, into)
        backend.clear()
        self.assertEqual(backend.batch_exists(keys), 0)


class FaultsTest(Case):
    def test_threads_outlive_a_daemon_that_dies_comes_back_and_was_never_there(self):
        self.daemon.kill()
        pool = sglang.HostPool()
        backend = self.backend(pool, connect=False)
        controller = sglang.Controller(backend, pool)
        self.addCleanup(controller.stop)
        keys = chain(20)
        indices = self.fill(pool, keys)
        for _ in range(2):
            self.assertEqual(controller.back_up(keys, indices), 0)
            self.assertEqual(controller.prefetch(keys), (None, 0))
            self.daemon.start()
            self.assertTrue(until(lambda: backend._session.wait_connected(0.5)))
            self.assertEqual(controller.back_up(keys, indices), len(keys))
            found, came = controller.prefetch(keys)
            self.assertEqual(came, len(keys))
            self.expect(pool, keys, found)
            pool.free(found)
            self.daemon.kill()
        self.assertTrue(controller.alive())
        self.assertEqual(backend.counters()["faults"], 0)

    def test_arguments_that_make_no_sense_are_misses(self):
        pool = sglang.HostPool()
        backend = self.backend(pool)
        keys = chain(2)
        indices = self.fill(pool, keys)
        odd = (indices[:-1], sglang.Indices(index + 1 for index in indices), pool.indices([0, 64]), indices[:16], None)
        for wrong in odd:
            self.assertEqual(backend.batch_get_v1(keys, wrong), [False, False])
            self.assertEqual(backend.batch_set_v1(keys, wrong), [False, False])
        self.assertEqual(backend.counters()["faults"], 2 * len(odd))
        self.assertEqual(backend.batch_exists(None), 0)
        self.assertEqual(backend.batch_exists([]), 0)
        self.assertFalse(backend.batch_set(keys, [None, None]))
        self.assertFalse(backend.batch_set(keys, ["no", "tensors"]))
        unregistered = Backend(sglang.HiCacheStorageConfig(extra_config={"runtime_dir": self.daemon.runtime_dir}))
        self.addCleanup(unregistered.close)
        self.assertEqual(unregistered.batch_get_v1(keys, indices), [False, False])
        self.assertEqual(unregistered.batch_exists(keys), 0)

    def test_a_pool_that_shrank_fails_its_pages_alone(self):
        pool = sglang.HostPool()
        backend = self.backend(pool)
        keys = chain(4)
        indices = self.fill(pool, keys)
        self.assertEqual(backend.batch_set_v1(keys, indices), [True] * 4)
        size = os.fstat(pool.fd).st_size
        os.ftruncate(pool.fd, 0)
        self.assertEqual(backend.batch_get_v1(keys, indices), [False] * 4)
        os.ftruncate(pool.fd, size)
        self.assertEqual(backend.batch_exists(keys), 4)

    def test_a_get_of_a_stopped_daemon_returns_when_the_pages_are_its_own_again(self):
        pool = sglang.HostPool()
        backend = self.backend(pool, extra={"get_deadline_s": 0.1})
        keys = chain(2)
        indices = self.fill(pool, keys)
        self.assertTrue(until(lambda: backend.batch_set_v1(keys, indices) == [True] * 2))
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        answers = []
        getter = threading.Thread(target=lambda: answers.append(backend.batch_get_v1(keys, indices)))
        getter.start()
        self.assertTrue(until(lambda: backend._session.unconfirmed == 1))
        self.assertEqual(answers, [])
        self.daemon.thaw()
        getter.join(60)
        self.assertEqual(answers, [[False, False]])

    def test_many_threads_of_ranks_share_a_node(self):
        wrong = []

        def rank(number):
            pool = sglang.HostPool(pages=32)
            backend = self.backend(pool, tp_rank=number, tp_size=4)
            for turn in range(15):
                keys = chain(10, seed=f"{number} {turn % 5}")
                indices = self.fill(pool, keys)
                if backend.batch_set_v1(keys, indices) != [True] * 10:
                    wrong.append("set")
                into = pool.alloc(10)
                if backend.batch_get_v1(keys, into) != [True] * 10:
                    wrong.append("get")
                for key, first in zip(keys, into[::pool.page_size]):
                    if pool.read(first // pool.page_size) != content_of(key, pool):
                        wrong.append("bytes")
                pool.free(indices)
                pool.free(into)

        threads = [threading.Thread(target=rank, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
