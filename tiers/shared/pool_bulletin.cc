#include "tiers/shared/pool_bulletin.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace terrace {
namespace {

// The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
uint64_t Mixed(uint64_t word) {
  word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9U;
  word = (word ^ (word >> 27)) * 0x94D049BB133111EBU;
  return word ^ (word >> 31);
}

uint64_t WeightOf(uint32_t group, const Digest128& node) {
  return Mixed(Mixed(node.lo + group) ^ node.hi);
}

// Without lists.
PoolReport Bare(const PoolReport& report, ReportKind kind) {
  PoolReport bare;
  bare.kind = kind;
  bare.ended = report.ended;
  bare.pool = report.pool;
  bare.life = report.life;
  bare.serial = report.serial;
  bare.manifest = report.manifest;
  return bare;
}

bool FitsAReport(const PoolReport& report) {
  return report.segments.size() <= kMaxReportedSegments / 8 &&
         report.records.size() <= kMaxReportedRecords && report.kills.size() <= kMaxKills / 8 &&
         report.generations.size() <= kMaxGenerations;
}

std::vector<std::vector<IndexedRecord>> BySegment(const PoolReport& report) {
  std::vector<std::vector<IndexedRecord>> records(report.segments.size());
  for (const ReportedRecord& record : report.records) {
    records[record.position].push_back(record.record);
  }
  return records;
}

}  // namespace

uint32_t GroupOf(const Digest128& node, uint32_t groups) {
  return static_cast<uint32_t>(Mixed(node.hi ^ Mixed(node.lo)) % groups);
}

std::vector<Digest128> ChooseTellers(const std::vector<Digest128>& candidates, uint32_t groups) {
  std::vector<Digest128> tellers(groups);
  std::vector<bool> chosen(candidates.size());
  for (uint32_t group = 0; group < groups && !candidates.empty(); ++group) {
    if (group % candidates.size() == 0) {
      chosen.assign(candidates.size(), false);
    }
    std::optional<size_t> best;
    uint64_t weight = 0;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const uint64_t own = WeightOf(group, candidates[i]);
      if (!chosen[i] && (!best.has_value() || own > weight)) {
        best = i;
        weight = own;
      }
    }
    chosen[*best] = true;
    tellers[group] = candidates[*best];
  }
  return tellers;
}

PoolReport MergeExcerpts(absl::Span<const PoolReport> excerpts) {
  PoolReport merged = Bare(excerpts.back(), ReportKind::kExcerpt);
  merged.since = excerpts.front().since;
  absl::flat_hash_map<SegmentName, size_t> positions;
  std::vector<std::vector<IndexedRecord>> records;
  for (const PoolReport& excerpt : excerpts) {
    const std::vector<std::vector<IndexedRecord>> fresh = BySegment(excerpt);
    for (size_t i = 0; i < fresh.size(); ++i) {
      const ReportedSegment& segment = excerpt.segments[i];
      const auto [at, inserted] = positions.try_emplace(segment.name, merged.segments.size());
      if (inserted) {
        merged.segments.push_back(segment);
        records.push_back(fresh[i]);
        continue;
      }
      ReportedSegment& known = merged.segments[at->second];
      std::vector<IndexedRecord>& listed = records[at->second];
      const bool gone = segment.state == ReportedState::kGone;
      if (gone || segment.listed_from_page > known.end_page) {
        listed.clear();  // nobody wants them, or some between are not listed
      }
      const uint32_t from = gone || segment.listed_from_page > known.end_page
                                ? segment.listed_from_page
                                : std::min(known.listed_from_page, segment.listed_from_page);
      known = segment;
      known.listed_from_page = from;
      listed.insert(listed.end(), fresh[i].begin(), fresh[i].end());
    }
    merged.kills.insert(merged.kills.end(), excerpt.kills.begin(), excerpt.kills.end());
    merged.generations.insert(merged.generations.end(), excerpt.generations.begin(),
                              excerpt.generations.end());
  }
  for (uint32_t i = 0; i < records.size(); ++i) {
    for (const IndexedRecord& record : records[i]) {
      merged.records.push_back({i, record});
    }
  }
  return merged;
}

bool ReadBulletin(absl::Span<const char> bytes, PoolReport* title, std::vector<PoolReport>* out) {
  bool titled = false;
  uint64_t length = 0;
  for (; ReportBytes(bytes, &length) == HeaderFault::kNone; bytes = bytes.subspan(length)) {
    PoolReport report;
    if (DecodeReport(bytes, &report) != HeaderFault::kNone ||
        report.kind != (titled ? ReportKind::kExcerpt : ReportKind::kTitle)) {
      break;
    }
    if (titled) {
      out->push_back(std::move(report));
    } else {
      *title = std::move(report);
      titled = true;
    }
  }
  return titled;
}

// ---------------------------------------------------------------- the chronicle

