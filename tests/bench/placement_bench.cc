// What placement costs. Not a test: run by hand, as
//
//   placement_bench
//
// A pool of half a million blocks under chains of 8 to 39 blocks, of which a third go on from one
// of the last ones; 512 requests are let in before each is measured. Time is CPU time; what is
// learnt counts to the requests.
#include <cstdint>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "tiers/placement/eviction_policy.h"

namespace terrace {
namespace {

constexpr uint64_t kCapacity = 500'000;
constexpr uint64_t kRequestsALesson = 8;

// Deterministic, cheap.
uint64_t Mix(uint64_t value) {
  value = (value + 0x9E3779B97F4A7C15U) * 0xD6E8FEB86659FD93U;
  return (value ^ (value >> 32U)) * 0xD6E8FEB86659FD93U;
}

class FullPool {
 public:
  explicit FullPool(const std::string& policy) : policy_(*MakeEvictionPolicy(policy, recency_)) {
    while (policy_->resident() < kCapacity) {
      Request();
    }
    for (int i = 0; i < 512; ++i) {
      Request();
    }
  }

  // A whole request of a session, victims included.
  void Request() {
    now_ += absl::Milliseconds(300);
    policy_->Advance(now_);
    if (++turn_ % kRequestsALesson == 0) {
      StudyNow(*policy_);
    }
    Session session = {turn_, {}};
    if (Mix(turn_ * 7) % 3 == 0 && !sessions_.empty()) {
      session = std::move(sessions_[Mix(turn_ * 11) % sessions_.size()]);
    }
    std::vector<uint64_t> names;
    const uint64_t length = session.blocks.size() + 8 + Mix(turn_) % 32;
    for (uint64_t i = 0; i < length; ++i) {
      names.push_back(Mix(session.id * 4096 + i));
    }
    const size_t hits = Held(session);
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
    sessions_.resize(4096);
    sessions_[turn_ % 4096] = std::move(session);
  }
  void EvictOne() {
    const BlockId victim = policy_->Victim();
    policy_->Remove(victim);
    owners_[static_cast<uint32_t>(victim)] = 0;
    free_.push_back(victim);
  }
  [[nodiscard]] const EvictionPolicy& policy() const { return *policy_; }

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
  std::vector<Session> sessions_;
  std::vector<uint64_t> owners_;  // by block id: the session; 0: free
  std::vector<BlockId> free_;
};

double ThreadMicroseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

void Measure(const std::string& policy) {
  constexpr int kRequests = 20'000;
  constexpr int kVictims = 200'000;
  FullPool pool(policy);
  const double first = ThreadMicroseconds();
  for (int i = 0; i < kRequests; ++i) {
    pool.Request();
  }
  const double second = ThreadMicroseconds();
  const double bytes = static_cast<double>(pool.policy().memory_bytes()) /
                       static_cast<double>(pool.policy().resident());
  const double third = ThreadMicroseconds();
  for (int i = 0; i < kVictims; ++i) {
    pool.EvictOne();
  }
  const double fourth = ThreadMicroseconds();
  std::cout << policy << ": " << (second - first) / kRequests << " us a request, "
            << (fourth - third) / kVictims << " us a victim, " << bytes
            << " bytes a resident block\n";
}

}  // namespace
}  // namespace terrace

int main() {
  for (const char* policy : {"lru", "phl"}) {
    terrace::Measure(policy);
  }
  return 0;
}
