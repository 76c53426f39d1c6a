// gpu: saves from and loads into the memory of a GPU, each beside the copy of as many bytes between
// it and pinned memory of this process, in one piece.
//
// The bench is the engine: it allocates device memory and hands it over by IPC handle. A set of 2
// MiB blocks is laid out as engines do, [plane][block], in planes of 2 MiB, 256 KiB and 32 KiB a
// block; saves are of keys that the daemon does not have. After every load all of the device's
// memory is compared with what was saved from it. Beside it the copy within the host's memory by
// one thread, which bounds what goes through the ring of a worker.
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "tiers/gpu/cuda_driver.h"
#include "tiers/gpu/cuda_objects.h"
#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/memory.h"
#include "tools/bench/paired_sides.h"
#include "tools/bench/payload.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr uint32_t kBlocks = 128;
constexpr uint64_t kSegments[] = {kBlockBytes, uint64_t{256} << 10, uint64_t{32} << 10};

// Device memory that is freed.
class DeviceMemory {
 public:
  DeviceMemory(const cuda::CudaDriver& driver, uint64_t bytes) : driver_(driver), bytes_(bytes) {
    if (driver_->MemAlloc(&address_, bytes) != cuda::kSuccess) {
      address_ = 0;
    }
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  DeviceMemory(DeviceMemory&&) = delete;
  DeviceMemory& operator=(DeviceMemory&&) = delete;
  ~DeviceMemory() {
    if (address_ != 0) {
      driver_->MemFree(address_);
    }
  }
  [[nodiscard]] cuda::DevicePointer address() const { return address_; }  // 0: there was none left
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  const cuda::CudaDriver& driver_;
  const uint64_t bytes_;
  cuda::DevicePointer address_ = 0;
};

class GpuScenario {
 public:
  GpuScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options), report_(report), progress_(progress), source_(options.seed) {}
  ~GpuScenario() {
    session_.reset();  // its regions lie in memory that is freed next
  }
  GpuScenario(const GpuScenario&) = delete;
  GpuScenario& operator=(const GpuScenario&) = delete;
  GpuScenario(GpuScenario&&) = delete;
  GpuScenario& operator=(GpuScenario&&) = delete;

  absl::Status Run();

 private:
  absl::Status Prepare();
  absl::Status OpenDevice();
  absl::Status MeasureLayout(uint64_t segment_bytes);
  absl::Status MeasureHostCopy();
  absl::StatusOr<terrace_region> Register(uint64_t segment_bytes);
  absl::StatusOr<double> Save();
  absl::StatusOr<double> Load();
  // Between the device's memory and host memory of ours, seconds.
  enum class Way : uint8_t { kToDevice, kToHost };
  absl::StatusOr<double> Copy(Way way, char* host);
  absl::Status CompareDevice();

  [[nodiscard]] KeyChain Chain() const {
    KeyChain chain;
    chain.ns = ns_;
    chain.keys = keys_;
    chain.key_bytes = kBenchKeyBytes;
    chain.region = region_;
    chain.block_indexes = indexes_;
    return chain;
  }
  [[nodiscard]] double Rate(double seconds) const {
    return static_cast<double>(memory_->bytes()) / seconds / 1e9;
  }

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  const PayloadSource source_;
  uint32_t blocks_ = kBlocks;
  std::unique_ptr<cuda::CudaDriver> driver_;
  std::optional<cuda::PrimaryContext> context_;
  std::optional<cuda::OwnedStream> stream_;
  std::optional<DeviceMemory> memory_;
  SharedMemory saved_;   // what the device's memory holds when it is saved
  SharedMemory landed_;  // for whatever comes back from it
  std::optional<cuda::PinnedMemory> pinned_saved_;
  std::optional<cuda::PinnedMemory> pinned_landed_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<ClientSession> session_;
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
  std::vector<uint32_t> indexes_;
  std::string keys_;  // of the last save
  uint64_t saves_ = 0;
};

