#include "daemon/store/event_journal.h"

#include <iterator>
#include <utility>

namespace terrace {
namespace {

bool IsOfBlocks(const StoreEvent& event) {
  return event.kind == StoreEventKind::kStored || event.kind == StoreEventKind::kRemoved ||
         event.kind == StoreEventKind::kMoved;
}

// Whether `next` could be said by the same event: of stored blocks only where they are one chain.
bool Continues(const StoreEvent& event, const StoreEvent& next) {
  if (event.kind != next.kind || !IsOfBlocks(event) ||
      !(event.namespace_digest == next.namespace_digest) || event.salt != next.salt ||
      event.key_bytes != next.key_bytes || event.tier != next.tier) {
    return false;
  }
  if (event.kind != StoreEventKind::kStored) {
    return true;
  }
  const uint64_t end = event.first_token + uint64_t{event.key_count()} * event.block_tokens;
  return event.block_tokens == next.block_tokens && event.keys.ends_with(next.parent) &&
         next.parent.size() == event.key_bytes && next.first_token == end &&
         event.metadata.empty() == next.metadata.empty();
}

}  // namespace

uint64_t StoreEvent::bytes() const {
  uint64_t sum = sizeof(StoreEvent) + salt.size() + keys.size() + parent.size();
  for (const BlockMetadata& block : metadata) {
    sum += sizeof(BlockMetadata) + block.token_ids.size() * sizeof(uint32_t) +
           block.lora_name.size() + block.extra_keys.size();
  }
  return sum;
}

void EventJournal::Start() {
  if (!recording_) {
    recording_ = true;
    Lose();
  }
}

void EventJournal::Stop() {
  recording_ = false;
  events_ = {};
  bytes_ = 0;
}

void EventJournal::Lose() {
  events_.clear();
  bytes_ = 0;
  ++newest_;
}

bool EventJournal::Join(StoreEvent& event) {
  if (events_.empty() || newest_ == seen_ || !Continues(events_.back(), event)) {
    return false;
  }
  StoreEvent& newest = events_.back();
  const uint64_t before = newest.bytes();
  if (before + event.bytes() > limits_.event_bytes) {
    return false;
  }
  newest.keys += event.keys;
  newest.metadata.insert(newest.metadata.end(), std::make_move_iterator(event.metadata.begin()),
                         std::make_move_iterator(event.metadata.end()));
  bytes_ += newest.bytes() - before;
  return true;
}

void EventJournal::Add(StoreEvent event) {
  if (!Join(event)) {
    event.sequence = ++newest_;
    bytes_ += event.bytes();
    events_.push_back(std::move(event));
  }
  while (events_.size() > limits_.events || (bytes_ > limits_.bytes && events_.size() > 1)) {
    bytes_ -= events_.front().bytes();
    events_.pop_front();
  }
}

}  // namespace terrace
