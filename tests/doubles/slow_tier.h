// A lower tier whose reads take until the test says so, and end as the test says.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "tiers/copy/one_pass.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace::doubles {

// Thread-safe; `done` runs on the thread that ends the read.
class SlowTier final : public LowerTier {
 public:
  void Hold(const BlockIdentity& identity, std::string payload) {
    absl::MutexLock lock(&mutex_);
    held_[Name(identity)] = std::move(payload);
  }

  [[nodiscard]] std::string_view name() const override { return "g3"; }

  bool Lookup(const BlockIdentity& identity, LowerBlock* out) override {
    absl::MutexLock lock(&mutex_);
    const auto found = held_.find(Name(identity));
    if (found == held_.end()) {
      return false;
    }
    out->payload_bytes = static_cast<uint32_t>(found->second.size());
    out->checksum = HashPayload(found->second);
    return true;
  }

  uint64_t Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) override {
    absl::MutexLock lock(&mutex_);
    reads_.push_back({++last_token_, Name(request.identity), request.destination, request.priority,
                      std::move(done)});
    ++begun_;
    return last_token_;
  }

  void Cancel(uint64_t token) override {
    absl::MutexLock lock(&mutex_);
    for (PendingRead& read : reads_) {
      read.cancelled = read.cancelled || read.token == token;
    }
  }

  [[nodiscard]] absl::Duration EstimateRead(uint64_t bytes) const override {
    return absl::Microseconds(static_cast<double>(bytes) / 1000.0);
  }

  // Ends the oldest read: kVerified delivers its bytes, a cancelled one ends as kCancelled. False:
  // none is running.
  bool EndOne(ReadOutcome outcome = ReadOutcome::kVerified) {
    PendingRead read;
    {
      absl::MutexLock lock(&mutex_);
      if (reads_.empty()) {
        return false;
      }
      read = std::move(reads_.front());
      reads_.pop_front();
      if (read.cancelled) {
        outcome = ReadOutcome::kCancelled;
      } else if (outcome == ReadOutcome::kVerified) {
        const std::string& payload = held_.at(read.name);
        std::memcpy(read.destination.data(), payload.data(), payload.size());
      }
    }
    read.done(outcome);
    return true;
  }
  [[nodiscard]] size_t running() const {
    absl::MutexLock lock(&mutex_);
    return reads_.size();
  }
  [[nodiscard]] size_t begun() const {
    absl::MutexLock lock(&mutex_);
    return begun_;
  }
  [[nodiscard]] bool OldestIsCancelled() const {
    absl::MutexLock lock(&mutex_);
    return !reads_.empty() && reads_.front().cancelled;
  }

 private:
  struct PendingRead {
    uint64_t token = 0;
    std::string name;
    absl::Span<char> destination;
    Priority priority = Priority::kNormal;
    std::function<void(ReadOutcome)> done;
    bool cancelled = false;
  };
  static std::string Name(const BlockIdentity& identity) {
    return absl::StrCat(identity.namespace_digest.ToHex(), "/", identity.generation, "/",
                        std::string(identity.salt), "/", std::string(identity.key));
  }

  mutable absl::Mutex mutex_;
  std::map<std::string, std::string> held_ ABSL_GUARDED_BY(mutex_);
  std::deque<PendingRead> reads_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_token_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t begun_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace terrace::doubles
