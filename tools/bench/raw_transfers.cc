#include "tools/bench/raw_transfers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "tiers/vocab/clock.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr char kFileName[] = "raw";
constexpr uint64_t kMemoryBytes = uint64_t{512} << 20;  // slots are taken in turn, as in an arena

// So many at a time, and the first fault of them all.
class Turns {
 public:
  explicit Turns(uint32_t depth) : depth_(depth) {}
  void Begin() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Turns::HasRoom));
    ++running_;
  }
  void End(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    status_.Update(status);
    --running_;
  }
  absl::Status WaitForAll() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Turns::Idle));
    return status_;
  }

 private:
  [[nodiscard]] bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return running_ < depth_;
  }
  [[nodiscard]] bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; }

  const uint32_t depth_;
  absl::Mutex mutex_;
  uint32_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<RawTransfers>> RawTransfers::Create(const Options& options) {
  std::unique_ptr<RawTransfers> raw(new RawTransfers(options));
  absl::StatusOr<std::unique_ptr<Folder>> folder =
      KernelFileSystem().OpenFolder(options.folder, FolderMode::kCreate);
  if (!folder.ok()) {
    return folder.status();
  }
  raw->folder_ = *std::move(folder);
  absl::StatusOr<SealedMemory> memory =
      SealedMemory::Create({.bytes = std::max(kMemoryBytes, options.depth * options.block_bytes),
                            .huge_pages = true,
                            .touch_threads = 1});
  if (!memory.ok()) {
    return memory.status();
  }
  raw->memory_ = *std::move(memory);
  std::memset(raw->memory_.memory().data(), 0x5a, raw->memory_.memory().size());
  absl::StatusOr<std::unique_ptr<AsyncIo>> io = MakeUringIo({}, BootClock());
  if (!io.ok()) {
    return io.status();
  }
  raw->io_ = *std::move(io);
  raw->io_->RegisterMemory(raw->memory_.memory()).IgnoreError();  // as the daemon does
  absl::Status status = raw->Renew();
  if (status.ok()) {
    status = raw->Write(0, options.blocks).status();
  }
  return status.ok() ? absl::StatusOr<std::unique_ptr<RawTransfers>>(std::move(raw)) : status;
}

absl::Status RawTransfers::Renew() {
  if (file_ != nullptr) {
    file_ = nullptr;
    if (absl::Status status = folder_->Remove(kFileName); !status.ok()) {
      return status;
    }
  }
  absl::StatusOr<std::unique_ptr<File>> file =
      folder_->Open(kFileName, OpenMode::kCreateNew, Caching::kDirect);
  if (!file.ok()) {
    return file.status();
  }
  file_ = *std::move(file);
  absl::Status status = file_->Preallocate(options_.block_bytes * options_.blocks);
  return status.ok() ? file_->Sync() : status;
}

absl::StatusOr<double> RawTransfers::Run(IoKind kind, uint32_t begin, uint32_t count) {
  const auto slots = static_cast<uint32_t>(memory_.memory().size() / options_.block_bytes);
  Turns turns(options_.depth);
  const Stopwatch watch;
  for (uint32_t i = begin; i < begin + count; ++i) {
    turns.Begin();
    IoRequest request;
    request.kind = kind;
    request.file = file_.get();
    request.offset = uint64_t{i} % options_.blocks * options_.block_bytes;
    request.pieces = {
        memory_.memory().subspan(uint64_t{i} % slots * options_.block_bytes, options_.block_bytes)};
    const absl::StatusOr<uint64_t> token = io_->Submit(
        std::move(request), [&turns](const IoCompletion& done) { turns.End(done.status); });
    if (!token.ok()) {
      turns.End(token.status());
    }
  }
  if (absl::Status status = turns.WaitForAll(); !status.ok()) {
    return status;
  }
  return watch.seconds();
}

}  // namespace terrace::bench
