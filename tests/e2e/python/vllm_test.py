"""terrace.vllm under a tiering manager that stores, evicts, looks up and loads chunks, over a real daemon."""
import logging
import os
import random
import time
import types
import unittest
from unittest import mock

import terrace
import vllm_stand_in as vllm
from private_daemon import PrivateDaemon, until
from vllm_stand_in import LookupResult, ReqContext, offload_key

ROW, ROWS = 12288, 32
logging.getLogger("terrace").setLevel(logging.ERROR)
SHARED = {"weights_revision": "r1"}


def keys_of(count, seed=0, hash_bytes=32, group=0):
    source = random.Random(seed)
    return [offload_key(source.randbytes(hash_bytes), group) for _ in range(count)]


def content_of(key, row_bytes=ROW):
    return random.Random(key).randbytes(row_bytes)


class TierTest(unittest.TestCase):
    earlier = False
    shared_region = True

    def setUp(self):
        self.module = vllm.load_tier(self.earlier)
        self.daemon = PrivateDaemon()
        self.addCleanup(self.daemon.close)
        self.open()
        self.addCleanup(lambda: self.tier.shutdown())

    def open(self, rows=ROWS, spec=None, **options):
        self.region = vllm.PrimaryRegion(rows, ROW, self.shared_region)
        options = {**SHARED, "runtime_dir": self.daemon.runtime_dir, "lookup_deadline_s": 30.0, **options}
        if self.earlier:
            config = types.SimpleNamespace(
                model_config=types.SimpleNamespace(model="org/model", dtype="bfloat16", revision="r"),
                parallel_config=types.SimpleNamespace(tensor_parallel_size=1),
                cache_config=types.SimpleNamespace(cache_dtype="auto", kv_cache_layout="NHD"))
            self.tier = self.module.TerraceTier(vllm_config=config, primary_kv_view=self.region.view,
                                                tier_type="terrace", **options)
            job = vllm.sys.modules["vllm.v1.kv_offload.tiering.base"].JobMetadata
        else:
            self.tier = self.module.TerraceTier(offloading_spec=spec or vllm.offloading_spec(),
                                                primary_kv_view=self.region.view, tier_type="TerraceTier", **options)
            job = vllm.sys.modules["vllm.v1.kv_offload.tiering.base"].TransferJob
        self.manager = vllm.Tiering(self.tier, self.region, job)
        self.wait_for_daemon()

    def wait_for_daemon(self):
        self.assertTrue(until(lambda: self.tier._session.wait_connected(0.5)))

    def step(self):
        self.manager.begin_step()
        self.manager.end_step()
        time.sleep(0.0002)  # a forward pass

    def run_until(self, condition):
        def stepped():
            self.step()
            return condition()

        self.assertTrue(until(stepped))

    def settle(self):
        self.run_until(lambda: self.manager.under_way == 0)

    def store(self, keys, context=ReqContext("writer")):
        self.tier.on_new_request(context)
        self.assertTrue(self.manager.store({key: content_of(key) for key in keys}, context))
        self.settle()

    def evict_all(self):
        for key in list(self.manager.row_of):
            self.assertTrue(self.manager.evict(key))
        for row in range(self.region.rows):
            self.region.write(row, b"\xee" * ROW)

    def find(self, keys, request):
        """How many chunks of the prefix came into the primary, as vLLM's scheduler finds out."""
        context = ReqContext(request)
        self.tier.on_new_request(context)
        while True:
            self.manager.begin_step()
            answers = []
            for key in keys:
                answers.append(self.manager.lookup(key, context))
                if answers[-1] is False:
                    break
            self.manager.end_step()
            if None not in answers:
                break
        self.tier.on_request_finished(context)
        return sum(answer is True for answer in answers)

    def expect_found(self, keys, request):
        self.assertEqual(self.find(keys, request), len(keys))
        for key in keys:
            self.assertTrue(self.manager.read(key) == content_of(key), key)


