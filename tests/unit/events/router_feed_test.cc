// What routers are told for each thing that a watcher says, by a watcher that says what the test
// wants; gaps, clears, refusals.
#include "daemon/events/router_feed.h"

#include <deque>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/doubles/manual_clock.h"

namespace terrace {
namespace {

using Kind = RouterEvent::Kind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A watcher is told what to say before it is asked; several may follow each other.
class Script {
 public:
  class Watcher final : public StoreWatcher {
   public:
    explicit Watcher(Script& script) : script_(script) { ++script_.open; }
    ~Watcher() override { --script_.open; }
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;
    [[nodiscard]] uint64_t publisher_id() const override { return 1; }
    EventBatch Next() override {
      if (script_.batches.empty()) {
        return {};
      }
      EventBatch batch = std::move(script_.batches.front());
      script_.batches.pop_front();
      return batch;
    }

   private:
    Script& script_;
  };

  absl::StatusOr<std::unique_ptr<StoreWatcher>> Watch(const WatchCall& call) {
    EXPECT_TRUE(call.snapshot);
    EXPECT_EQ(open, 0) << "the last one was not given back";
    ++asked;
    if (!refusal.ok()) {
      return refusal;
    }
    return std::make_unique<Watcher>(*this);
  }

  std::deque<EventBatch> batches;
  absl::Status refusal;
  int open = 0;
  int asked = 0;
};

std::string KeyOf(char c, std::string_view suffix = "") {
  return std::string(32, c) + std::string(suffix);
}

class RouterFeedTest : public ::testing::Test {
 protected:
  void Make(RouterFeed::Options options = {"", "CPU", "STORAGE"}) {
    feed_ = std::make_unique<RouterFeed>(
        std::move(options), [this](const WatchCall& call) { return script_.Watch(call); }, clock_);
  }
  void SetUp() override {
    Make();
    // The beginning of every life.
    std::vector<RouterEvent> first = All();
    ASSERT_EQ(first.size(), 1U);
    EXPECT_EQ(first[0].kind, Kind::kAllCleared);
  }

  std::vector<RouterEvent> All() {
    std::vector<RouterEvent> out;
    for (int i = 0; i < 100 && feed_->Next(&out) == RouterFeed::Step::kBusy; ++i) {
    }
    return out;
  }

  WatchedNamespace Ns(uint64_t number) const {
    WatchedNamespace ns;
    ns.digest.lo = number;
    ns.record.model = "m/8b";
    ns.record.block_tokens = 2;
    return ns;
  }
  static StoreEvent Event(StoreEventKind kind, uint64_t ns, const std::string& keys = "") {
    StoreEvent event;
    event.kind = kind;
    event.namespace_digest.lo = ns;
    event.key_bytes = keys.empty() ? 0 : 32;
    event.keys = keys;
    event.tier = "g2";
    event.block_tokens = 2;
    return event;
  }
  // Said as one batch: events of namespaces that are described with it.
  void Say(std::vector<StoreEvent> events, std::vector<WatchedNamespace> namespaces = {}) {
    EventBatch batch;
    batch.events = std::move(events);
    batch.namespaces = std::move(namespaces);
    script_.batches.push_back(std::move(batch));
  }
  void EndSnapshot() { Say({Event(StoreEventKind::kSnapshotEnd, 0)}); }

