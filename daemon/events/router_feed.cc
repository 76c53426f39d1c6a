#include "daemon/events/router_feed.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include <fnmatch.h>

#include "daemon/events/event_encoding.h"

namespace terrace {
namespace {

constexpr std::string_view kDramTier = "g2";
constexpr absl::Duration kRefusedPause = absl::Milliseconds(200);
// A hash of which less would be left is told with what its namespace adds to it.
constexpr size_t kLeastHashBytes = 8;
constexpr size_t kMaxJoined = 4096;  // hashes of one event

std::string HashOf(std::string_view key, std::string_view suffix) {
  if (key.ends_with(suffix) && key.size() >= suffix.size() + kLeastHashBytes) {
    key.remove_suffix(suffix.size());
  }
  return std::string(key);
}

// vLLM's words for what a namespace's record says in ours.
std::string SpecKindOf(const std::string& group_kind) {
  if (group_kind.empty() || group_kind == "full") {
    return "full_attention";
  }
  return group_kind == "state" ? "mamba" : group_kind;
}

std::string_view KeyAt(const StoreEvent& event, uint32_t position) {
  return std::string_view(event.keys).substr(size_t{position} * event.key_bytes, event.key_bytes);
}

const BlockMetadata* MetadataAt(const StoreEvent& event, uint32_t position) {
  return position < event.metadata.size() ? &event.metadata[position] : nullptr;
}

// Whether a router can work with the block's tokens: all of them, and what else its engine hashed.
bool IsWhole(const BlockMetadata* metadata, uint32_t block_tokens) {
  return metadata != nullptr && block_tokens > 0 && metadata->token_ids.size() == block_tokens &&
         (metadata->extra_keys.empty() || IsMsgpackValue(metadata->extra_keys));
}

// Whether the block at `next` can be told in one event with the one before it.
bool Continues(const StoreEvent& event, uint32_t next) {
  const BlockMetadata* last = MetadataAt(event, next - 1);
  const BlockMetadata* metadata = MetadataAt(event, next);
  return IsWhole(last, event.block_tokens) == IsWhole(metadata, event.block_tokens) &&
         (last == nullptr ? "" : last->lora_name) ==
             (metadata == nullptr ? "" : metadata->lora_name);
}

// Adds the block's tokens, which are whole.
void AddTokens(const BlockMetadata& metadata, RouterEvent* out) {
  out->token_ids.insert(out->token_ids.end(), metadata.token_ids.begin(), metadata.token_ids.end());
  out->extra_keys.push_back(metadata.extra_keys);
}

}  // namespace

RouterFeed::RouterFeed(Options options, Watch watch, const Clock& clock)
    : options_(std::move(options)),
      watch_(std::move(watch)),
      clock_(clock),
      next_snapshot_(clock.Now()) {}

RouterFeed::Step RouterFeed::Next(std::vector<RouterEvent>* out) {
  if (!std::exchange(begun_, true)) {
    TellAllCleared(out);
    return Step::kBusy;
  }
  if (watcher_ == nullptr) {
    const absl::Duration now = clock_.Now();
    if (now < next_snapshot_) {
      return Step::kIdle;
    }
    WatchCall call;
    call.snapshot = true;
    absl::StatusOr<std::unique_ptr<StoreWatcher>> watcher = watch_(std::move(call));
    if (!watcher.ok()) {
      ++figures_.watch_refusals;
      next_snapshot_ = now + kRefusedPause;
      return Step::kIdle;
    }
    watcher_ = *std::move(watcher);
    namespaces_.clear();
    in_snapshot_ = true;
    next_snapshot_ = now + kSnapshotPause;
    ++figures_.snapshots;
  }
  const EventBatch batch = watcher_->Next();
  for (const WatchedNamespace& ns : batch.namespaces) {
    Describe(ns);
  }
  if (out->empty()) {
    joined_.clear();
  }
  for (const StoreEvent& event : batch.events) {
    if (!Tell(event, out)) {
      watcher_.reset();
      return Step::kBusy;
    }
  }
  return batch.more || !batch.events.empty() ? Step::kBusy : Step::kIdle;
}

void RouterFeed::Describe(const WatchedNamespace& ns) {
  Described& described = namespaces_[ns.digest];
  described.is_told =
      ns.record.shard_rank == 0 &&
      (options_.model.empty() || fnmatch(options_.model.c_str(), ns.record.model.c_str(), 0) == 0);
  described.group = ns.record.group;
  described.key_suffix = ns.record.key_suffix;
  described.spec_kind = SpecKindOf(ns.record.group_kind);
}

const std::string& RouterFeed::MediumOf(const StoreEvent& event) const {
  return event.tier == kDramTier ? options_.dram_medium : options_.local_medium;
}

bool RouterFeed::Tell(const StoreEvent& event, std::vector<RouterEvent>* out) {
  if (event.kind == StoreEventKind::kGap) {
    if (!told_.empty()) {
      TellAllCleared(out);
    }
    return false;
  }
  if (event.kind == StoreEventKind::kSnapshotEnd) {
    in_snapshot_ = false;
    return true;
  }
  const auto found = namespaces_.find(event.namespace_digest);
  if (found == namespaces_.end() || !found->second.is_told) {
    return true;
  }
  const Described& ns = found->second;
  switch (event.kind) {
    case StoreEventKind::kCleared:
      return TellCleared(event.namespace_digest, out);
    case StoreEventKind::kStored:
      TellStored(event, ns, out);
      break;
    case StoreEventKind::kMoved:
      TellStored(event, ns, out);
      for (const std::string& medium : {options_.dram_medium, options_.local_medium}) {
        if (medium != MediumOf(event) && media_.contains(medium)) {
          TellRemoved(event, ns, medium, out);
        }
      }
      break;
    case StoreEventKind::kRemoved:
      for (const std::string& medium : media_) {
        TellRemoved(event, ns, medium, out);
      }
      break;
    default:
      break;
  }
  return true;
}

bool RouterFeed::TellCleared(const Digest128& digest, std::vector<RouterEvent>* out) {
  if (!told_.contains(digest)) {
    return true;  // routers know nothing of it
  }
  const bool is_all = told_.size() == 1;
  TellAllCleared(out);
  return is_all;
}

void RouterFeed::TellAllCleared(std::vector<RouterEvent>* out) {
  out->emplace_back().kind = RouterEvent::Kind::kAllCleared;
  told_.clear();
  media_.clear();
  joined_.clear();
}

void RouterFeed::TellStored(const StoreEvent& event,
                            const Described& ns,
                            std::vector<RouterEvent>* out) {
  const uint32_t count = event.key_count();
  for (uint32_t begin = 0; begin < count;) {
    uint32_t end = begin + 1;
    while (end < count && Continues(event, end)) {
      ++end;
    }
    RouterEvent told;
    told.kind = RouterEvent::Kind::kStored;
    told.medium = MediumOf(event);
    told.group = ns.group;
    told.spec_kind = ns.spec_kind;
    const std::string_view parent =
        begin == 0 ? std::string_view(event.parent) : KeyAt(event, begin - 1);
    told.parent = HashOf(parent, ns.key_suffix);
    const BlockMetadata* first = MetadataAt(event, begin);
    told.lora_name = first == nullptr ? "" : first->lora_name;
    const bool is_whole = IsWhole(first, event.block_tokens);
    told.block_tokens = is_whole ? event.block_tokens : 0;
    for (uint32_t i = begin; i < end; ++i) {
      told.hashes.push_back(HashOf(KeyAt(event, i), ns.key_suffix));
      if (is_whole) {
        AddTokens(event.metadata[i], &told);
      }
    }
    if (std::all_of(told.extra_keys.begin(), told.extra_keys.end(),
                    [](const std::string& keys) { return keys.empty(); })) {
      told.extra_keys.clear();
    }
    if (!Join(told, out)) {
      out->push_back(std::move(told));
    }
    begin = end;
  }
  told_.insert(event.namespace_digest);
  media_.insert(MediumOf(event));
}

bool RouterFeed::Join(RouterEvent& event, std::vector<RouterEvent>* out) {
  if (!in_snapshot_ || event.block_tokens > 0) {
    joined_.clear();
    return false;
  }
  const bool same = !joined_.empty() && out->back().medium == event.medium &&
                    out->back().group == event.group && out->back().spec_kind == event.spec_kind &&
                    out->back().lora_name == event.lora_name &&
                    out->back().hashes.size() < kMaxJoined;
  // Routers drop an event that has one hash twice.
  const bool is_new = std::none_of(event.hashes.begin(), event.hashes.end(),
                                   [this](const auto& hash) { return joined_.contains(hash); });
  if (!same || !is_new) {
    joined_.clear();
    joined_.insert(event.hashes.begin(), event.hashes.end());
    return false;
  }
  joined_.insert(event.hashes.begin(), event.hashes.end());
  RouterEvent& last = out->back();
  last.parent.clear();
  std::move(event.hashes.begin(), event.hashes.end(), std::back_inserter(last.hashes));
  return true;
}

void RouterFeed::TellRemoved(const StoreEvent& event,
                             const Described& ns,
                             const std::string& medium,
                             std::vector<RouterEvent>* out) {
  joined_.clear();
  RouterEvent& told = out->emplace_back();
  told.kind = RouterEvent::Kind::kRemoved;
  told.medium = medium;
  told.group = ns.group;
  for (uint32_t i = 0; i < event.key_count(); ++i) {
    told.hashes.push_back(HashOf(KeyAt(event, i), ns.key_suffix));
  }
}

}  // namespace terrace
