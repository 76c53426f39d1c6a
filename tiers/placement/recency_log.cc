#include "tiers/placement/recency_log.h"

#include <algorithm>
#include <utility>

namespace terrace {

RecencyLog::~RecencyLog() {
  // One by one: the destructor of a long chain would recurse as deep as it is long.
  while (head_ != nullptr) {
    head_ = std::move(head_->next);
  }
}

void RecencyLog::AddChunk() {
  // Not make_unique: that would zero 8 KiB which are written next anyway.
  std::unique_ptr<Chunk> chunk(new Chunk);
  ++chunks_;
  Chunk* added = chunk.get();
  (tail_ == nullptr ? head_ : tail_->next) = std::move(chunk);
  tail_ = added;
}

void RecencyLog::PopFront() {
  ++head_->begin;
  --size_;
  while (head_ != nullptr && head_->begin == head_->end) {
    DropHead();
  }
}

void RecencyLog::DropHead() {
  if (passed_ == head_.get()) {
    passed_ = nullptr;
  }
  if (tail_ == head_.get()) {
    tail_ = nullptr;
  }
  head_ = std::move(head_->next);
  --chunks_;
}

RecencyLog::Chunk* RecencyLog::NextOfPass() {
  Chunk* next = passed_ == nullptr ? head_.get() : passed_->next.get();
  if (next == tail_) {
    passed_ = nullptr;
    next = head_.get();
  }
  return next == tail_ ? nullptr : next;
}

void RecencyLog::FinishChunk() {
  std::unique_ptr<Chunk>& slot = passed_ == nullptr ? head_ : passed_->next;
  Chunk& chunk = *slot;
  if (passed_ != nullptr) {
    MoveFront(chunk, *passed_);
  }
  if (chunk.begin == chunk.end) {
    slot = std::move(chunk.next);
    --chunks_;
  } else {
    passed_ = &chunk;
  }
}

void RecencyLog::MoveFront(Chunk& from, Chunk& to) {
  if (to.begin != 0) {  // only the head is taken from
    std::move(to.entries.begin() + to.begin, to.entries.begin() + to.end, to.entries.begin());
    to.end -= std::exchange(to.begin, 0);
  }
  const uint32_t count = std::min(kChunkEntries - to.end, from.end - from.begin);
  std::copy_n(from.entries.begin() + from.begin, count, to.entries.begin() + to.end);
  to.end += count;
  from.begin += count;
}

}  // namespace terrace
