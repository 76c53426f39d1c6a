// Textbook policies made of queues: fifo, 2q, arc, s3fifo, sieve, wtinylfu.
#include <algorithm>
#include <array>

#include "tiers/placement/textbook_makers.h"
#include "tiers/placement/textbook_pool.h"

namespace terrace {
namespace {

uint64_t Share(uint64_t capacity, double share) {
  return std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(capacity) * share));
}

class Fifo final : public TextbookPool {
 public:
  [[nodiscard]] std::string_view name() const override { return "fifo"; }

 private:
  void Hit(BlockId /*block*/) override {}
  void Entered(BlockId block) override { PushNewest(queue_, block); }
  void Left(BlockId block) override { Unlink(queue_, block); }
  BlockId Choose() override { return OldestUnlocked(queue_); }

  Queue queue_;
};

class TwoQueues final : public TextbookPool {
 public:
  explicit TwoQueues(uint64_t capacity)
      : in_limit_(Share(capacity, 0.25)), out_(Share(capacity, 0.5)) {}
  [[nodiscard]] std::string_view name() const override { return "2q"; }

 private:
  void Hit(BlockId block) override {
    if (At(block).queue == main_.id) {
      Unlink(main_, block);
      PushNewest(main_, block);
    }
  }
  void Entered(BlockId block) override {
    const bool known = out_.Has(At(block).name);
    out_.Drop(At(block).name);
    PushNewest(known ? main_ : in_, block);
  }
  void Left(BlockId block) override {
    if (At(block).queue == in_.id) {
      out_.Add(At(block).name);
      Unlink(in_, block);
    } else {
      Unlink(main_, block);
    }
  }
  BlockId Choose() override {
    const BlockId in = OldestUnlocked(in_);
    const BlockId main = OldestUnlocked(main_);
    return main == kNoBlock || (in != kNoBlock && in_.size > in_limit_) ? in : main;
  }

  const uint64_t in_limit_;
  Queue in_{.id = 1};
  Queue main_{.id = 2};
  GhostQueue out_;
};

class Arc final : public TextbookPool {
 public:
  explicit Arc(uint64_t capacity)
      : capacity_(static_cast<double>(capacity)),
        once_gone_(capacity),
        often_gone_(capacity),
        limit_(capacity) {}
  [[nodiscard]] std::string_view name() const override { return "arc"; }

 private:
  void Hit(BlockId block) override {
    Unlink(At(block).queue == once_.id ? once_ : often_, block);
    PushNewest(often_, block);
  }
  void Entered(BlockId block) override {
    const uint64_t name = At(block).name;
    const auto once = static_cast<double>(once_gone_.size());
    const auto often = static_cast<double>(often_gone_.size());
    if (once_gone_.Has(name)) {
      target_ = std::min(capacity_, target_ + std::max(1.0, often / once));
      once_gone_.Drop(name);
      PushNewest(often_, block);
    } else if (often_gone_.Has(name)) {
      target_ = std::max(0.0, target_ - std::max(1.0, once / often));
      often_gone_.Drop(name);
      PushNewest(often_, block);
    } else {
      PushNewest(once_, block);
    }
    while (once_gone_.size() > 0 && once_.size + once_gone_.size() > limit_) {
      once_gone_.DropOldest();
    }
    while (often_gone_.size() > 0 &&
           once_.size + often_.size + once_gone_.size() + often_gone_.size() > 2 * limit_) {
      often_gone_.DropOldest();
    }
  }
  void Left(BlockId block) override {
    const bool once = At(block).queue == once_.id;
    (once ? once_gone_ : often_gone_).Add(At(block).name);
    Unlink(once ? once_ : often_, block);
  }
  BlockId Choose() override {
    const BlockId once = OldestUnlocked(once_);
    const BlockId often = OldestUnlocked(often_);
    const bool from_once = static_cast<double>(once_.size) > target_;
    return often == kNoBlock || (once != kNoBlock && from_once) ? once : often;
  }

  const double capacity_;
  double target_ = 0;  // of once_
  Queue once_{.id = 1};
  Queue often_{.id = 2};
  GhostQueue once_gone_;
  GhostQueue often_gone_;
  const uint64_t limit_;
};

class S3Fifo final : public TextbookPool {
 public:
  explicit S3Fifo(uint64_t capacity)
      : small_limit_(Share(capacity, 0.1)), gone_(Share(capacity, 0.9)) {}
  [[nodiscard]] std::string_view name() const override { return "s3fifo"; }

 private:
  void Hit(BlockId block) override { At(block).uses = std::min(At(block).uses, 3U); }
  void Entered(BlockId block) override {
    const bool known = gone_.Has(At(block).name);
    gone_.Drop(At(block).name);
    PushNewest(known ? main_ : small_, block);
  }
  void Left(BlockId block) override {
    if (At(block).queue == small_.id) {
      gone_.Add(At(block).name);
      Unlink(small_, block);
    } else {
      Unlink(main_, block);
    }
  }
  BlockId Choose() override {
    for (;;) {
      const BlockId small = OldestUnlocked(small_);
      const BlockId main = OldestUnlocked(main_);
      if (small != kNoBlock && (main == kNoBlock || small_.size >= small_limit_)) {
        if (At(small).uses < 2) {
          return small;
        }
        Unlink(small_, small);
        At(small).uses = 0;
        PushNewest(main_, small);
        continue;
      }
      if (main == kNoBlock || At(main).uses == 0) {
        return main;
      }
      --At(main).uses;
      Unlink(main_, main);
      PushNewest(main_, main);
    }
  }

  const uint64_t small_limit_;
  Queue small_{.id = 1};
  Queue main_{.id = 2};
  GhostQueue gone_;
};

