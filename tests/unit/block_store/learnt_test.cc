// What a store's policies have learnt, kept for its next life.
#include <cstdint>
#include <string>
#include <vector>

#include "daemon/store/learnt_format.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

constexpr uint32_t kBig = 1 << 20;  // as the namespace says, which probes go by

const std::vector<LearntPolicy> kTwo = {{"a", 4096, "abc"}, {"team-b", uint64_t{1} << 33, ""}};

TEST(LearntFormat, KeepsItsBytes) {
  const std::string bytes = EncodeLearnt({{"a", 4096, "xyz"}});
  const std::string known("TRLEARNT\1\0\0\0\1\0\0\0\1\0a\0\x10\0\0\0\0\0\0\3\0\0\0xyz", 34);
  ASSERT_EQ(bytes.size(), known.size() + 8);
  EXPECT_EQ(bytes.substr(0, known.size()), known);
}

TEST(LearntFormat, ComesBackAsItWas) {
  EXPECT_EQ(*DecodeLearnt(EncodeLearnt(kTwo)), kTwo);
  EXPECT_TRUE(DecodeLearnt(EncodeLearnt({}))->empty());
}

TEST(LearntFormat, RefusesEveryOtherLengthAndEveryFlippedByte) {
  const std::string bytes = EncodeLearnt(kTwo);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(DecodeLearnt(bytes.substr(0, length)).ok()) << length;
  }
  EXPECT_EQ(DecodeLearnt(bytes + "x").status().code(), absl::StatusCode::kDataLoss);
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    EXPECT_FALSE(DecodeLearnt(flipped).ok()) << at;
  }
}

TEST(LearntFormat, SaysThatAFileIsOfAnotherVersion) {
  std::string bytes = EncodeLearnt(kTwo);
  bytes[8] = 2;
  EXPECT_EQ(DecodeLearnt(bytes).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(LearntFormat, LeavesOutWhatIsBeyondItsLimits) {
  const std::vector<LearntPolicy> many(kMaxLearntPolicies + 3, {"a", 4096, "abc"});
  EXPECT_EQ(DecodeLearnt(EncodeLearnt(many))->size(), kMaxLearntPolicies);
  const std::vector<LearntPolicy> large(3, {"a", 4096, std::string(kMaxLearntBytes / 3, 'x')});
  EXPECT_EQ(DecodeLearnt(EncodeLearnt(large))->size(), 2U);
}

class LearntTest : public StoreTest {
 protected:
  void SetUp() override { Begin({}); }
  void Begin(std::vector<LearntPolicy> learnt) {
    learnt_ = std::move(learnt);
    BlockStoreOptions options;
    options.policy = "phl";
    options.dram_bytes = uint64_t{64} << 20;
    Make(options);
  }
  uint32_t HitsOf(const std::vector<uint64_t>& keys) { return Probe({Part(keys)}).part_hits[0]; }
  void PutChain(const std::vector<uint64_t>& keys) { Put(InlinePut(keys, kBig)); }
  void Rounds(uint64_t first, uint64_t count) {
    for (uint64_t round = first; round < first + count; ++round) {
      for (uint64_t chain = 0; chain < 4; ++chain) {
        const std::vector<uint64_t> keys = {chain * 10, chain * 10 + 1};
        if (HitsOf(keys) == 0) {
          PutChain(keys);
        }
      }
      HitsOf({round * 10 + 5'000});
      PutChain({round * 10 + 5'000});
      clock_.Advance(absl::Seconds(10));
      store_->Tick();
    }
  }
};

TEST_F(LearntTest, ALaterLifeGoesOnFromWhatWasSaved) {
  Rounds(0, 100);
  const std::vector<LearntPolicy> saved = store_->SaveLearnt();
  ASSERT_EQ(saved.size(), 1U);
  EXPECT_EQ(saved[0].tenant, "a");
  EXPECT_GT(saved[0].slot_bytes, kBig);
  ASSERT_TRUE(CheckLearnt("phl", saved[0].bytes).ok());

  Begin(saved);
  EXPECT_EQ(store_->SaveLearnt(), saved) << "it is kept until the tenant's pool is there again";
  PutChain({1});
  store_->Tick();
  const std::vector<LearntPolicy> later = store_->SaveLearnt();
  ASSERT_EQ(later.size(), 1U);
  EXPECT_GE(later[0].bytes.size(), saved[0].bytes.size());
}

TEST_F(LearntTest, WhatCannotBeLoadedIsForgotten) {
  Rounds(0, 1);
  const uint64_t slot_bytes = store_->SaveLearnt().at(0).slot_bytes;
  Begin({{"a", slot_bytes, "garbage"}});
  Rounds(0, 3);
  ASSERT_EQ(store_->SaveLearnt().size(), 1U);
  EXPECT_TRUE(CheckLearnt("phl", store_->SaveLearnt()[0].bytes).ok());
}

TEST_F(LearntTest, AStoreWhosePolicyDoesNotLearnHasNothingToKeep) {
  Make(BlockStoreOptions{});
  EXPECT_TRUE(store_->SaveLearnt().empty());
}

}  // namespace
}  // namespace terrace::testing
