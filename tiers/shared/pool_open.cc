// Finding the pool under the mount, and beginning a life in it.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "tiers/os/descriptor.h"
#include "tiers/os/file_system.h"
#include "tiers/shared/pool_tier.h"

namespace terrace {
namespace {

constexpr uint32_t kEpochsTried = 16;

// Names that a file system may have in a folder that nobody has used.
bool IsOfFileSystem(const std::string& name) {
  return name == "lost+found" || name.front() == '.';
}

// Above all that are known, and never the same twice, whatever is forgotten or not seen.
uint64_t NextEpoch(uint64_t last) {
  constexpr uint32_t kRandomBits = 24;
  uint64_t random = 0;
  FillRandom({reinterpret_cast<char*>(&random), sizeof(random)});
  return ((last >> kRandomBits) + 1) << kRandomBits | (random & ((uint64_t{1} << kRandomBits) - 1));
}

PoolTailerOptions TailerOptionsOf(const SharedTierOptions& options) {
  PoolTailerOptions tailer;
  tailer.self = options.node;
  tailer.poll_interval = options.poll_interval;
  tailer.quiet_poll_interval = options.quiet_poll_interval;
  tailer.members_interval = options.members_interval;
  tailer.bulletins_from = options.bulletins_from;
  return tailer;
}

PoolAccess WithProtection(PoolAccess access, const PoolProtection& protection) {
  access.protection = &protection;
  return access;
}

// In constant time: whoever can write the superblock could else find the proof byte by byte.
bool IsSame(const PoolSecret::Proof& one, const PoolSecret::Proof& other) {
  unsigned differ = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    differ |= static_cast<unsigned>(static_cast<unsigned char>(one[i]) ^
                                    static_cast<unsigned char>(other[i]));
  }
  return differ == 0;
}

PoolReaderOptions ReaderOptionsOf(const SharedTierOptions& options) {
  PoolReaderOptions reader;
  reader.max_reads = options.max_reads;
  reader.merge_bytes = options.merge_read_bytes;
  return reader;
}

}  // namespace

PoolTier::Opened::Opened(const SharedTierOptions& options,
                         const SharedTierParts& parts,
                         PoolAccess pool)
    : protection(parts.secret == nullptr ? MakePlainProtection(pool.pool)
                                         : parts.secret->ProtectionOf(pool.pool)),
      access(WithProtection(std::move(pool), *protection)),
      index(parts.open_index == nullptr ? nullptr : parts.open_index(access.pool)),
      catalogue(access.pool, index),
      tailer(TailerOptionsOf(options), access, catalogue),
      reader(ReaderOptionsOf(options), access, catalogue, *parts.hashing) {}

PoolWriterOptions PoolTier::WriterOptions() const {
  PoolWriterOptions writer;
  writer.segment_bytes = options_.segment_bytes;
  writer.max_publishing_bytes = options_.max_publishing_bytes;
  writer.head_interval = options_.head_interval;
  writer.grace = options_.grace;
  // So that the silence of a node that lives never comes near what makes it dead.
  writer.heartbeat = std::min(absl::Seconds(20), options_.dead_after / 8);
  return writer;
}

// ---------------------------------------------------------------- the pool

absl::StatusOr<Digest128> PoolTier::ReadSuperblock() {
  const std::shared_ptr<PoolBuffer> buffer = parts_.files->TakeBuffer(kPageBytes);
  if (buffer == nullptr) {
    return absl::ResourceExhaustedError("pool: no buffer is free");
  }
  PoolCall call;
  call.op = PoolOp::kRead;
  call.path = std::string(kPoolSuperblockName);
  call.length = kPageBytes;
  call.buffer = buffer;
  call.how = ReadHow::kFresh;
  call.deadline = parts_.clock->Now() + options_.call_deadline;
  const PoolReply reply = parts_.files->Call(std::move(call));
  if (!reply.status.ok()) {
    return reply.status;
  }
  // What is decoded must not change meanwhile.
  const std::string page(buffer->memory().data(), std::min<uint64_t>(reply.bytes, kPageBytes));
  PoolSuperblock superblock;
  switch (DecodePoolSuperblock(page, &superblock)) {
    case HeaderFault::kNone:
      if (absl::Status status = CheckProtection(superblock); !status.ok()) {
        return status;
      }
      return superblock.pool;
    case HeaderFault::kNewerVersion:
      return absl::FailedPreconditionError("the pool is of a newer version");
    default:
      return absl::FailedPreconditionError("terrace.pool is damaged, or something else");
  }
}