absl::Status GpuScenario::OpenDevice() {
  absl::StatusOr<std::unique_ptr<cuda::CudaDriver>> driver = cuda::CudaDriver::Load();
  if (!driver.ok()) {
    return driver.status();
  }
  driver_ = *std::move(driver);
  absl::StatusOr<cuda::PrimaryContext> context = cuda::PrimaryContext::Retain(*driver_, 0);
  absl::Status status = context.status();
  if (status.ok()) {
    context_.emplace(*std::move(context));
    status = context_->MakeCurrent();
  }
  if (!status.ok()) {
    return status;
  }
  auto stream = cuda::OwnedStream::Create(*context_, cuda::OwnedStream::Urgency::kFirst);
  if (!stream.ok()) {
    return stream.status();
  }
  stream_.emplace(*std::move(stream));
  memory_.emplace(*driver_, uint64_t{blocks_} * kBlockBytes);
  if (memory_->address() == 0) {
    return absl::ResourceExhaustedError("no device memory for the set");
  }
  for (auto [memory, pinned] :
       {std::pair{&saved_, &pinned_saved_}, std::pair{&landed_, &pinned_landed_}}) {
    absl::StatusOr<SharedMemory> made = SharedMemory::Create(memory_->bytes());
    if (!made.ok()) {
      return made.status();
    }
    *memory = *std::move(made);
    auto registered = cuda::PinnedMemory::Register(*context_, memory->bytes(),
                                                   cuda::PinnedMemory::Access::kReadWrite);
    if (!registered.ok()) {
      return registered.status();
    }
    pinned->emplace(*std::move(registered));
  }
  source_.Fill("device", saved_.bytes());
  return Copy(Way::kToDevice, saved_.bytes().data()).status();
}

absl::Status GpuScenario::Prepare() {
  if (!options_.runtime_dir.empty()) {
    return absl::InvalidArgumentError("--runtime: this scenario needs a daemon of its own");
  }
  if (options_.block_bytes != 0) {
    return absl::InvalidArgumentError("--block-bytes: blocks of this scenario have 2 MiB");
  }
  blocks_ = options_.blocks != 0 ? static_cast<uint32_t>(std::min<uint64_t>(options_.blocks, 4096))
                                 : kBlocks;
  indexes_.resize(blocks_);
  std::iota(indexes_.begin(), indexes_.end(), 0U);
  if (absl::Status opened = OpenDevice(); !opened.ok()) {
    return opened;
  }
  const uint64_t set_bytes = uint64_t{blocks_} * kBlockBytes;
  absl::StatusOr<DaemonProcess::Connected> connected =
      DaemonProcess::StartConnected(options_, std::max(uint64_t{1} << 30, 4 * set_bytes));
  if (!connected.ok()) {
    return connected.status();
  }
  daemon_ = std::move(connected->daemon);
  session_ = std::move(connected->session);
  absl::StatusOr<terrace_namespace> ns = session_->OpenNamespace(
      absl::StrCat("bench/gpu/", options_.seed), kBlockBytes, kBenchBlockTokens);
  if (!ns.ok()) {
    return ns.status();
  }
  ns_ = *ns;
  return absl::OkStatus();
}

absl::StatusOr<double> GpuScenario::Copy(Way way, char* host) {
  const Stopwatch watch;
  cuda::Result result =
      way == Way::kToDevice
          ? (*driver_)->MemcpyHtoDAsync(memory_->address(), host, memory_->bytes(), stream_->get())
          : (*driver_)->MemcpyDtoHAsync(host, memory_->address(), memory_->bytes(), stream_->get());
  if (result == cuda::kSuccess) {
    result = (*driver_)->StreamSynchronize(stream_->get());
  }
  const double seconds = watch.seconds();
  if (result != cuda::kSuccess) {
    return driver_->StatusOf(result, "copy");
  }
  return seconds;
}

absl::StatusOr<terrace_region> GpuScenario::Register(uint64_t segment_bytes) {
  cuda::IpcMemHandle handle{};
  if (const cuda::Result result = (*driver_)->IpcGetMemHandle(&handle, memory_->address());
      result != cuda::kSuccess) {
    return driver_->StatusOf(result, "export the memory");
  }
  const absl::StatusOr<cuda::DeviceUuid> uuid = context_->Uuid();
  if (!uuid.ok()) {
    return uuid.status();
  }
  const terrace_segment segment{0, segment_bytes};
  std::vector<terrace_plane> planes;
  for (uint64_t plane = 0; plane < kBlockBytes / segment_bytes; ++plane) {
    planes.push_back({plane * blocks_ * segment_bytes, segment_bytes, &segment, 1});
  }
  terrace_region_spec spec{};
  spec.struct_bytes = sizeof(spec);
  spec.fd = -1;
  spec.bytes = memory_->bytes();
  spec.block_count = blocks_;
  spec.planes = planes.data();
  spec.plane_count = static_cast<uint32_t>(planes.size());
  spec.memory = TERRACE_MEMORY_CUDA_IPC;
  spec.handle = handle.reserved;
  std::memcpy(spec.device_uuid, uuid->bytes, sizeof(spec.device_uuid));
  spec.allocation_bytes = memory_->bytes();
  return session_->RegisterRegion(spec);
}

