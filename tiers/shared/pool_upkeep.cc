// What time makes due: following the others, writing, reclaim, adoption of dead nodes.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/shared/pool_space.h"
#include "tiers/shared/pool_tier.h"
#include "tiers/vocab/clear_order.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr absl::Duration kMountRetry = absl::Seconds(1);
constexpr absl::Duration kForeignRetry = absl::Seconds(5);
constexpr absl::Duration kUpkeep = absl::Seconds(1);
constexpr absl::Duration kCheck = absl::Seconds(15);
constexpr absl::Duration kSpaceLook = absl::Seconds(10);  // at the file system
constexpr absl::Duration kHeatWindow = absl::Seconds(10);
constexpr double kHeatKept = 0.98;  // of what was before, a window: half of it after six minutes
constexpr size_t kMaxGenerationsKept = 65536;

uint64_t Weight(const Digest128& dead, const Digest128& node) {
  std::array<char, 32> bytes{};
  FieldWriter writer(absl::MakeSpan(bytes));
  writer.Digest(dead);
  writer.Digest(node);
  return PayloadChecksum(bytes).lo;
}

}  // namespace

// ---------------------------------------------------------------- jobs

void PoolTier::NoteMount(const absl::Status& status) {
  const bool foreign = absl::IsFailedPrecondition(status);
  foreign_.store(foreign);
  mount_ok_.store(status.ok());
  mount_failed_.store(!status.ok() && !foreign);
  absl::MutexLock lock(&mutex_);
  if (!status.ok()) {
    last_fault_ = std::string(status.message());
    next_tail_ = parts_.clock->Now() + (foreign ? kForeignRetry : kMountRetry);
  }
}

void PoolTier::RunTail() {
  const absl::Status status = closing_.load() ? absl::OkStatus() : Tail();
  NoteMount(status);
  absl::MutexLock lock(&mutex_);
  tailing_ = false;
}

void PoolTier::RunWrite() {
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer != nullptr) {
    // The fault is among its figures; whether the mount answers at all is for the other job to say.
    const absl::Status status = writer->Work();
    if (IsMountFault(status)) {
      mount_ok_.store(false);
      mount_failed_.store(true);
    }
  }
  absl::MutexLock lock(&mutex_);
  writing_ = false;
}

absl::Status PoolTier::Tail() {
  if (!has_pool_.load()) {
    if (absl::Status status = FindPool(); !status.ok()) {
      return status;
    }
  }
  const absl::Duration now = parts_.clock->Now();
  bool check = !mount_ok_.load();
  bool upkeep = false;
  bool begin = false;
  {
    absl::MutexLock lock(&mutex_);
    const uint64_t faults = opened_->reader.figures().mount_faults;
    check = check || next_check_ <= now || faults != mount_faults_seen_;
    mount_faults_seen_ = faults;
    if (check) {
      next_check_ = now + kCheck;
    }
  }
  if (check) {
    if (absl::Status status = CheckPool(); !status.ok()) {
      return status;
    }
  }
  TailNews news;
  const absl::Status round = opened_->tailer.Round(&news);
  TakeNews(news);
  if (!round.ok()) {
    return round;
  }
  {
    absl::MutexLock lock(&mutex_);
    begin = !life_begun_;
    upkeep = next_upkeep_ <= now;
    if (upkeep) {
      next_upkeep_ = now + kUpkeep;
    }
    std::erase_if(old_writers_,
                  [](const std::shared_ptr<PoolWriter>& writer) { return writer->Idle(); });
  }
  if (begin) {
    if (absl::Status status = BeginLife(); !status.ok()) {
      return status;
    }
  }
  return opened_->tailer.HeardAll() ? Serve(upkeep) : absl::OkStatus();
}

absl::Status PoolTier::Serve(bool upkeep) {
  std::vector<RaisedGeneration> all;
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(tell_all_, false)) {
      for (const auto& [digest, generation] : known_generations_) {
        all.push_back({digest, generation});
      }
    }
  }
  Learn(all);
  if (!serving_.exchange(true)) {
    opened_->catalogue.Forget(opened_->catalogue.Unkept());  // nobody lists them any more
  }
  if (!upkeep) {
    return absl::OkStatus();
  }
  KillLateComers();
  FadeHeats();
  const absl::Status flushed = opened_->catalogue.Flush();
  if (!flushed.ok()) {
    absl::MutexLock lock(&mutex_);
    last_fault_ = std::string(flushed.message());  // the next start reads the pool instead
  }
  SayAgainAfterFaults();
  if (absl::Status status = Reclaim(); !status.ok()) {
    return status;
  }
  if (absl::Status status = AdoptTheDead(); !status.ok()) {
    return status;
  }
  return CollectOrphans();
}

void PoolTier::SayAgainAfterFaults() {
  const PoolFilesFigures files = parts_.files->figures();
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  absl::MutexLock lock(&mutex_);
  // Up, when one was given up; down, when one that hung has ended.
  const uint64_t lost = files.abandoned * 64 + files.stuck;
  if (std::exchange(workers_lost_seen_, lost) != lost && writer != nullptr) {
    writer->SayAgain();
  }
}

