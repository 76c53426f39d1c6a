#include "tools/sim/pool_simulation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "tiers/shared/pool_format.h"
#include "tiers/shared/shared_tier.h"
#include "tools/sim/pool_node.h"
#include "tools/sim/seeded_numbers.h"
#include "tools/sim/virtual_time.h"

namespace terrace::sim {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr double kWarmUp = 0.25;  // parts of the time
constexpr double kKill = 0.5;
constexpr double kSampled = 0.85;  // until then puts are followed
constexpr double kReadsAPut = 0.5;
constexpr double kFleetBlocksPerSecond = 512;
constexpr double kMostBlocksPerSecond = 4;
constexpr double kSegmentSeconds = 16;
constexpr uint64_t kSegmentsANode = 7;
constexpr size_t kRecentBlocks = 4096;  // of which others read
constexpr uint32_t kMaxNodes = 4096;
constexpr uint64_t kPage = 4096;
// A segment's head, footer and the largest metadata, which the tier wants room for.
constexpr uint64_t kSegmentPagesBeside = 10;

template <typename T>
T Quantile(std::vector<T> values, double part) {
  if (values.empty()) {
    return T();
  }
  const auto rank = static_cast<size_t>(part * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(rank), values.end());
  return values[rank];
}

Digest128 DigestOf(uint64_t seed, uint64_t what) {
  SeededNumbers numbers(seed * 1'000'003 + what);
  return {numbers.Next(), numbers.Next()};
}

class PoolFleet {
 public:
  explicit PoolFleet(const PoolPlan& plan)
      : plan_(plan),
        seconds_(absl::Seconds(plan.seconds)),
        begin_(clock_.Now()),
        random_(plan.seed),
        block_(static_cast<uint32_t>(plan.block_bytes)) {}

  absl::StatusOr<PoolFigures> Run(const std::function<bool(double part)>& advance);

 private:
  // A block that was put, until the node that looks for it finds it.
  struct Awaited {
    BlockName name;
    absl::Duration put_at;
  };
  struct Member {
    std::unique_ptr<PoolNode> node;
    absl::Duration starts_at;
    absl::Duration next_put;
    absl::Duration next_read;
    uint32_t blocks = 0;  // put
    std::vector<Awaited> awaited;
    CallCounts before;  // what is measured
  };

  void MakePool();
  void MakeMembers();
  [[nodiscard]] absl::Duration Passed() const { return clock_.Now() - begin_; }
  [[nodiscard]] absl::Duration At(double part) const { return begin_ + part * seconds_; }
  absl::Status Pass(uint32_t index);
  void Put(uint32_t index);
  void ReadOne(uint32_t index);
  void LookForAwaited(Member& member);
  void Kill();
  [[nodiscard]] bool ReadClaim(const Digest128& node, std::string* adopter) const;
  void LookForAdoption();
  void Measure();
  void MeasureCalls();
  void MeasureMemory();

