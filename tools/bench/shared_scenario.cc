// shared: what publishing to a pool and reading from it cost, each beside raw O_DIRECT transfers of
// the same size and number at a time on the same file system; and how many calls of metadata a
// block costs.
//
// Two daemons with a pool between them, neither with a local tier. What the first publishes the
// second gets; its DRAM is so small that every block has just been read through its worker and
// verified. The raw side writes a preallocated file and syncs it.
//
// publish: blocks that lie in DRAM already become what others find: written, synced and named.
// put_through: the same from the client's memory on, in one put; it pays for one more copy.
//
// --auth protects the pool with a key of its own.
//
// metadata_calls: blocks are published and read once while strace counts the calls of both workers,
// all that they poll from the first put of a pass to its last get included, and not while the bench
// makes the payloads of the next pass, which takes longer; beside them a writer and reader of a
// file for each block. The figure is that one's calls over ours.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tiers/dram/arena.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/file_system.h"
#include "tools/bench/block_set.h"
#include "tools/bench/call_counter.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/operator_calls.h"
#include "tools/bench/paired_sides.h"
#include "tools/bench/pool_node.h"
#include "tools/bench/raw_transfers.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr uint64_t kDramBytes = uint64_t{1} << 30;
constexpr uint64_t kReaderDramBytes = uint64_t{256} << 20;
constexpr uint64_t kPoolBytes = uint64_t{48} << 30;
constexpr uint64_t kPassBytes = uint64_t{512} << 20;   // of one side of a pair
constexpr uint64_t kCountedBytes = uint64_t{4} << 30;  // of metadata_calls
constexpr uint32_t kMostTogether = 16;

class SharedScenario {
 public:
  SharedScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options), report_(report), progress_(progress) {}
  ~SharedScenario() {
    std::error_code error;
    std::filesystem::remove_all(pool_, error);
    std::filesystem::remove(KeyFile(), error);
  }

  absl::Status Run();

 private:
  absl::Status Prepare();
  [[nodiscard]] std::string KeyFile() const { return pool_ + ".key"; }
  absl::Status MakeKey() const;
  absl::StatusOr<std::unique_ptr<DaemonProcess>> StartNode(uint64_t dram_bytes);
  absl::Status Measure(const char* name, const char* text, const Side& figure, const Side& limit);
  absl::StatusOr<double> Publish();
  absl::StatusOr<double> PutThrough();
  absl::StatusOr<double> RawWrite();
  absl::StatusOr<double> ColdGet();
  absl::StatusOr<double> RawRead();
  absl::Status GetAll(BlockSet& set);
  absl::Status CountMetadata();
  absl::StatusOr<CountedCalls> CountOurs(uint32_t blocks);
  absl::StatusOr<CountedCalls> CountPass(const std::vector<pid_t>& workers,
                                         BlockSet& written,
                                         BlockSet& read);
  absl::StatusOr<CountedCalls> CountFilePerBlock(uint32_t blocks);

  [[nodiscard]] double Rate(double seconds) const {
    return static_cast<double>(pass_blocks_) * static_cast<double>(block_bytes_) / seconds / 1e9;
  }

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  uint64_t block_bytes_ = 0;
  uint32_t pass_blocks_ = 0;
  uint32_t together_ = 0;
  std::string pool_;
  std::unique_ptr<DaemonProcess> writer_;
  std::unique_ptr<DaemonProcess> reader_;
  std::unique_ptr<OperatorCalls> writer_calls_;
  std::unique_ptr<OperatorCalls> reader_calls_;
  std::unique_ptr<ClientSession> writer_session_;
  std::unique_ptr<ClientSession> reader_session_;
  std::unique_ptr<BlockSet> fresh_;                   // of the writer, other blocks for every pass
  std::vector<std::unique_ptr<BlockSet>> read_sets_;  // of the reader, what was published
  std::unique_ptr<RawTransfers> raw_;
  uint64_t passes_ = 0;
  size_t next_read_ = 0;
};

