"""terrace.vllm_connector under a vLLM in small, over a real daemon and memory of the stand-in CUDA driver.

usage: vllm_connector_test.py [TEST...]
Environment: TERRACED, TERRACE_LIBRARY, TERRACE_CUDA_DRIVER (the stand-in); TERRACE_STEPS and TERRACE_SEED of the random ones.
"""
import contextlib
import os
import pickle
import random
import signal
import sys
import threading
import unittest
import unittest.mock

import vllm_engine_stand_in as engines
import vllm_kv_cache_stand_in as caches
from private_daemon import PrivateDaemon, until

engines.install()
os.environ.setdefault("PYTHONHASHSEED", "0")  # as an engine's has to be, for what follows from it

from terrace import Part, abi, vllm_connector, vllm_matches, vllm_transfers  # noqa: E402
from terrace.cuda import Cuda, CudaError  # noqa: E402
from terrace.vllm_geometry import layer_of  # noqa: E402

STEPS = int(os.environ.get("TERRACE_STEPS", "150"))
SEED = int(os.environ.get("TERRACE_SEED", "1"))
PLAIN = caches.LAYOUTS["all layers in one tensor"]


class ConnectorTest(unittest.TestCase):
    def setUp(self):
        self.ends = contextlib.ExitStack()
        self.addCleanup(self.ends.close)
        self.daemon = self.ends.enter_context(PrivateDaemon())

    def engine(self, layout=PLAIN, runtime_dir=None, **options):
        options = {"weights_revision": "abc", "pause_s": 0.05, "reconnect_s": 0.05, **options}
        made = engines.Engine(vllm_connector.TerraceConnector, layout, runtime_dir=runtime_dir or self.daemon.runtime_dir,
                              **options)
        self.ends.callback(made.close)
        return made

    def run_until(self, engine, condition):
        """Steps until then."""

        def step():
            engine.step()
            return condition()

        self.assertTrue(until(step))

    def serve(self, engine, *prompts, outputs=2, name="r"):
        requests = [engines.Request(f"{name}{number}", prompt, outputs) for number, prompt in enumerate(prompts)]
        for request in requests:
            engine.add(request)
        self.run_until(engine, lambda: not engine.unfinished and not engine.requests)
        return requests

    def assert_nothing_is_kept(self, engine):
        self.run_until(engine, lambda: not engine.requests)
        self.assertEqual(len(engine.pool.free), len(engine.pool.references) - 1)
        for worker in engine.ranks:
            transfers = worker._transfers
            self.run_until(engine, transfers.idle)
            self.assertFalse(transfers._saving or transfers._queued or transfers._ordered or transfers._over)
        self.assertFalse(engine.connector._matches._seen)
        self.assertEqual(engine.connector._matches._lookups, 0)