absl::Status PoolTier::CheckProtection(const PoolSuperblock& superblock) const {
  if (superblock.auth != Auth()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the pool was made with auth = ", std::string(AuthText(superblock.auth)),
                     ", and this node is configured with auth = ", std::string(AuthText(Auth()))));
  }
  if (parts_.secret != nullptr &&
      !IsSame(parts_.secret->ProofOf(superblock.pool), superblock.proof)) {
    return absl::FailedPreconditionError("the pool was made with another key than this node has");
  }
  return absl::OkStatus();
}

absl::Status PoolTier::MakePool() {
  PoolAccess access;
  access.files = parts_.files;
  access.clock = parts_.clock;
  access.call_deadline = options_.call_deadline;
  PoolReply listed = parts_.files->Call(access.CallOf(PoolOp::kList, ""));
  if (!listed.status.ok()) {
    return listed.status;
  }
  for (const FolderEntry& entry : listed.entries) {
    const bool ours = entry.name == kMembersName || entry.name == kNodesName ||
                      IsTemporaryName(entry.name);  // of a beginning that did not come to its end
    if (!ours && !IsOfFileSystem(entry.name)) {
      return absl::FailedPreconditionError("the folder is no pool, and not empty");
    }
  }
  for (const std::string_view folder : {kMembersName, kNodesName}) {
    if (absl::Status status = MakePoolFolder(access, std::string(folder)); !status.ok()) {
      return status;
    }
  }
  PoolSuperblock superblock;
  std::string bytes(16, '\0');
  FillRandom(absl::MakeSpan(bytes));
  Digest128::FromBytes(bytes, &superblock.pool);
  superblock.auth = Auth();
  if (parts_.secret != nullptr) {
    superblock.proof = parts_.secret->ProofOf(superblock.pool);
  }
  std::string page(kPageBytes, '\0');
  EncodePoolSuperblock(superblock, absl::MakeSpan(page));
  const absl::Status made =
      WriteSmallFile(access, PoolOp::kCreate, std::string(kPoolSuperblockName), page);
  return absl::IsAlreadyExists(made) ? absl::OkStatus() : made;  // another node was first
}

absl::Status PoolTier::FindPool() {
  PoolCall look;
  look.op = PoolOp::kCheckRoot;  // what is open may be what lay under a mount that has come since
  look.deadline = parts_.clock->Now() + options_.call_deadline;
  if (const PoolReply root = parts_.files->Call(std::move(look)); !root.status.ok()) {
    return root.status;
  }
  absl::StatusOr<Digest128> pool = ReadSuperblock();
  if (absl::IsNotFound(pool.status()) && options_.expected_pool.IsZero()) {
    if (absl::Status made = MakePool(); !made.ok()) {
      return made;
    }
    pool = ReadSuperblock();
  }
  if (absl::IsNotFound(pool.status())) {
    return absl::FailedPreconditionError("the pool is not there: is its file system mounted?");
  }
  if (!pool.ok()) {
    return pool.status();
  }
  if (!options_.expected_pool.IsZero() && !(*pool == options_.expected_pool)) {
    return absl::FailedPreconditionError("another pool than the one that was here before");
  }
  OpenedOnce(*pool);
  return absl::OkStatus();
}

void PoolTier::OpenedOnce(const Digest128& pool) {
  PoolAccess access;
  access.files = parts_.files;
  access.clock = parts_.clock;
  access.pool = pool;
  access.call_deadline = options_.call_deadline;
  auto opened = std::make_unique<Opened>(options_, parts_, access);
  // A catalogue that cannot be read is made again from the pool.
  const absl::Status loaded = opened->catalogue.Load();
  opened_ = std::move(opened);
  has_pool_.store(true);
  if (parts_.opened != nullptr) {
    parts_.opened(pool);
  }
  if (!loaded.ok()) {
    absl::MutexLock lock(&mutex_);
    last_fault_ = std::string(loaded.message());
  }
}

// Whether it still is that pool: its mount may have gone, and another come.
absl::Status PoolTier::CheckPool() {
  const PoolReply root =
      parts_.files->Call(opened_->access.CallOf(PoolOp::kCheckRoot, std::string()));
  if (!root.status.ok()) {
    return root.status;
  }
  const absl::StatusOr<Digest128> pool = ReadSuperblock();
  if (absl::IsNotFound(pool.status())) {
    return absl::FailedPreconditionError("the pool is not there: is its file system mounted?");
  }
  if (pool.ok() && !(*pool == opened_->access.pool)) {
    return absl::FailedPreconditionError("another pool than the one that was here before");
  }
  return pool.status();
}