absl::StatusOr<double> GpuScenario::Save() {
  std::vector<uint64_t> names(blocks_);
  std::iota(names.begin(), names.end(), ++saves_ << 32U);
  keys_ = source_.Keys(names, kBenchKeyBytes);
  const Stopwatch watch;
  absl::StatusOr<Completion> put =
      session_->Put(Chain(), static_cast<uint32_t>(kBlockBytes), std::string_view());
  const double seconds = watch.seconds();
  if (!put.ok()) {
    return put.status();
  }
  if (absl::Status all = AllOutcomes(**put, TERRACE_PUT_STORED, "save"); !all.ok()) {
    return all;
  }
  return seconds;
}

absl::StatusOr<double> GpuScenario::Load() {
  std::memset(landed_.bytes().data(), 0, landed_.bytes().size());
  if (absl::Status wiped = Copy(Way::kToDevice, landed_.bytes().data()).status(); !wiped.ok()) {
    return wiped;
  }
  const Stopwatch watch;
  absl::StatusOr<Completion> got = session_->GetIntoRegion(Chain(), {});
  const double seconds = watch.seconds();
  if (!got.ok()) {
    return got.status();
  }
  absl::Status status = AllOutcomes(**got, TERRACE_GET_OK, "load");
  status.Update(status.ok() ? CompareDevice() : status);
  if (!status.ok()) {
    return status;
  }
  return seconds;
}

absl::Status GpuScenario::CompareDevice() {
  if (absl::Status read = Copy(Way::kToHost, landed_.bytes().data()).status(); !read.ok()) {
    return read;
  }
  report_.AddWrongBytes(source_.WrongBytes("device", landed_.bytes()));
  return absl::OkStatus();
}

absl::Status GpuScenario::MeasureLayout(uint64_t segment_bytes) {
  absl::StatusOr<terrace_region> region = Register(segment_bytes);
  if (!region.ok()) {
    return region.status();
  }
  region_ = *region;
  const std::string size =
      segment_bytes >= kBlockBytes ? "2m" : absl::StrCat(segment_bytes >> 10U, "k");
  const std::string text =
      absl::StrCat(" of 2 MiB blocks in pieces of ", segment_bytes >> 10U, " KiB");
  const auto rate = [this](double seconds) { return Rate(seconds); };
  absl::Status status =
      MeasureSides({absl::StrCat("save_", size), absl::StrCat("saves", text), options_.pairs,
                    [this] { return Save(); },
                    [this] { return Copy(Way::kToHost, landed_.bytes().data()); }, rate},
                   report_, progress_);
  status.Update(
      status.ok()
          ? MeasureSides({absl::StrCat("load_", size), absl::StrCat("loads", text), options_.pairs,
                          [this] { return Load(); },
                          [this] { return Copy(Way::kToDevice, saved_.bytes().data()); }, rate},
                         report_, progress_)
          : status);
  status.Update(session_->UnregisterRegion(region_));
  return status;
}

// By one thread, as the ring of a worker is filled.
absl::Status GpuScenario::MeasureHostCopy() {
  return MeasureSides({"host_copy", "copies within the host's memory", options_.pairs,
                       [this]() -> absl::StatusOr<double> {
                         const Stopwatch watch;
                         std::memcpy(landed_.bytes().data(), saved_.bytes().data(),
                                     saved_.bytes().size());
                         return watch.seconds();
                       },
                       [this] { return Copy(Way::kToDevice, saved_.bytes().data()); },
                       [this](double seconds) { return Rate(seconds); }},
                      report_, progress_);
}

absl::Status GpuScenario::Run() {
  absl::Status status = Prepare();
  for (const uint64_t segment_bytes : kSegments) {
    status.Update(status.ok() ? MeasureLayout(segment_bytes) : status);
  }
  status.Update(status.ok() ? MeasureHostCopy() : status);
  return status;
}

}  // namespace

absl::Status RunGpu(const BenchOptions& options, Report& report, Progress& progress) {
  return GpuScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