class LayoutTest(ConnectorTest):
    def test_what_one_engine_computes_another_loads_in_every_layout(self):
        prompt = [number % 5 for number in range(23)]
        for number, (name, layout) in enumerate(caches.LAYOUTS.items()):
            with self.subTest(name):
                revision = f"layout {number}"
                first = self.engine(layout, weights_revision=revision)
                self.serve(first, prompt)
                self.assertEqual(first.ranks[0].counters()["saved_blocks"] % 5, 0)
                second = self.engine(layout, weights_revision=revision)
                self.serve(second, prompt)
                self.assertEqual(second.external_tokens, 20)
                self.assertGreater(second.checked_tokens, 20)
                shares = 2 if "l" not in layout.order else 1
                self.assertEqual(second.ranks[0].counters()["loaded_blocks"], 5)
                self.assertEqual(len(second.ranks[0]._transfers._places), shares)

    def test_who_only_produces_does_not_load_and_who_only_consumes_does_not_save(self):
        consumer = self.engine(produces=False)
        self.serve(consumer, [3] * 23)
        producer = self.engine(consumes=False, local=False)
        self.serve(producer, [3] * 23)
        self.assertEqual(producer.ranks[0].counters()["saved_blocks"], 5)
        self.serve(producer, [3] * 23, name="again")
        self.assertEqual(producer.external_tokens, 0)
        self.serve(consumer, [3] * 23 + [4] * 9, name="again")
        self.assertEqual(consumer.external_tokens, 0)  # it has them itself
        other = self.engine(produces=False)
        self.serve(other, [3] * 23)
        self.assertEqual(other.external_tokens, 20)
        self.assertEqual(consumer.ranks[0].counters()["saved_blocks"], 0)

    def test_layouts_are_kept_apart(self):
        prompt = [number % 5 for number in range(23)]
        self.serve(self.engine(caches.LAYOUTS["blocks first"]), prompt)
        other = self.engine(caches.LAYOUTS["blocks first, heads before tokens"])
        self.serve(other, prompt)
        self.assertEqual(other.external_tokens, 0)

    def test_the_last_token_is_computed(self):
        engine = self.engine(local=False)
        prompt = [1] * 24  # six blocks, and nothing beyond
        self.serve(engine, prompt)
        self.serve(engine, prompt, name="again")
        self.assertEqual(engine.external_tokens, 20)

    def test_a_request_is_looked_up_when_it_arrives(self):
        engine = self.engine(local=False)
        self.serve(engine, [3] * 23)
        request = engines.Request("again", [3] * 23, 2)
        engine.add(request)
        matches = engine.connector._matches
        self.assertTrue(until(lambda: matches.advance() or not matches._lookups))
        engine.step()
        self.assertEqual((request.status, engine.external_tokens), (engines.Status.REMOTE, 20))
        self.assert_nothing_is_kept(engine)

    def test_what_lies_behind_a_block_that_only_the_engine_has_is_found(self):
        engine = self.engine()
        request = self.serve(engine, [3] * 23)[0]
        worker = engine.ranks[0]
        part = Part(worker._transfers._places[0].namespace, request.block_hashes[:2])
        self.assertTrue(worker._session.wait(worker._session.delete(part, deadline_s=30), 60))
        for block_hash in request.block_hashes[2:]:
            engine.pool.forget(engine.pool.by_hash[block_hash])
        self.serve(engine, [3] * 23, name="again")
        self.assertEqual(engine.external_tokens, 12)

    def test_generated_blocks_are_saved_where_that_is_asked(self):
        for save_decode, tokens in ((False, 8), (True, 16)):
            engine = self.engine(local=False, save_decode=save_decode, weights_revision=f"{save_decode}")
            first = self.serve(engine, [2] * 9, outputs=10)[0]
            self.serve(engine, first.tokens[:18], name="more")
            self.assertEqual(engine.external_tokens, tokens)

    def test_ranks_have_a_share_each_and_replicas_one_between_them(self):
        for layout in (PLAIN, caches.LAYOUTS["latent"], caches.LAYOUTS["keys first, a tensor a layer"]):
            for world, stages in ((2, 1), (4, 2)):
                with self.subTest(layout=layout, world=world):
                    revision = f"{layout} {world}"
                    first = self.engine(layout, world=world, stages=stages, weights_revision=revision)
                    self.serve(first, [3] * 23)
                    second = self.engine(layout, world=world, stages=stages, weights_revision=revision)
                    self.serve(second, [3] * 23)
                    self.assertEqual(second.external_tokens, 20)
                    writers = [rank for rank in first.ranks if rank.counters()["saved_blocks"]]
                    self.assertEqual(len(writers), stages if layout.mla else world)
                    for engine in (first, second):
                        self.assert_nothing_is_kept(engine)

    def test_what_is_unknown_is_kept_to_the_engine_and_shared_between_its_ranks(self):
        first = self.engine(world=2, local=False, weights_revision="", engine="one")
        self.serve(first, [3] * 23)
        self.serve(first, [3] * 23, name="again")
        self.assertEqual(first.external_tokens, 20)
        second = self.engine(world=2, weights_revision="", engine="two")
        self.serve(second, [3] * 23)
        self.assertEqual(second.external_tokens, 0)


