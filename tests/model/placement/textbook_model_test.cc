// Textbook policies against naive ones, and min against every choice that there is.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tiers/placement/replay.h"

namespace terrace {
namespace {

using Chain = std::vector<uint64_t>;
using Trace = std::vector<Chain>;

// Chains of a random tree: a block's name says what leads to it.
Trace RandomTrace(uint64_t seed, size_t requests, uint64_t fan_out, uint64_t longest) {
  std::mt19937_64 random(seed);
  std::map<std::vector<uint64_t>, uint64_t> names;
  Trace trace;
  for (size_t r = 0; r < requests; ++r) {
    Chain chain;
    std::vector<uint64_t> path;
    const uint64_t length = 1 + random() % longest;
    for (uint64_t i = 0; i < length; ++i) {
      path.push_back(random() % fan_out);
      chain.push_back(names.emplace(path, names.size()).first->second);
    }
    trace.push_back(chain);
  }
  return trace;
}

uint64_t Distinct(const Trace& trace) {
  uint64_t most = 0;
  for (const Chain& chain : trace) {
    most = std::max(most, *std::max_element(chain.begin(), chain.end()));
  }
  return most + 1;
}

class TraceFuture final : public FutureUse {
 public:
  explicit TraceFuture(const Trace& trace) : trace_(trace) {}
  void Reach(size_t request) { at_ = request; }
  [[nodiscard]] uint64_t NextUse(uint64_t name) const override {
    for (size_t r = at_ + 1; r < trace_.size(); ++r) {
      if (std::find(trace_[r].begin(), trace_[r].end(), name) != trace_[r].end()) {
        return r;
      }
    }
    return UINT64_MAX;
  }

 private:
  const Trace& trace_;
  size_t at_ = 0;
};

uint64_t HitsOf(std::string_view policy, const Trace& trace, uint64_t capacity) {
  TraceFuture future(trace);
  auto replay =
      *PlacementReplay::CreateAny(policy, {.capacity_blocks = capacity, .future = &future});
  for (size_t r = 0; r < trace.size(); ++r) {
    future.Reach(r);
    replay->Request({absl::Seconds(r), trace[r], {}});
  }
  return replay->counts().hits;
}

// Blocks in a list; each has numbers, the smallest (first, second) goes first.
class NaiveCache {
 public:
  using Rank = std::function<std::pair<uint64_t, uint64_t>(const std::vector<uint64_t>& uses)>;
  NaiveCache(uint64_t capacity, bool remembers, Rank rank)
      : capacity_(capacity), remembers_(remembers), rank_(std::move(rank)) {}

  uint64_t Request(const Chain& chain) {
    size_t hits = 0;
    while (hits < chain.size() && resident_.count(chain[hits]) != 0) {
      ++hits;
    }
    for (size_t i = hits; i > 0; --i) {
      uses_[chain[i - 1]].push_back(++turn_);
    }
    std::vector<uint64_t> own(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(hits));
    for (size_t i = hits; i < chain.size(); ++i) {
      if (resident_.count(chain[i]) == 0 && resident_.size() == capacity_ && !EvictNoneOf(own)) {
        break;
      }
      resident_[chain[i]] = true;
      own.push_back(chain[i]);
    }
    for (size_t i = own.size(); i > hits; --i) {
      uses_[own[i - 1]].push_back(++turn_);
    }
    return hits;
  }

 private:
  bool EvictNoneOf(const std::vector<uint64_t>& own) {
    uint64_t victim = UINT64_MAX;
    for (const auto& [name, held] : resident_) {
      if (std::find(own.begin(), own.end(), name) == own.end() &&
          (victim == UINT64_MAX || rank_(uses_[name]) < rank_(uses_[victim]))) {
        victim = name;
      }
    }
    if (victim == UINT64_MAX) {
      return false;
    }
    resident_.erase(victim);
    if (!remembers_) {
      uses_.erase(victim);
    }
    return true;
  }