class PresentTierTest(TierTest):
    def test_chunks_that_left_the_primary_come_back_with_the_same_bytes(self):
        keys = keys_of(20) + keys_of(8, seed=1, group=1)
        self.store(keys)
        self.evict_all()
        self.expect_found(keys, "reader")
        counters = self.tier.counters()
        self.assertEqual((counters["stored_chunks"], counters["loaded_chunks"]), (len(keys), len(keys)))
        self.assertEqual(counters["faults"], 0)
        self.assertEqual(self.find(keys_of(3, seed=7), "stranger"), 0)

    def test_nothing_waits_for_an_answer(self):
        key = keys_of(1)[0]
        context = ReqContext("asks")
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        for _ in range(50):
            self.assertIs(self.tier.lookup(key, context), LookupResult.RETRY)
            self.step()
        self.daemon.thaw()
        self.run_until(lambda: self.tier.lookup(key, context) is LookupResult.MISS)

    def test_another_engine_finds_them(self):
        keys = keys_of(10)
        self.store(keys)
        self.tier.shutdown()
        self.region.close()  # nothing holds on to vLLM's view
        self.open()
        self.expect_found(keys, "reader")

    def test_what_is_not_the_same_is_not_found(self):
        keys = keys_of(2)
        self.store(keys)
        config = vllm.offloading_spec().config
        for spec, options in (
            (None, {"weights_revision": "r2"}),
            (None, {"layout": "HND"}),
            (None, {"kv_dtype": "fp8"}),
            (vllm.offloading_spec(kv_cache_layout="HND"), {}),
            (vllm.offloading_spec(model=types.SimpleNamespace(name="org/other", dtype="bfloat16")), {}),
            (vllm.offloading_spec(parallel=types.SimpleNamespace(**{**vars(config.parallel), "tp_size": 4})), {}),
        ):
            self.tier.shutdown()
            self.open(spec=spec, **options)
            self.assertEqual(self.find(keys, "reader"), 0, (spec, options))
        self.tier.shutdown()
        self.open()
        self.expect_found(keys, "reader")

    def test_what_is_not_known_is_not_shared_and_said(self):
        for missing, spec, options in (
            ("weights_revision", None, {"weights_revision": None}),
            ("layout", vllm.offloading_spec(kv_cache_layout=None), {}),
            ("parallel sizes", vllm.offloading_spec(parallel=None), {}),
        ):
            self.tier.shutdown()
            with self.assertLogs("terrace.record", "WARNING") as said:
                self.open(spec=spec, **options)
            self.assertIn(missing, said.output[0])
            keys = keys_of(2, seed=missing)
            self.store(keys)
            self.evict_all()
            self.expect_found(keys, "same engine")
            self.tier.shutdown()
            logging.disable(logging.WARNING)
            self.open(spec=spec, **options)
            logging.disable(logging.NOTSET)
            self.assertEqual(self.find(keys, "next engine"), 0)

    def test_keys_of_any_length_are_served(self):
        keys = keys_of(3, hash_bytes=8) + keys_of(3, seed=1, hash_bytes=16) + keys_of(3, seed=2, hash_bytes=100)
        self.store(keys)
        self.evict_all()
        self.expect_found(keys, "reader")

    def test_a_load_that_misses_some_reports_the_others_and_they_are_not_asked_for_again(self):
        keys = keys_of(6)
        self.store(keys)
        self.evict_all()
        context = ReqContext("reader")
        self.run_until(lambda: all(self.tier.lookup(key, context) is LookupResult.HIT for key in keys))
        self.tier._session.wait(self.tier._session.delete(
            terrace.Part(self.tier._name(keys[2])[0], [keys[2]])))
        self.manager.finished.clear()
        for key in keys:
            self.assertIsNone(self.manager.lookup(key, context))
        self.manager.end_step()
        self.settle()
        result = self.manager.finished[-1]
        self.assertFalse(result.success)
        self.assertEqual(set(result.successful_keys), set(keys) - {keys[2]})
        self.assertIs(self.tier.lookup(keys[2], context), LookupResult.MISS)
        for key in keys[:2] + keys[3:]:
            self.assertTrue(self.manager.read(key) == content_of(key))

    def test_a_daemon_that_dies_and_comes_back_is_a_miss_and_then_none(self):
        keys = keys_of(8)
        self.store(keys)
        self.daemon.kill()
        self.evict_all()
        self.assertEqual(self.find(keys, "reader"), 0)
        more = keys_of(4, seed=5)
        self.assertTrue(self.manager.store({key: content_of(key) for key in more}, ReqContext("writer")))
        self.settle()
        self.assertFalse(self.manager.finished[-1].success)
        self.assertGreater(self.tier.counters()["failed_store_chunks"], 0)
        self.daemon.start()
        self.wait_for_daemon()
        self.evict_all()
        self.store(keys)
        self.evict_all()
        self.expect_found(keys, "again")
        self.assertEqual(self.tier.counters()["faults"], 0)

    def test_a_daemon_killed_in_the_middle_of_jobs_ends_them(self):
        keys = keys_of(24)
        self.store(keys)
        self.evict_all()
        context = ReqContext("reader")
        self.run_until(lambda: all(self.tier.lookup(key, context) is LookupResult.HIT for key in keys))
        self.daemon.freeze()
        for key in keys:
            self.manager.lookup(key, context)
        self.manager.end_step()
        self.assertEqual(self.manager.under_way, 1)
        self.assertTrue(self.tier.has_pending_work())
        self.daemon.kill()
        self.settle()
        self.assertFalse(self.manager.finished[-1].success)
        self.assertFalse(self.tier.has_pending_work())

    def test_rows_of_a_job_that_a_stopped_daemon_may_go_on_with_stay_taken(self):
        self.tier.shutdown()
        self.open(load_deadline_s=0.1)
        keys = keys_of(2)
        self.store(keys)
        self.evict_all()
        context = ReqContext("reader")
        self.run_until(lambda: all(self.tier.lookup(key, context) is LookupResult.HIT for key in keys))
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        for key in keys:
            self.manager.lookup(key, context)
        self.run_until(lambda: self.tier._session.unconfirmed > 0)  # the deadline has passed
        for _ in range(50):
            self.step()
            self.assertEqual(self.manager.under_way, 1)
        self.daemon.thaw()
        self.settle()

    def test_an_absent_daemon_at_the_start_is_a_miss(self):
        self.daemon.kill()
        self.tier.shutdown()
        self.region = vllm.PrimaryRegion(ROWS, ROW)
        self.tier = self.module.TerraceTier(offloading_spec=vllm.offloading_spec(), primary_kv_view=self.region.view,
                                            runtime_dir=self.daemon.runtime_dir, **SHARED)
        self.manager = vllm.Tiering(
            self.tier, self.region, vllm.sys.modules["vllm.v1.kv_offload.tiering.base"].TransferJob)
        keys = keys_of(3)
        self.assertEqual(self.find(keys, "reader"), 0)
        self.daemon.start()
        self.wait_for_daemon()
        self.store(keys)
        self.evict_all()
        self.expect_found(keys, "again")

    def test_a_region_that_shrank_fails_its_jobs_alone(self):
        keys = keys_of(4)
        self.store(keys)
        self.evict_all()
        os.ftruncate(self.region.fd, 0)
        context = ReqContext("reader")
        self.run_until(lambda: all(self.tier.lookup(key, context) is LookupResult.HIT for key in keys))
        for key in keys:
            self.manager.lookup(key, context)
        self.manager.end_step()
        self.settle()
        self.assertFalse(self.manager.finished[-1].success)
        self.assertEqual(self.tier.counters()["faults"], 0)
        os.ftruncate(self.region.fd, ROWS * ROW)  # reading it would else end this process

    def test_what_the_daemon_declines_is_no_failure(self):
        self.tier.shutdown()
        self.daemon.close()
        self.daemon = PrivateDaemon(dram="64MiB")
        self.addCleanup(self.daemon.close)
        self.open(rows=64, hold_s=60.0)
        # Held chunks may not be evicted: when all are, there is no room.
        seed = 0
        while self.tier.counters()["declined_chunks"] == 0 and seed < 500:
            keys = keys_of(32, seed=seed)
            self.store(keys)
            for key in keys:
                self.tier.lookup(key, ReqContext("holder"))
            self.step()
            seed += 1
        self.assertGreater(self.tier.counters()["declined_chunks"], 0)
        self.assertTrue(self.manager.finished[-1].success)
        self.assertEqual(self.tier.counters()["failed_store_chunks"], 0)

    def test_events_and_figures_are_told_once(self):
        self.tier.shutdown()
        self.open(enable_kv_events=True, locality="LOCAL")
        keys = keys_of(3)
        self.store(keys)
        events = list(self.tier.take_events())
        self.assertEqual([(event.keys, event.removed, event.locality) for event in events],
                         [(keys, False, vllm.Locality.LOCAL)])
        self.assertEqual(list(self.tier.take_events()), [])
        self.run_until(lambda: self.tier.counters()["stored_chunks"] == 3)
        stats = self.tier.get_stats()
        self.assertEqual(stats.counts["vllm:kv_offload_terrace_stored_chunks"], 3)
        self.assertIsNone(self.tier.get_stats())
        defined = self.tier.build_metric_definitions({})
        self.assertEqual({name.rsplit("terrace_")[1] for name in defined}, set(self.tier.counters()))

    def test_stores_say_where_their_chunks_lie_in_the_prompt(self):
        keys = keys_of(6)
        context = ReqContext("writer", positions={key: 64 * (place + 1) for place, key in enumerate(keys)})
        with mock.patch.object(self.tier._session, "put", wraps=self.tier._session.put) as put:
            self.store(keys[:3], context)
            self.store(keys[3:], context)
            self.store(keys_of(2, seed=1), ReqContext("other"))
            self.store(keys_of(1, seed=2), ReqContext("odd", positions={keys_of(1, seed=2)[0]: 3}))
        told = [(call.args[0].first_token, call.args[0].end_tokens, call.kwargs["parent"]) for call in put.mock_calls]
        self.assertEqual(told, [(0, [64, 128, 192], b""), (192, [256, 320, 384], keys[2]), (0, None, b""), (0, None, b"")])
        self.evict_all()
        self.expect_found(keys, "reader")

    def test_a_request_that_finished_is_forgotten(self):
        for key in keys_of(50):
            self.tier.lookup(key, ReqContext("one"))
            self.tier.lookup(key, ReqContext("two"))
        self.assertEqual(len(self.tier._lookups), 50)
        self.tier.on_request_finished(ReqContext("one"))
        self.assertEqual(len(self.tier._lookups), 50)
        self.tier.on_request_finished(ReqContext("two"))
        self.assertEqual(len(self.tier._lookups), 0)

    def test_wrong_use_is_refused_at_the_start(self):
        make = self.module.TerraceTier
        spec = vllm.offloading_spec()
        for said, view, options in (
            ("unknown option colour", self.region.view, {"colour": "red"}),
            ("memoryview", None, {}),
            ("memoryview", memoryview(bytearray(100)), {}),
            ("writable", memoryview(bytes(100)).cast("B", [10, 10]), {}),
            ("blocks_per_chunk", _Huge.view(), {}),
        ):
            with self.assertRaisesRegex(ValueError, said):
                make(offloading_spec=spec, primary_kv_view=view, runtime_dir=self.daemon.runtime_dir, **options)

    def test_a_job_that_makes_no_sense_fails_and_raises_nothing(self):
        job = vllm.sys.modules["vllm.v1.kv_offload.tiering.base"].TransferJob
        for number, (keys, rows) in enumerate((
            (keys_of(2), [1]), (keys_of(1), [ROWS]), ([], []), (keys_of(1), [-1]),
        )):
            for submit in (self.tier.submit_load, self.tier.submit_store):
                submit(job(number, keys, rows, True, ReqContext("odd")))
                results = []
                self.assertTrue(until(lambda: results.extend(self.tier.get_finished_jobs()) or results))
                self.assertEqual(results[0].job_id, number)
                self.assertEqual(results[0].success, keys == [])

    def test_a_key_of_a_group_that_there_cannot_be_is_a_miss(self):
        context = ReqContext("odd")
        odd, fine = offload_key(bytes(32), 70_000), keys_of(1)[0]
        self.assertIs(self.tier.lookup(odd, context), LookupResult.RETRY)
        self.assertIs(self.tier.lookup(fine, context), LookupResult.RETRY)
        self.run_until(lambda: self.tier.lookup(odd, context) is LookupResult.MISS)
        self.run_until(lambda: self.tier.lookup(fine, context) is LookupResult.MISS)

    def test_a_lookup_that_cannot_be_asked_is_a_miss(self):
        context = ReqContext("odd")
        keys = keys_of(3)
        with mock.patch.object(self.tier._session, "probe", side_effect=ValueError("no")):
            for key in keys:
                self.tier.lookup(key, context)
            self.step()
        self.assertEqual({self.tier.lookup(key, context) for key in keys}, {LookupResult.MISS})
        self.assertEqual(self.tier.counters()["faults"], 1)

    def test_drained_jobs_have_their_results(self):
        keys = keys_of(16)
        self.manager.store({key: content_of(key) for key in keys}, ReqContext("writer"))
        self.tier.drain_jobs()
        self.assertFalse(self.tier.has_pending_work())
        self.manager.begin_step()
        self.assertEqual(self.manager.under_way, 0)

    def test_a_drain_over_a_daemon_that_stands_still_says_so(self):
        keys = keys_of(4)
        self.daemon.freeze()
        self.addCleanup(self.daemon.thaw)
        self.manager.store({key: content_of(key) for key in keys}, ReqContext("writer"))
        with mock.patch.object(self.module, "DRAIN_LIMIT_S", 0.3):
            with self.assertRaisesRegex(RuntimeError, "stands still"):
                self.tier.drain_jobs()
        self.daemon.thaw()
        self.tier.drain_jobs()

    def test_more_jobs_than_calls_wait_for_their_turn(self):
        self.tier.shutdown()
        self.open(rows=400)
        keys = keys_of(400)
        self.daemon.freeze()
        for place, key in enumerate(keys):
            self.manager.store({key: content_of(key)}, ReqContext(f"request {place}"))
        self.daemon.thaw()
        self.settle()
        self.assertEqual(self.tier.counters()["stored_chunks"], 400)
        self.assertEqual(self.tier.counters()["refused_jobs"], 0)