class RefusalTest(ConnectorTest):
    def test_what_it_is_not_made_for_is_refused_at_the_start(self):
        make = vllm_connector.TerraceConnector
        role = engines.KVConnectorRole.WORKER
        for cache, config, said in (
            (engines.cache_config(8, groups=2), engines.config(), "hybrid"),
            (engines.cache_config(8, spec=type("MambaSpec", (engines.FullAttentionSpec,), {})), engines.config(), "MambaSpec"),
            (engines.cache_config(8), engines.config(wights="abc"), "unknown option wights"),
            (engines.cache_config(8), engines.config(hold_s=-1), "hold_s"),
            (engines.cache_config(8), engines.config(save_decode="yes"), "save_decode"),
        ):
            with self.subTest(said), self.assertRaisesRegex(ValueError, said):
                make(config, role, cache)
        context = engines.config()
        context.parallel_config.decode_context_parallel_size = 2
        with self.assertRaisesRegex(ValueError, "decode_context_parallel_size"):
            make(context, role, engines.cache_config(8))
        scales = engines.config()
        scales.cache_config.calculate_kv_scales = True
        with self.assertRaisesRegex(ValueError, "calculate_kv_scales"):
            make(scales, role, engines.cache_config(8))

    def test_what_makes_a_cache_useless_is_said(self):
        before = os.environ.pop("PYTHONHASHSEED")
        try:
            with self.assertLogs("terrace.vllm_connector", "WARNING") as log:
                self.engine(policy="fail")
        finally:
            os.environ["PYTHONHASHSEED"] = before
        self.assertIn("kv_load_failure_policy", log.output[0])
        self.assertIn("PYTHONHASHSEED", log.output[1])

    def test_shapes_that_are_not_clear_or_overlap_are_refused(self):
        for shape, strides, said in (
            ((2, 9, 4), (36, 4, 1), "not clear"),
            ((8, 8, 4), (32, 4, 1), "not clear"),
            ((8, 4, 4), (8, 2, 1), "overlaps"),
            ((8, 16), (8, 1), "16 bytes|32 bytes"),
        ):
            with self.subTest(shape), self.assertRaisesRegex(ValueError, said):
                layer_of(caches.Tensor(4096, shape, strides), 8)
        split = layer_of(caches.Tensor(4096, (2, 16, 4), (64, 4, 1)), 8)  # kernels' blocks are halves
        self.assertEqual([tuple(run) for run in split.runs], [(4096, 16, 16), (4224, 16, 16)])

    def test_memory_that_cannot_be_exported_makes_misses(self):
        real = Cuda.allocation_of

        def refuse(*_):
            raise CudaError("cuIpcGetMemHandle: CUDA_ERROR_INVALID_VALUE")

        Cuda.allocation_of = refuse
        try:
            with self.assertLogs("terrace.vllm_connector", "WARNING") as log:
                engine = self.engine(world=2)
        finally:
            Cuda.allocation_of = real
        self.assertIn("expandable_segments", log.output[0])
        with self.assertLogs("terrace.vllm_matches", "WARNING"):
            self.serve(engine, [3] * 23, [4] * 23)
        self.assertEqual(engine.connector.counters()["lookups"], 0)
        self.assert_nothing_is_kept(engine)

    def test_caches_that_are_no_tensors_make_misses(self):
        engine = self.engine()
        connector = engine.make(engines.KVConnectorRole.WORKER, 0)
        self.addCleanup(connector.shutdown)
        with self.assertLogs("terrace.vllm_connector", "WARNING") as log:
            connector.register_kv_caches({"layer.0": [object()]})
        self.assertIn("cannot be shared", log.output[0])

    def test_hashes_that_are_numbers_are_not_keys(self):
        engine = self.engine()
        request = engines.Request("r", [3] * 23, 2)
        request.block_hashes = [hash(bytes([number])) for number in range(5)]
        engine.add(request)
        with self.assertLogs("terrace.tally", "WARNING"):
            self.run_until(engine, lambda: not engine.unfinished and not engine.requests)
        self.assertEqual(engine.ranks[0].counters()["saved_blocks"], 0)

    def test_engines_that_tell_nothing_of_their_workers_get_misses(self):
        engine = self.engine()
        for rank in engine.ranks:
            rank.build_connector_worker_meta = lambda: None
        self.serve(engine, [3] * 23)
        self.assertEqual(engine.external_tokens, 0)


