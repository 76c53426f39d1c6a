// The journal alone: numbers, bounds, what shares an event.
#include "daemon/store/event_journal.h"

#include <string>

#include <gtest/gtest.h>

namespace terrace {
namespace {

std::string Key(uint8_t n) {
  return std::string(31, 'k') + static_cast<char>(n);
}

StoreEvent Stored(uint8_t n, uint8_t parent = 0) {
  StoreEvent event;
  event.kind = StoreEventKind::kStored;
  event.key_bytes = 32;
  event.keys = Key(n);
  event.parent = parent == 0 ? "" : Key(parent);
  event.first_token = uint64_t{16} * parent;
  event.block_tokens = 16;
  event.tier = "g2";
  return event;
}
StoreEvent Removed(uint8_t n, const std::string& tier = "g2") {
  StoreEvent event;
  event.kind = StoreEventKind::kRemoved;
  event.key_bytes = 32;
  event.keys = Key(n);
  event.tier = tier;
  return event;
}

class EventJournalTest : public testing::Test {
 protected:
  void SetUp() override { journal_.Start(); }
  EventJournal journal_{{.events = 4, .bytes = 100'000, .event_bytes = 2000}};
};

TEST_F(EventJournalTest, NumbersRiseByOneAndNothingIsKeptOfTheTimeBefore) {
  EXPECT_EQ(journal_.See(), 1U) << "what nobody recorded counts as one event";
  EXPECT_EQ(journal_.oldest(), 2U);
  journal_.Add(Stored(1));
  EXPECT_EQ(journal_.See(), 2U);
  EXPECT_EQ(journal_.oldest(), 2U);
  EXPECT_EQ(journal_.at(2).keys, Key(1));
  EXPECT_EQ(journal_.at(2).sequence, 2U);
}

TEST_F(EventJournalTest, AChainIsOneEventAsLongAsNobodyHasSeenIt) {
  journal_.Add(Stored(1));
  journal_.Add(Stored(2, 1));
  journal_.Add(Stored(3, 2));
  ASSERT_EQ(journal_.See(), 2U);
  EXPECT_EQ(journal_.at(2).keys, Key(1) + Key(2) + Key(3));
  EXPECT_EQ(journal_.at(2).parent, "");
  journal_.Add(Stored(4, 3));
  EXPECT_EQ(journal_.See(), 3U);
  EXPECT_EQ(journal_.at(2).key_count(), 3U);
}

TEST_F(EventJournalTest, WhatIsNoChainIsStoredByEventsOfItsOwn) {
  journal_.Add(Stored(1));
  journal_.Add(Stored(3, 2));  // another parent
  StoreEvent late = Stored(4, 3);
  late.first_token = 70;  // not where the parent ends
  journal_.Add(late);
  StoreEvent told = Stored(5, 4);
  told.first_token = 86;
  told.metadata.emplace_back();  // told of one, and not of the other
  journal_.Add(told);
  EXPECT_EQ(journal_.See(), 5U);
}

TEST_F(EventJournalTest, NamespacesSaltsTiersAndKindsAreNotMixed) {
  journal_.Add(Removed(1));
  journal_.Add(Removed(2));
  EXPECT_EQ(journal_.See(), 2U) << "removals need no order";
  journal_.Add(Removed(3, "g3"));
  StoreEvent salted = Removed(4, "g3");
  salted.salt = "s";
  journal_.Add(salted);
  StoreEvent foreign = salted;
  foreign.namespace_digest.lo = 7;
  journal_.Add(foreign);
  EXPECT_EQ(journal_.See(), 5U);
  StoreEvent cleared;
  cleared.kind = StoreEventKind::kCleared;
  journal_.Add(cleared);
  journal_.Add(cleared);
  EXPECT_EQ(journal_.See(), 7U);
}

TEST_F(EventJournalTest, AnEventDoesNotGrowWithoutEnd) {
  for (uint8_t n = 0; n < 100; ++n) {
    journal_.Add(Removed(n));
  }
  EXPECT_GT(journal_.See(), 2U);
  EXPECT_LE(journal_.at(journal_.See()).bytes(), 2000U);
}

TEST_F(EventJournalTest, TheOldestFallOutByNumberAndByBytes) {
  for (uint8_t n = 1; n <= 6; ++n) {
    journal_.Add(Stored(n));
  }
  EXPECT_EQ(journal_.See(), 7U);
  EXPECT_EQ(journal_.oldest(), 4U);
  StoreEvent large = Stored(9);
  large.metadata.emplace_back();
  large.metadata.back().extra_keys.assign(99'000, 'x');
  journal_.Add(large);
  EXPECT_LE(journal_.bytes(), 100'000U);
  journal_.Add(large);
  EXPECT_EQ(journal_.oldest(), journal_.See()) << "one is kept, however large";
}

TEST_F(EventJournalTest, WhatCannotBeToldIsLostLikeAllBefore) {
  journal_.Add(Stored(1));
  journal_.Lose();
  EXPECT_EQ(journal_.See(), 3U);
  EXPECT_EQ(journal_.oldest(), 4U);
  EXPECT_EQ(journal_.bytes(), 0U);
}

TEST_F(EventJournalTest, APauseIsAHole) {
  journal_.Add(Stored(1));
  const uint64_t before = journal_.See();
  journal_.Stop();
  EXPECT_FALSE(journal_.recording());
  EXPECT_EQ(journal_.bytes(), 0U);
  journal_.Start();
  EXPECT_GT(journal_.oldest(), before + 1) << "who goes on behind the last one has missed some";
  const uint64_t newest = journal_.See();
  journal_.Start();
  EXPECT_EQ(journal_.See(), newest) << "it was on";
}

}  // namespace
}  // namespace terrace
