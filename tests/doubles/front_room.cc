#include "tests/doubles/front_room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/thread_executor.h"

namespace terrace::doubles {
namespace {

// Sealed slabs as the daemon's, but not touched: a test uses a few pages of them.
class LazySlab final : public SlabMemory {
 public:
  LazySlab(Descriptor descriptor, Mapping mapping)
      : descriptor_(std::move(descriptor)), mapping_(std::move(mapping)) {}
  [[nodiscard]] absl::Span<char> memory() const override {
    return {mapping_.data(), mapping_.size()};
  }
  [[nodiscard]] const Descriptor& descriptor() const override { return descriptor_; }
  [[nodiscard]] PageKind page_kind() const override { return PageKind::kSmall; }

 private:
  const Descriptor descriptor_;
  const Mapping mapping_;
};

class LazySlabSource final : public SlabSource {
 public:
  absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) override {
    Descriptor memory(memfd_create("terrace-test-slab", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory.valid() || ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) {
      return StatusFromErrno(errno, "memfd");
    }
    absl::StatusOr<Mapping> mapping = Mapping::Map(memory.get(), 0, bytes, MapAccess::kReadWrite);
    if (!mapping.ok()) {
      return mapping.status();
    }
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
    if (fcntl(memory.get(), F_ADD_SEALS, seals) != 0) {
      return StatusFromErrno(errno, "F_ADD_SEALS");
    }
    return std::make_unique<LazySlab>(std::move(memory), *std::move(mapping));
  }
};

}  // namespace

void CountingObserver::Finished(const FinishedCall& call) {
  absl::MutexLock lock(&mutex_);
  ++calls_[{std::string(call.verb), call.status}];
}

void CountingObserver::Connection(Carrier carrier, std::string_view kind) {
  absl::MutexLock lock(&mutex_);
  ++connections_[{carrier, std::string(kind)}];
}

int CountingObserver::Calls(std::string_view verb, absl::StatusCode status) const {
  absl::MutexLock lock(&mutex_);
  const auto found = calls_.find({std::string(verb), status});
  return found == calls_.end() ? 0 : found->second;
}

int CountingObserver::Connections(Carrier carrier, std::string_view kind) const {
  absl::MutexLock lock(&mutex_);
  const auto found = connections_.find({carrier, std::string(kind)});
  return found == connections_.end() ? 0 : found->second;
}

absl::StatusOr<std::unique_ptr<FrontRoom>> FrontRoom::Open(FrontRoomOptions options) {
  std::unique_ptr<FrontRoom> room(new FrontRoom());
  if (absl::Status status = room->Fill(std::move(options)); !status.ok()) {
    return status;
  }
  return room;
}

absl::Status FrontRoom::Fill(FrontRoomOptions options) {
  std::string pattern = (std::filesystem::temp_directory_path() / "terrace-front-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    return StatusFromErrno(errno, pattern);
  }
  folder_ = pattern;
  // Others may pass through, so that what keeps them out is the sockets' own mode.
  std::filesystem::permissions(folder_, std::filesystem::perms(0755));
  slabs_ = std::make_unique<LazySlabSource>();
  if (options.executor == nullptr) {
    absl::StatusOr<std::unique_ptr<Executor>> executor = MakeThreadExecutor({});
    if (!executor.ok()) {
      return executor.status();
    }
    own_executor_ = *std::move(executor);
    options.executor = own_executor_.get();
  }
  const Clock& clock = options.clock == nullptr ? BootClock() : *options.clock;
  BlockStoreOptions store_options;
  store_options.dram_bytes = options.dram_bytes;
  if (!own_executor_) {
    store_options.copied_by_caller = 0;  // the test steps the executor
  }
  absl::StatusOr<std::unique_ptr<BlockStore>> store = BlockStore::Create(
      store_options,
      {&clock, options.executor, slabs_.get(), nullptr, {}, options.lower_tiers, &relay_, {}});
  if (!store.ok()) {
    return store.status();
  }
  store_ = *std::move(store);
  if (options.gpus.has_value()) {
    GpuHandoff::Options gpu_options;
    gpu_options.device = *options.gpus;
    gpu_ = GpuHandoff::Create(gpu_options, {store_.get(), &clock, nullptr});
  }
  FrontOptions front_options;
  front_options.gpu = gpu_.get();
  front_options.runtime_dir = folder_;
  front_options.socket_mode = options.socket_mode;
  front_options.io_threads = options.io_threads;
  front_options.io_poll = absl::Microseconds(50);
  front_options.limits = options.limits;
  front_options.tenant_of = [](const PeerCredentials& peer) -> absl::StatusOr<std::string> {
    return absl::StrCat("uid-", peer.uid);
  };
  absl::StatusOr<std::unique_ptr<Front>> front =
      Front::Start(std::move(front_options), *store_, clock, observer_, std::move(options.hooks));
  if (!front.ok()) {
    return front.status();
  }
  front_ = *std::move(front);
  relay_.Attach(front_.get(), gpu_.get());
  ticker_ = std::thread([this] {
    while (!stopping_) {
      store_->Tick();
      if (gpu_ != nullptr) {
        gpu_->Tick();
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
  });
  return absl::OkStatus();
}

void FrontRoom::StopFront() {
  relay_.Attach(nullptr, gpu_.get());
  front_.reset();
}

FrontRoom::~FrontRoom() {
  relay_.Attach(nullptr, nullptr);
  front_.reset();
  stopping_ = true;
  if (ticker_.joinable()) {
    ticker_.join();
  }
  gpu_.reset();
  store_.reset();
  if (!folder_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
}

absl::StatusOr<std::unique_ptr<FrameClient>> FrontRoom::NewSession() {
  absl::StatusOr<std::unique_ptr<FrameClient>> client = Connect();
  if (!client.ok()) {
    return client.status();
  }
  if (const auto hello = (*client)->Hello(); !hello.ok()) {
    return hello.status();
  }
  return client;
}

std::string TestKey(uint64_t n, uint32_t key_bytes) {
  std::string key = TestPayload(n ^ 0x9e3779b97f4a7c15ULL, key_bytes);
  for (size_t i = 0; i < sizeof(n); ++i) {
    key[i] = static_cast<char>(n >> (8 * i));
  }
  return key;
}

std::string TestPayload(uint64_t n, size_t bytes) {
  std::string payload(bytes, '\0');
  uint64_t state = n * 0x9e3779b97f4a7c15ULL + 1;
  for (char& byte : payload) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    byte = static_cast<char>(state >> 56U);
  }
  return payload;
}

v1::NamespaceRecord TestRecord(uint64_t block_bytes) {
  v1::NamespaceRecord record;
  record.set_model("test/model");
  record.set_weights_revision("r1");
  record.set_kv_dtype("bf16");
  record.set_layout("test/1");
  record.set_hash_algorithm("sha256_cbor");
  record.set_block_tokens(16);
  record.set_block_bytes(block_bytes);
  return record;
}

}  // namespace terrace::doubles