void PoolChronicle::Note(const PoolReport* manifest, const PoolReport& head, absl::Duration now) {
  Member& member = members_[head.life.node];
  const bool first = member.last.life != head.life;
  if (first) {
    member = Member();
  }
  PoolReport change = Bare(head, ReportKind::kExcerpt);
  change.since = member.last.serial;
  const bool follows = NoteKills(member, manifest, head, &change);
  if (manifest != nullptr) {
    NoteGenerations(member, *manifest, &change);
  }
  NoteGenerations(member, head, &change);
  NoteSegments(member, manifest, head, &change);
  if (first || !follows || !FitsAReport(change)) {
    member.changes.clear();  // who does not know it looks at the node
  } else if (head.serial > member.last.serial) {
    member.changes.emplace_back(now, std::move(change));
  }
  member.last = Bare(head, ReportKind::kExcerpt);
  member.seen = now;
}

// A head lists every segment that changed since its manifest; a manifest all that there are.
void PoolChronicle::NoteSegments(Member& member,
                                 const PoolReport* manifest,
                                 const PoolReport& head,
                                 PoolReport* change) {
  const std::vector<std::vector<IndexedRecord>> records = BySegment(head);
  absl::flat_hash_map<SegmentName, Listed> listed;
  const auto note = [&](const ReportedSegment& segment, absl::Span<const IndexedRecord> its) {
    const auto before = member.listed.find(segment.name);
    const bool known = before != member.listed.end();
    listed[segment.name] = {segment.end_page, segment.state};
    if (known && before->second.end_page == segment.end_page &&
        before->second.state == segment.state) {
      return;
    }
    ReportedSegment changed = segment;
    if (segment.state != ReportedState::kGone && known) {
      changed.listed_from_page =
          std::min(std::max(segment.listed_from_page, before->second.end_page), segment.end_page);
    }
    const auto position = static_cast<uint32_t>(change->segments.size());
    for (const IndexedRecord& record : its) {
      if (segment.state != ReportedState::kGone && record.page >= changed.listed_from_page) {
        change->records.push_back({position, record});
      }
    }
    change->segments.push_back(changed);
  };
  for (size_t i = 0; i < head.segments.size(); ++i) {
    note(head.segments[i], records[i]);
  }
  if (manifest == nullptr) {
    for (const auto& [name, how] : listed) {
      member.listed[name] = how;
    }
    return;
  }
  for (const ReportedSegment& segment : manifest->segments) {
    if (!listed.contains(segment.name)) {
      note(segment, {});
    }
  }
  for (const auto& [name, how] : member.listed) {
    if (!listed.contains(name) && how.state != ReportedState::kGone) {
      ReportedSegment gone;
      gone.name = name;
      gone.state = ReportedState::kGone;
      gone.file_pages = how.end_page;
      gone.end_page = gone.listed_from_page = how.end_page;
      change->segments.push_back(gone);
    }
  }
  member.listed = std::move(listed);
}

// A life's kills are a list that only grows: its manifest has the begin, its head the rest. False:
// it is not known where the news begins.
bool PoolChronicle::NoteKills(Member& member,
                              const PoolReport* manifest,
                              const PoolReport& head,
                              PoolReport* change) {
  const bool knew = member.knows_manifest || manifest == nullptr;
  const uint64_t before = member.manifest_kills + member.head_kills;
  if (manifest != nullptr) {
    const std::vector<Kill>& all = manifest->kills;
    if (before < all.size() && knew) {
      change->kills.assign(all.begin() + static_cast<int64_t>(before), all.end());
    }
    member.manifest_kills = all.size();
    member.knows_manifest = true;
  }
  const uint64_t seen = std::max(before, member.manifest_kills) - member.manifest_kills;
  if (seen < head.kills.size()) {
    change->kills.insert(change->kills.end(), head.kills.begin() + static_cast<int64_t>(seen),
                         head.kills.end());
  }
  member.head_kills = head.kills.size();
  return knew;
}

void PoolChronicle::NoteGenerations(Member& member, const PoolReport& report, PoolReport* change) {
  for (const ReportedGeneration& raised : report.generations) {
    uint64_t& known = member.generations[raised.namespace_digest];
    if (known < raised.generation) {
      known = raised.generation;
      change->generations.push_back(raised);
    }
  }
}

void PoolChronicle::Seen(const NodeLife& life, absl::Duration now) {
  const auto found = members_.find(life.node);
  if (found != members_.end() && found->second.last.life == life) {
    found->second.seen = now;
  }
}

void PoolChronicle::Forget(absl::Duration now) {
  for (auto at = members_.begin(); at != members_.end();) {
    Member& member = at->second;
    while (!member.changes.empty() && member.changes.front().first + window_ < now) {
      member.changes.pop_front();
    }
    at = member.seen + window_ < now ? members_.erase(at) : std::next(at);
  }
}

std::string PoolChronicle::Compose(const PoolReport& title) const {
  std::string bulletin = EncodeReport(title);
  for (const auto& [node, member] : members_) {
    std::vector<PoolReport> changes;
    for (const auto& [when, change] : member.changes) {
      changes.push_back(change);
    }
    PoolReport excerpt = changes.empty() ? member.last : MergeExcerpts(changes);
    if (changes.empty()) {
      excerpt.since = excerpt.serial;
    }
    if (!FitsAReport(excerpt)) {
      continue;
    }
    const std::string encoded = EncodeReport(excerpt);
    if (bulletin.size() + encoded.size() <= kMaxReportBytes) {
      bulletin += encoded;
    }
  }
  return bulletin;
}

}  // namespace terrace
