// What placement costs. Not a test: run by hand, as
//
//   placement_bench
//
// A pool of half a million blocks under chains that are like those of a trace of conversations:
// 27 blocks asked for by a request, 13 of them new, which in half of all requests go on from
// one of the last ones; so many requests are let in before that all is as it stays: there are
// ghosts, and of instances one in four is learnt from. Time is CPU time; that of lessons, which the
// daemon has apart from its lock, counts to the requests and is told. What the benchmark itself
// takes, to make up requests and keep their blocks, is measured with a policy that does nothing.
//
// Of the requests of a real trace: terrace-sim --trace FILE --policy lru,phl --cost --jobs 1
#include <cstdint>
#include <ctime>
#include <deque>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tiers/placement/eviction_policy.h"

namespace terrace {
namespace {

constexpr uint64_t kCapacity = 500'000;
constexpr uint64_t kRequestsALesson = 8;
constexpr int kRequestsBefore = 20'000;
constexpr uint64_t kSessions = 4096;

// Deterministic, cheap.
uint64_t Mix(uint64_t value) {
  value = (value + 0x9E3779B97F4A7C15U) * 0xD6E8FEB86659FD93U;
  return (value ^ (value >> 32U)) * 0xD6E8FEB86659FD93U;
}

double ThreadMicroseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

// Evicts in the order of arrival, and keeps nothing else.
class NoPolicy final : public EvictionPolicy {
 public:
  void Insert(BlockId block, const Newcomer& /*newcomer*/) override { queue_.push_back(block); }
  void Touch(absl::Span<const BlockId> /*chain*/) override {}
  void Remove(BlockId /*block*/) override { queue_.pop_front(); }  // its victim
  void Lock(BlockId /*block*/) override {}
  void Unlock(BlockId /*block*/) override {}
  BlockId Victim() override { return queue_.front(); }
  [[nodiscard]] uint64_t Rank(BlockId /*block*/) const override { return 0; }
  [[nodiscard]] double Value(BlockId /*block*/) const override { return 0; }
  [[nodiscard]] uint64_t resident() const override { return queue_.size(); }
  [[nodiscard]] uint64_t memory_bytes() const override { return queue_.size() * sizeof(BlockId); }
  [[nodiscard]] std::string_view name() const override { return kNone; }

  static constexpr const char* kNone = "none";

 private:
  std::deque<BlockId> queue_;
};

class FullPool {
 public:
  explicit FullPool(const std::string& policy) {
    policy_ = policy == NoPolicy::kNone ? std::make_unique<NoPolicy>()
                                        : *MakeEvictionPolicy(policy, recency_);
    while (policy_->resident() < kCapacity) {
      Request();
    }
    for (int i = 0; i < kRequestsBefore; ++i) {
      Request();
    }
    lesson_us_ = 0;
    blocks_ = 0;
    stored_ = 0;
  }

  // A whole request of a session, victims included.
  void Request() {
    now_ += absl::Milliseconds(300);
    policy_->Advance(now_);
    if (++turn_ % kRequestsALesson == 0) {
      const double began = ThreadMicroseconds();
      StudyNow(*policy_);
      lesson_us_ += ThreadMicroseconds() - began;
    }
    Session session = {turn_, {}};
    Session& earlier = sessions_[Mix(turn_ * 11) % kSessions];
    if (Mix(turn_ * 7) % 3 != 0 && earlier.id != 0) {
      session = std::exchange(earlier, {});  // a chain has one end
    }
    std::vector<uint64_t>& names = names_;
    names.clear();
    const uint64_t length = session.blocks.size() + 1 + Mix(turn_) % 27;
    for (uint64_t i = 0; i < length; ++i) {
      names.push_back(Mix(session.id * 4096 + i));
    }
    const size_t hits = Held(session);
    session.blocks.reserve(length);
    RequestHints hints;
    hints.output_tokens = static_cast<uint32_t>(Mix(turn_) % 700);
    session.blocks.resize(hits);
    policy_->Use({now_, names, session.blocks, hints});
    policy_->Touch(session.blocks);
    Lock(session.blocks);
    GrowthTicket ticket = policy_->Extend({now_, hits == 0 ? kNoBlock : session.blocks.back(),
                                           absl::MakeConstSpan(names).subspan(hits), hints});
    for (size_t i = hits; i < names.size() && Store(session, names[i], ticket); ++i) {
      ++ticket.depth;
    }
    policy_->Touch(session.blocks);
    for (const BlockId block : session.blocks) {
      policy_->Unlock(block);
    }
    blocks_ += names.size();
    stored_ += session.blocks.size() - hits;
    sessions_[turn_ % kSessions] = std::move(session);
  }
  void EvictOne() {
    const BlockId victim = policy_->Victim();
    policy_->Remove(victim);
    owners_[static_cast<uint32_t>(victim)] = 0;
    free_.push_back(victim);
  }
  [[nodiscard]] const EvictionPolicy& policy() const { return *policy_; }
  // Of all requests since the pool was made.
  [[nodiscard]] double lesson_us() const { return lesson_us_; }
  [[nodiscard]] uint64_t blocks() const { return blocks_; }
  [[nodiscard]] uint64_t stored() const { return stored_; }

