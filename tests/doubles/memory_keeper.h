// Keeps slabs from one life of a store to the next within one process: what the service manager
// does for the daemon. A life ends with End, which takes the directory as a kill would leave it.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "daemon/dram_keeper.h"

namespace terrace::doubles {

// Thread-safe, but for End, what it leaves, and what the test does to it.
class MemoryKeeper final : public DramKeeper {
 public:
  explicit MemoryKeeper(uint64_t capacity_bytes)
      : geometry_(DirectoryGeometry::For(capacity_bytes)) {
    geometry_.scopes = 256;
    geometry_.namespaces = 16;
  }

  KeptDram Take() override {
    KeptDram kept;
    absl::StatusOr<DirectoryContent> content =
        ReadSlabDirectory({reinterpret_cast<const char*>(left_.data()), left_.size() * 8});
    if (content.ok()) {
      kept.content = *std::move(content);
    }
    for (const DirectorySlab& slab : kept.content.slabs) {
      const auto found = slabs_.find(slab.serial);
      kept.memory.push_back(nullptr);
      if (found != slabs_.end()) {
        auto memory = AdoptSealedSlab(*found->second.Duplicate());
        kept.memory.back() = memory.ok() ? *std::move(memory) : nullptr;
      }
    }
    fresh_.assign(geometry_.bytes() / 8, 0);
    kept.fresh = {reinterpret_cast<char*>(fresh_.data()), fresh_.size() * 8};
    kept.geometry = geometry_;
    kept.life = ++life_;
    in_use_.clear();
    return kept;
  }
  absl::Status Begin() override {
    std::erase_if(slabs_, [this](const auto& slab) { return !in_use_.contains(slab.first); });
    return refuse ? absl::UnavailableError("refused") : absl::OkStatus();
  }
  void SlabInUse(uint64_t serial, const Descriptor& descriptor) override {
    absl::MutexLock lock(&mutex_);
    in_use_[serial] = true;
    slabs_[serial] = *descriptor.Duplicate();
  }
  void SlabGivenUp(uint64_t serial) override {
    absl::MutexLock lock(&mutex_);
    slabs_.erase(serial);
  }

  // The life is over at this moment; the store is destroyed afterwards.
  void End() { left_ = fresh_; }
  [[nodiscard]] absl::Span<char> left() {
    return {reinterpret_cast<char*>(left_.data()), left_.size() * 8};
  }
  [[nodiscard]] std::map<uint64_t, Descriptor>& slabs() { return slabs_; }
  [[nodiscard]] size_t count() const {
    absl::MutexLock lock(&mutex_);
    return slabs_.size();
  }
  bool refuse = false;  // the next Begin

 private:
  DirectoryGeometry geometry_;
  uint64_t life_ = 0;
  std::vector<uint64_t> fresh_;
  std::vector<uint64_t> left_ = std::vector<uint64_t>(512, 0);
  mutable absl::Mutex mutex_;
  std::map<uint64_t, Descriptor> slabs_;
  std::map<uint64_t, bool> in_use_;
};

}  // namespace terrace::doubles
