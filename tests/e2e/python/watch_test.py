"""terrace.Watch against a real daemon: a picture kept from its events is what probes say, through puts, deletions, clears,
evictions, kills and restarts."""
import random
import select
import unittest

import terrace
from private_daemon import PrivateDaemon, until
from terrace import EventKind, KeyState, Part, Place, Session, Watch

BLOCK = 64 * 1024


def record(**changed):
    fields = {"model": "m", "weights_revision": "r", "kv_dtype": "bf16", "layout": "rows", "hash_algorithm": "sha256",
              "block_bytes": BLOCK, "block_tokens": 16, "key_suffix": b"a\0b", "labels": {"team": "search"}}
    return terrace.NamespaceRecord(**{**fields, **changed})


class Picture:
    """What a watch has told so far."""

    def __init__(self, watch):
        self.watch = watch
        self.tier_of = {}
        self.records = {}
        self.kinds = []
        self.up = False

    def look(self, timeout_s=0.0):
        events = self.watch.next(timeout_s)
        for event in events:
            self.kinds.append(event.kind)
            if event.kind in (EventKind.GAP, EventKind.SNAPSHOT_BEGIN):
                self.tier_of.clear()
            elif event.kind in (EventKind.STORED, EventKind.MOVED):
                self.tier_of.update({(event.namespace, key): event.tier for key in event.keys})
            elif event.kind == EventKind.REMOVED:
                for key in event.keys:
                    self.tier_of.pop((event.namespace, key), None)
            elif event.kind == EventKind.CLEARED:
                self.tier_of = {held: tier for held, tier in self.tier_of.items() if held[0] != event.namespace}
            elif event.kind == EventKind.NAMESPACE:
                self.records[event.namespace] = event.record
            elif event.kind in (EventKind.UP, EventKind.DOWN):
                self.up = event.kind == EventKind.UP
        return bool(events)

    def whole(self):
        self.look(0.05)
        return self.up and self.watch.state().complete

    def keys(self, namespace_model="m"):
        return {key: tier for (digest, key), tier in self.tier_of.items() if self.records[digest].model == namespace_model}