// ---------------------------------------------------------------- news

void PoolTier::Learn(const std::vector<RaisedGeneration>& news) {
  absl::ReaderMutexLock lock(&watch_mutex_);
  if (learn_ != nullptr && !news.empty()) {
    learn_(news);
  }
}

void PoolTier::TakeNews(const TailNews& news) {
  std::vector<RaisedGeneration> raised_here;  // which nobody here knew; smaller ones, too
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [node, heats] : news.heats) {
      heats_[node] = heats;
    }
    for (const RaisedGeneration& raised : news.generations) {
      if (known_generations_.size() >= kMaxGenerationsKept &&
          !known_generations_.contains(raised.namespace_digest)) {
        continue;
      }
      uint64_t& known = known_generations_[raised.namespace_digest];
      if (!HasLearned(known, raised.generation)) {
        known = std::max(known, raised.generation);
        raised_here.push_back(raised);
      }
    }
  }
  Learn(raised_here);
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer == nullptr) {
    return;
  }
  writer->Repeat(raised_here);
  const NodeLife own = writer->life();
  const std::vector<NodeLife> lives = opened_->tailer.LivesOf(options_.node);
  if (opened_->tailer.IsClaimed(own)) {
    FenceLife("another node has taken over what this one published, which it held to be dead");
  } else if (!lives.empty() && lives.back() > own) {
    FenceLife("another daemon uses the name of this node");
  }
}

// A node that had not heard of a deletion may have published the block meanwhile.
void PoolTier::KillLateComers() {
  std::vector<Digest128> deleted;
  const absl::Duration now = parts_.clock->Now();
  {
    absl::MutexLock lock(&mutex_);
    for (auto at = deleted_.begin(); at != deleted_.end();) {
      if (at->second <= now) {
        deleted_.erase(at++);
      } else {
        deleted.push_back(at->first);
        ++at;
      }
    }
    any_deleted_.store(!deleted_.empty());
  }
  std::vector<Kill> kills;
  for (const Digest128& fingerprint : deleted) {
    if (!opened_->catalogue.Holds(fingerprint)) {
      continue;
    }
    for (const Kill& kill : opened_->catalogue.Places(fingerprint)) {
      opened_->catalogue.Apply(kill);
      kills.push_back(kill);
    }
  }
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (!kills.empty() && writer != nullptr) {
    writer->AddKills(kills, [](WriteOutcome) {});
  }
}

// ---------------------------------------------------------------- space

void PoolTier::FadeHeats() {
  const absl::Duration now = parts_.clock->Now();
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  absl::MutexLock lock(&mutex_);
  if (next_heat_ > now || writer == nullptr) {
    return;
  }
  next_heat_ = now + kHeatWindow;
  heats_[options_.node] = opened_->reader.TakeHeats();
  // What is new begins as warm as the others are: nobody has had the time to read it.
  double sum = 0;
  for (const auto& [name, heat] : heat_) {
    sum += heat;
  }
  const double mean = heat_.empty() ? 0 : sum / static_cast<double>(heat_.size());
  std::map<SegmentName, double> faded;
  for (const ReportedSegment& own : writer->Reclaimable()) {
    const auto before = heat_.find(own.name);
    faded[own.name] = (before == heat_.end() ? mean : before->second) * kHeatKept;
  }
  for (const auto& [node, heats] : heats_) {
    for (const ReportedHeat& heat : heats) {
      if (const auto own = faded.find(heat.segment); own != faded.end()) {
        own->second += heat.reads;
      }
    }
  }
  heat_ = std::move(faded);
  writer->SetHeats(heats_[options_.node]);
}

std::vector<SpaceSegment> PoolTier::OwnSegments(const PoolWriter& writer) const {
  std::vector<SpaceSegment> segments;
  absl::MutexLock lock(&mutex_);
  for (const ReportedSegment& own : writer.Reclaimable()) {
    const auto heat = heat_.find(own.name);
    segments.push_back({own.name, uint64_t{own.file_pages} * kPageBytes,
                        heat == heat_.end() ? std::nullopt : std::optional(heat->second),
                        own.records == 0, own.records});
  }
  return segments;
}

std::vector<PoolSegmentView> PoolTier::ReclaimOrder() const {
  std::vector<PoolSegmentView> order;
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer == nullptr) {
    return order;
  }
  std::vector<SpaceSegment> segments = OwnSegments(*writer);
  SortForReclaim(segments);
  order.reserve(segments.size());
  for (const SpaceSegment& segment : segments) {
    order.push_back({SegmentPath(segment.name), segment.bytes, segment.records, segment.heat});
  }
  return order;
}