  doubles::ManualClock clock_;
  Script script_;
  std::unique_ptr<RouterFeed> feed_;
};

TEST_F(RouterFeedTest, AChainWithAllTokensIsOneEvent) {
  EndSnapshot();
  StoreEvent event = Event(StoreEventKind::kStored, 1, KeyOf('a') + KeyOf('b'));
  event.parent = KeyOf('p');
  event.metadata = {{{1, 2}, "sql", "\xc0"}, {{3, 4}, "sql", ""}};
  Say({event}, {Ns(1)});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, Kind::kStored);
  EXPECT_THAT(told[0].hashes, ElementsAre(KeyOf('a'), KeyOf('b')));
  EXPECT_EQ(told[0].parent, KeyOf('p'));
  EXPECT_THAT(told[0].token_ids, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(told[0].block_tokens, 2U);
  EXPECT_EQ(told[0].lora_name, "sql");
  EXPECT_THAT(told[0].extra_keys, ElementsAre("\xc0", ""));
  EXPECT_EQ(told[0].medium, "CPU");
  EXPECT_EQ(told[0].spec_kind, "full_attention");
}

TEST_F(RouterFeedTest, WhatIsNotWholeIsToldWithoutTokens) {
  EndSnapshot();
  StoreEvent event =
      Event(StoreEventKind::kStored, 1, KeyOf('a') + KeyOf('b') + KeyOf('c') + KeyOf('d'));
  // All tokens; too few; extra keys that are no msgpack; another adapter.
  event.metadata = {{{1, 2}, "", ""}, {{3}, "", ""}, {{5, 6}, "", "\xc1"}, {{7, 8}, "sql", ""}};
  Say({event}, {Ns(1)});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 3U);
  EXPECT_THAT(told[0].hashes, ElementsAre(KeyOf('a')));
  EXPECT_EQ(told[0].parent, "");
  EXPECT_EQ(told[0].block_tokens, 2U);
  EXPECT_THAT(told[0].extra_keys, IsEmpty());
  EXPECT_THAT(told[1].hashes, ElementsAre(KeyOf('b'), KeyOf('c')));
  EXPECT_EQ(told[1].parent, KeyOf('a'));
  EXPECT_THAT(told[1].token_ids, IsEmpty());
  EXPECT_EQ(told[1].block_tokens, 0U);
  EXPECT_THAT(told[2].token_ids, ElementsAre(7, 8));
  EXPECT_EQ(told[2].parent, KeyOf('c'));
  EXPECT_EQ(told[2].lora_name, "sql");
}

TEST_F(RouterFeedTest, AKeyIsToldWithoutWhatItsNamespaceAdds) {
  EndSnapshot();
  WatchedNamespace ns = Ns(1);
  ns.record.key_suffix = std::string("\0\0\0\7", 4);
  ns.record.group = 7;
  ns.record.group_kind = "sliding_window";
  StoreEvent event = Event(StoreEventKind::kStored, 1, KeyOf('a', ns.record.key_suffix));
  event.key_bytes = 36;
  event.parent = KeyOf('p', ns.record.key_suffix);
  StoreEvent gone = event;
  gone.kind = StoreEventKind::kRemoved;
  Say({event, gone}, {ns});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 2U);
  EXPECT_THAT(told[0].hashes, ElementsAre(KeyOf('a')));
  EXPECT_EQ(told[0].parent, KeyOf('p'));
  EXPECT_EQ(told[0].group, 7U);
  EXPECT_EQ(told[0].spec_kind, "sliding_window");
  EXPECT_THAT(told[1].hashes, ElementsAre(KeyOf('a')));
  EXPECT_EQ(told[1].group, 7U);
}

TEST_F(RouterFeedTest, WhereTheSuffixIsAllOfAKeyItStays) {
  EndSnapshot();
  WatchedNamespace ns = Ns(1);
  ns.record.key_suffix = std::string(16, 's');
  StoreEvent event = Event(StoreEventKind::kStored, 1, std::string(16, 's'));
  event.key_bytes = 16;
  Say({event}, {ns});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_THAT(told[0].hashes, ElementsAre(std::string(16, 's')));
}