class _Huge:
    """Rows beyond what Terrace takes, of memory that is never touched."""

    memory = None

    @classmethod
    def view(cls):
        import mmap

        cls.memory = cls.memory or mmap.mmap(-1, (64 << 20) + 4096)
        return memoryview(cls.memory).cast("B", [1, (64 << 20) + 4096])


OPERATIONS = int(os.environ.get("TERRACE_OPERATIONS", 2_000))


class RandomOperationsTest(TierTest):
    def operate(self, operations, between):
        """Stores, evictions and lookups with loads; chunks that came from the tier, and how many of them were wrong."""
        seed = int(os.environ.get("TERRACE_SEED", random.SystemRandom().randrange(1 << 32)))
        print(f"seed {seed}")
        source = random.Random(seed)
        known = [offload_key(source.randbytes(32), source.randrange(2)) for _ in range(400)]
        stored, hits, wrong, done = {}, 0, 0, 0
        while done < operations:
            between(done, source)
            kind = source.random()
            batch = source.sample(known, source.randrange(1, 5))
            if kind < 0.45:
                context = ReqContext(f"w{done}")
                self.tier.on_new_request(context)
                if self.manager.store({key: content_of(key) for key in batch}, context):
                    stored.update((key, content_of(key)) for key in batch)
                    done += len(batch)
                self.step()
                self.tier.on_request_finished(context)
            elif kind < 0.55:
                for key in source.sample(known, 20):
                    self.manager.evict(key)
            else:
                found = self.find(batch, f"r{done}")
                done += len(batch)
                for key in batch[:found]:
                    if key not in self.manager.row_of:
                        continue  # evicted again by its neighbours
                    hits += 1
                    wrong += self.manager.read(key) != stored.get(key)
        self.settle()
        self.assertEqual(self.tier.counters()["faults"], 0)
        self.assertEqual(len(self.tier._lookups), 0)
        return hits, wrong

    def test_operations_deliver_no_wrong_byte(self):
        hits, wrong = self.operate(OPERATIONS, lambda done, source: None)
        self.assertEqual(wrong, 0)
        self.assertGreater(hits, OPERATIONS // 20)
        self.assertGreater(self.tier.counters()["loaded_chunks"], OPERATIONS // 20)

    def test_nor_do_operations_under_daemons_that_die_and_stand_still(self):
        at = [100]

        def between(done, source):
            if done < at[0]:
                return
            is_first = at[0] == 100
            at[0] = done + 100
            if not is_first and source.random() < 0.3:
                self.daemon.freeze()
                for _ in range(source.randrange(20)):
                    self.step()
                self.daemon.thaw()
            else:
                self.daemon.kill()
                for _ in range(source.randrange(20)):
                    self.step()
                self.daemon.start()
                if is_first or source.random() < 0.5:  # else they go on without one for a second
                    self.run_until(lambda: self.tier._session.state().connection == terrace.abi.Connection.UP)

        hits, wrong = self.operate(max(600, OPERATIONS // 5), between)
        self.assertEqual(wrong, 0)
        self.assertGreater(self.tier._session.state().reconnects, 0)


class CopiedTierTest(TierTest):
    """Where no descriptor leads to the region."""

    shared_region = False

    def test_chunks_come_back_by_copies(self):
        keys = keys_of(20)
        self.store(keys)
        self.evict_all()
        self.expect_found(keys, "reader")
        self.assertEqual(self.tier.counters()["faults"], 0)

    def test_a_dead_daemon_is_a_miss(self):
        keys = keys_of(4)
        self.store(keys)
        self.daemon.kill()
        self.evict_all()
        self.assertEqual(self.find(keys, "reader"), 0)
        self.assertTrue(self.manager.store({key: content_of(key) for key in keys}, ReqContext("writer")))
        self.settle()
        self.assertFalse(self.manager.finished[-1].success)

    def test_jobs_are_drained(self):
        keys = keys_of(16)
        self.manager.store({key: content_of(key) for key in keys}, ReqContext("writer"))
        self.tier.drain_jobs()
        self.manager.begin_step()
        self.assertEqual(self.manager.under_way, 0)
        self.assertTrue(self.manager.finished[-1].success)


class EarlierTierTest(TierTest):
    earlier = True

    def test_the_interface_of_earlier_builds_is_served(self):
        keys = keys_of(6)
        self.store(keys)
        self.evict_all()
        self.assertIsNone(self.tier.lookup(keys[0], ReqContext("asks")))
        self.expect_found(keys, "reader")
        self.assertIs(self.tier.lookup(keys_of(1, seed=3)[0], ReqContext("asks")), None)
        self.run_until(lambda: self.tier.lookup(keys_of(1, seed=3)[0], ReqContext("asks")) is False)
        self.assertIsNone(self.tier.get_stats())


del TierTest  # is a base of the others and has no case of its own

if __name__ == "__main__":
    unittest.main()
