// What watchers are told of the local tier: demotion, promotion, and what it loses by itself.
#include <numeric>

#include "tests/doubles/event_mirror.h"
#include "tests/doubles/local_room.h"

namespace terrace {
namespace {

using doubles::EventMirror;
using doubles::LocalRoom;

class LocalEventsTest : public testing::Test {
 protected:
  void SetUp() override { room_.Open(); }
  void TearDown() override { mirror_.Leave(); }

  void Begin(bool snapshot) {
    mirror_.Watch(room_.store(), room_.caller().tenant, snapshot);
    Drain();
  }
  void Drain() {
    room_.Settle();
    mirror_.Drain([&] { room_.Settle(); });
  }
  std::vector<StoreEvent> News() {
    Drain();
    return mirror_.Told();
  }
  [[nodiscard]] std::string TierOf(uint64_t key) {
    return mirror_.TierOf(
        EventMirror::NameOf(room_.Part({key}).namespace_digest, LocalRoom::KeyOf(key)));
  }
  // Of every key below `end` what a probe says, against what the events say.
  void ExpectRight(uint64_t end) {
    Drain();
    ASSERT_FALSE(mirror_.gapped());
    for (uint64_t key = 0; key < end; ++key) {
      const KeyState state = room_.StateOf(key);
      const std::string held = state == KeyState::kReady   ? "g2"
                               : state == KeyState::kLower ? "g3"
                                                           : "";
      EXPECT_EQ(TierOf(key), held) << key;
    }
  }
  static std::vector<uint64_t> Keys(uint64_t first, uint64_t count) {
    std::vector<uint64_t> keys(count);
    std::iota(keys.begin(), keys.end(), first);
    return keys;
  }
  void PutEach(uint64_t first, uint64_t count) {
    for (uint64_t key = first; key < first + count; ++key) {
      room_.Put({key});
    }
  }

  LocalRoom room_;
  EventMirror mirror_;
};

TEST_F(LocalEventsTest, AnEvictionMovesWhatIsWrittenAndAReadMovesItBack) {
  Begin(false);
  room_.Put({1, 2});
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  EXPECT_EQ(News().size(), 1U) << "that it is written below as well is nobody's business";
  room_.Evict(0);
  std::vector<StoreEvent> told = News();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told[0].kind, StoreEventKind::kMoved);
  EXPECT_EQ(told[0].tier, "g3");
  EXPECT_EQ(TierOf(2), "g3");
  ASSERT_EQ(room_.Get(2), GetOutcome::kOk);
  told = News();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, StoreEventKind::kMoved);
  EXPECT_EQ(told[0].tier, "g2");
  ExpectRight(4);
}

TEST_F(LocalEventsTest, ADeleteRemovesABlockOnceWhereverItLies) {
  Begin(false);
  room_.Put({1, 2});
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  room_.Evict(0);
  ASSERT_EQ(room_.Get(1), GetOutcome::kOk);
  News();
  ASSERT_TRUE(room_.Delete({1, 2}).ok());
  const std::vector<StoreEvent> told = News();
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[0].kind, StoreEventKind::kRemoved);
  EXPECT_EQ(told[0].tier, "g2");
  EXPECT_EQ(told[1].kind, StoreEventKind::kRemoved);
  EXPECT_EQ(told[1].tier, "g3");
  ExpectRight(4);
}

TEST_F(LocalEventsTest, WhatAReclaimLetsGoIsRemoved) {
  room_.Close();
  room_.tier_options.capacity_bytes = 24 * LocalRoom::kSegment;
  room_.Open();
  Begin(false);
  PutEach(0, 500);
  ASSERT_GT(room_.tier().figures().records_reclaimed, 50U);
  ExpectRight(500);
}

TEST_F(LocalEventsTest, ABlockThatIsFoundDamagedIsRemoved) {
  Begin(false);
  room_.Put({1});
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  room_.Evict(0);
  News();
  for (const std::string& name : room_.disk().Names("/local")) {
    for (uint64_t at = 8192; name.starts_with("segment-") && at < LocalRoom::kPayload;
         at += 65536) {
      const std::string was = room_.disk().Read("/local", name, at, 1);
      room_.disk().Overwrite("/local", name, at, std::string(1, static_cast<char>(was[0] ^ 1)));
    }
  }
  EXPECT_EQ(room_.Get(1), GetOutcome::kCorrupt);
  ExpectRight(2);
  EXPECT_EQ(TierOf(1), "");
}

TEST_F(LocalEventsTest, ASnapshotNamesWhatOnlyTheLocalTierHolds) {
  PutEach(0, 150);
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  Begin(true);
  size_t lower = 0;
  for (const StoreEvent& event : mirror_.Told()) {
    lower += event.tier == "g3" ? 1 : 0;
    EXPECT_TRUE(event.tier != "g3" || event.block_tokens == 16);
  }
  EXPECT_GE(lower, 80U);
  ExpectRight(150);
}

TEST_F(LocalEventsTest, ARestartIsAnotherPublisherWhoseSnapshotNamesWhatIsFoundAgain) {
  Begin(false);
  PutEach(0, 100);
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  News();
  const uint64_t before = mirror_.publisher();
  mirror_.Leave();
  room_.Close();
  room_.Open();
  Begin(false);
  EXPECT_NE(mirror_.publisher(), before);
  EXPECT_TRUE(mirror_.gapped());
  Begin(true);
  EXPECT_EQ(mirror_.blocks(), 100U);
  ExpectRight(100);
}

TEST_F(LocalEventsTest, ANamespaceOfAnEarlierLifeThatIsOpenedIsAGap) {
  PutEach(0, 10);
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  room_.Close();
  room_.Open();
  room_.Settle();
  Begin(true);
  NamespaceRecord other = LocalRoom::Record();
  other.model = "another";
  ASSERT_TRUE(room_.store().OpenNamespace(room_.caller().tenant, other).ok());
  Drain();
  EXPECT_TRUE(mirror_.gapped()) << "nobody knows what the tier holds of it";
}

TEST_F(LocalEventsTest, AClearLeavesNothingOnAnyTier) {
  PutEach(0, 100);
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  Begin(true);
  EXPECT_EQ(mirror_.blocks(), 100U);
  ASSERT_TRUE(room_.Clear().ok());
  ExpectRight(100);
  EXPECT_EQ(mirror_.blocks(), 0U);
  mirror_.Leave();
  Begin(true);
  EXPECT_EQ(mirror_.blocks(), 0U) << "what still lies there is of an older generation";
}

TEST_F(LocalEventsTest, ADriveThatGoesIsAGap) {
  PutEach(0, 100);
  ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
  Begin(true);
  room_.disk().SwapFolder("/local");
  for (int i = 0; i < 40 && !mirror_.gapped(); ++i) {
    room_.Tick(absl::Milliseconds(500));
    room_.RunAll();
    mirror_.Step();
  }
  EXPECT_TRUE(mirror_.gapped());
  Begin(true);
  ExpectRight(100);
  room_.disk().SwapFolder("/local");
  for (int i = 0; i < 60 && !mirror_.gapped(); ++i) {
    room_.Tick(absl::Milliseconds(500));
    room_.RunAll();
    mirror_.Step();
  }
  EXPECT_TRUE(mirror_.gapped()) << "it is back, with blocks that nobody knows";
  Begin(true);
  EXPECT_EQ(mirror_.blocks(), 100U);
  ExpectRight(100);
}

}  // namespace
}  // namespace terrace
