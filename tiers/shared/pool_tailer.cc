#include "tiers/shared/pool_tailer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/record_format.h"
#include "tiers/segment/segment_scan.h"
#include "tiers/vocab/clear_order.h"

namespace terrace {
namespace {

constexpr double kCallsALook = 3;  // open, read, close
// However many members there are, so many of the list a second.
constexpr double kMembersASecond = 100;
constexpr absl::Duration kAllowanceKept = absl::Seconds(2);
// In a large fleet it is looked more rarely which nodes are due.
constexpr size_t kManyNodes = 64;
// What is kept of one node, so that one that never says the same does not fill the memory: of
// segments several times what a report may list, of namespaces what a tier keeps of all nodes.
constexpr size_t kMaxListed = size_t{4} * kMaxReportedSegments;
constexpr size_t kMaxGenerationsOfANode = 65536;
constexpr absl::Duration kScanOfMany = absl::Milliseconds(300);
constexpr uint32_t kMaxBehind = 65536;
// Until a segment that could not be read is tried again: from the first to the second, doubled.
constexpr absl::Duration kFirstRetry = absl::Seconds(2);
constexpr absl::Duration kLastRetry = absl::Minutes(5);
// A node whose reports cannot be read so often does not keep this one from serving.
constexpr uint32_t kMaxFailures = 3;

bool NothingFollows(ReportedState state) {
  return state == ReportedState::kSealed || state == ReportedState::kCut;
}

}  // namespace

absl::Status PoolTailer::Round(TailNews* news) {
  const absl::Duration now = access_.clock->Now();
  bool list = false;
  {
    absl::MutexLock lock(&mutex_);
    list = !listed_once_ || next_list_ <= now;
  }
  if (list) {
    if (absl::Status status = LookForMembers(); !status.ok()) {
      return status;
    }
    ChooseAllTellers(now);
  }
  if (absl::Status status = ReadBulletins(news); !status.ok()) {
    return status;
  }
  for (const Digest128& due : DueNodes()) {
    // Only rounds add and remove nodes, so the reference stays.
    Node* node = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      node = &nodes_.at(due);
    }
    const absl::Status status = LookAt(*node, news);
    {
      absl::MutexLock lock(&mutex_);
      node->last_look = access_.clock->Now();
      node->look_soon = false;
    }
    if (IsMountFault(status)) {
      return status;
    }
  }
  if (absl::Status status = WriteBulletin(); !status.ok()) {
    return status;
  }
  NoteHeard();
  return ReadBehind();
}

void PoolTailer::NoteHeard() {
  absl::MutexLock lock(&mutex_);
  all_heard_ = all_heard_ || std::all_of(nodes_.begin(), nodes_.end(), [](const auto& entry) {
                 return entry.second.heard || entry.second.failures >= kMaxFailures;
               });
}

// Those that were never heard, and those that this node tells of, in any case; the others in the
// order in which they became due, as far as the calls of the time that passed allow.
std::vector<Digest128> PoolTailer::DueNodes() {
  const absl::Duration now = access_.clock->Now();
  std::vector<Digest128> nodes;
  std::vector<std::pair<absl::Duration, Digest128>> due;
  absl::MutexLock lock(&mutex_);
  if (next_scan_ > now) {
    return nodes;
  }
  next_scan_ = now + (nodes_.size() > kManyNodes ? kScanOfMany : absl::ZeroDuration());
  allowance_ =
      std::min(allowance_ + options_.calls_per_second * absl::ToDoubleSeconds(now - last_scan_),
               options_.calls_per_second * absl::ToDoubleSeconds(kAllowanceKept));
  last_scan_ = now;
  for (const auto& [digest, node] : nodes_) {
    const absl::Duration at = node.last_look + IntervalOf(node, now);
    if (node.look_soon && !node.heard && node.failures == 0) {
      nodes.push_back(digest);
    } else if (node.look_soon || at <= now) {
      if (!tellers_.empty() && TellsOf(digest)) {
        nodes.push_back(digest);
      } else {
        due.emplace_back(node.look_soon ? node.last_look : at, digest);
      }
    }
  }
  std::sort(due.begin(), due.end());
  for (const auto& [when, digest] : due) {
    if (allowance_ < kCallsALook) {
      break;
    }
    allowance_ -= kCallsALook;
    nodes.push_back(digest);
  }
  return nodes;
}

