#include "tools/bench/block_ledger.h"

#include "gtest/gtest.h"

namespace terrace::bench {
namespace {

using Due = BlockLedger::Due;

class BlockLedgerTest : public testing::Test {
 protected:
  BlockLedger ledger_{3, BlockLedger::Promise::kKeepsAll};
};

TEST_F(BlockLedgerTest, NothingIsDueAtFirst) {
  EXPECT_EQ(ledger_.blocks(), 3U);
  EXPECT_EQ(ledger_.due(0), Due::kAbsent);
}

TEST_F(BlockLedgerTest, APutThatSurvivesIsDue) {
  ledger_.BeginPut(1);
  EXPECT_EQ(ledger_.due(1), Due::kMaybe);
  ledger_.PutSurvives(1);
  EXPECT_EQ(ledger_.due(1), Due::kThere);
  EXPECT_EQ(ledger_.due(0), Due::kAbsent);
  EXPECT_EQ(ledger_.due(2), Due::kAbsent);
}

TEST_F(BlockLedgerTest, WhatWasGoneComesWithOtherBytes) {
  ledger_.BeginPut(1);
  const uint64_t first = ledger_.version(1);
  ledger_.BeginPut(1);  // it may be there: the bytes are the same
  EXPECT_EQ(ledger_.version(1), first);
  ledger_.PutSurvives(1);
  ledger_.BeginPut(1);
  EXPECT_EQ(ledger_.version(1), first);
  EXPECT_EQ(ledger_.due(1), Due::kThere);  // a duplicate does it no harm
  ledger_.BeginDelete(1);
  ledger_.DeleteDone(1);
  ledger_.BeginPut(1);
  EXPECT_NE(ledger_.version(1), first);
}

TEST_F(BlockLedgerTest, ADeleteThatHasNotEndedLeavesBothPossible) {
  ledger_.BeginPut(1);
  ledger_.PutSurvives(1);
  const uint64_t version = ledger_.version(1);
  ledger_.BeginDelete(1);
  EXPECT_EQ(ledger_.due(1), Due::kMaybe);
  ledger_.BeginPut(1);  // the delete may not have been done, so that the bytes are the same
  EXPECT_EQ(ledger_.version(1), version);
  ledger_.BeginDelete(1);
  ledger_.DeleteDone(1);
  EXPECT_EQ(ledger_.due(1), Due::kAbsent);
  ledger_.BeginDelete(1);  // nothing is there that could come back
  EXPECT_EQ(ledger_.due(1), Due::kAbsent);
}

TEST_F(BlockLedgerTest, AClearIsADeleteOfAll) {
  ledger_.BeginPut(0);
  ledger_.PutSurvives(0);
  ledger_.BeginPut(1);
  ledger_.BeginClear();
  EXPECT_EQ(ledger_.due(0), Due::kMaybe);
  EXPECT_EQ(ledger_.due(1), Due::kMaybe);
  EXPECT_EQ(ledger_.due(2), Due::kAbsent);
  ledger_.ClearDone();
  EXPECT_EQ(ledger_.due(0), Due::kAbsent);
  EXPECT_EQ(ledger_.due(1), Due::kAbsent);
}

TEST(OverfullLedgerTest, NothingIsDueWhereThereIsNoRoomForAll) {
  BlockLedger ledger(1, BlockLedger::Promise::kMayForget);
  ledger.BeginPut(0);
  ledger.PutSurvives(0);
  EXPECT_EQ(ledger.due(0), Due::kMaybe);
  ledger.BeginDelete(0);
  ledger.DeleteDone(0);
  EXPECT_EQ(ledger.due(0), Due::kAbsent);
}

}  // namespace
}  // namespace terrace::bench