TEST_F(RouterFeedTest, WhatMovesIsStoredBeforeItIsRemoved) {
  EndSnapshot();
  StoreEvent down = Event(StoreEventKind::kMoved, 1, KeyOf('a'));
  down.tier = "g3";
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a')), down,
       Event(StoreEventKind::kMoved, 1, KeyOf('a'))},
      {Ns(1)});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 5U);
  EXPECT_EQ(told[1].kind, Kind::kStored);
  EXPECT_EQ(told[1].medium, "STORAGE");
  EXPECT_EQ(told[2].kind, Kind::kRemoved);
  EXPECT_EQ(told[2].medium, "CPU");
  EXPECT_EQ(told[3].kind, Kind::kStored);
  EXPECT_EQ(told[3].medium, "CPU");
  EXPECT_EQ(told[4].kind, Kind::kRemoved);
  EXPECT_EQ(told[4].medium, "STORAGE");
}

// A block that was put anew while the drive had it, which the drive then lost.
TEST_F(RouterFeedTest, WhatIsRemovedIsRemovedEverywhere) {
  StoreEvent below = Event(StoreEventKind::kStored, 1, KeyOf('a'));
  below.tier = "g3";
  Say({below}, {Ns(1)});
  EndSnapshot();
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a')),
       Event(StoreEventKind::kRemoved, 1, KeyOf('a'))});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 4U);
  EXPECT_EQ(told[2].kind, Kind::kRemoved);
  EXPECT_EQ(told[3].kind, Kind::kRemoved);
  EXPECT_NE(told[2].medium, told[3].medium);
}

TEST_F(RouterFeedTest, WhereBothTiersHaveOneMediumAMoveRemovesNothing) {
  Make({"", "CPU", "CPU"});
  EndSnapshot();
  StoreEvent down = Event(StoreEventKind::kMoved, 1, KeyOf('a'));
  down.tier = "g3";
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a')), down}, {Ns(1)});
  std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 3U);
  EXPECT_EQ(told[0].kind, Kind::kAllCleared);
  EXPECT_EQ(told[1].kind, Kind::kStored);
  EXPECT_EQ(told[2].kind, Kind::kStored);
  Say({Event(StoreEventKind::kRemoved, 1, KeyOf('a'))});
  EXPECT_EQ(All().size(), 1U);
}

TEST_F(RouterFeedTest, BlocksOfASnapshotShareEvents) {
  StoreEvent child = Event(StoreEventKind::kStored, 1, KeyOf('b'));
  child.parent = KeyOf('a');
  StoreEvent below = Event(StoreEventKind::kStored, 1, KeyOf('c'));
  below.tier = "g3";
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a')), child}, {Ns(1)});
  Say({Event(StoreEventKind::kStored, 1, KeyOf('d')), Event(StoreEventKind::kStored, 1, KeyOf('a')),
       below});
  EndSnapshot();
  StoreEvent live = below;
  live.keys = KeyOf('e');
  Say({live});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 4U);
  EXPECT_THAT(told[0].hashes, ElementsAre(KeyOf('a'), KeyOf('b'), KeyOf('d')));
  EXPECT_EQ(told[0].parent, "");
  EXPECT_THAT(told[1].hashes, ElementsAre(KeyOf('a'))) << "not twice in one event";
  EXPECT_THAT(told[2].hashes, ElementsAre(KeyOf('c')));
  EXPECT_THAT(told[3].hashes, ElementsAre(KeyOf('e'))) << "the snapshot is over";
}

TEST_F(RouterFeedTest, AGapClearsAndTellsAllAnewNotTooSoon) {
  EndSnapshot();
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a'))}, {Ns(1)});
  ASSERT_EQ(All().size(), 1U);
  Say({Event(StoreEventKind::kGap, 0), Event(StoreEventKind::kStored, 1, KeyOf('x'))});
  std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, Kind::kAllCleared);
  EXPECT_EQ(script_.open, 0);
  EXPECT_EQ(script_.asked, 1);
  clock_.Advance(kSnapshotPause);
  Say({Event(StoreEventKind::kStored, 1, KeyOf('b'))}, {Ns(1)});
  EndSnapshot();
  told = All();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_THAT(told[0].hashes, ElementsAre(KeyOf('b')));
  EXPECT_EQ(feed_->figures().snapshots, 2U);
  EXPECT_EQ(script_.open, 1);
}

