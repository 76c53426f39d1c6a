#include "tools/sim/simulated_pool_files.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "tiers/shared/pool_call.h"
#include "tiers/shared/pool_format.h"

namespace terrace::sim {
namespace {

constexpr size_t kMaxOpenFiles = 512;     // as tiers/os/rooted_files.cc
constexpr size_t kMaxOpenFolders = 16;    // as tiers/os/kept_folders.h
constexpr uint64_t kEntriesACall = 1800;  // of getdents, with names of members
constexpr size_t kMaxShelved = 16;        // of one size
constexpr absl::string_view kHeadName = "/head";
constexpr absl::string_view kBulletinName = "/bulletin";
constexpr absl::string_view kManifestBegin = "/m";
constexpr absl::string_view kSegmentBegin = "/s";

// A report or a segment: the begin of its name says which.
bool LastNameBegins(const std::string& path, absl::string_view with) {
  const size_t slash = path.rfind('/');
  return slash != std::string::npos && absl::StartsWith(path.substr(slash), with);
}

bool IsReport(const std::string& path) {
  return absl::EndsWith(path, kHeadName) || absl::EndsWith(path, kBulletinName) ||
         LastNameBegins(path, kManifestBegin);
}

class ShelvedBuffer final : public PoolBuffer {
 public:
  ShelvedBuffer(uint64_t bytes, BufferShelf& shelf) : memory_(shelf.Take(bytes)), shelf_(shelf) {}
  ShelvedBuffer(const ShelvedBuffer&) = delete;
  ShelvedBuffer& operator=(const ShelvedBuffer&) = delete;
  ~ShelvedBuffer() override { shelf_.Return(std::move(memory_)); }
  [[nodiscard]] absl::Span<char> memory() const override { return memory_.span(); }

 private:
  AlignedBuffer memory_;
  BufferShelf& shelf_;
};

}  // namespace

std::string_view NameOf(CallPurpose purpose) {
  constexpr std::array<std::string_view, kCallPurposes> kNames = {"writing", "following", "upkeep",
                                                                  "reading"};
  return kNames[static_cast<size_t>(purpose)];
}

std::string_view NameOf(FileCall call) {
  constexpr std::array<std::string_view, kFileCalls> kNames = {
      "open",   "close", "read",    "write", "fsync",  "rename",
      "unlink", "mkdir", "readdir", "stat",  "statfs", "fallocate"};
  return kNames[static_cast<size_t>(call)];
}

uint64_t CallCounts::Of(CallPurpose purpose) const {
  const auto& own = calls[static_cast<size_t>(purpose)];
  return std::accumulate(own.begin(), own.end(), uint64_t{0});
}

uint64_t CallCounts::Of(FileCall call) const {
  uint64_t sum = 0;
  for (const auto& own : calls) {
    sum += own[static_cast<size_t>(call)];
  }
  return sum;
}

uint64_t CallCounts::All() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < kCallPurposes; ++i) {
    sum += Of(static_cast<CallPurpose>(i));
  }
  return sum;
}

AlignedBuffer BufferShelf::Take(uint64_t bytes) {
  constexpr uint64_t kUnit = AlignedBuffer::kAlignment;
  const uint64_t rounded = std::max<uint64_t>((bytes + kUnit - 1) / kUnit, 1) * kUnit;
  std::vector<AlignedBuffer>& free = free_[rounded];
  if (free.empty()) {
    return AlignedBuffer(rounded);
  }
  AlignedBuffer buffer = std::move(free.back());
  free.pop_back();
  return buffer;
}

void BufferShelf::Return(AlignedBuffer buffer) {
  std::vector<AlignedBuffer>& free = free_[buffer.size()];
  if (free.size() < kMaxShelved) {
    free.push_back(std::move(buffer));
  }
}

SimulatedPoolFiles::SimulatedPoolFiles(const Digest128& node,
                                       SimulatedMount& mount,
                                       BufferShelf& shelf)
    : own_folder_(NodePath(node) + "/"), mount_(mount), shelf_(shelf) {
  figures_.serving = true;
  figures_.starts = 1;
}

std::shared_ptr<PoolBuffer> SimulatedPoolFiles::TakeBuffer(uint64_t bytes) {
  return bytes > kMaxBufferBytes ? nullptr : std::make_shared<ShelvedBuffer>(bytes, shelf_);
}

