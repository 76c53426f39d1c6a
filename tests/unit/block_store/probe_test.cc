// Probe: states by rule and the largest legal boundary over all parts.
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

TEST_F(StoreTest, APrefixEndsAtItsFirstMiss) {
  PutKeys({1, 2});
  PutKeys({4});
  const ProbeResult probe = Probe({Part({1, 2, 3, 4})});
  EXPECT_EQ(probe.part_hits[0], 2U);
  EXPECT_EQ(probe.boundary_tokens, 32U);
  EXPECT_EQ(probe.part_boundary_keys[0], 2U);
  EXPECT_EQ(probe.hit_bytes, 2U * kPayload);
  EXPECT_EQ(static_cast<KeyState>(probe.states[3]), KeyState::kMiss)
      << "not looked up behind the miss";
}

TEST_F(StoreTest, IndependentKeysAreAnsweredEachByItself) {
  PutKeys({1, 2});
  const ProbeResult probe = Probe({Part({9, 2, 8, 1}, Rule::kIndependent)});
  EXPECT_EQ(probe.part_hits[0], 2U);
  EXPECT_EQ(static_cast<KeyState>(probe.states[1]), KeyState::kReady);
  EXPECT_EQ(static_cast<KeyState>(probe.states[3]), KeyState::kReady);
}

TEST_F(StoreTest, AWindowNeedsOnlyItsLastTokens) {
  PutKeys({3, 4});
  StorePart window = Part({1, 2, 3, 4}, Rule::kWindow);
  window.window_tokens = 32;
  EXPECT_EQ(Probe({window}).boundary_tokens, 64U);
  window.window_tokens = 33;  // reaches one token into block 2, which is missing
  EXPECT_EQ(Probe({window}).boundary_tokens, 0U);
}

TEST_F(StoreTest, WhatLiesBeforeTheFirstNamedTokenCountsAsThere) {
  PutKeys({4});
  StorePart window = Part({4}, Rule::kWindow);
  window.first_token = 48;
  window.window_tokens = 32;
  EXPECT_EQ(Probe({window}).boundary_tokens, 64U);
}

TEST_F(StoreTest, AStateIsLegalOnlyWhereItEnds) {
  PutKeys({2});
  StorePart state = Part({1, 2, 3}, Rule::kStateAtEnd);
  EXPECT_EQ(Probe({state}).boundary_tokens, 32U);
  state.end_tokens = {100, 250, 300};
  EXPECT_EQ(Probe({state}).boundary_tokens, 250U);
}

// Full attention up to 4 blocks, a window that breaks at the 3rd, a state at 2 blocks: 32 tokens is
// what all accept.
TEST_F(StoreTest, TheBoundaryIsTheLargestThatAllPartsAccept) {
  PutKeys({1, 2, 3, 4});
  NamespaceRecord window_record = RecordOf(1 << 20);
  window_record.group = 1;
  window_record.group_kind = "sliding_window";
  NamespaceRecord state_record = RecordOf(1 << 20);
  state_record.group = 2;
  state_record.group_kind = "state";
  const auto store = [&](const NamespaceRecord& record, const std::vector<uint64_t>& keys) {
    PutCall call = InlinePut(keys);
    call.part.namespace_digest = Open(record);
    Put(std::move(call));
  };
  store(window_record, {1, 2, 4});
  store(state_record, {2, 4});
  StorePart full = Part({1, 2, 3, 4, 5});
  StorePart window = Part({1, 2, 3, 4, 5}, Rule::kWindow);
  window.namespace_digest = Open(window_record);
  window.window_tokens = 32;
  StorePart state = Part({1, 2, 3, 4, 5}, Rule::kStateAtEnd);
  state.namespace_digest = Open(state_record);
  const ProbeResult probe = Probe({full, window, state});
  EXPECT_EQ(probe.boundary_tokens, 32U);
  EXPECT_EQ(probe.part_boundary_keys, (std::vector<uint32_t>{2, 2, 2}));
}

TEST_F(StoreTest, TensorParallelRanksAgreeOnTheShortestPrefix) {
  const Digest128 rank0 = Open(RecordOf(1 << 20, 0, 2));
  const Digest128 rank1 = Open(RecordOf(1 << 20, 1, 2));
  ASSERT_NE(rank0, rank1);
  const auto store = [&](const Digest128& ns, const std::vector<uint64_t>& keys) {
    PutCall call = InlinePut(keys);
    call.part.namespace_digest = ns;
    Put(std::move(call));
  };
  store(rank0, {1, 2, 3});
  store(rank1, {1, 2});
  StorePart first = Part({1, 2, 3});
  first.namespace_digest = rank0;
  StorePart second = Part({1, 2, 3});
  second.namespace_digest = rank1;
  EXPECT_EQ(Probe({first, second}).boundary_tokens, 32U);
}

TEST_F(StoreTest, OnlyWhatLiesUnderTheBoundaryIsHeld) {
  PutKeys({1, 2});
  NamespaceRecord record = RecordOf(1 << 20, 1, 2);
  PutCall call = InlinePut({1});
  call.part.namespace_digest = Open(record);
  Put(std::move(call));
  StorePart shorter = Part({1, 2});
  shorter.namespace_digest = Open(record);
  Probe({Part({1, 2}), shorter}, absl::Seconds(10));
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_TRUE(Holds(1));
  EXPECT_FALSE(Holds(2));
}

TEST_F(StoreTest, UnknownNamespacesAreMisses) {
  StorePart part = Part({1});
  part.namespace_digest = Digest128{7, 7};
  const ProbeResult probe = Probe({part});
  EXPECT_EQ(static_cast<KeyState>(probe.states[0]), KeyState::kMiss);
  EXPECT_EQ(probe.boundary_tokens, 0U);
}

TEST_F(StoreTest, EmptyPartsAreAnswered) {
  EXPECT_EQ(Probe({Part({})}).boundary_tokens, 0U);
  EXPECT_TRUE(Probe({}).states.empty());
}

}  // namespace
}  // namespace terrace::testing