TEST_F(RouterFeedTest, AGapBeforeAnythingWasToldSaysNothing) {
  EndSnapshot();
  Say({Event(StoreEventKind::kGap, 0)});
  EXPECT_THAT(All(), IsEmpty());
  clock_.Advance(kSnapshotPause);
  All();
  EXPECT_EQ(feed_->figures().snapshots, 2U);
}

TEST_F(RouterFeedTest, AClearOfTheOnlyNamespaceIsSaidAndNoMore) {
  EndSnapshot();
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a')), Event(StoreEventKind::kCleared, 1),
       Event(StoreEventKind::kStored, 1, KeyOf('b'))},
      {Ns(1)});
  const std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 3U);
  EXPECT_EQ(told[1].kind, Kind::kAllCleared);
  EXPECT_EQ(told[2].kind, Kind::kStored);
  EXPECT_EQ(feed_->figures().snapshots, 1U);
}

TEST_F(RouterFeedTest, AClearBesideOthersTellsThemAnew) {
  EndSnapshot();
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a')), Event(StoreEventKind::kStored, 2, KeyOf('b')),
       Event(StoreEventKind::kCleared, 1)},
      {Ns(1), Ns(2)});
  std::vector<RouterEvent> told = All();
  ASSERT_EQ(told.size(), 3U);
  EXPECT_EQ(told[2].kind, Kind::kAllCleared);
  clock_.Advance(kSnapshotPause);
  Say({Event(StoreEventKind::kStored, 2, KeyOf('b'))}, {Ns(2)});
  EndSnapshot();
  told = All();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_THAT(told[0].hashes, ElementsAre(KeyOf('b')));
}

TEST_F(RouterFeedTest, AClearOfWhatWasNeverToldSaysNothing) {
  EndSnapshot();
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a')), Event(StoreEventKind::kCleared, 2)},
      {Ns(1), Ns(2)});
  EXPECT_EQ(All().size(), 1U);
}

TEST_F(RouterFeedTest, OtherModelsAndShardsAreNotTold) {
  Make({"m/*", "CPU", "STORAGE"});
  ASSERT_EQ(All().size(), 1U);
  WatchedNamespace other = Ns(2);
  other.record.model = "n/8b";
  WatchedNamespace shard = Ns(3);
  shard.record.shard_count = 2;
  shard.record.shard_rank = 1;
  EndSnapshot();
  std::vector<StoreEvent> events;
  for (const uint64_t ns : {1U, 2U, 3U}) {
    events.push_back(Event(StoreEventKind::kStored, ns, KeyOf('a')));
    events.push_back(Event(StoreEventKind::kMoved, ns, KeyOf('a')));
    events.push_back(Event(StoreEventKind::kRemoved, ns, KeyOf('a')));
    events.push_back(Event(StoreEventKind::kCleared, ns));
  }
  Say(events, {Ns(1), other, shard});
  EXPECT_EQ(All().size(), 4U) << "of the first namespace alone";
  EXPECT_EQ(script_.open, 1);
}

TEST_F(RouterFeedTest, ARefusedWatchIsTriedAgain) {
  Make();
  script_.refusal = absl::ResourceExhaustedError("watchers: at most 16 a tenant");
  ASSERT_EQ(All().size(), 1U);
  EXPECT_EQ(feed_->figures().watch_refusals, 1U);
  All();
  EXPECT_EQ(feed_->figures().watch_refusals, 1U) << "not at once";
  clock_.Advance(absl::Seconds(1));
  All();
  EXPECT_EQ(feed_->figures().watch_refusals, 2U);
  script_.refusal = absl::OkStatus();
  clock_.Advance(absl::Seconds(1));
  Say({Event(StoreEventKind::kStored, 1, KeyOf('a'))}, {Ns(1)});
  EXPECT_EQ(All().size(), 1U);
}

}  // namespace
}  // namespace terrace