  const PoolPlan plan_;
  const absl::Duration seconds_;
  VirtualClock clock_;
  const absl::Duration begin_;
  SeededNumbers random_;
  SimulatedMount mount_;
  BufferShelf shelf_;
  const ZeroBlock block_;
  std::vector<Member> members_;
  std::deque<BlockName> recent_;  // published
  std::vector<double> visible_seconds_;
  bool measuring_ = false;
  uint32_t killed_ = 0;
  std::optional<absl::Duration> killed_at_;
  std::vector<BlockName> killed_blocks_;
  PoolFigures figures_;
};

// ---------------------------------------------------------------- the begin

// Its UUID follows from the seed; the first node would draw one.
void PoolFleet::MakePool() {
  std::string page(kPage, '\0');
  EncodePoolSuperblock({DigestOf(plan_.seed, 0)}, absl::MakeSpan(page));
  const std::vector<absl::Status> made = {
      mount_.MakeFolder(std::string(kMembersName)), mount_.MakeFolder(std::string(kNodesName)),
      mount_.Put(std::string(kPoolSuperblockName), page, SimulatedMount::Existing::kKeep)};
  for (const absl::Status& status : made) {
    status.IgnoreError();  // the mount is empty
  }
}

void PoolFleet::MakeMembers() {
  SharedTierOptions options;
  options.capacity_bytes = plan_.capacity_bytes;
  options.segment_bytes = plan_.segment_bytes;
  options.max_payload_bytes = plan_.block_bytes;
  options.free_reserve_bytes = 0;
  options.grace = absl::Seconds(plan_.grace_seconds);
  options.dead_after = absl::Seconds(plan_.dead_after_seconds);
  options.bulletins_from = plan_.bulletins_from;
  const absl::Duration spread = std::min(absl::Seconds(10), 0.05 * seconds_);
  members_.resize(plan_.nodes);
  for (uint32_t i = 0; i < plan_.nodes; ++i) {
    options.node = DigestOf(plan_.seed, i + 1);
    Member& member = members_[i];
    member.node =
        std::make_unique<PoolNode>(options, PoolNode::Room{&mount_, &shelf_, &clock_, &block_});
    member.starts_at = begin_ + random_.Fraction() * spread;
    member.next_put = member.starts_at + absl::Seconds(random_.Pause(1 / plan_.blocks_per_second));
    member.next_read = At(kWarmUp);
  }
}

absl::StatusOr<PoolFigures> PoolFleet::Run(const std::function<bool(double part)>& advance) {
  const auto wall_begin = std::chrono::steady_clock::now();
  MakePool();
  MakeMembers();
  for (absl::Duration round = begin_; round < begin_ + seconds_; round += kTick) {
    if (!measuring_ && round >= At(kWarmUp)) {
      measuring_ = true;
      for (Member& member : members_) {
        member.before = member.node->counts();
      }
    }
    if (!killed_at_.has_value() && round >= At(kKill)) {
      Kill();
    }
    for (uint32_t i = 0; i < plan_.nodes; ++i) {
      clock_.Set(round + kTick * i / plan_.nodes);
      if (absl::Status status = Pass(i); !status.ok()) {
        return status;
      }
    }
    LookForAdoption();
    figures_.highest_fill =
        std::max(figures_.highest_fill, static_cast<double>(mount_.made_bytes()) /
                                            static_cast<double>(plan_.capacity_bytes));
    if (!advance(absl::FDivDuration(round - begin_, seconds_))) {
      return absl::CancelledError("interrupted");
    }
  }
  Measure();
  members_.clear();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - wall_begin;
  figures_.wall_seconds = wall.count();
  return figures_;
}

// ---------------------------------------------------------------- what nodes do

absl::Status PoolFleet::Pass(uint32_t index) {
  Member& member = members_[index];
  const absl::Duration now = clock_.Now();
  if (member.starts_at <= now) {
    member.starts_at = absl::InfiniteDuration();
    if (absl::Status status = member.node->Start(); !status.ok()) {
      return status;
    }
  }
  if (!member.node->runs()) {
    return absl::OkStatus();
  }
  for (; member.next_put <= now;
       member.next_put += absl::Seconds(random_.Pause(1 / plan_.blocks_per_second))) {
    Put(index);
  }
  for (; member.next_read <= now; member.next_read += absl::Seconds(
                                      random_.Pause(1 / (plan_.blocks_per_second * kReadsAPut)))) {
    ReadOne(index);
  }
  member.node->Tick();
  LookForAwaited(member);
  return absl::OkStatus();
}

void PoolFleet::Put(uint32_t index) {
  Member& member = members_[index];
  const BlockName name{index, member.blocks++};
  const absl::Duration put_at = clock_.Now();
  const bool sampled = measuring_ && put_at < At(kSampled) && plan_.nodes > 1;
  uint32_t other = static_cast<uint32_t>(random_.Below(std::max(plan_.nodes, 2U) - 1));
  other += other >= index ? 1 : 0;
  member.node->Publish(name, [this, name, put_at, sampled, other](WriteOutcome outcome) {
    if (outcome != WriteOutcome::kWritten) {
      figures_.refused += measuring_ && members_[name.node].node->runs() ? 1 : 0;
      return;
    }
    ++figures_.published;
    recent_.push_back(name);
    if (recent_.size() > kRecentBlocks) {
      recent_.pop_front();
    }
    if (sampled && members_[other].node->runs()) {
      members_[other].awaited.push_back({name, put_at});
    }
  });
}

void PoolFleet::ReadOne(uint32_t index) {
  if (recent_.empty()) {
    return;
  }
  const BlockName name = recent_[random_.Below(recent_.size())];
  PoolNode& node = *members_[index].node;
  if (name.node == index || !node.Finds(name)) {
    return;
  }
  const ReadOutcome outcome = node.Read(name);
  ++(outcome == ReadOutcome::kVerified ? figures_.reads
     : outcome == ReadOutcome::kGone   ? figures_.reads_gone
                                       : figures_.reads_failed);
}

void PoolFleet::LookForAwaited(Member& member) {
  std::erase_if(member.awaited, [&](const Awaited& awaited) {
    const bool found = member.node->Finds(awaited.name);
    if (found) {
      visible_seconds_.push_back(absl::ToDoubleSeconds(clock_.Now() - awaited.put_at));
    }
    return found;
  });
}

// ---------------------------------------------------------------- the one that dies

void PoolFleet::Kill() {
  killed_ = static_cast<uint32_t>(random_.Below(plan_.nodes));
  Member& member = members_[killed_];
  for (uint32_t number = 0; number < member.blocks; ++number) {
    if (member.node->Finds({killed_, number})) {
      killed_blocks_.push_back({killed_, number});
    }
  }
  member.node->Kill();
  member.awaited.clear();
  killed_at_ = clock_.Now();
  figures_.killed_blocks = killed_blocks_.size();
}

// False: nobody has claimed a life of that node yet.
bool PoolFleet::ReadClaim(const Digest128& node, std::string* adopter) const {
  const absl::StatusOr<std::vector<FolderEntry>> members = mount_.List(std::string(kMembersName));
  for (size_t i = 0; members.ok() && i < members->size(); ++i) {
    const std::optional<MemberFile> member = ParseMemberName((*members)[i].name);
    if (member.has_value() && member->claimed && member->life.node == node) {
      return mount_.Read(ClaimPath(member->life), 0, absl::MakeSpan(*adopter)).ok();
    }
  }
  return false;
}

// The name of who adopts lies in the claim; what it took over is its own once its head says so.
void PoolFleet::LookForAdoption() {
  if (!killed_at_.has_value() || figures_.adopted_seconds > 0) {
    return;
  }
  std::string adopter(32, '\0');
  if (!ReadClaim(DigestOf(plan_.seed, killed_ + 1), &adopter)) {
    return;
  }
  for (uint32_t i = 0; i < plan_.nodes; ++i) {
    if (DigestOf(plan_.seed, i + 1).ToHex() != adopter ||
        members_[i].node->figures().adopted_nodes == 0) {
      continue;
    }
    figures_.adopted_seconds = absl::ToDoubleSeconds(clock_.Now() - *killed_at_);
    figures_.lost_blocks = static_cast<uint64_t>(
        std::count_if(killed_blocks_.begin(), killed_blocks_.end(),
                      [&](const BlockName& name) { return !members_[i].node->Finds(name); }));
  }
}

// ---------------------------------------------------------------- what came of it

void PoolFleet::Measure() {
  figures_.plan = plan_;
  MeasureCalls();
  MeasureMemory();
  for (const Member& member : members_) {
    figures_.unseen += member.awaited.size();
    for (const Awaited& awaited : member.awaited) {
      visible_seconds_.push_back(absl::ToDoubleSeconds(clock_.Now() - awaited.put_at));
    }
  }
  figures_.samples = visible_seconds_.size();
  figures_.visible_seconds = {Quantile(visible_seconds_, 0.5), Quantile(visible_seconds_, 0.99),
                              Quantile(visible_seconds_, 1.0)};
  const absl::StatusOr<std::vector<FolderEntry>> names = mount_.List(std::string(kMembersName));
  for (const FolderEntry& entry : names.value_or(std::vector<FolderEntry>())) {
    const std::optional<MemberFile> file = ParseMemberName(entry.name);
    const bool living = file.has_value() && file->claimed &&
                        !(file->life.node == DigestOf(plan_.seed, killed_ + 1));
    figures_.living_adopted += living ? 1 : 0;
  }
}

void PoolFleet::MeasureCalls() {
  const double seconds = (1 - kWarmUp) * plan_.seconds;
  std::vector<double> all;
  std::vector<double> report_bytes;
  std::array<std::vector<double>, kCallPurposes> by_purpose;
  std::array<std::vector<double>, kFileCalls> by_kind;
  for (const Member& member : members_) {
    if (!member.node->runs()) {
      continue;
    }
    const CallCounts& now = member.node->counts();
    const auto rate = [seconds](uint64_t later, uint64_t before) {
      return static_cast<double>(later - before) / seconds;
    };
    all.push_back(rate(now.All(), member.before.All()));
    report_bytes.push_back(rate(now.report_bytes, member.before.report_bytes));
    for (size_t i = 0; i < kCallPurposes; ++i) {
      const auto purpose = static_cast<CallPurpose>(i);
      by_purpose[i].push_back(rate(now.Of(purpose), member.before.Of(purpose)));
    }
    for (size_t i = 0; i < kFileCalls; ++i) {
      const auto kind = static_cast<FileCall>(i);
      by_kind[i].push_back(rate(now.Of(kind), member.before.Of(kind)));
    }
  }
  figures_.calls_median = Quantile(all, 0.5);
  figures_.calls_max = Quantile(all, 1);
  figures_.report_bytes_per_second = Quantile(report_bytes, 0.5);
  for (size_t i = 0; i < kCallPurposes; ++i) {
    figures_.calls_by_purpose[i] = Quantile(by_purpose[i], 0.5);
  }
  for (size_t i = 0; i < kFileCalls; ++i) {
    figures_.calls_by_kind[i] = Quantile(by_kind[i], 0.5);
  }
}

void PoolFleet::MeasureMemory() {
  std::vector<uint64_t> records;
  double bytes_of_all = 0;
  double records_of_all = 0;
  for (const Member& member : members_) {
    if (!member.node->runs()) {
      continue;
    }
    const SharedTierFigures figures = member.node->figures();
    records.push_back(figures.records);
    records_of_all += static_cast<double>(figures.records);
    bytes_of_all += static_cast<double>(figures.catalogue_bytes);
    figures_.catalogue_bytes = std::max(figures_.catalogue_bytes, figures.catalogue_bytes);
    figures_.reclaimed_segments += figures.reclaimed_segments;
  }
  figures_.records = Quantile(records, 0.5);
  figures_.catalogue_bytes_per_record = records_of_all > 0 ? bytes_of_all / records_of_all : 0;
}

}  // namespace