class WatchTest(unittest.TestCase):
    def setUp(self):
        self.daemon = PrivateDaemon(dram="128MiB")
        self.addCleanup(self.daemon.close)
        self.session = Session(self.daemon.runtime_dir, reconnect_s=0.05)
        self.addCleanup(self.session.close)
        self.namespace = self.session.namespace(record())
        self.other = self.session.namespace(record(model="other"))
        self.watch = Watch(self.daemon.runtime_dir, reconnect_s=0.05, heartbeat_s=0.2)
        self.addCleanup(self.watch.close)
        self.picture = Picture(self.watch)
        self.random = random.Random(7)

    def ended(self, call):
        self.assertTrue(self.session.wait(call, 60, done=True))
        return call.answer

    def new_keys(self, count):
        return [self.random.randbytes(32) for _ in range(count)]

    def put(self, keys, namespace=None):
        for key in keys:
            part = Part(namespace or self.namespace, [key])
            self.ended(self.session.put(part, payload=random.Random(key).randbytes(BLOCK), deadline_s=30))

    def restart(self):
        self.daemon.kill()
        self.daemon.start()
        self.assertTrue(self.session.wait_connected(60))

    def held(self, keys, namespace=None):
        found = set()
        for begin in range(0, len(keys), 1000):
            some = keys[begin:begin + 1000]
            answer = self.ended(self.session.probe([Part(namespace or self.namespace, some, terrace.Rule.INDEPENDENT)]))
            found.update(key for place, key in enumerate(some) if answer.state(place) in (KeyState.READY, KeyState.LOWER))
        return found

    def assert_same(self, keys):
        """That the picture comes to be what is held, and stays so."""
        self.assertTrue(until(self.picture.whole))
        same = until(lambda: set(self.picture.keys()) == self.held(keys) or (self.picture.look(0.05), False)[1])
        self.assertTrue(same, f"{len(self.picture.keys())} in the picture, {len(self.held(keys))} held")

    def test_the_picture_is_what_is_held(self):
        keys = self.new_keys(40)
        self.put(keys[:20])
        self.assert_same(keys)
        self.put(keys[20:])
        self.ended(self.session.delete(Part(self.namespace, keys[5:15])))
        self.assert_same(keys)
        self.assertEqual(len(self.picture.keys()), 30)
        self.assertEqual(set(self.picture.keys().values()), {"g2"})

    def test_a_clear_takes_one_namespace_alone(self):
        keys, others = self.new_keys(5), self.new_keys(5)
        self.put(keys)
        self.put(others, self.other)
        self.assertTrue(until(lambda: self.picture.look(0.05) and len(self.picture.tier_of) == 10 or len(self.picture.tier_of) == 10))
        self.ended(self.session.clear(self.namespace))
        self.assertTrue(until(lambda: (self.picture.look(0.05), not self.picture.keys())[1]))
        self.assertEqual(set(self.picture.keys("other")), set(others))

    def test_records_come_whole(self):
        self.put(self.new_keys(1))
        self.assertTrue(until(lambda: (self.picture.look(0.05), self.picture.records)[1]))
        told = next(iter(self.picture.records.values()))
        self.assertEqual(told, record())

    def test_evictions_are_told(self):
        keys = self.new_keys(2600)  # 162 MiB into 128
        self.assertTrue(until(self.picture.whole))
        self.put(keys)
        self.assert_same(keys)
        self.assertLess(len(self.picture.keys()), len(keys))
        self.assertTrue(EventKind.REMOVED in self.picture.kinds)

    def test_a_daemon_that_is_killed_is_down_and_its_blocks_are_gone_from_the_picture(self):
        keys = self.new_keys(30)
        self.put(keys)
        self.assert_same(keys)
        for _ in range(3):
            self.daemon.kill()
            self.assertTrue(until(lambda: (self.picture.look(0.05), not self.picture.up)[1]))
            self.daemon.start()
            self.assertTrue(self.session.wait_connected(60))
            self.assertTrue(until(self.picture.whole))
            self.assert_same(keys)
            self.assertEqual(self.picture.keys(), {})
            self.put(keys[:10])
            self.assert_same(keys)
            self.assertEqual(len(self.picture.keys()), 10)

    def test_operations_at_random_with_kills_in_between(self):
        keys = self.new_keys(200)
        for step in range(300):
            some = self.random.sample(keys, 5)
            what = self.random.randrange(100)
            if what < 70:
                self.put(some)
            elif what < 95:
                self.ended(self.session.delete(Part(self.namespace, some)))
            elif what < 98:
                self.ended(self.session.clear(self.namespace))
            else:
                self.restart()
            if step % 20 == 0:
                self.assert_same(keys)
        self.assert_same(keys)

    def test_a_later_watch_goes_on_where_an_earlier_one_was(self):
        keys = self.new_keys(10)
        self.put(keys[:5])
        self.assert_same(keys)
        place = self.watch.state().place
        self.assertIsInstance(place, Place)
        self.watch.close()
        self.put(keys[5:])
        with Watch(self.daemon.runtime_dir, after=place) as later:
            told = []
            self.assertTrue(until(lambda: (told.extend(later.next(0.05)), sum(len(event.keys) for event in told) >= 5)[1]))
            self.assertEqual([event.kind for event in told if event.kind != EventKind.NAMESPACE],
                             [EventKind.UP] + [EventKind.STORED] * 5)
            self.assertEqual([key for event in told for key in event.keys], keys[5:])

    def test_a_watch_of_one_namespace_hears_of_no_other(self):
        self.put(self.new_keys(1))
        self.assertTrue(until(lambda: (self.picture.look(0.05), self.picture.records)[1]))
        digest = next(iter(self.picture.records))
        with Watch(self.daemon.runtime_dir, namespaces=[digest]) as one:
            theirs, mine = self.new_keys(3), self.new_keys(1)
            told = []
            self.assertTrue(until(lambda: (told.extend(one.next(0.05)), one.state().complete)[1]))
            self.put(theirs, self.other)
            self.put(mine)
            self.assertTrue(until(lambda: (told.extend(one.next(0.05)), any(mine[0] in event.keys for event in told))[1]))
            self.assertFalse(any(theirs[0] in event.keys for event in told))

    def test_its_descriptor_becomes_readable(self):
        self.assertTrue(until(self.picture.whole))
        self.put(self.new_keys(1))
        poll = select.poll()
        poll.register(self.watch, select.POLLIN)
        self.assertTrue(until(lambda: poll.poll(100) and self.picture.look() and self.picture.tier_of))

    def test_iterating_yields_events_and_ends_with_the_watch(self):
        self.put(self.new_keys(2))
        for event in self.watch:
            if event.kind == EventKind.SNAPSHOT_END:
                self.watch.close()
        self.assertEqual(self.watch.next(), [])
        self.assertRaises(RuntimeError, self.watch.state)

    def test_wrong_arguments_raise(self):
        self.assertRaises(ValueError, Watch, self.daemon.runtime_dir, namespaces=[b"short"])
        self.assertRaises(ValueError, Watch, self.daemon.runtime_dir, heartbeat_s=61.0)
        self.assertRaises(ValueError, Watch, "/" + "x" * 200)


if __name__ == "__main__":
    unittest.main()
