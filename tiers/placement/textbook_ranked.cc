// Textbook policies that keep every block under a rank: lfu, lru2, gdsf, ttl, min.
#include <algorithm>
#include <deque>
#include <set>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"

#include "tiers/placement/textbook_makers.h"
#include "tiers/placement/textbook_pool.h"

namespace terrace {
namespace {

// The lowest (rank, tie) goes first. A subclass sets At(block).rank.
class RankedPool : public TextbookPool {
 protected:
  // Ties go the older way; min has its own.
  [[nodiscard]] virtual uint64_t Tie(const TextbookBlock& block) const { return block.stamp; }
  virtual void Rerank(BlockId block) = 0;  // sets the rank of a block that was used
  virtual void Gone(BlockId /*block*/) {}

  void Hit(BlockId block) final {
    Forget(block);
    Rerank(block);
    Keep(block);
  }
  void Entered(BlockId block) final {
    At(block).queue = 1;
    ++At(block).uses;
    Rerank(block);
    Keep(block);
  }
  void Left(BlockId block) final {
    Forget(block);
    Gone(block);
  }
  BlockId Choose() override { return Lowest(); }
  [[nodiscard]] BlockId Lowest() const {
    for (const auto& [rank, tie, block] : order_) {
      if (At(block).locks == 0) {
        return block;
      }
    }
    return kNoBlock;
  }

  void Keep(BlockId block) {
    const Place place{At(block).rank, Tie(At(block))};
    places_[block] = place;
    order_.emplace(place.rank, place.tie, block);
  }
  void Forget(BlockId block) {
    const auto found = places_.find(block);
    order_.erase({found->second.rank, found->second.tie, block});
    places_.erase(found);
  }

 private:
  struct Place {
    double rank;
    uint64_t tie;
  };

  std::set<std::tuple<double, uint64_t, BlockId>> order_;
  absl::flat_hash_map<BlockId, Place> places_;
};

class Lfu final : public RankedPool {
 public:
  [[nodiscard]] std::string_view name() const override { return "lfu"; }

 private:
  void Rerank(BlockId block) override { At(block).rank = At(block).uses; }
};

// Rank: when the last use but one was; 0 for a block that was used once. What is remembered of
// evicted blocks is bounded by the trace.
class Lru2 final : public RankedPool {
 public:
  [[nodiscard]] std::string_view name() const override { return "lru2"; }

 private:
  void Rerank(BlockId block) override {
    uint64_t& last = last_[At(block).name];
    At(block).rank = static_cast<double>(last);
    last = At(block).stamp;
  }

  absl::flat_hash_map<uint64_t, uint64_t> last_;
};

// Rank: uses x cost of computing the block again, above the rank of what was evicted last.
// Attention makes a block dearer with its depth; a block is worth at least what hangs on it.
class Gdsf final : public RankedPool {
 public:
  [[nodiscard]] std::string_view name() const override { return "gdsf"; }

 private:
  static constexpr double kLinearDepth = 64;  // blocks at which attention costs as much as the rest

  void Began(const ChainUse& /*use*/) override { deeper_ = 0; }
  void Rerank(BlockId block) override {
    const double cost = 1 + At(block).depth / kLinearDepth;
    deeper_ = std::max(deeper_, floor_ + static_cast<double>(At(block).uses) * cost);
    At(block).rank = deeper_;
  }
  void Gone(BlockId block) override { floor_ = std::max(floor_, At(block).rank); }

  double floor_ = 0;
  double deeper_ = 0;  // the highest rank in the request at hand, which is seen from its end
};

// Rank: recency; a kept block's is higher than any other's.
class TtlAfterToolCalls final : public RankedPool {
 public:
  [[nodiscard]] std::string_view name() const override { return "ttl"; }

 private:
  static constexpr absl::Duration kTtl = absl::Minutes(5);
  static constexpr double kKept = 1e15;

  struct Kept {
    absl::Duration until;
    BlockId block;
    uint64_t stamp;
  };

  void Began(const ChainUse& use) override {
    now_ = use.now;
    keep_ = use.hints.stop == StopReason::kToolCall;
    while (!kept_.empty() && kept_.front().until <= now_) {
      const Kept& kept = kept_.front();
      if (At(kept.block).queue != 0 && At(kept.block).stamp == kept.stamp) {
        Forget(kept.block);
        At(kept.block).rank = static_cast<double>(kept.stamp);
        Keep(kept.block);
      }
      kept_.pop_front();
    }
  }
  void Rerank(BlockId block) override {
    At(block).rank = static_cast<double>(At(block).stamp) + (keep_ ? kKept : 0);
    if (keep_) {
      kept_.push_back({now_ + kTtl, block, At(block).stamp});
    }
  }

  absl::Duration now_;
  bool keep_ = false;
  std::deque<Kept> kept_;  // in order of time
};

class Min final : public RankedPool {
 public:
  explicit Min(const FutureUse& future) : future_(future) {}
  [[nodiscard]] std::string_view name() const override { return "min"; }
  [[nodiscard]] bool Admits(const Newcomer& newcomer) override {
    const uint64_t next = future_.NextUse(newcomer.name);
    const BlockId victim = Lowest();
    return next != UINT64_MAX &&
           (victim == kNoBlock || -static_cast<double>(next) > At(victim).rank);
  }

 private:
  void Rerank(BlockId block) override {
    At(block).rank = -static_cast<double>(future_.NextUse(At(block).name));
  }
  [[nodiscard]] uint64_t Tie(const TextbookBlock& block) const override {
    return UINT64_MAX - block.depth;
  }

  const FutureUse& future_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeRankedPolicy(std::string_view name,
                                                 const TextbookOptions& options) {
  if (name == "lfu") {
    return std::make_unique<Lfu>();
  }
  if (name == "lru2") {
    return std::make_unique<Lru2>();
  }
  if (name == "gdsf") {
    return std::make_unique<Gdsf>();
  }
  if (name == "ttl") {
    return std::make_unique<TtlAfterToolCalls>();
  }
  if (name == "min" && options.future != nullptr) {
    return std::make_unique<Min>(*options.future);
  }
  return nullptr;
}

}  // namespace terrace