// The pool's own folder must be empty, and a key does not belong into it.
absl::Status SharedScenario::MakeKey() const {
  std::string key(32, '\0');
  FillRandom(absl::MakeSpan(key));
  const Descriptor file(
      open(KeyFile().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  return file.valid() &&
                 write(file.get(), key.data(), key.size()) == static_cast<ssize_t>(key.size())
             ? absl::OkStatus()
             : absl::UnavailableError(KeyFile() + ": cannot be made");
}

absl::StatusOr<std::unique_ptr<DaemonProcess>> SharedScenario::StartNode(uint64_t dram_bytes) {
  const std::string protection =
      options_.auth == "none"
          ? ""
          : "auth = \"" + options_.auth + "\"\nkey_file = \"" + KeyFile() + "\"\n";
  return StartPoolNode(options_, {pool_, kPoolBytes, "reuse", protection, dram_bytes, 0});
}

absl::Status SharedScenario::Prepare() {
  if (!options_.runtime_dir.empty()) {
    return absl::InvalidArgumentError("--runtime: this scenario needs two daemons of its own");
  }
  block_bytes_ = options_.block_bytes != 0 ? options_.block_bytes : kBlockBytes;
  absl::StatusOr<std::string> pool = MakePrivateFolder(options_.data_dir);
  if (!pool.ok()) {
    return pool.status();
  }
  pool_ = *pool;
  if (options_.auth != "none") {
    if (absl::Status status = MakeKey(); !status.ok()) {
      return status;
    }
  }
  absl::StatusOr<std::unique_ptr<DaemonProcess>> writer = StartNode(kDramBytes);
  absl::StatusOr<std::unique_ptr<DaemonProcess>> reader = StartNode(kReaderDramBytes);
  if (!writer.ok() || !reader.ok()) {
    return writer.ok() ? reader.status() : writer.status();
  }
  writer_ = *std::move(writer);
  reader_ = *std::move(reader);
  writer_calls_ = OperatorCalls::Create(writer_->runtime_dir());
  reader_calls_ = OperatorCalls::Create(reader_->runtime_dir());
  for (OperatorCalls* calls : {writer_calls_.get(), reader_calls_.get()}) {
    if (absl::Status status = AwaitPoolReady(*calls); !status.ok()) {
      return status;
    }
  }
  auto one = ClientSession::Connect(writer_->runtime_dir());
  auto other = ClientSession::Connect(reader_->runtime_dir());
  if (!one.ok() || !other.ok()) {
    return one.ok() ? other.status() : one.status();
  }
  writer_session_ = *std::move(one);
  reader_session_ = *std::move(other);
  const uint64_t leasable = reader_session_->LeaseLimitBytes() / SlotBytesFor(block_bytes_) / 2;
  together_ = static_cast<uint32_t>(std::clamp<uint64_t>(leasable, 1, kMostTogether));
  pass_blocks_ = static_cast<uint32_t>(
                     std::clamp<uint64_t>(kPassBytes / block_bytes_, together_, kMaxKeysAGet)) /
                 together_ * together_;
  absl::StatusOr<std::unique_ptr<BlockSet>> fresh = BlockSet::Create(
      *writer_session_,
      {"bench/shared", options_.seed, uint64_t{1} << 32, pass_blocks_, block_bytes_});
  if (!fresh.ok()) {
    return fresh.status();
  }
  fresh_ = *std::move(fresh);
  absl::StatusOr<std::unique_ptr<RawTransfers>> raw = RawTransfers::Create(
      {writer_->folder() + "/raw", SlotBytesFor(block_bytes_), pass_blocks_, together_});
  if (!raw.ok()) {
    return raw.status();
  }
  raw_ = *std::move(raw);
  return absl::OkStatus();
}

absl::Status SharedScenario::Measure(const char* name,
                                     const char* text,
                                     const Side& figure,
                                     const Side& limit) {
  return MeasureSides(
      {name, text, options_.pairs, figure, limit, [this](double seconds) { return Rate(seconds); }},
      report_, progress_);
}

absl::StatusOr<double> SharedScenario::Publish() {
  fresh_->Renew(++passes_ << 32);
  if (absl::Status s = fresh_->Put(0, pass_blocks_); !s.ok()) {
    return s;
  }
  const Stopwatch watch;
  if (absl::Status s = fresh_->Raise(0, pass_blocks_, TERRACE_LEVEL_POOL); !s.ok()) {
    return s;
  }
  return watch.seconds();
}

absl::StatusOr<double> SharedScenario::PutThrough() {
  fresh_->Renew(++passes_ << 32);
  const Stopwatch watch;
  if (absl::Status s = fresh_->Put(0, pass_blocks_, TERRACE_LEVEL_POOL); !s.ok()) {
    return s;
  }
  return watch.seconds();
}

absl::StatusOr<double> SharedScenario::RawWrite() {
  if (absl::Status status = raw_->Renew(); !status.ok()) {
    return status;
  }
  const Stopwatch watch;
  if (absl::Status status = raw_->Write(0, pass_blocks_).status(); !status.ok()) {
    return status;
  }
  if (absl::Status status = raw_->Sync(); !status.ok()) {
    return status;
  }
  return watch.seconds();
}

absl::Status SharedScenario::GetAll(BlockSet& set) {
  for (uint32_t begin = 0; begin < set.count(); begin += together_) {
    absl::Status status;
    if (begin + together_ < set.count()) {
      // As an engine does that knows the rest of its prompt.
      status = reader_session_->Prefetch(set.Chain(begin + together_, together_));
    }
    const KeyChain chain = set.Chain(begin, together_);
    absl::StatusOr<Completion> got =
        reader_session_->GetLease(chain, {}, ClientSession::Pending::kWait);
    if (!got.ok()) {
      return got.status();
    }
    if (absl::Status all = AllOutcomes(**got, TERRACE_GET_OK, "get"); !all.ok()) {
      report_.AddError(std::string(all.message()));
    }
    if (options_.verify == BenchOptions::Verify::kYes && (*got)->outcomes[0] == TERRACE_GET_OK) {
      const absl::Span<const char> first(static_cast<const char*>((*got)->data[0]),
                                         (*got)->payload_bytes[0]);
      report_.AddWrongBytes(set.WrongBytes(begin, first));
    }
    status.Update(reader_session_->Release((*got)->lease, {}));
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> SharedScenario::ColdGet() {
  BlockSet& set = *read_sets_[next_read_++ % read_sets_.size()];
  const Stopwatch watch;
  if (absl::Status status = GetAll(set); !status.ok()) {
    return status;
  }
  return watch.seconds();
}

absl::StatusOr<double> SharedScenario::RawRead() {
  return raw_->Read(0, pass_blocks_);
}

// ---------------------------------------------------------------- calls of metadata

absl::StatusOr<CountedCalls> SharedScenario::CountOurs(uint32_t blocks) {
  std::vector<pid_t> workers;
  for (OperatorCalls* calls : {writer_calls_.get(), reader_calls_.get()}) {
    const absl::StatusOr<OperatorCalls::PoolState> pool = calls->Pool();
    if (!pool.ok()) {
      return pool.status();
    }
    workers.push_back(static_cast<pid_t>(pool->worker_pid));
  }
  progress_.Begin("publishing and reading, calls counted", blocks);
  CountedCalls sum;
  for (uint32_t begin = 0; begin < blocks; begin += pass_blocks_) {
    const BlockSet::Options part = {"bench/shared", options_.seed, ++passes_ << 32, pass_blocks_,
                                    block_bytes_};
    fresh_->Renew(part.first);
    absl::StatusOr<std::unique_ptr<BlockSet>> read = BlockSet::Create(*reader_session_, part);
    if (!read.ok()) {
      return read.status();
    }
    const absl::StatusOr<CountedCalls> counted = CountPass(workers, *fresh_, **read);
    if (!counted.ok()) {
      return counted;
    }
    sum.metadata += counted->metadata;
    sum.transfers += counted->transfers;
    progress_.Advance(begin + pass_blocks_);
  }
  return sum;
}

absl::StatusOr<CountedCalls> SharedScenario::CountPass(const std::vector<pid_t>& workers,
                                                       BlockSet& written,
                                                       BlockSet& read) {
  absl::StatusOr<std::unique_ptr<CallCounter>> counter =
      CallCounter::Start(workers, CallCounter::Follow::kProcess, writer_->folder());
  if (!counter.ok()) {
    return counter.status();
  }
  absl::Status status = written.Put(0, pass_blocks_, TERRACE_LEVEL_POOL);
  status.Update(status.ok() ? AwaitVisible(*reader_session_, read) : status);
  status.Update(status.ok() ? GetAll(read) : status);
  if (!status.ok()) {
    return status;
  }
  return (*counter)->Stop();
}

// As a cache writes that has a file for each block: whole under a temporary name, then under its
// own; and reads it back.
absl::Status WriteAndReadFile(const std::string& folder, uint32_t number, absl::Span<char> block) {
  const std::string name = folder + "/" + std::to_string(number);
  const std::string temporary = name + ".tmp";
  bool sound = false;
  {
    const Descriptor out(open(temporary.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
    sound = out.valid() &&
            write(out.get(), block.data(), block.size()) == static_cast<ssize_t>(block.size()) &&
            fdatasync(out.get()) == 0;
  }
  sound = sound && rename(temporary.c_str(), name.c_str()) == 0;
  struct stat facts {};
  const Descriptor in(open(name.c_str(), O_RDONLY | O_CLOEXEC));
  sound = sound && in.valid() && fstat(in.get(), &facts) == 0 &&
          read(in.get(), block.data(), block.size()) == static_cast<ssize_t>(block.size());
  return sound ? absl::OkStatus() : absl::InternalError(name + ": cannot be written and read");
}

absl::StatusOr<CountedCalls> SharedScenario::CountFilePerBlock(uint32_t blocks) {
  const std::string folder = writer_->folder() + "/file-per-block";
  std::filesystem::create_directories(folder);
  std::atomic<pid_t> thread_id{0};
  std::atomic<bool> counted{false};
  absl::Status status;
  const uint64_t bytes = std::min<uint64_t>(block_bytes_, 65536);  // the calls are the same
  std::thread thread([&] {
    std::vector<char> block(bytes, 'x');
    thread_id = static_cast<pid_t>(gettid());
    while (!counted) {
      std::this_thread::yield();
    }
    for (uint32_t i = 0; i < blocks && status.ok(); ++i) {
      status = WriteAndReadFile(folder, i, absl::MakeSpan(block));
    }
    thread_id = 0;
    while (counted) {  // so that the counter ends before what it looks at
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  while (thread_id == 0) {
    std::this_thread::yield();
  }
  absl::StatusOr<std::unique_ptr<CallCounter>> counter =
      CallCounter::Start({thread_id}, CallCounter::Follow::kThread, writer_->folder());
  counted = true;
  while (thread_id != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  absl::StatusOr<CountedCalls> calls =
      counter.ok() ? (*counter)->Stop() : absl::StatusOr<CountedCalls>(counter.status());
  counted = false;
  thread.join();
  std::filesystem::remove_all(folder);
  if (!status.ok()) {
    return status;
  }
  return calls;
}

absl::Status SharedScenario::CountMetadata() {
  const auto blocks = static_cast<uint32_t>(
      std::max<uint64_t>(kCountedBytes / block_bytes_ / pass_blocks_, 1) * pass_blocks_);
  const absl::StatusOr<CountedCalls> theirs = CountFilePerBlock(blocks);
  if (absl::IsNotFound(theirs.status()) || absl::IsPermissionDenied(theirs.status())) {
    report_.AddError("metadata_calls: not measured: " + std::string(theirs.status().message()));
    return absl::OkStatus();
  }
  if (!theirs.ok()) {
    return theirs.status();
  }
  const absl::StatusOr<CountedCalls> ours = CountOurs(blocks);
  if (!ours.ok()) {
    return ours.status();
  }
  const auto their_calls = static_cast<double>(theirs->metadata);
  const auto our_calls = static_cast<double>(std::max<uint64_t>(ours->metadata, 1));
  report_.AddValue("metadata_calls", "calls of metadata of a file per block, over ours", "x",
                   their_calls / our_calls);
  report_.AddValue("metadata_calls_of_ours", "calls of metadata of both workers", "calls",
                   our_calls);
  return absl::OkStatus();
}

absl::Status SharedScenario::Run() {
  if (absl::Status status = Prepare(); !status.ok()) {
    return status;
  }
  absl::Status status = Measure(
      "publish", "blocks into the pool: written, synced, named", [this] { return Publish(); },
      [this] { return RawWrite(); });
  if (!status.ok()) {
    return status;
  }
  status = Measure(
      "put_through", "puts that go on into the pool", [this] { return PutThrough(); },
      [this] { return RawWrite(); });
  if (!status.ok()) {
    return status;
  }
  for (uint64_t pass = 1; pass <= passes_; ++pass) {
    const BlockSet::Options blocks = {"bench/shared", options_.seed, pass << 32, pass_blocks_,
                                      block_bytes_};
    absl::StatusOr<std::unique_ptr<BlockSet>> set = BlockSet::Create(*reader_session_, blocks);
    if (!set.ok()) {
      return set.status();
    }
    read_sets_.push_back(*std::move(set));
    if (read_sets_.size() == 4) {
      break;  // each of them twice as large as the reader's DRAM
    }
  }
  if (absl::Status visible = AwaitVisible(*reader_session_, *read_sets_.back()); !visible.ok()) {
    return visible;
  }
  status = Measure(
      "cold_get", "blocks of another node, read through the worker and verified",
      [this] { return ColdGet(); }, [this] { return RawRead(); });
  if (!status.ok()) {
    return status;
  }
  read_sets_.clear();
  return CountMetadata();
}

}  // namespace

absl::Status RunShared(const BenchOptions& options, Report& report, Progress& progress) {
  return SharedScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