// ---------------------------------------------------------------- a life

// Lives of this node, oldest first: those that are members, and those that have a folder behind
// them, as the list of members may be old.
absl::StatusOr<std::vector<NodeLife>> PoolTier::EarlierLives() {
  std::vector<NodeLife> lives = opened_->tailer.LivesOf(options_.node);
  const uint64_t last_member = lives.empty() ? 0 : lives.back().epoch;
  const PoolReply listed =
      parts_.files->Call(opened_->access.CallOf(PoolOp::kList, NodePath(options_.node)));
  if (!listed.status.ok() && !absl::IsNotFound(listed.status)) {
    return listed.status;
  }
  for (const FolderEntry& entry : listed.entries) {
    const std::optional<uint64_t> epoch = ParseEpochName(entry.name);
    if (epoch.has_value() && *epoch > last_member) {
      lives.push_back({options_.node, *epoch});
    }
  }
  return lives;
}

// Adds what an earlier life published.
absl::Status PoolTier::TakeOver(const NodeLife& life, WholeReport* before) {
  absl::StatusOr<WholeReport> whole = opened_->tailer.ReadWhole(life);
  if (absl::IsNotFound(whole.status()) || absl::IsDataLoss(whole.status())) {
    return absl::OkStatus();  // it never came to a report, or nothing of it can be read
  }
  if (!whole.ok()) {
    return whole.status();  // tried again: what is given up here is lost
  }
  left_.push_back(*whole);
  const bool claimed = opened_->tailer.IsClaimed(life);
  for (const ReportedSegment& segment : whole->segments) {
    const bool known = std::any_of(
        before->segments.begin(), before->segments.end(),
        [&segment](const ReportedSegment& other) { return other.name == segment.name; });
    // What was claimed another node has now, unless it died before it could say so.
    if (!known && !(claimed && opened_->catalogue.IsListed(segment.name))) {
      before->segments.push_back(segment);
    }
  }
  before->kills.insert(before->kills.end(), whole->kills.begin(), whole->kills.end());
  before->generations.insert(before->generations.end(), whole->generations.begin(),
                             whole->generations.end());
  return absl::OkStatus();
}

// After the first look at the members.
absl::Status PoolTier::BeginLife() {
  const absl::StatusOr<std::vector<NodeLife>> lives = EarlierLives();
  if (!lives.ok()) {
    return lives.status();
  }
  WholeReport before;
  left_.clear();
  // The latest says most, and what it says of a segment counts.
  for (auto life = lives->rbegin(); life != lives->rend(); ++life) {
    if (absl::Status status = TakeOver(*life, &before); !status.ok()) {
      return status;
    }
  }
  PoolWriterParts parts;
  parts.wake = [this] { StartWriting(); };
  parts.access = opened_->access;
  parts.catalogue = &opened_->catalogue;
  parts.hashing = parts_.hashing;
  const auto writer = std::make_shared<PoolWriter>(WriterOptions(), parts);
  absl::Status begun = absl::AlreadyExistsError("");
  for (uint32_t tries = 0; absl::IsAlreadyExists(begun) && tries < kEpochsTried; ++tries) {
    begun = writer->Begin({options_.node, NextEpoch(lives->empty() ? 0 : lives->back().epoch)},
                          before, *lives);
  }
  if (!begun.ok()) {
    return begun;
  }
  {
    absl::MutexLock lock(&mutex_);
    writer_ = writer;
    life_begun_ = true;
  }
  opened_->tailer.SetLife(writer->life());
  for (const Kill& kill : before.kills) {
    opened_->catalogue.Apply(kill);
  }
  for (const ReportedSegment& segment : before.segments) {
    if (segment.state != ReportedState::kGone) {
      opened_->tailer.Follow(segment);
    }
  }
  TailNews news;
  for (const ReportedGeneration& raised : before.generations) {
    news.generations.push_back({raised.namespace_digest, raised.generation});
  }
  TakeNews(news);
  return absl::OkStatus();
}

void PoolTier::FenceLife(const std::string& because) {
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer == nullptr) {
    return;
  }
  writer->Fence(because);
  opened_->tailer.SetLife(std::nullopt);
  claimed_here_.clear();
  absl::MutexLock lock(&mutex_);
  old_writers_.push_back(std::move(writer_));
  writer_ = nullptr;
  life_begun_ = false;
  last_fault_ = because;
}

}  // namespace terrace
