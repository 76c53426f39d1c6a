#include "daemon/wire/watch_feed.h"

#include <utility>

#include "daemon/wire/part_checks.h"

namespace terrace {
namespace {

void FillEvent(StoreEvent& event, v1::Event* out) {
  out->set_kind(static_cast<v1::EventKind>(event.kind));
  out->set_sequence(event.sequence);
  if (event.kind == StoreEventKind::kGap || event.kind == StoreEventKind::kSnapshotEnd) {
    return;
  }
  out->set_namespace_digest(event.namespace_digest.ToBytes());
  out->set_key_bytes(event.key_bytes);
  out->set_keys(std::move(event.keys));
  out->set_parent(std::move(event.parent));
  out->set_first_token(event.first_token);
  out->set_block_tokens(event.block_tokens);
  out->set_tier(std::move(event.tier));
  out->set_salt(std::move(event.salt));
  for (BlockMetadata& block : event.metadata) {
    v1::BlockMetadata* metadata = out->add_metadata();
    metadata->mutable_token_ids()->Add(block.token_ids.begin(), block.token_ids.end());
    metadata->set_lora_name(std::move(block.lora_name));
    metadata->set_extra_keys(std::move(block.extra_keys));
  }
}

}  // namespace

WatchFeed::WatchFeed(std::unique_ptr<StoreWatcher> watcher,
                     const Clock& clock,
                     absl::Duration heartbeat,
                     uint64_t boot_id,
                     uint64_t call_id)
    : watcher_(std::move(watcher)),
      clock_(clock),
      heartbeat_(heartbeat),
      boot_id_(boot_id),
      call_id_(call_id),
      sent_at_(clock.Now()) {}

WatchFeed::Step WatchFeed::Next(v1::WatchReply* reply) {
  EventBatch batch = watcher_->Next();
  const absl::Duration now = clock_.Now();
  if (batch.events.empty()) {
    if (batch.more) {
      return Step::kBusy;
    }
    if (now < sent_at_ + heartbeat_) {
      return Step::kIdle;
    }
    v1::Event* heartbeat = reply->add_events();
    heartbeat->set_kind(v1::EVENT_KIND_HEARTBEAT);
    heartbeat->set_sequence(batch.newest);
  }
  reply->set_boot_id(boot_id_);
  reply->set_publisher_id(watcher_->publisher_id());
  reply->set_call_id(call_id_);
  for (StoreEvent& event : batch.events) {
    FillEvent(event, reply->add_events());
  }
  for (const WatchedNamespace& ns : batch.namespaces) {
    v1::WatchedNamespace* described = reply->add_namespaces();
    described->set_namespace_digest(ns.digest.ToBytes());
    described->set_family_digest(ns.family.ToBytes());
    FillRecord(ns.record, described->mutable_record());
  }
  sent_at_ = now;
  return Step::kMessage;
}

}  // namespace terrace
