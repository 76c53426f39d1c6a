#include "tiers/gpu/copy_engine.h"

#include <system_error>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include <pthread.h>

#include "tiers/gpu/copy_engine_core.h"

namespace terrace {
namespace {

uintptr_t AddressOf(const char* memory) {
  return reinterpret_cast<uintptr_t>(memory);
}

absl::Status CheckOptions(const CopyEngineOptions& options) {
  if (options.name.empty() || options.name.size() > 10) {
    return absl::InvalidArgumentError("name: 1 to 10 characters");
  }
  if (options.max_bytes_in_flight < 4096) {
    return absl::InvalidArgumentError("max_bytes_in_flight: at least 4096");
  }
  if (options.ring_half_bytes < 4096 || options.ring_half_bytes > options.max_bytes_in_flight) {
    return absl::InvalidArgumentError("ring_half_bytes: 4096 to max_bytes_in_flight");
  }
  if (options.stage_bytes < 1024) {
    return absl::InvalidArgumentError("stage_bytes: at least 1024");
  }
  if (options.max_transfers == 0) {
    return absl::InvalidArgumentError("max_transfers: at least 1");
  }
  return absl::OkStatus();
}

absl::Status CheckLayers(const CopyPlan& plan) {
  if (plan.pieces.empty() || plan.pieces.size() > kMaxPiecesOfPlan) {
    return absl::InvalidArgumentError(absl::StrCat("pieces: 1 to ", kMaxPiecesOfPlan));
  }
  if (plan.layer_ends.empty() || plan.layer_ends.back() != plan.pieces.size() ||
      !std::is_sorted(plan.layer_ends.begin(), plan.layer_ends.end())) {
    return absl::InvalidArgumentError("layer_ends: rising, the last the number of pieces");
  }
  return absl::OkStatus();
}

}  // namespace

HostPath ReadOnlyPathFromEnvironment() {
  const char* const said = std::getenv("TERRACE_GPU_SLABS");
  return said != nullptr && absl::string_view(said) == "ring" ? HostPath::kRing : HostPath::kDirect;
}

absl::StatusOr<std::unique_ptr<CopyEngine>> CopyEngine::Start(const cuda::PrimaryContext& context,
                                                              const CopyEngineOptions& options) {
  if (const absl::Status status = CheckOptions(options); !status.ok()) {
    return status;
  }
  auto core = std::make_unique<CopyEngineCore>(context, options);
  if (const absl::Status status = core->Start(); !status.ok()) {
    return status;
  }
  return std::unique_ptr<CopyEngine>(new CopyEngine(std::move(core)));
}

CopyEngine::CopyEngine(std::unique_ptr<CopyEngineCore> core) : core_(std::move(core)) {}

CopyEngine::~CopyEngine() {
  core_->Stop();
}

absl::StatusOr<HostPath> CopyEngine::AddHostMemory(absl::Span<char> memory,
                                                   cuda::PinnedMemory::Access access) {
  return core_->AddHostMemory(memory, access);
}

absl::Status CopyEngine::RemoveHostMemory(absl::Span<char> memory) {
  return core_->RemoveHostMemory(memory);
}

absl::StatusOr<uint64_t> CopyEngine::Submit(DeviceTransfer transfer,
                                            std::function<void(absl::Status)> done) {
  return core_->Submit(std::move(transfer), std::move(done));
}

void CopyEngine::Cancel(uint64_t token) {
  core_->Cancel(token);
}

CopyEngineFacts CopyEngine::facts() const {
  return core_->facts();
}

absl::Status CopyEngineCore::Start() {
  lanes_[0].direction = cuda::CopyDirection::kToDevice;
  lanes_[1].direction = cuda::CopyDirection::kToHost;
  for (Lane& lane : lanes_) {
    auto stream = cuda::OwnedStream::Create(context_, &lane == lanes_.data()
                                                          ? cuda::OwnedStream::Urgency::kFirst
                                                          : cuda::OwnedStream::Urgency::kLast);
    if (!stream.ok()) {
      return stream.status();
    }
    lane.stream.emplace(*std::move(stream));
  }
  events_.reserve(2 * kMaxBatchesInFlight);
  while (events_.size() < 2 * kMaxBatchesInFlight) {
    auto event = cuda::OwnedEvent::Create(context_);
    if (!event.ok()) {
      return event.status();
    }
    events_.push_back(*std::move(event));
    free_events_.push_back(events_.back().get());
  }
  auto gathering =
      Gathering::SetUp(context_, {options_.kernels, stage_bytes_, options_.gathered_piece_bytes});
  if (!gathering.ok()) {
    return gathering.status();
  }
  gathering_.emplace(*std::move(gathering));
  try {
    thread_ = std::thread([this] { Loop(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start ", options_.name, ": ", error.what()));
  }
  pthread_setname_np(thread_.native_handle(), options_.name.c_str());
  return absl::OkStatus();
}

void CopyEngineCore::Stop() {
  {
    const absl::MutexLock lock(&mutex_);
    inbox_.stop = true;
  }
  thread_.join();
}

absl::StatusOr<std::unique_ptr<CopyEngineCore::Ring>> CopyEngineCore::MakeRing() const {
  auto ring = std::make_unique<Ring>();
  ring->memory = AlignedBuffer(2 * options_.ring_half_bytes);
  if (ring->memory.bytes() == nullptr) {
    return absl::ResourceExhaustedError("no memory for the ring");
  }
  auto pinned = cuda::PinnedMemory::Register(context_, ring->memory.span(),
                                             cuda::PinnedMemory::Access::kReadWrite);
  if (!pinned.ok()) {
    return pinned.status();
  }
  ring->pinned.emplace(*std::move(pinned));
  auto copier = HostCopier::Start(absl::StrCat(options_.name, "-ring"));
  if (!copier.ok()) {
    return copier.status();
  }
  ring->copier = *std::move(copier);
  return ring;
}

// So that two who add the same memory do not both register it.
absl::Status CopyEngineCore::ReserveMemory(absl::Span<char> memory, bool writable) {
  if (memory.empty()) {
    return absl::InvalidArgumentError("memory: empty");
  }
  const uintptr_t begin = AddressOf(memory.data());
  const absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) {
    return absl::UnavailableError(failure_.message());
  }
  const auto after = memories_.lower_bound(begin + memory.size());
  if (after != memories_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second.bytes > begin) {
      return absl::InvalidArgumentError("memory: overlaps what was added");
    }
  }
  HostMemory& added = memories_[begin];
  added.bytes = memory.size();
  added.writable = writable;
  return absl::OkStatus();
}

void CopyEngineCore::DropMemory(absl::Span<char> memory) {
  const absl::MutexLock lock(&mutex_);
  memories_.erase(AddressOf(memory.data()));
}

absl::StatusOr<HostPath> CopyEngineCore::AddToRing(absl::Span<char> memory,
                                                   const absl::Status& reason) {
  bool made = false;
  {
    const absl::MutexLock lock(&mutex_);
    made = ring_ != nullptr;
  }
  std::unique_ptr<Ring> ring;
  if (!made) {
    auto fresh = MakeRing();
    if (!fresh.ok()) {
      return fresh.status();
    }
    ring = *std::move(fresh);
  }
  const absl::MutexLock lock(&mutex_);
  if (ring_ == nullptr) {
    ring_ = std::move(ring);
  }
  ring_reason_ = std::string(reason.message());
  memories_[AddressOf(memory.data())].ready = true;
  return HostPath::kRing;
}

absl::StatusOr<HostPath> CopyEngineCore::AddHostMemory(absl::Span<char> memory,
                                                       cuda::PinnedMemory::Access access) {
  const bool writable = access == cuda::PinnedMemory::Access::kReadWrite;
  if (const absl::Status status = ReserveMemory(memory, writable); !status.ok()) {
    return status;
  }
  const bool is_kept_off = !writable && options_.read_only_memory == HostPath::kRing;
  absl::StatusOr<cuda::PinnedMemory> pinned =
      is_kept_off ? absl::UnimplementedError("TERRACE_GPU_SLABS says so")
                  : cuda::PinnedMemory::Register(context_, memory, access);
  if (pinned.ok()) {
    const absl::MutexLock lock(&mutex_);
    HostMemory& added = memories_[AddressOf(memory.data())];
    added.pinned.emplace(*std::move(pinned));
    added.path = HostPath::kDirect;
    added.ready = true;
    return HostPath::kDirect;
  }
  // A ring would write to what the driver may have refused for not being writable.
  const bool hopeless = absl::IsUnavailable(pinned.status()) ||
                        (writable && absl::IsInvalidArgument(pinned.status()));
  absl::StatusOr<HostPath> added = hopeless ? pinned.status() : AddToRing(memory, pinned.status());
  if (!added.ok()) {
    DropMemory(memory);
  }
  return added;
}

absl::Status CopyEngineCore::RemoveHostMemory(absl::Span<char> memory) {
  std::optional<cuda::PinnedMemory> pinned;  // its end is a call of the driver: not under the lock
  const absl::MutexLock lock(&mutex_);
  const auto found = memories_.find(AddressOf(memory.data()));
  if (found == memories_.end() || found->second.bytes != memory.size() || !found->second.ready) {
    return absl::NotFoundError("memory: was not added");
  }
  if (found->second.transfers != 0) {
    return absl::FailedPreconditionError("memory: transfers name it");
  }
  if (found->second.pinned) {
    pinned.emplace(*std::move(found->second.pinned));
  }
  memories_.erase(found);
  return absl::OkStatus();
}

bool CopyEngineCore::Holds(const HostMemories::value_type& memory, const cuda::CopyRange& piece) {
  const uintptr_t begin = AddressOf(piece.host);
  const uint64_t bytes = memory.second.bytes;
  const uint64_t offset = begin - memory.first;
  return begin >= memory.first && offset <= bytes && piece.bytes <= bytes - offset;
}

CopyEngineCore::HostMemories::iterator CopyEngineCore::FindMemoryLocked(
    const cuda::CopyRange& piece) {
  const auto after = memories_.upper_bound(AddressOf(piece.host));
  if (after == memories_.begin()) {
    return memories_.end();
  }
  const auto found = std::prev(after);
  return found->second.ready && Holds(*found, piece) ? found : memories_.end();
}

// `token` will be the transfer's.
absl::Status CopyEngineCore::CheckTransferLocked(const DeviceTransfer& transfer,
                                                 uint64_t token,
                                                 std::vector<HostPath>* paths,
                                                 std::vector<uintptr_t>* named) {
  const bool saves = transfer.direction == cuda::CopyDirection::kToHost;
  auto memory = memories_.end();
  for (const cuda::CopyRange& piece : transfer.plan.pieces) {
    // Neighbours mostly lie in one slab, and there may be a million of them.
    if (memory == memories_.end() || !Holds(*memory, piece)) {
      memory = FindMemoryLocked(piece);
    }
    if (memory == memories_.end() || piece.bytes == 0) {
      return absl::InvalidArgumentError("pieces: at least 1 byte, in host memory that was added");
    }
    if (saves && !memory->second.writable) {
      return absl::InvalidArgumentError("pieces: host memory that is read-only");
    }
    paths->push_back(memory->second.path);
    if (std::exchange(memory->second.last_named_by, token) != token) {
      named->push_back(memory->first);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CopyEngineCore::Submit(DeviceTransfer transfer,
                                                std::function<void(absl::Status)> done) {
  if (const absl::Status status = CheckLayers(transfer.plan); !status.ok()) {
    return status;
  }
  std::vector<HostPath> paths;
  std::vector<uintptr_t> named;
  paths.reserve(transfer.plan.pieces.size());
  const absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) {
    return absl::UnavailableError(failure_.message());
  }
  if (named_.size() >= options_.max_transfers) {
    return absl::ResourceExhaustedError(
        absl::StrCat("transfers: at most ", options_.max_transfers, " at a time"));
  }
  const uint64_t token = ++last_token_;
  if (const absl::Status status = CheckTransferLocked(transfer, token, &paths, &named);
      !status.ok()) {
    return status;
  }
  for (const uintptr_t begin : named) {
    ++memories_[begin].transfers;
  }
  named_.emplace(token, std::move(named));
  inbox_.arrivals.push_back(std::make_shared<TransferState>(token, std::move(transfer),
                                                            std::move(paths), std::move(done)));
  return token;
}

void CopyEngineCore::Cancel(uint64_t token) {
  const absl::MutexLock lock(&mutex_);
  if (named_.contains(token)) {
    inbox_.cancels.push_back(token);
  }
}

CopyEngineFacts CopyEngineCore::facts() const {
  CopyEngineFacts facts;
  facts.bytes_to_device = bytes_to_device_;
  facts.bytes_to_host = bytes_to_host_;
  facts.bytes_through_ring = bytes_through_ring_;
  facts.bytes_gathered = bytes_gathered_;
  facts.gathered_piece_bytes_to_device = gathering_->piece_bytes(cuda::CopyDirection::kToDevice);
  facts.gathered_piece_bytes_to_host = gathering_->piece_bytes(cuda::CopyDirection::kToHost);
  facts.plain_reason = gathering_->reason();
  const absl::MutexLock lock(&mutex_);
  facts.transfers = named_.size();
  facts.failure = failure_;
  for (const auto& [begin, memory] : memories_) {
    if (memory.ready) {
      (memory.path == HostPath::kDirect ? facts.direct_memory_bytes : facts.ring_memory_bytes) +=
          memory.bytes;
    }
  }
  facts.ring_reason = facts.ring_memory_bytes != 0 ? ring_reason_ : "";
  return facts;
}

}  // namespace terrace