absl::Duration PoolTailer::IntervalOf(const Node& node, absl::Duration now) const {
  if (!tellers_.empty() && TellsOf(node.life.node)) {
    return options_.bulletin_poll_interval;
  }
  if (IsTold(node, now)) {
    return options_.told_poll_interval;
  }
  if (!tellers_.empty()) {
    return std::max(options_.poll_interval, options_.bulletin_poll_interval);
  }
  const bool quiet = node.ended || now - node.last_change > options_.quiet_after;
  return quiet ? options_.quiet_poll_interval : options_.poll_interval;
}

// ---------------------------------------------------------------- members

absl::Status PoolTailer::LookForMembers() {
  PoolReply reply = access_.files->Call(access_.CallOf(PoolOp::kList, std::string(kMembersName)));
  if (!reply.status.ok()) {
    return reply.status;
  }
  const absl::Duration now = access_.clock->Now();
  std::map<Digest128, NodeLife> last;
  std::vector<NodeLife> lives;
  std::vector<NodeLife> claimed;
  for (const FolderEntry& entry : reply.entries) {
    const std::optional<MemberFile> member = ParseMemberName(entry.name);
    if (!member.has_value() || entry.kind != EntryKind::kFile) {
      continue;
    }
    if (member->claimed) {
      claimed.push_back(member->life);
      continue;
    }
    lives.push_back(member->life);
    NodeLife& life = last[member->life.node];
    if (life.epoch <= member->life.epoch) {
      life = member->life;
    }
  }
  std::vector<std::pair<Digest128, std::vector<SegmentName>>> absent;
  {
    absl::MutexLock lock(&mutex_);
    lives_ = std::move(lives);
    claimed_ = std::move(claimed);
    listed_once_ = true;
    next_list_ =
        now + std::max(options_.members_interval,
                       absl::Seconds(static_cast<double>(reply.entries.size()) / kMembersASecond));
    for (const auto& [digest, life] : last) {
      if (digest == options_.self) {
        continue;
      }
      Node& node = nodes_[digest];
      node.listed = true;
      node.last_listed = now;
      if (node.life != life) {
        node.life = life;
        node.serial = 0;
        node.head_serial = 0;
        node.manifest = 0;
        node.hearsay = false;
        node.ended = false;
        node.look_soon = true;
        node.failures = 0;
        all_heard_ = false;
        node.told_at = absl::ZeroDuration();
        node.last_change = now;
        node.last_word = now;
      }
    }
    absent = TakeAbsentLocked(last, now);
  }
  for (const auto& [digest, names] : absent) {
    catalogue_.Drop(digest, names);
  }
  return absl::OkStatus();
}

// A listing may be stale: a node is gone only when it has been absent for long. What they listed.
std::vector<std::pair<Digest128, std::vector<SegmentName>>> PoolTailer::TakeAbsentLocked(
    const std::map<Digest128, NodeLife>& members, absl::Duration now) {
  std::vector<std::pair<Digest128, std::vector<SegmentName>>> absent;
  for (auto at = nodes_.begin(); at != nodes_.end();) {
    if (!members.contains(at->first) && now - at->second.last_listed > options_.absent_after) {
      std::vector<SegmentName>& names = absent.emplace_back(at->first, 0).second;
      for (const auto& [name, pages] : at->second.listing) {
        names.push_back(name);
      }
      at = nodes_.erase(at);
    } else {
      ++at;
    }
  }
  return absent;
}

// ---------------------------------------------------------------- one node

absl::Status PoolTailer::LookAt(Node& node, TailNews* news) {
  const absl::StatusOr<PoolReport> head = ReadHead(access_, node.life);
  absl::Status status = head.status();
  if (status.ok() && (head->serial > node.head_serial || !node.heard || node.hearsay)) {
    status = TakeHead(node, *head, news);
  } else if (status.ok()) {
    chronicle_.Seen(node.life, access_.clock->Now());
  }
  absl::MutexLock lock(&mutex_);
  node.failures = status.ok() || IsMountFault(status) ? 0 : node.failures + 1;
  figures_.heads_read += head.ok() ? 1 : 0;
  figures_.reports_damaged += absl::IsDataLoss(status) ? 1 : 0;
  return status;
}