void SimulatedPoolFiles::Submit(PoolCall call, std::function<void(PoolReply)> done) {
  PoolReply reply;
  reply.status = stopped_ ? absl::CancelledError("the pool is closed") : CheckPoolCall(call);
  if (reply.status.ok()) {
    ++figures_.calls[static_cast<size_t>(call.op)];
    purpose_ = PurposeOf(call);
    reply = Make(call);
  }
  call.buffer.reset();
  done(std::move(reply));
}

CallPurpose SimulatedPoolFiles::PurposeOf(const PoolCall& call) const {
  if (reads_blocks_) {
    return CallPurpose::kReading;
  }
  const bool own = absl::StartsWith(call.path, own_folder_);
  const bool follows = (call.op == PoolOp::kRead && !own && call.path != kPoolSuperblockName) ||
                       call.op == PoolOp::kList || absl::EndsWith(call.path, kBulletinName);
  if (follows) {
    return CallPurpose::kFollowing;
  }
  const bool removes_segment =
      call.op == PoolOp::kRemove && LastNameBegins(call.path, kSegmentBegin);
  return own && !removes_segment ? CallPurpose::kWriting : CallPurpose::kUpkeep;
}

void SimulatedPoolFiles::Count(FileCall call, uint64_t times) {
  counts_.calls[static_cast<size_t>(purpose_)][static_cast<size_t>(call)] += times;
}

// ---------------------------------------------------------------- files that stay open

void SimulatedPoolFiles::Open(const OpenName& name) {
  if (const auto found = open_.find(name); found != open_.end()) {
    order_.splice(order_.begin(), order_, found->second);
    return;
  }
  Count(FileCall::kOpen);
  Count(FileCall::kStat);
  Keep(name);
}

void SimulatedPoolFiles::Keep(const OpenName& name) {
  order_.push_front(name);
  open_[name] = order_.begin();
  if (order_.size() > kMaxOpenFiles) {
    const OpenName last = order_.back();
    Forget(last.first, last.second);
  }
}

void SimulatedPoolFiles::OpenFolderOf(const std::string& path) {
  const std::string folder = path.substr(0, path.find_last_of('/') + 1);
  const auto found = std::find(folders_.begin(), folders_.end(), folder);
  if (found != folders_.end()) {
    folders_.splice(folders_.begin(), folders_, found);
    return;
  }
  Count(FileCall::kOpen);
  folders_.push_front(folder);
  if (folders_.size() > kMaxOpenFolders) {
    Count(FileCall::kClose);
    folders_.pop_back();
  }
}

bool SimulatedPoolFiles::Forget(const std::string& path, Access access) {
  const auto found = open_.find({path, access});
  if (found == open_.end()) {
    return false;
  }
  Count(FileCall::kClose);
  order_.erase(found->second);
  open_.erase(found);
  return true;
}

void SimulatedPoolFiles::ForgetAll(const std::string& path) {
  Forget(path, Access::kRead);
  Forget(path, Access::kReadWrite);
}

// ---------------------------------------------------------------- calls

PoolReply SimulatedPoolFiles::Make(const PoolCall& call) {
  PoolReply reply;
  switch (call.op) {
    case PoolOp::kRead:
      return Read(call);
    case PoolOp::kWrite:
      reply.status = Write(call);
      break;
    case PoolOp::kSync:
      reply.status = Sync(call);
      break;
    case PoolOp::kMake:
      reply.status = MakeSegment(call);
      break;
    case PoolOp::kCreate:
    case PoolOp::kReplace:
      reply.status = PutWhole(call);
      break;
    case PoolOp::kRemove:
      reply.status = Remove(call);
      break;
    case PoolOp::kMakeFolder:
      reply.status = MakeFolder(call);
      break;
    case PoolOp::kRemoveFolder:
      reply.status = RemoveFolder(call);
      break;
    case PoolOp::kList:
      return List(call);
    case PoolOp::kSpace:
      Count(FileCall::kSpace);
      reply.space = {uint64_t{1} << 60, uint64_t{1} << 60};
      break;
    case PoolOp::kCheckRoot:
      Count(FileCall::kStat, 2);
      Count(FileCall::kClose, folders_.size());
      folders_.clear();
      break;
  }
  return reply;
}