absl::Status PoolTier::Reclaim() {
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer == nullptr) {
    return absl::OkStatus();
  }
  const absl::Duration now = parts_.clock->Now();
  if (next_space_look_ <= now) {
    const PoolReply space =
        parts_.files->Call(opened_->access.CallOf(PoolOp::kSpace, std::string()));
    if (!space.status.ok()) {
      // Nobody knows how full it is: nothing is given up for that.
      return IsMountFault(space.status) ? space.status : absl::OkStatus();
    }
    available_bytes_ = space.space.available_bytes;
    next_space_look_ = now + kSpaceLook;
  }
  SpaceView view;
  view.capacity_bytes = options_.capacity_bytes;
  view.share_bytes = options_.node_share_bytes;
  view.segment_bytes = options_.segment_bytes;
  view.free_reserve_bytes = options_.free_reserve_bytes;
  view.available_bytes = available_bytes_;
  view.own_bytes = writer->figures().own_bytes;
  for (const PoolNodeView& node : opened_->tailer.Peers()) {
    view.others_bytes += node.bytes;
    view.other_nodes += node.silence <= options_.dead_after ? 1 : 0;
  }
  view.segments = OwnSegments(*writer);
  const SpacePlan plan = PlanSpace(view);
  writer->SetRoom(plan.there_is_room);
  if (!plan.retire.empty()) {
    writer->Retire(plan.retire);
    absl::MutexLock lock(&mutex_);
    reclaimed_ += plan.retire.size();
  }
  return absl::OkStatus();
}

// ---------------------------------------------------------------- the dead

// One of the living, the same for all who see the same.
bool PoolTier::IsAdopter(const Digest128& dead) const {
  const uint64_t own = Weight(dead, options_.node);
  for (const PoolNodeView& node : opened_->tailer.Peers()) {
    if (!(node.node == dead) && node.silence <= options_.dead_after &&
        Weight(dead, node.node) > own) {
      return false;
    }
  }
  return true;
}

absl::Status PoolTier::AdoptTheDead() {
  if (absl::Status status = LeaveMembers(); !status.ok()) {
    return status;
  }
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer == nullptr) {
    return absl::OkStatus();
  }
  for (const PoolNodeView& node : opened_->tailer.Peers()) {
    if (node.silence <= options_.dead_after || !IsAdopter(node.node)) {
      continue;
    }
    const NodeLife dead{node.node, node.epoch};
    const absl::StatusOr<WholeReport> whole = opened_->tailer.ReadWhole(dead);
    if (IsMountFault(whole.status())) {
      return whole.status();
    }
    if (!whole.ok()) {
      continue;
    }
    const absl::Status claimed =
        WriteSmallFile(opened_->access, PoolOp::kCreate, ClaimPath(dead), options_.node.ToHex());
    if (absl::IsAlreadyExists(claimed)) {
      const absl::StatusOr<bool> free = TakeClaim(dead);
      if (!free.ok()) {
        return free.status();
      }
      if (!*free) {
        continue;
      }
    } else if (!claimed.ok()) {
      return claimed;
    }
    for (const Kill& kill : whole->kills) {
      opened_->catalogue.Apply(kill);
    }
    claimed_here_.push_back(dead);
    for (const ReportedSegment& segment : whole->segments) {
      opened_->tailer.Follow(segment);
    }
    writer->Adopt(*whole, [this, dead](bool told) {
      if (told) {
        absl::MutexLock lock(&mutex_);
        adopted_members_.push_back(dead);
        ++adopted_;
      }
    });
  }
  return absl::OkStatus();
}

// Whether a dead node that is claimed already is this node's to adopt: the claim is its own, of an
// earlier life perhaps, or that of another dead node. Where two think so at once both list its
// segments, which harms nothing.
absl::StatusOr<bool> PoolTier::TakeClaim(const NodeLife& dead) {
  absl::StatusOr<std::string> claimer = ReadSmallFile(opened_->access, ClaimPath(dead));
  if (!claimer.ok()) {
    return IsMountFault(claimer.status()) ? absl::StatusOr<bool>(claimer.status()) : false;
  }
  for (const NodeLife& life : claimed_here_) {
    if (life == dead) {
      return false;  // its head is on its way
    }
  }
  if (*claimer != options_.node.ToHex()) {
    for (const PoolNodeView& node : opened_->tailer.Peers()) {
      if (node.node.ToHex() == *claimer && node.silence <= options_.dead_after) {
        return false;
      }
    }
    const absl::Status taken =
        WriteSmallFile(opened_->access, PoolOp::kReplace, ClaimPath(dead), options_.node.ToHex());
    if (!taken.ok()) {
      return IsMountFault(taken) ? absl::StatusOr<bool>(taken) : false;
    }
  }
  return true;
}

// Its segments are listed here now, so nobody has to look for it any more.
absl::Status PoolTier::LeaveMembers() {
  std::vector<NodeLife> members;
  {
    absl::MutexLock lock(&mutex_);
    members.swap(adopted_members_);
  }
  for (const NodeLife& member : members) {
    const PoolReply removed =
        parts_.files->Call(opened_->access.CallOf(PoolOp::kRemove, MemberPath(member)));
    if (IsMountFault(removed.status)) {
      absl::MutexLock lock(&mutex_);
      adopted_members_.push_back(member);
      return removed.status;
    }
  }
  return absl::OkStatus();
}

}  // namespace terrace
