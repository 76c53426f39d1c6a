#include "tools/sim/tier_queue.h"

#include <algorithm>
#include <utility>

#include "tiers/vocab/check.h"

namespace terrace::sim {

uint64_t TierQueue::Read(absl::Duration now, uint64_t bytes, ReadNeed need, Ended ended) {
  reads_.emplace(++last_, Pending{bytes, need, false, std::move(ended)});
  (need == ReadNeed::kWaited ? waited_ : ahead_).push_back(last_);
  queued_bytes_ += bytes;
  const uint64_t read = last_;
  BeginSome(now);
  return read;
}

void TierQueue::Await(absl::Duration now, uint64_t read) {
  const auto found = reads_.find(read);
  if (found == reads_.end() || found->second.began || found->second.need == ReadNeed::kWaited) {
    return;
  }
  found->second.need = ReadNeed::kWaited;
  waited_.push_back(read);
  BeginSome(now);
}

uint64_t TierQueue::TakeNext() {
  if (under_way_.size() < kReadsAtATime && !waited_.empty()) {
    const uint64_t read = waited_.front();
    waited_.pop_front();
    return read;
  }
  while (under_way_.size() < kAheadAtATime && !ahead_.empty()) {
    const uint64_t read = ahead_.front();
    ahead_.pop_front();
    const auto found = reads_.find(read);
    if (found != reads_.end() && found->second.need == ReadNeed::kAhead) {
      return read;
    }
  }
  return 0;
}

void TierQueue::BeginSome(absl::Duration now) {
  for (uint64_t read = TakeNext(); read != 0; read = TakeNext()) {
    Pending& pending = reads_.at(read);
    pending.began = true;
    wire_free_ = std::max(wire_free_, now + speed_.latency) +
                 absl::Seconds(static_cast<double>(pending.bytes) / speed_.bytes_per_second);
    under_way_.push_back({read, wire_free_, load_.Began(now)});
  }
}

absl::Duration TierQueue::NextEnd() const {
  return under_way_.empty() ? absl::InfiniteDuration() : under_way_.front().end;
}

void TierQueue::EndNext() {
  TERRACE_CHECK(!under_way_.empty());
  const UnderWay done = under_way_.front();
  under_way_.pop_front();
  const auto found = reads_.find(done.read);
  const uint64_t bytes = found->second.bytes;
  const Ended ended = std::move(found->second.ended);
  reads_.erase(found);
  load_.Ended(done.mark, bytes, done.end);
  queued_bytes_ -= bytes;
  bytes_read_ += bytes;
  BeginSome(done.end);
  ended(done.end);
}

double TierQueue::LoadSeconds(absl::Duration now, uint64_t blocks, uint64_t block_bytes) const {
  const LoadDemand demand{blocks, blocks * block_bytes, queued_bytes_};
  if (demand.blocks == 0 && demand.queued_bytes == 0) {
    return 0;
  }
  if (const std::optional<double> measured = load_.Seconds(demand, now); measured.has_value()) {
    return *measured;
  }
  return absl::ToDoubleSeconds(speed_.latency) +
         static_cast<double>(demand.bytes + demand.queued_bytes) / speed_.bytes_per_second;
}

}  // namespace terrace::sim