absl::Status PoolTailer::TakeHead(Node& node, const PoolReport& head, TailNews* news) {
  absl::StatusOr<PoolReport> manifest = absl::NotFoundError("");
  if (head.manifest != node.manifest || node.hearsay) {
    manifest = ReadManifest(access_, node.life, head.manifest);
    if (!manifest.ok()) {
      return manifest.status();  // a newer head names a newer one
    }
    for (const Kill& kill : manifest->kills) {
      catalogue_.Apply(kill);
    }
  }
  for (const Kill& kill : head.kills) {
    catalogue_.Apply(kill);
  }
  TakeSegments(node, manifest.ok() ? &*manifest : nullptr, head);
  if (TellsOf(node.life.node)) {
    chronicle_.Note(manifest.ok() ? &*manifest : nullptr, head, access_.clock->Now());
  }
  news->heats[node.life.node] = head.heats;
  absl::MutexLock lock(&mutex_);
  if (manifest.ok()) {
    ++figures_.manifests_read;
    TakeGenerations(node, manifest->generations, news);
  }
  TakeGenerations(node, head.generations, news);
  node.manifest = head.manifest;
  node.hearsay = false;
  node.heard = true;
  node.serial = node.head_serial = head.serial;
  node.ended = head.ended;
  node.last_word = access_.clock->Now();
  return absl::OkStatus();
}

void PoolTailer::TakeGenerations(Node& node,
                                 const std::vector<ReportedGeneration>& generations,
                                 TailNews* news) {
  for (const ReportedGeneration& raised : generations) {
    if (node.generations.size() >= kMaxGenerationsOfANode &&
        !node.generations.contains(raised.namespace_digest)) {
      continue;
    }
    uint64_t& known = node.generations[raised.namespace_digest];
    if (raised.generation > known) {
      known = raised.generation;
      news->generations.push_back({raised.namespace_digest, raised.generation});
    }
  }
}

// A head lists every segment that changed since its manifest, removed ones as kGone: so without a
// new manifest none disappears in silence.
void PoolTailer::TakeSegments(Node& node, const PoolReport* manifest, const PoolReport& head) {
  absl::flat_hash_map<SegmentName, const ReportedSegment*> listed;
  if (manifest != nullptr) {
    for (const ReportedSegment& segment : manifest->segments) {
      listed[segment.name] = &segment;
    }
  }
  for (const ReportedSegment& segment : head.segments) {
    listed[segment.name] = &segment;
  }
  std::vector<std::vector<IndexedRecord>> records(head.segments.size());
  for (const ReportedRecord& record : head.records) {
    records[record.position].push_back(record.record);
  }
  if (node.hearsay && manifest != nullptr) {
    for (const auto& [name, segment] : listed) {
      DoubtRecords(*segment);
    }
  }
  std::vector<SegmentName> dropped;
  if (manifest != nullptr) {
    for (const auto& [name, pages] : node.listing) {
      if (!listed.contains(name)) {
        dropped.push_back(name);
      }
    }
  }
  std::vector<const ReportedSegment*> added;
  for (const auto& [name, segment] : listed) {
    const bool known = node.listing.contains(name);
    if (segment->state == ReportedState::kGone) {
      if (known) {
        dropped.push_back(name);
      }
    } else if (!known && node.listing.size() + added.size() < kMaxListed) {
      catalogue_.Keep(node.life.node, name, segment->file_pages);
      added.push_back(segment);
    }
  }
  for (size_t i = 0; i < head.segments.size(); ++i) {
    if (head.segments[i].state != ReportedState::kGone) {
      TakeRecords(head.segments[i], records[i]);
      listed.erase(head.segments[i].name);
    }
  }
  for (const auto& [name, segment] : listed) {
    if (segment->state != ReportedState::kGone) {
      TakeRecords(*segment, {});
    }
  }
  catalogue_.Drop(node.life.node, dropped);
  absl::MutexLock lock(&mutex_);
  for (const SegmentName& name : dropped) {
    behind_.erase(name);
    node.listing.erase(name);
  }
  for (const ReportedSegment* segment : added) {
    node.listing[segment->name] = segment->file_pages;
  }
  if (!added.empty() || !dropped.empty() || !head.records.empty()) {
    node.last_change = access_.clock->Now();
  }
}