class FaultTest(ConnectorTest):
    def test_without_a_daemon_everything_is_computed(self):
        engine = self.engine(runtime_dir="/nowhere", world=2)
        self.serve(engine, *([number] * 23 for number in range(6)))
        self.assertEqual(engine.external_tokens, 0)
        self.assert_nothing_is_kept(engine)
        self.assertEqual(engine.connector.counters()["faults"], 0)

    def test_a_daemon_without_a_driver_of_gpus_keeps_nothing(self):
        self.daemon.kill()
        with environment(TERRACE_CUDA_DRIVER="/nowhere/libcuda.so"):
            self.daemon.start()
        engine = self.engine(local=False, world=2)
        self.serve(engine, [3] * 23)
        self.serve(engine, [3] * 23, name="again")
        self.assertEqual((engine.external_tokens, engine.load_errors), (0, 0))
        self.assertGreater(engine.ranks[0].counters()["failed_save_blocks"], 0)
        self.assert_nothing_is_kept(engine)

    def test_without_an_event_nothing_is_copied_and_nobody_waits(self):
        engine = self.engine(local=False)
        self.serve(engine, [3] * 23)
        with unittest.mock.patch.object(Cuda, "mark", side_effect=CudaError("cuEventRecord: CUDA_ERROR_UNKNOWN")):
            self.serve(engine, [3] * 23, [4] * 23, name="without")
        self.assertEqual(engine.load_errors, 1)
        self.assertEqual(engine.ranks[0].counters()["saved_blocks"], 5)
        self.assert_nothing_is_kept(engine)

    def test_a_daemon_that_comes_back_serves_again(self):
        engine = self.engine(local=False)
        self.serve(engine, [3] * 23)
        self.daemon.kill()
        self.serve(engine, [3] * 23, name="without")
        self.daemon.start()
        attempts = iter(range(10**6))

        def loaded():
            before = engine.external_tokens
            self.serve(engine, [3] * 23, name=f"with{next(attempts)}.")
            return engine.external_tokens > before and not engine.load_errors

        self.assertTrue(until(loaded))

    def loading(self, **options):
        """An engine and a request whose load is under way and held."""
        hold = os.path.join(os.path.dirname(self.daemon.runtime_dir), "hold")
        self.daemon.kill()
        with environment(STAND_IN_CUDA=f"hold={hold}"):
            self.daemon.start()
        engine = self.engine(local=False, **options)
        self.serve(engine, [3] * 23)
        open(hold, "w").close()
        request = engines.Request("held", [3] * 23, 2)
        engine.add(request)
        self.run_until(engine, lambda: request.status == engines.Status.REMOTE)
        for _ in range(50):
            engine.step()
        self.assertEqual(request.status, engines.Status.REMOTE)
        return engine, request, hold

    def test_a_load_that_is_killed_is_computed(self):
        engine, request, hold = self.loading()
        self.daemon.kill()
        self.run_until(engine, lambda: not engine.requests)
        os.unlink(hold)
        self.assertEqual(engine.load_errors, 1)
        self.assertEqual(engine.connector.counters()["failed_loads"], 1)
        self.assert_nothing_is_kept(engine)

    def test_a_block_that_one_allocation_lacks_is_none(self):
        for lacking in range(2):
            revision = f"lacking {lacking}"
            engine = self.engine(caches.LAYOUTS["keys first, a tensor a layer"], weights_revision=revision)
            request = self.serve(engine, [3] * 23)[0]
            worker = engine.ranks[0]
            transfers = worker._transfers
            part = Part(transfers._places[lacking].namespace, request.block_hashes[2:3])
            self.assertTrue(worker._session.wait(worker._session.delete(part, deadline_s=30), 60))
            transfers.load([vllm_connector.LoadOrder("r", request.block_hashes[:5], [11, 12, 13, 14, 15])])
            self.assertTrue(until(lambda: "r" in (worker.get_finished(set())[1] or ())))
            self.assertEqual(worker.get_block_ids_with_load_errors(), {13, 14, 15})
            self.assertEqual(worker.get_block_ids_with_load_errors(), set())

    def test_an_aborted_request_keeps_its_blocks_until_its_load_is_over(self):
        engine, request, hold = self.loading()
        blocks = list(request.blocks)
        engine.abort("held")
        for _ in range(50):
            engine.step()
        self.assertTrue(all(engine.pool.references[block] for block in blocks))
        os.unlink(hold)
        self.assert_nothing_is_kept(engine)

    def test_a_load_beyond_its_deadline_keeps_its_blocks_until_nothing_copies(self):
        engine, request, hold = self.loading(load_deadline_s=0.2)
        self.daemon.freeze()
        worker = engine.ranks[0]
        self.assertTrue(until(lambda: engine.step() or worker._session.unconfirmed))
        for _ in range(50):
            engine.step()
        self.assertEqual(request.status, engines.Status.REMOTE)
        os.unlink(hold)
        self.daemon.thaw()
        self.run_until(engine, lambda: not engine.requests)
        self.assert_nothing_is_kept(engine)

    def test_blocks_that_are_being_saved_stay(self):
        hold = os.path.join(os.path.dirname(self.daemon.runtime_dir), "hold")
        self.daemon.kill()
        with environment(STAND_IN_CUDA=f"hold={hold}"):
            self.daemon.start()
        engine = self.engine(local=False)
        self.serve(engine, [4] * 5)  # the region is open, and the worker runs
        open(hold, "w").close()
        request = engines.Request("saved", [3] * 23, 2)
        engine.add(request)
        self.run_until(engine, lambda: request.status == engines.Status.FINISHED)
        for _ in range(50):
            engine.step()
        self.assertIn("saved", engine.requests)
        self.assertTrue(all(engine.pool.references[block] for block in request.blocks))
        os.unlink(hold)
        self.assert_nothing_is_kept(engine)

    def test_preemption_waits_for_saves_and_raises_where_they_do_not_end(self):
        engine = self.engine(preempt_limit_s=0.2)
        request = engines.Request("r", [3] * 23, 20)
        engine.add(request)
        self.run_until(engine, lambda: engine.ranks[0].counters()["saved_blocks"])
        self.daemon.freeze()
        worker = engine.ranks[0]
        order = vllm_connector.SaveOrder("r", [bytes([9] * 32)], [1], 0, b"")
        worker._transfers.save([order], 4)
        with self.assertRaisesRegex(RuntimeError, "stands still"):
            worker.handle_preemptions({"r"})
        self.daemon.thaw()
        self.assertTrue(until(lambda: not attempt(lambda: worker.handle_preemptions({"r"}))))
        self.assertFalse(worker._transfers._saving)

    def test_a_save_that_waits_for_its_turn_is_dropped_by_preemption_and_bounded(self):
        engine = self.engine()
        worker = engine.ranks[0]
        self.daemon.freeze()
        most = vllm_transfers.MOST_WAITING_SAVES + vllm_transfers.MOST_SAVE_CALLS
        for number in range(most + 10):
            order = vllm_connector.SaveOrder(f"r{number % 2}", [number.to_bytes(32, "big")], [1], 0, b"")
            worker._transfers.save([order], 4)
        self.assertGreaterEqual(worker.counters()["dropped_blocks"], 10)
        self.daemon.kill()
        worker.handle_preemptions({"r0"})
        self.assertFalse(worker._transfers._queued.get("r0"))
        over = set()
        self.assertTrue(until(lambda: over.update(worker.get_finished({"r0", "r1"})[0] or ()) or over == {"r1"}))

    def test_what_is_computed_late_is_saved_late(self):
        """The step's writes have not run when the save is asked for."""
        engine = self.engine(local=False)
        self.addCleanup(caches.device().delay, 0)
        caches.device().delay(300)
        self.serve(engine, [3] * 23)
        caches.device().delay(0)
        self.serve(engine, [3] * 23, name="again")
        self.assertEqual(engine.external_tokens, 20)

    def test_a_reset_makes_misses_of_everything(self):
        engine = self.engine(local=False, world=2)
        self.assertFalse(engine.connector.reset_cache())  # nothing is known yet
        self.serve(engine, [3] * 23)
        self.assertTrue(engine.connector.reset_cache())
        self.serve(engine, [3] * 23, name="again")
        self.assertEqual(engine.external_tokens, 0)
        self.daemon.kill()
        self.assertFalse(engine.connector.reset_cache())

    def test_figures_are_counted_once_and_add_up_over_ranks(self):
        engine = self.engine(world=2)
        self.serve(engine, [3] * 23)
        first, second = (rank.get_kv_connector_stats() for rank in engine.ranks)
        self.assertIsNone(engine.ranks[0].get_kv_connector_stats())
        total = pickle.loads(pickle.dumps(first)).aggregate(second)
        self.assertEqual(total.reduce()["terrace_saved_blocks"], 10)
        self.assertFalse(total.is_empty())
        total.reset()
        self.assertTrue(total.is_empty())
        self.assertTrue(vllm_connector.TerraceConnector.build_kv_connector_stats().is_empty())


