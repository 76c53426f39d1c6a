// A store whose policy learns.
#include <cstdint>
#include <string>
#include <vector>

#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

constexpr uint32_t kBig = (1 << 20) - 4096;  // 64 slots of 1 MiB in a slab of 64 MiB

class ForesightTest : public StoreTest {
 protected:
  void SetUp() override {
    BlockStoreOptions options;
    options.policy = "phl";
    options.dram_bytes = uint64_t{64} << 20;
    Make(options);
  }
  uint32_t HitsOf(const std::vector<uint64_t>& keys) { return Probe({Part(keys)}).part_hits[0]; }
  // Three blocks from `first` on, as a request that ends its session or does not.
  static std::vector<uint64_t> Chain(uint64_t first) { return {first, first + 1, first + 2}; }
  PutResult PutChainOf(uint64_t first, bool session_end) {
    PutCall call = InlinePut(Chain(first), kBig);
    call.hints.session_end = session_end;
    return Put(std::move(call));
  }
};

TEST_F(ForesightTest, TheOldestChainGoesFirstAndItsSuffixBeforeItsPrefix) {
  for (uint64_t chain = 0; chain < 22; ++chain) {  // 66 blocks for 64 slots
    Put(InlinePut({chain * 10, chain * 10 + 1, chain * 10 + 2}, kBig));
    clock_.Advance(absl::Milliseconds(10));
  }
  EXPECT_EQ(HitsOf({0, 1, 2}), 1U);
  EXPECT_EQ(HitsOf({10, 11, 12}), 3U);
  EXPECT_EQ(HitsOf({210, 211, 212}), 3U);
}

TEST_F(ForesightTest, WhatIsWorthLessIsDeclinedWithAReasonPerKey) {
  uint32_t declined = 0;
  const auto put = [&](const std::vector<uint64_t>& keys, bool last_of_session) {
    PutCall call;
    call.part = Part(keys);
    call.payload.assign(keys.size() * kBig, 'x');
    call.payload_bytes.assign(keys.size(), kBig);
    call.deadline = clock_.Now() + absl::Seconds(5);
    call.hints.session_end = last_of_session;
    const PutResult result = Put(std::move(call));
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool refused = OutcomeAt(result, i) == PutOutcome::kDeclined;
      declined += refused ? 1 : 0;
      EXPECT_EQ(ReasonAt(result, i), refused ? Reason::kAdmission : Reason::kNone);
    }
  };
  for (uint64_t round = 0; round < 150; ++round) {
    for (uint64_t chain = 0; chain < 21; ++chain) {  // 63 blocks that are used all the time
      const std::vector<uint64_t> keys = {chain * 10, chain * 10 + 1, chain * 10 + 2};
      if (HitsOf(keys) == 0) {
        put(keys, false);
      }
    }
    const uint64_t once = round * 10 + 5'000;
    HitsOf({once, once + 1, once + 2});
    put({once, once + 1, once + 2}, true);
    clock_.Advance(absl::Seconds(10));
    store_->Tick();
  }
  EXPECT_GT(declined, 10U);
  EXPECT_EQ(store_->Usage().counters.put_reasons[static_cast<size_t>(Reason::kAdmission)],
            declined);
}

// It was seen often that what ends a session is not asked for again, and the rest is.
TEST_F(ForesightTest, APutOfWhatIsHereAlreadyMaySayHowTheRequestEnded) {
  const auto round = [&](uint64_t first) {
    for (const bool session_end : {false, true}) {
      const uint64_t chain = first + (session_end ? 5 : 0);
      HitsOf(Chain(chain));
      PutChainOf(chain, session_end);
    }
    clock_.Advance(absl::Seconds(10));
    store_->Tick();
    HitsOf(Chain(first));
  };
  for (uint64_t i = 0; i < 100; ++i) {
    round(10'000 + i * 10);
  }
  const uint64_t older = 100;
  const uint64_t newer = 200;
  for (const uint64_t chain : {older, newer}) {
    HitsOf(Chain(chain));
    PutChainOf(chain, false);
    clock_.Advance(absl::Milliseconds(10));
  }
  const PutResult again = PutChainOf(newer, true);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(OutcomeAt(again, i), PutOutcome::kDuplicate);
  }
  const auto whole = [&](uint64_t first) {
    return store_->InDram(tenant_, Part(Chain(first))) == std::string(3, '\1');
  };
  for (uint64_t chain = 1'000; whole(older) && whole(newer); chain += 10) {
    ASSERT_LT(chain, 5'000U);
    HitsOf(Chain(chain));
    PutChainOf(chain, false);
  }
  EXPECT_TRUE(whole(older));
}

}  // namespace
}  // namespace terrace::testing