  const uint64_t capacity_;
  const bool remembers_;
  const Rank rank_;
  uint64_t turn_ = 0;
  std::map<uint64_t, bool> resident_;
  std::map<uint64_t, std::vector<uint64_t>> uses_;
};

// All blocks of a request are new or hit: where chains are always asked for from their beginning
// and nothing is evicted from under a child, there is no other case.
Trace SingleBlocks(uint64_t seed, size_t requests, uint64_t names) {
  std::mt19937_64 random(seed);
  Trace trace;
  for (size_t r = 0; r < requests; ++r) {
    trace.push_back({std::min(random() % names, random() % names)});
  }
  return trace;
}

struct Naive {
  const char* policy;
  bool remembers;
  NaiveCache::Rank rank;
};

class NaiveTest : public testing::TestWithParam<Naive> {};

TEST_P(NaiveTest, HitsTheSame) {
  for (int round = 0; round < 20; ++round) {
    const uint64_t seed = std::random_device()();
    SCOPED_TRACE(seed);
    const Trace trace = SingleBlocks(seed, 3'000, 60);
    for (const uint64_t capacity : {1U, 5U, 20U, 50U}) {
      NaiveCache naive(capacity, GetParam().remembers, GetParam().rank);
      uint64_t hits = 0;
      for (const Chain& chain : trace) {
        hits += naive.Request(chain);
      }
      ASSERT_EQ(HitsOf(GetParam().policy, trace, capacity), hits) << capacity;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Policies,
    NaiveTest,
    testing::Values(
        Naive{"lru", false, [](const auto& uses) { return std::pair(uses.back(), uint64_t{0}); }},
        Naive{"fifo", false, [](const auto& uses) { return std::pair(uses.front(), uint64_t{0}); }},
        Naive{"lfu", false,
              [](const auto& uses) { return std::pair(uint64_t{uses.size()}, uses.back()); }},
        Naive{"lru2", true,
              [](const auto& uses) {
                return std::pair(uses.size() < 2 ? 0 : uses[uses.size() - 2], uses.back());
              }}),
    [](const testing::TestParamInfo<Naive>& each) { return std::string(each.param.policy); });

// The most hits from request r on, by trying every set of blocks that could be kept.
class EveryChoice {
 public:
  EveryChoice(const Trace& trace, uint64_t capacity) : trace_(trace), capacity_(capacity) {}
  uint64_t Best(size_t r, uint32_t held) {
    if (r == trace_.size()) {
      return 0;
    }
    const auto known = best_.find({r, held});
    if (known != best_.end()) {
      return known->second;
    }
    uint64_t hits = 0;
    uint32_t within_reach = held;
    for (size_t i = 0; i < trace_[r].size(); ++i) {
      hits += hits == i && (held >> trace_[r][i] & 1U) != 0 ? 1 : 0;
      within_reach |= 1U << trace_[r][i];
    }
    uint64_t most = 0;
    for (uint32_t keep = within_reach;; keep = (keep - 1) & within_reach) {
      if (static_cast<uint64_t>(__builtin_popcount(keep)) <= capacity_) {
        most = std::max(most, Best(r + 1, keep));
      }
      if (keep == 0) {
        break;
      }
    }
    return best_[{r, held}] = hits + most;
  }

 private:
  const Trace& trace_;
  const uint64_t capacity_;
  std::map<std::pair<size_t, uint32_t>, uint64_t> best_;
};

TEST(MinModel, IsTheBestThatAnyChoiceCouldDo) {
  int compared = 0;
  for (uint64_t seed = 1; compared < 60; ++seed) {
    const Trace trace = RandomTrace(seed, 9, 2, 3);
    if (Distinct(trace) > 8) {
      continue;
    }
    ++compared;
    for (const uint64_t capacity : {1U, 2U, 3U, 5U}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", capacity " + std::to_string(capacity));
      ASSERT_EQ(HitsOf("min", trace, capacity), EveryChoice(trace, capacity).Best(0, 0));
    }
  }
}

TEST(MinModel, NoPolicyHitsMore) {
  for (uint64_t seed = 1; seed <= 15; ++seed) {
    const Trace trace = RandomTrace(seed, 400, 3, 6);
    for (const uint64_t capacity : {3U, 10U, 40U, 100U}) {
      const uint64_t most = HitsOf("min", trace, capacity);
      for (const std::string_view policy : ReplayPolicyNames()) {
        EXPECT_LE(HitsOf(policy, trace, capacity), most)
            << policy << ", seed " << seed << ", capacity " << capacity;
      }
    }
  }
}

TEST(Replay, EveryPolicyStaysWithinItsCapacity) {
  const Trace trace = RandomTrace(7, 500, 3, 6);
  for (const std::string_view policy : ReplayPolicyNames()) {
    TraceFuture future(trace);
    auto replay = *PlacementReplay::CreateAny(policy, {.capacity_blocks = 9, .future = &future});
    for (size_t r = 0; r < trace.size(); ++r) {
      future.Reach(r);
      replay->Request({absl::Seconds(r), trace[r], {}});
      ASSERT_LE(replay->policy().resident(), 9U) << policy;
    }
    const ReplayCounts& counts = replay->counts();
    EXPECT_EQ(counts.stored - counts.evicted, replay->policy().resident()) << policy;
  }
}

}  // namespace
}  // namespace terrace