class RandomStepsTest(ConnectorTest):
    """Requests of a few prefixes come, go, are preempted and aborted, while the daemon is killed; every byte that the
    engine computes with is looked at."""

    def serve_at_random(self, layout, seed, kills=False, freezes=False, worker_kills=False,
                        **options):
        dice = random.Random(seed)
        print(f"seed {seed}", file=sys.stderr)
        engine = self.engine(layout, block_count=28, seed=random.Random(seed), **options)
        numbers = (f"r{number}" for number in range(10**9))
        self.step_until_it_counts(engine, dice, numbers, "saved_blocks")
        for _ in range(STEPS):
            self.step_at_random(engine, dice, numbers)
            if freezes and dice.random() < 0.01:
                self.daemon.freeze()
                thaw = threading.Timer(0.3, self.daemon.thaw)  # steps may wait for it
                thaw.start()
                while thaw.is_alive():
                    self.step_at_random(engine, dice, numbers)
            if worker_kills and dice.random() < 0.004:
                worker = self.daemon.gpu_worker()
                if worker is not None:
                    os.kill(worker, signal.SIGKILL)
                    self.step_until_it_counts(engine, dice, numbers, "loaded_blocks")
            if kills and dice.random() < 0.004:
                self.daemon.kill()
                for _ in range(dice.randrange(30)):
                    self.step_at_random(engine, dice, numbers)
                self.daemon.start()
                self.step_until_it_counts(engine, dice, numbers, "saved_blocks")
        self.run_until(engine, lambda: not engine.unfinished)
        self.assert_nothing_is_kept(engine)
        self.assertEqual(engine.connector.counters()["faults"], 0)
        print(f"{engine.checked_tokens} tokens compared, {engine.external_tokens} loaded, {engine.preemptions} preemptions, "
              f"{engine.load_errors} loads failed, {len(engine.done)} requests", file=sys.stderr)
        return engine

    def step_until_it_counts(self, engine, dice, numbers, what):
        """A daemon that has just been started has no worker for the GPU yet, and steps are quick."""
        before = engine.ranks[0].counters()[what]
        self.assertTrue(until(lambda: self.step_at_random(engine, dice, numbers)
                              or engine.ranks[0].counters()[what] > before))

    @staticmethod
    def step_at_random(engine, dice, numbers):
        if len(engine.requests) < 12 and dice.random() < 0.5:
            prompt = [dice.randrange(2)] * dice.choice([4, 8, 12, 16]) + [dice.randrange(3) for _ in range(dice.randrange(9))]
            engine.add(engines.Request(next(numbers), prompt, dice.randrange(1, 12)))
        live = [r.request_id for r in engine.requests.values() if r.status != engines.Status.FINISHED]
        if live and dice.random() < 0.03:
            engine.abort(dice.choice(live))
        engine.step()

    def test_no_wrong_byte_over_random_steps(self):
        engine = self.serve_at_random(PLAIN, SEED, local=False, drafts=5, save_decode=True)
        self.assertGreater(engine.external_tokens, 0)
        self.assertGreater(engine.preemptions, 0)

    def test_no_wrong_byte_with_a_prefix_cache_of_the_engines_own(self):
        self.serve_at_random(caches.LAYOUTS["keys first, a tensor a layer"], SEED + 1)

    def test_no_wrong_byte_while_the_daemon_is_killed(self):
        self.serve_at_random(PLAIN, SEED + 2, kills=True, local=False, world=2, save_decode=True)

    def test_no_wrong_byte_while_the_daemon_stands_still(self):
        limits = {"load_deadline_s": 0.05, "save_deadline_s": 0.05, "lookup_deadline_s": 0.05}
        self.serve_at_random(PLAIN, SEED + 3, freezes=True, local=False, **limits)

    def test_no_wrong_byte_while_the_worker_of_the_gpu_is_killed(self):
        self.daemon.kill()
        with environment(STAND_IN_CUDA="delay=2000"):  # copies are under way for a while
            self.daemon.start()
        self.serve_at_random(PLAIN, SEED + 5, worker_kills=True, local=False)

    def test_no_wrong_byte_where_everything_waits_for_room(self):
        tiny = {vllm_transfers: {"_LOAD_KEYS": 2, "_SAVE_KEYS": 2, "MOST_CALLS": 3, "MOST_SAVE_CALLS": 2,
                                 "MOST_WAITING_SAVES": 8},
                vllm_matches: {"MOST_LOOKUPS": 2}, abi: {"MOST_KEYS": 8}}
        for module, values in tiny.items():
            self.ends.enter_context(unittest.mock.patch.multiple(module, **values))
        layout = caches.LAYOUTS["keys first, a tensor a layer"]
        engine = self.serve_at_random(layout, SEED + 4, kills=True, local=False, world=2)
        self.assertGreater(engine.external_tokens, 0)


@contextlib.contextmanager
def environment(**values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def attempt(work):
    """The exception, if there was one."""
    try:
        work()
    except RuntimeError as error:
        return error
    return None


if __name__ == "__main__":
    unittest.main()