// What a bulletin said of a segment is held against what the node itself does. Where they differ
// the segment's own records decide, so that what was told in error is a miss for a while and not
// for good.
void PoolTailer::DoubtRecords(const ReportedSegment& segment) {
  const std::optional<KnownSegment> known = catalogue_.Known(segment.name);
  if (segment.state == ReportedState::kGone || !known.has_value()) {
    return;
  }
  const bool too_much = known->complete_pages > segment.end_page;
  const bool another =
      known->complete_pages == segment.end_page && known->records != segment.records;
  if (too_much || another || known->file_pages != segment.file_pages) {
    catalogue_.Unlearn(segment.name, segment.file_pages);
  }
}

void PoolTailer::TakeRecords(const ReportedSegment& segment,
                             absl::Span<const IndexedRecord> records) {
  const std::optional<KnownSegment> known = catalogue_.Known(segment.name);
  if (!known.has_value() || known->file_pages != segment.file_pages) {
    return;
  }
  const bool over = NothingFollows(segment.state);
  if (known->complete_pages >= segment.end_page) {
    if (over && !known->sealed) {
      catalogue_.Add(segment.name, {}, segment.end_page, true);
    }
    return;
  }
  if (segment.listed_from_page <= known->complete_pages) {
    catalogue_.Add(segment.name, records, segment.end_page, over);
    absl::MutexLock lock(&mutex_);
    behind_.erase(segment.name);
    return;
  }
  absl::MutexLock lock(&mutex_);
  if (behind_.size() < kMaxBehind || behind_.contains(segment.name)) {
    Behind& behind = behind_[segment.name];  // the rest is seen again with the next manifest
    behind.name = segment.name;
    behind.file_pages = segment.file_pages;
    behind.end_page = segment.end_page;
    behind.sealed = over;
  }
}

// ---------------------------------------------------------------- segments that no head lists

void PoolTailer::Follow(const ReportedSegment& segment) {
  TakeRecords(segment, {});
}

absl::Status PoolTailer::ReadBehind() {
  std::vector<Behind> due;
  {
    const absl::Duration now = access_.clock->Now();
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, behind] : behind_) {
      if (due.size() < options_.segments_a_round && behind.next_try <= now) {
        due.push_back(behind);
      }
    }
  }
  for (const Behind& behind : due) {
    const std::optional<KnownSegment> known = catalogue_.Known(behind.name);
    absl::StatusOr<ScanResult> scan = ScanResult();
    if (known.has_value()) {
      scan = ScanPoolSegment(access_, behind.name, behind.file_pages, known->complete_pages);
    }
    if (IsMountFault(scan.status()) || absl::IsResourceExhausted(scan.status())) {
      return scan.status();
    }
    if (scan.ok() && known.has_value()) {
      // What lies behind the published end may not be durable, and is not there for anybody.
      catalogue_.Add(behind.name, scan->records, behind.end_page, behind.sealed);
    }
    absl::MutexLock lock(&mutex_);
    figures_.footers_read += scan.ok() && scan->by_footer ? 1 : 0;
    figures_.segments_scanned += scan.ok() && !scan->by_footer ? 1 : 0;
    if (scan.ok()) {
      behind_.erase(behind.name);
      continue;
    }
    // A name may not be seen here yet, and what was damaged on its way may come whole.
    ++figures_.segments_unreadable;
    Behind& later = behind_[behind.name];
    ++later.failures;
    const absl::Duration pause = kFirstRetry * std::exp2(std::min(later.failures - 1, 16U));
    later.next_try = access_.clock->Now() + std::min(pause, kLastRetry);
  }
  return absl::OkStatus();
}

absl::StatusOr<PoolReport> PoolTailer::LastManifest(const NodeLife& life) {
  const PoolReply listed = access_.files->Call(access_.CallOf(PoolOp::kList, LifePath(life)));
  if (!listed.status.ok()) {
    return listed.status;
  }
  absl::StatusOr<PoolReport> last = absl::NotFoundError("pool: this life has no manifest");
  for (auto entry = listed.entries.rbegin(); entry != listed.entries.rend(); ++entry) {
    const std::optional<uint32_t> number = ParseManifestName(entry->name);
    if (number.has_value()) {
      last = ReadManifest(access_, life, *number);
      if (last.ok() || IsMountFault(last.status())) {
        return last;
      }
    }
  }
  return last;
}

