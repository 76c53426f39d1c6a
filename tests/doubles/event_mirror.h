// What a router knows from events alone: where each block is, by namespace, salt and key. Applies
// what a StoreWatcher tells, and checks the numbers on the way.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/block_store.h"

namespace terrace::doubles {

class EventMirror {
 public:
  // What is known so far counts no more with a snapshot, and is gone on from otherwise.
  void Watch(BlockStore& store, TenantId tenant, bool snapshot, std::vector<Digest128> only = {}) {
    WatchCall call;
    call.snapshot = snapshot;
    call.publisher_id = snapshot ? 0 : publisher_;
    call.after_sequence = sequence_;
    call.namespaces = std::move(only);
    absl::StatusOr<std::unique_ptr<StoreWatcher>> watcher = store.Watch(tenant, std::move(call));
    ASSERT_TRUE(watcher.ok()) << watcher.status();
    watcher_ = *std::move(watcher);
    sequence_ = watcher_->publisher_id() == publisher_ ? sequence_ : 0;
    publisher_ = watcher_->publisher_id();
    in_snapshot_ = snapshot;
    told_in_snapshot_ = false;
    gapped_ = false;
    if (snapshot) {
      where_.clear();
    }
  }
  void Leave() { watcher_.reset(); }

  // One batch. False: there is nothing to tell, and asking again at once is not worth it.
  bool Step() {
    EventBatch batch = watcher_->Next();
    EXPECT_LE(batch.events.size(), kMaxEventsPerBatch);
    for (StoreEvent& event : batch.events) {
      Apply(event);
      told_.push_back(std::move(event));
    }
    return batch.more || !batch.events.empty();
  }
  // All that can be told; `pass_time` lets a list of a lower tier come on.
  void Drain(const std::function<void()>& pass_time = [] {}) {
    for (int idle = 0; idle < 3 || in_snapshot_;) {
      const bool busy = Step();
      idle = busy ? 0 : idle + 1;
      if (!busy) {
        pass_time();
      }
      ASSERT_LT(idle, 2000) << "the snapshot does not end";
    }
  }
  // What was told since the last call.
  std::vector<StoreEvent> Told() { return std::exchange(told_, {}); }

  [[nodiscard]] static std::string NameOf(const Digest128& ns, KeyView key, KeyView salt = "") {
    return ns.ToBytes() + std::string(salt) + "/" + std::string(key);
  }
  // "": nowhere.
  [[nodiscard]] std::string TierOf(const std::string& name) const {
    const auto found = where_.find(name);
    return found == where_.end() ? "" : found->second;
  }
  [[nodiscard]] size_t blocks() const { return where_.size(); }
  // Since the last Watch; only a snapshot heals it.
  [[nodiscard]] bool gapped() const { return gapped_; }
  [[nodiscard]] bool InSnapshot() const { return in_snapshot_; }
  [[nodiscard]] uint64_t sequence() const { return sequence_; }
  [[nodiscard]] uint64_t publisher() const { return publisher_; }

 private:
  void Apply(const StoreEvent& event) {
    if (in_snapshot_ && told_in_snapshot_) {
      EXPECT_EQ(event.sequence, sequence_) << "all of a snapshot is as of one moment";
    } else if (!in_snapshot_) {
      EXPECT_GT(event.sequence, sequence_);
    }
    told_in_snapshot_ = in_snapshot_;
    sequence_ = event.sequence;
    for (uint32_t i = 0; i < event.key_count(); ++i) {
      const std::string name = NameOf(
          event.namespace_digest,
          KeyView(event.keys).substr(size_t{i} * event.key_bytes, event.key_bytes), event.salt);
      if (event.kind == StoreEventKind::kRemoved) {
        where_.erase(name);
      } else {
        where_[name] = event.tier;
      }
    }
    if (event.kind == StoreEventKind::kCleared) {
      const std::string prefix = event.namespace_digest.ToBytes();
      std::erase_if(where_, [&](const auto& block) { return block.first.starts_with(prefix); });
    } else if (event.kind == StoreEventKind::kSnapshotEnd) {
      in_snapshot_ = false;
    } else if (event.kind == StoreEventKind::kGap) {
      gapped_ = true;
    }
  }

  std::unique_ptr<StoreWatcher> watcher_;
  uint64_t publisher_ = 0;
  uint64_t sequence_ = 0;
  bool in_snapshot_ = false;
  bool told_in_snapshot_ = false;
  bool gapped_ = false;
  std::map<std::string, std::string> where_;
  std::vector<StoreEvent> told_;
};

}  // namespace terrace::doubles