PoolPlan FilledIn(PoolPlan plan) {
  const auto fill = [](auto& value, auto with) {
    if (value == 0) {
      value = with;
    }
  };
  fill(plan.seconds, 240.0);
  fill(plan.blocks_per_second,
       std::min(kMostBlocksPerSecond, kFleetBlocksPerSecond / std::max(plan.nodes, 1U)));
  fill(plan.block_bytes, uint64_t{16} << 10);
  const uint64_t record_pages = 1 + (plan.block_bytes + kPage - 1) / kPage;
  const auto records = static_cast<uint64_t>(std::ceil(plan.blocks_per_second * kSegmentSeconds));
  fill(plan.segment_bytes, (records * record_pages + kSegmentPagesBeside) * kPage);
  fill(plan.capacity_bytes, plan.nodes * kSegmentsANode * plan.segment_bytes);
  fill(plan.grace_seconds, 10.0);
  fill(plan.dead_after_seconds, 60.0);
  fill(plan.bulletins_from, SharedTierOptions().bulletins_from);
  return plan;
}

absl::StatusOr<PoolFigures> SimulatePool(const PoolPlan& plan,
                                         const std::function<bool(double part)>& advance) {
  if (plan.nodes < 1 || plan.nodes > kMaxNodes) {
    return absl::InvalidArgumentError(absl::StrCat("nodes: from 1 to ", kMaxNodes));
  }
  const PoolPlan filled = FilledIn(plan);
  if (filled.block_bytes > kMaxPayloadBytes) {
    return absl::InvalidArgumentError("block_bytes: at most 64 MiB");
  }
  if (filled.seconds < 1 || filled.blocks_per_second < 0.001) {
    return absl::InvalidArgumentError("seconds: at least 1; blocks_per_second: at least 0.001");
  }
  return std::make_unique<PoolFleet>(filled)->Run(advance);
}

}  // namespace terrace::sim