 private:
  struct Session {
    uint64_t id = 0;
    std::vector<BlockId> blocks;
  };

  size_t Held(const Session& session) {
    size_t hits = 0;
    while (hits < session.blocks.size() &&
           owners_[static_cast<uint32_t>(session.blocks[hits])] == session.id) {
      ++hits;
    }
    return hits;
  }
  void Lock(const std::vector<BlockId>& blocks) {
    for (const BlockId block : blocks) {
      policy_->Lock(block);
    }
  }
  bool Store(Session& session, uint64_t name, const GrowthTicket& ticket) {
    const Newcomer newcomer{session.blocks.empty() ? kNoBlock : session.blocks.back(), name,
                            ticket};
    if (policy_->resident() >= kCapacity) {
      if (policy_->Victim() == kNoBlock || !policy_->Admits(newcomer)) {
        return false;
      }
      EvictOne();
    }
    BlockId block{static_cast<uint32_t>(owners_.size())};
    if (free_.empty()) {
      owners_.push_back(0);
    } else {
      block = free_.back();
      free_.pop_back();
    }
    owners_[static_cast<uint32_t>(block)] = session.id;
    policy_->Insert(block, newcomer);
    policy_->Lock(block);
    session.blocks.push_back(block);
    return true;
  }

  RecencySource recency_;
  std::unique_ptr<EvictionPolicy> policy_;
  absl::Duration now_ = absl::Seconds(1);
  uint64_t turn_ = 0;
  double lesson_us_ = 0;
  uint64_t blocks_ = 0;
  uint64_t stored_ = 0;
  std::vector<Session> sessions_ = std::vector<Session>(kSessions);
  std::vector<uint64_t> names_;   // of the request at hand
  std::vector<uint64_t> owners_;  // by block id: the session; 0: free
  std::vector<BlockId> free_;
};

// Returns microseconds a request, of which `benchmark_us` are not the policy's.
double Measure(const std::string& policy, double benchmark_us) {
  constexpr int kRequests = 20'000;
  constexpr int kVictims = 200'000;
  FullPool pool(policy);
  const double first = ThreadMicroseconds();
  for (int i = 0; i < kRequests; ++i) {
    pool.Request();
  }
  const double second = ThreadMicroseconds();
  const double lesson_us = pool.lesson_us();
  const uint64_t blocks = pool.blocks();
  const uint64_t stored = pool.stored();
  const double bytes = static_cast<double>(pool.policy().memory_bytes()) /
                       static_cast<double>(pool.policy().resident());
  const double third = ThreadMicroseconds();
  for (int i = 0; i < kVictims; ++i) {
    pool.EvictOne();
  }
  const double fourth = ThreadMicroseconds();
  const double request_us = (second - first) / kRequests;
  std::cout << policy << ": " << request_us << " us a request, " << request_us - benchmark_us
            << " without the benchmark itself, " << lesson_us / kRequests << " of it lessons ("
            << blocks / kRequests << " blocks, " << stored / kRequests << " stored), "
            << (fourth - third) / kVictims << " us a victim, " << bytes
            << " bytes a resident block\n";
  return request_us;
}

}  // namespace
}  // namespace terrace

int main() {
  const double benchmark_us = terrace::Measure(terrace::NoPolicy::kNone, 0);
  for (const char* policy : {"lru", "phl"}) {
    terrace::Measure(policy, benchmark_us);
  }
  return 0;
}
