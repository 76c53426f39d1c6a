// What earlier lives of this node left behind that nobody can find: files that it made and died
// before it could list them, temporary files, its reports.
//
// Only that one life is looked through, and only where its report could be read: what that lists
// stays, whoever has it now. Of what this node does not see nothing is concluded: a listing may be
// old, and another node may have adopted what was here.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/os/rooted_files.h"
#include "tiers/shared/pool_tier.h"

namespace terrace {
namespace {

// After a life has begun, so that all nodes have been heard and late calls of the life before have
// ended.
constexpr absl::Duration kFirstLook = absl::Minutes(2);
constexpr absl::Duration kRetry = absl::Minutes(1);

}  // namespace

absl::Status PoolTier::CollectOrphans() {
  const absl::Duration now = parts_.clock->Now();
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  {
    absl::MutexLock lock(&mutex_);
    if (next_collection_ == absl::ZeroDuration()) {
      next_collection_ = now + kFirstLook;
    }
    if (writer == nullptr || now < next_collection_) {
      return absl::OkStatus();
    }
    next_collection_ = now + kRetry;
  }
  while (!left_.empty()) {
    if (absl::Status status = CollectLife(left_.back()); IsMountFault(status)) {
      return status;
    }
    left_.pop_back();
  }
  return absl::OkStatus();
}

absl::Status PoolTier::CollectLife(const WholeReport& left) {
  const std::string folder = LifePath(left.life);
  const PoolReply listed = parts_.files->Call(opened_->access.CallOf(PoolOp::kList, folder));
  if (!listed.status.ok()) {
    return listed.status;
  }
  for (const FolderEntry& entry : listed.entries) {
    const std::string path = folder + "/" + entry.name;
    PoolOp op = PoolOp::kRemove;
    if (entry.kind == EntryKind::kFolder && ParseGroupName(entry.name).has_value()) {
      const absl::StatusOr<bool> empty = CollectFolder(left, path);
      if (!empty.ok()) {
        return empty.status();
      }
      if (!*empty) {
        continue;
      }
      op = PoolOp::kRemoveFolder;
    } else if (entry.kind != EntryKind::kFile ||
               (entry.name != "head" && entry.name != "bulletin" &&
                !ParseManifestName(entry.name).has_value() && !IsTemporaryName(entry.name))) {
      continue;  // nothing of ours
    }
    const PoolReply removed = parts_.files->Call(opened_->access.CallOf(op, path));
    if (IsMountFault(removed.status)) {
      return removed.status;
    }
  }
  // Refused while anything is left in it.
  return parts_.files->Call(opened_->access.CallOf(PoolOp::kRemoveFolder, folder)).status;
}

// Whether nothing is left in it.
absl::StatusOr<bool> PoolTier::CollectFolder(const WholeReport& left, const std::string& path) {
  const PoolReply listed = parts_.files->Call(opened_->access.CallOf(PoolOp::kList, path));
  if (!listed.status.ok()) {
    return listed.status;
  }
  bool empty = true;
  for (const FolderEntry& entry : listed.entries) {
    const std::optional<uint32_t> number = ParseSegmentName(entry.name);
    const bool ours = entry.kind == EntryKind::kFile && number.has_value();
    const auto is_it = [&](const ReportedSegment& segment) {
      return segment.name == SegmentName{left.life, *number};
    };
    if (!ours || std::any_of(left.segments.begin(), left.segments.end(), is_it) ||
        opened_->catalogue.IsListed({left.life, *number})) {
      empty = false;
      continue;
    }
    const PoolReply removed =
        parts_.files->Call(opened_->access.CallOf(PoolOp::kRemove, path + "/" + entry.name));
    if (IsMountFault(removed.status)) {
      return removed.status;
    }
    empty = empty && removed.status.ok();
    absl::MutexLock lock(&mutex_);
    orphans_ += removed.status.ok() ? 1 : 0;
  }
  return empty;
}

}  // namespace terrace
