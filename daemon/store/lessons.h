// The lessons of a store's policies, one after the other and apart from the store's lock; and what
// they learnt in earlier lives, until their pools are there again.
//
// Thread-safe. Its lock is held over lessons: for threads that may wait.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

#include "daemon/learnt_policy.h"
#include "tiers/placement/eviction_policy.h"

namespace terrace {

class Lessons {
 public:
  // A pool's policy in a lesson. What the lesson is to be called when it is kept.
  struct Pupil {
    EvictionPolicy* policy = nullptr;
    Lesson* lesson = nullptr;
    std::string tenant;
    uint64_t slot_bytes = 0;
  };
  // Both take the store's lock. nullopt: there are not so many pools.
  struct School {
    absl::FunctionRef<std::optional<Pupil>(size_t pool)> begin;
    absl::FunctionRef<void(EvictionPolicy& policy)> end;
  };

  explicit Lessons(std::vector<LearntPolicy> kept) : kept_(std::move(kept)) {}

  void Study(const School& school) {
    absl::MutexLock lock(&mutex_);
    StudyEachLocked(school, [](const Pupil&) {});
  }

  std::vector<LearntPolicy> Save(const School& school) {
    std::vector<LearntPolicy> saved;
    absl::MutexLock lock(&mutex_);
    StudyEachLocked(school, [&saved](const Pupil& pupil) {
      if (saved.size() < kMaxLearntPolicies) {
        saved.push_back({pupil.tenant, pupil.slot_bytes, pupil.lesson->Save()});
      }
    });
    // Whoever has not come back yet may come later.
    for (const LearntPolicy& kept : kept_) {
      if (saved.size() < kMaxLearntPolicies) {
        saved.push_back(kept);
      }
    }
    return saved;
  }

 private:
  void StudyEachLocked(const School& school, absl::FunctionRef<void(const Pupil&)> also)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (size_t pool = 0;; ++pool) {
      const std::optional<Pupil> pupil = school.begin(pool);
      if (!pupil.has_value()) {
        return;
      }
      LoadLocked(*pupil);
      pupil->lesson->Study();
      also(*pupil);
      school.end(*pupil->policy);
    }
  }

  // Once a pool. What cannot be loaded is forgotten.
  void LoadLocked(const Pupil& pupil) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (auto at = kept_.begin(); at != kept_.end(); ++at) {
      if (at->tenant == pupil.tenant && at->slot_bytes == pupil.slot_bytes) {
        static_cast<void>(pupil.lesson->Load(at->bytes));
        kept_.erase(at);
        return;
      }
    }
  }

  absl::Mutex mutex_;
  std::vector<LearntPolicy> kept_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
