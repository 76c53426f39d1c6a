// Random operations on the LRU policy against a list that is kept in order by hand.
#include <cstdint>
#include <iostream>
#include <iterator>
#include <list>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#include "gtest/gtest.h"

#include "tiers/placement/eviction_policy.h"

namespace terrace {
namespace {

// Oldest first; every operation walks.
class ListLru {
 public:
  void Insert(BlockId block) {
    order_.push_back(block);
    locks_[block] = 0;
  }
  void Touch(const std::vector<BlockId>& chain) {
    for (auto block = chain.rbegin(); block != chain.rend(); ++block) {
      order_.remove(*block);
      order_.push_back(*block);
    }
  }
  void Remove(BlockId block) {
    order_.remove(block);
    locks_.erase(block);
  }
  void Lock(BlockId block) { ++locks_[block]; }
  void Unlock(BlockId block) { --locks_[block]; }
  [[nodiscard]] int locks(BlockId block) const { return locks_.at(block); }
  [[nodiscard]] bool Has(BlockId block) const { return locks_.count(block) != 0; }
  [[nodiscard]] BlockId Victim() const {
    for (const BlockId block : order_) {
      if (locks_.at(block) == 0) {
        return block;
      }
    }
    return kNoBlock;
  }
  [[nodiscard]] uint64_t Rank(BlockId wanted) const {
    uint64_t before = 0;
    for (const BlockId block : order_) {
      if (block == wanted) {
        break;
      }
      before += locks_.at(block) == 0 ? 1U : 0U;
    }
    return before;
  }
  [[nodiscard]] size_t size() const { return order_.size(); }
  [[nodiscard]] BlockId At(size_t i) const {
    return *std::next(order_.begin(), static_cast<std::ptrdiff_t>(i));
  }

 private:
  std::list<BlockId> order_;
  std::unordered_map<BlockId, int> locks_;
};

struct Mix {
  uint32_t ids = 0;  // block ids in use lie below
  uint32_t steps = 0;
  uint32_t lock_share = 0;  // of 100 steps
};

class Comparison {
 public:
  Comparison(const Mix& mix, uint64_t seed) : mix_(mix), random_(seed) {}

  void Run() {
    for (uint32_t step = 0; step < mix_.steps && !testing::Test::HasFailure(); ++step) {
      Step();
      ASSERT_EQ(policy_->resident(), model_.size());
    }
    Drain();
  }

 private:
  uint32_t Below(size_t bound) {
    return static_cast<uint32_t>(random_() % static_cast<uint64_t>(bound));
  }

  void Step() {
    const uint32_t roll = Below(100);
    if (model_.size() == 0 || roll < 20) {
      Insert();
    } else if (roll < 20 + mix_.lock_share) {
      ChangeLock();
    } else if (roll < 85) {
      Touch();
    } else if (roll < 88) {
      Remove(model_.At(Below(model_.size())));
    } else if (roll < 90) {
      const BlockId block = model_.At(Below(model_.size()));
      ASSERT_EQ(policy_->Rank(block), model_.Rank(block));
    } else {
      ASSERT_EQ(policy_->Victim(), model_.Victim());
      if (model_.Victim() != kNoBlock) {
        Remove(model_.Victim());
      }
    }
  }

  void Insert() {
    const BlockId block{Below(mix_.ids) * 7};  // ids are sparse: other pools have the rest
    if (!model_.Has(block)) {
      policy_->Insert(block, {});
      model_.Insert(block);
    }
  }

  void Touch() {
    std::vector<BlockId> chain(1 + Below(30));
    for (BlockId& block : chain) {
      block = model_.At(Below(model_.size()));  // may name a block twice
    }
    policy_->Touch(chain);
    model_.Touch(chain);
  }

  void ChangeLock() {
    // Old blocks above all: those are passed over.
    const BlockId block = model_.At(Below(1 + Below(model_.size())));
    if (model_.locks(block) > 0 && Below(2) == 0) {
      policy_->Unlock(block);
      model_.Unlock(block);
    } else {
      policy_->Lock(block);
      model_.Lock(block);
    }
  }

  void Remove(BlockId block) {
    policy_->Remove(block);
    model_.Remove(block);
  }

  void Drain() {
    while (model_.size() != 0 && !testing::Test::HasFailure()) {
      ASSERT_EQ(policy_->Victim(), model_.Victim());
      if (model_.Victim() != kNoBlock) {
        Remove(model_.Victim());
        continue;
      }
      const BlockId block = model_.At(Below(model_.size()));
      policy_->Unlock(block);
      model_.Unlock(block);
    }
    ASSERT_EQ(policy_->Victim(), kNoBlock);
    ASSERT_EQ(policy_->resident(), 0U);
  }

  const Mix mix_;
  std::mt19937_64 random_;
  RecencySource recency_;
  std::unique_ptr<EvictionPolicy> policy_ = *MakeEvictionPolicy("lru", recency_);
  ListLru model_;
};

class LruModelTest : public testing::TestWithParam<Mix> {};

TEST_P(LruModelTest, ChoosesTheVictimsOfAnOrderedList) {
  for (int round = 0; round < 5; ++round) {
    const uint64_t seed = std::random_device()();
    std::cout << "seed " << seed << '\n';
    SCOPED_TRACE(seed);
    Comparison(GetParam(), seed).Run();
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes,
                         LruModelTest,
                         testing::Values(Mix{8, 20'000, 40},
                                         Mix{300, 20'000, 30},
                                         Mix{2'000, 20'000, 5},
                                         Mix{2'000, 20'000, 45}));

}  // namespace
}  // namespace terrace