class Sieve final : public TextbookPool {
 public:
  [[nodiscard]] std::string_view name() const override { return "sieve"; }

 private:
  void Hit(BlockId block) override { At(block).marked = true; }
  void Entered(BlockId block) override { PushNewest(queue_, block); }
  void Left(BlockId block) override {
    if (hand_ == block) {
      hand_ = At(block).newer;
    }
    Unlink(queue_, block);
  }
  BlockId Choose() override {
    if (OldestUnlocked(queue_) == kNoBlock) {
      return kNoBlock;
    }
    for (;;) {
      hand_ = hand_ == kNoBlock ? queue_.oldest : hand_;
      TextbookBlock& at = At(hand_);
      if (at.locks == 0 && !at.marked) {
        return hand_;
      }
      at.marked = at.marked && at.locks != 0;
      hand_ = at.newer;
    }
  }

  Queue queue_;
  BlockId hand_ = kNoBlock;
};

// Counts how often a name was seen lately, in four rows of counters up to 15 that are halved when
// ten times the capacity has been counted.
class FrequencySketch {
 public:
  explicit FrequencySketch(uint64_t capacity) : sample_(capacity * 10) {
    uint64_t size = 64;
    while (size < capacity * 2) {
      size *= 2;
    }
    for (auto& row : rows_) {
      row.assign(size, 0);
    }
  }
  void Count(uint64_t name) {
    for (size_t i = 0; i < rows_.size(); ++i) {
      uint8_t& counter = rows_[i][Slot(name, i)];
      counter = static_cast<uint8_t>(std::min(15, counter + 1));
    }
    if (++counted_ >= sample_) {
      counted_ /= 2;
      for (auto& row : rows_) {
        for (uint8_t& counter : row) {
          counter = static_cast<uint8_t>(counter / 2);
        }
      }
    }
  }
  [[nodiscard]] uint32_t Estimate(uint64_t name) const {
    uint32_t least = 15;
    for (size_t i = 0; i < rows_.size(); ++i) {
      least = std::min<uint32_t>(least, rows_[i][Slot(name, i)]);
    }
    return least;
  }

 private:
  [[nodiscard]] size_t Slot(uint64_t name, size_t row) const {
    uint64_t mixed = (name + row * 0x9E3779B97F4A7C15U) * 0xD6E8FEB86659FD93U;
    mixed = (mixed ^ (mixed >> 32U)) * 0xD6E8FEB86659FD93U;
    return (mixed ^ (mixed >> 32U)) & (rows_[row].size() - 1);
  }
  std::array<std::vector<uint8_t>, 4> rows_;
  const uint64_t sample_;
  uint64_t counted_ = 0;
};

class WindowTinyLfu final : public TextbookPool {
 public:
  explicit WindowTinyLfu(uint64_t capacity)
      : capacity_(capacity),
        window_limit_(Share(capacity, 0.01)),
        protected_limit_(Share(capacity, 0.99 * 0.8)),
        sketch_(capacity) {}
  [[nodiscard]] std::string_view name() const override { return "wtinylfu"; }

 private:
  void Began(const ChainUse& use) override {
    for (size_t i = use.names.size(); i > 0; --i) {
      sketch_.Count(use.names[i - 1]);
    }
  }
  void Hit(BlockId block) override {
    if (At(block).queue == window_.id) {
      Unlink(window_, block);
      PushNewest(window_, block);
      return;
    }
    Unlink(At(block).queue == probation_.id ? probation_ : protected_, block);
    PushNewest(protected_, block);
    while (protected_.size > protected_limit_) {
      const BlockId demoted = protected_.oldest;
      Unlink(protected_, demoted);
      PushNewest(probation_, demoted);
    }
  }
  void Entered(BlockId block) override {
    PushNewest(window_, block);
    if (resident() < capacity_ && window_.size > window_limit_) {  // room for all
      Demote(window_.oldest);
    }
  }
  void Left(BlockId block) override {
    const uint8_t queue = At(block).queue;
    Unlink(queue == window_.id ? window_ : (queue == probation_.id ? probation_ : protected_),
           block);
  }
  BlockId Choose() override {
    const BlockId candidate = OldestUnlocked(window_);
    BlockId victim = OldestUnlocked(probation_);
    victim = victim == kNoBlock ? OldestUnlocked(protected_) : victim;
    if (victim == kNoBlock) {
      return candidate;
    }
    if (candidate == kNoBlock || window_.size <= window_limit_) {
      return victim;
    }
    if (sketch_.Estimate(At(candidate).name) <= sketch_.Estimate(At(victim).name)) {
      return candidate;
    }
    Demote(candidate);
    return victim;
  }
  void Demote(BlockId block) {
    Unlink(window_, block);
    PushNewest(probation_, block);
  }

  const uint64_t capacity_;
  const uint64_t window_limit_;
  const uint64_t protected_limit_;
  Queue window_{.id = 1};
  Queue probation_{.id = 2};
  Queue protected_{.id = 3};
  FrequencySketch sketch_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeQueuePolicy(std::string_view name, uint64_t capacity) {
  if (name == "fifo") {
    return std::make_unique<Fifo>();
  }
  if (name == "2q") {
    return std::make_unique<TwoQueues>(capacity);
  }
  if (name == "arc") {
    return std::make_unique<Arc>(capacity);
  }
  if (name == "s3fifo") {
    return std::make_unique<S3Fifo>(capacity);
  }
  if (name == "sieve") {
    return std::make_unique<Sieve>();
  }
  if (name == "wtinylfu") {
    return std::make_unique<WindowTinyLfu>(capacity);
  }
  return nullptr;
}

}  // namespace terrace
