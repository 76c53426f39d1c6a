#include "tiers/placement/segment_log.h"

#include <utility>

#include "tiers/placement/reclaim.h"
#include "tiers/vocab/check.h"

namespace terrace {

SegmentLog::SegmentLog(const Options& options) : options_(options) {
  TERRACE_CHECK(options.segments > options.kept_free + 1 && options.segment_records > 0);
  position_ = uint64_t{options.segments} * options.segment_records;
}

bool SegmentLog::NoteUse(uint64_t name) {
  const auto found = records_.find(name);
  if (found == records_.end()) {
    return false;
  }
  found->second.used_at = position_;
  return true;
}

void SegmentLog::NoteReads(absl::Span<const uint64_t> names) {
  for (const uint64_t name : names) {
    TERRACE_CHECK(NoteUse(name));
  }
}

void SegmentLog::ForgetUse() {
  for (auto& [name, record] : records_) {
    record.used_at = 0;
  }
}

void SegmentLog::Append(uint64_t name) {
  TERRACE_CHECK(!records_.contains(name));
  ++counts_.appended;
  Place(name, {0, position_}, &open_);
  while (segments_.size() + options_.kept_free > options_.segments) {
    Reclaim();
  }
}

void SegmentLog::Place(uint64_t name, Record record, uint64_t* open) {
  if (*open == 0 || segments_[*open].names.size() >= options_.segment_records) {
    *open = ++last_;
  }
  Segment& segment = segments_[*open];
  segment.names.push_back(name);
  ++segment.live;
  ++position_;
  record.segment = *open;
  records_[name] = record;
}

void SegmentLog::Reclaim() {
  std::vector<LogSegment> sealed;
  std::vector<uint64_t> numbers;
  for (const auto& [number, segment] : segments_) {
    if (number != open_ && number != open_again_) {
      sealed.push_back({number, segment.live, segment.names.size()});
      numbers.push_back(number);
    }
  }
  const size_t chosen = SegmentToReclaim(sealed);
  const uint64_t victim = numbers[chosen];
  const double live_share = LiveShare(sealed[chosen]);
  const Segment segment = std::move(segments_[victim]);
  segments_.erase(victim);
  const double capacity =
      static_cast<double>(uint64_t{options_.segments} * options_.segment_records);
  const double most = kMaxRewrittenShare * static_cast<double>(options_.segment_records);
  uint64_t rewritten = 0;
  for (const uint64_t name : segment.names) {
    const auto found = records_.find(name);
    if (found == records_.end() || found->second.segment != victim) {
      continue;
    }
    const double unused = static_cast<double>(position_ - found->second.used_at) / capacity;
    if (static_cast<double>(rewritten + 1) <= most && IsWorthRewriting({unused, live_share})) {
      ++rewritten;
      ++counts_.rewritten;
      Place(name, found->second, &open_again_);
    } else {
      ++counts_.dropped;
      records_.erase(found);
    }
  }
}

}  // namespace terrace