PoolReply SimulatedPoolFiles::Read(const PoolCall& call) {
  PoolReply reply;
  if (!mount_.HasFile(call.path)) {
    ForgetAll(call.path);
    Count(FileCall::kOpen);
    reply.status = absl::NotFoundError(absl::StrCat(call.path, ": absent"));
    return reply;
  }
  const bool glance = call.how == ReadHow::kGlance;
  const bool stays = !glance && (call.how == ReadHow::kKept || Forget(call.path, Access::kRead));
  if (glance) {
    Count(FileCall::kOpen);
    Count(FileCall::kClose);
  } else {
    Open({call.path, Access::kRead});
  }
  absl::StatusOr<uint64_t> got =
      mount_.Read(call.path, call.offset, call.buffer->memory().first(call.length));
  reply.status = got.status();
  reply.bytes = got.ok() ? *got : 0;
  // Whoever gets less than he asked for asks once more, to see that it is the end.
  Count(FileCall::kRead, !glance && reply.bytes < call.length ? 2 : 1);
  if (!stays && !glance) {
    Forget(call.path, Access::kRead);
  }
  if (purpose_ == CallPurpose::kFollowing && IsReport(call.path)) {
    counts_.report_bytes += reply.bytes;
  }
  return reply;
}

absl::Status SimulatedPoolFiles::Write(const PoolCall& call) {
  Open({call.path, Access::kReadWrite});
  Count(FileCall::kWrite);
  return mount_.Write(call.path, call.offset, call.buffer->memory().first(call.length));
}

absl::Status SimulatedPoolFiles::Sync(const PoolCall& call) {
  Open({call.path, Access::kReadWrite});
  Count(FileCall::kSync);
  return mount_.HasFile(call.path) ? absl::OkStatus()
                                   : absl::NotFoundError(absl::StrCat(call.path, ": absent"));
}

// Its folder is synced for the name; the file stays open.
absl::Status SimulatedPoolFiles::MakeSegment(const PoolCall& call) {
  OpenFolderOf(call.path);
  Count(FileCall::kOpen);
  Count(FileCall::kAllocate);
  Count(FileCall::kSync);
  ForgetAll(call.path);
  absl::Status status = mount_.Make(call.path, call.length);
  if (status.ok()) {
    Keep({call.path, Access::kReadWrite});
  }
  return status;
}

// Under a temporary name first; then the name, and the folder's sync.
absl::Status SimulatedPoolFiles::PutWhole(const PoolCall& call) {
  OpenFolderOf(call.path);
  Count(FileCall::kOpen);
  Count(FileCall::kWrite, call.length > 0 ? 1 : 0);
  Count(FileCall::kSync);
  Count(FileCall::kRename);
  Count(FileCall::kClose);
  const absl::Status status =
      mount_.Put(call.path, call.buffer->memory().first(call.length),
                 call.op == PoolOp::kReplace ? SimulatedMount::Existing::kReplace
                                             : SimulatedMount::Existing::kKeep);
  Count(status.ok() ? FileCall::kSync : FileCall::kUnlink);
  ForgetAll(call.path);
  return status;
}

absl::Status SimulatedPoolFiles::Remove(const PoolCall& call) {
  OpenFolderOf(call.path);
  Count(FileCall::kUnlink);
  ForgetAll(call.path);
  return mount_.Remove(call.path);
}

absl::Status SimulatedPoolFiles::MakeFolder(const PoolCall& call) {
  OpenFolderOf(call.path);
  Count(FileCall::kMakeFolder);
  if (mount_.HasFolder(call.path)) {
    Count(FileCall::kOpen);  // whether it is a folder
    Count(FileCall::kClose);
    return absl::OkStatus();
  }
  Count(FileCall::kSync);
  return mount_.MakeFolder(call.path);
}

absl::Status SimulatedPoolFiles::RemoveFolder(const PoolCall& call) {
  Count(FileCall::kClose, folders_.remove(call.path + "/"));
  OpenFolderOf(call.path);
  Count(FileCall::kUnlink);
  return mount_.RemoveFolder(call.path);
}

// Until it says that there is no more.
PoolReply SimulatedPoolFiles::List(const PoolCall& call) {
  PoolReply reply;
  Count(FileCall::kOpen);
  absl::StatusOr<std::vector<FolderEntry>> entries = mount_.List(call.path);
  if (!entries.ok()) {
    reply.status = entries.status();
    return reply;
  }
  reply.entries = *std::move(entries);
  Count(FileCall::kReadFolder, (reply.entries.size() + kEntriesACall - 1) / kEntriesACall + 1);
  Count(FileCall::kClose);
  return reply;
}

}  // namespace terrace::sim