absl::StatusOr<WholeReport> PoolTailer::ReadWhole(const NodeLife& life) {
  absl::StatusOr<PoolReport> head = ReadHead(access_, life);
  if (!head.ok() && !absl::IsDataLoss(head.status())) {
    return head.status();
  }
  const absl::StatusOr<PoolReport> manifest =
      head.ok() ? ReadManifest(access_, life, head->manifest) : LastManifest(life);
  if (!head.ok()) {
    head = PoolReport();
  }
  if (!manifest.ok()) {
    return manifest.status();
  }
  std::map<SegmentName, ReportedSegment> segments;
  for (const ReportedSegment& segment : manifest->segments) {
    segments[segment.name] = segment;
  }
  for (const ReportedSegment& segment : head->segments) {
    segments[segment.name] = segment;
  }
  WholeReport whole;
  whole.life = life;
  for (const auto& [name, segment] : segments) {
    whole.segments.push_back(segment);
    whole.segments.back().listed_from_page = segment.end_page;  // its records are not handed on
  }
  whole.kills = manifest->kills;
  whole.kills.insert(whole.kills.end(), head->kills.begin(), head->kills.end());
  whole.generations = manifest->generations;
  whole.generations.insert(whole.generations.end(), head->generations.begin(),
                           head->generations.end());
  return whole;
}

// ---------------------------------------------------------------- what is known

std::vector<NodeLife> PoolTailer::LivesOf(const Digest128& node) const {
  std::vector<NodeLife> found;
  absl::MutexLock lock(&mutex_);
  for (const std::vector<NodeLife>* list : {&lives_, &claimed_}) {
    for (const NodeLife& life : *list) {
      if (life.node == node && std::find(found.begin(), found.end(), life) == found.end()) {
        found.push_back(life);
      }
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool PoolTailer::IsClaimed(const NodeLife& life) const {
  absl::MutexLock lock(&mutex_);
  return std::find(claimed_.begin(), claimed_.end(), life) != claimed_.end();
}

bool PoolTailer::HeardAll() const {
  absl::MutexLock lock(&mutex_);
  return all_heard_;
}

bool PoolTailer::SeenByAll(const RaisedGeneration& raised, absl::Duration dead_after) const {
  const absl::Duration now = access_.clock->Now();
  absl::MutexLock lock(&mutex_);
  return std::all_of(nodes_.begin(), nodes_.end(), [&](const auto& entry) {
    const Node& node = entry.second;
    if (node.ended || now - node.last_word > dead_after) {
      return true;  // when it comes back it learns of it before it serves
    }
    const auto known = node.generations.find(raised.namespace_digest);
    return known != node.generations.end() && HasLearned(known->second, raised.generation);
  });
}

std::vector<PoolNodeView> PoolTailer::Peers() const {
  std::vector<PoolNodeView> views;
  const absl::Duration now = access_.clock->Now();
  absl::MutexLock lock(&mutex_);
  views.reserve(nodes_.size());
  for (const auto& [digest, node] : nodes_) {
    PoolNodeView& view = views.emplace_back();
    view.node = digest;
    view.epoch = node.life.epoch;
    view.silence = now - node.last_word;
    view.segments = node.listing.size();
    for (const auto& [name, pages] : node.listing) {
      view.bytes += uint64_t{pages} * kPageBytes;
    }
  }
  return views;
}

std::vector<PoolNodeView> PoolTailer::Nodes() const {
  std::vector<PoolNodeView> views = Peers();
  absl::MutexLock lock(&mutex_);
  for (PoolNodeView& view : views) {
    const auto node = nodes_.find(view.node);
    if (node == nodes_.end()) {
      continue;  // gone meanwhile
    }
    for (const auto& [name, pages] : node->second.listing) {
      view.behind_segments += behind_.contains(name) ? 1 : 0;
      const std::optional<KnownSegment> known = catalogue_.Known(name);
      view.records += known.has_value() ? known->records : 0;
    }
  }
  return views;
}

uint64_t PoolTailer::behind_segments() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<uint64_t>(std::count_if(behind_.begin(), behind_.end(), [](const auto& entry) {
    return entry.second.failures == 0;
  }));
}

PoolTailerFigures PoolTailer::figures() const {
  absl::MutexLock lock(&mutex_);
  return figures_;
}

}  // namespace terrace
