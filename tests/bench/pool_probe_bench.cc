// How long a client's probe takes whose keys only a pool holds, or nobody, where the pool has
// millions of blocks. Not a test: run by hand, as
//
//   pool_probe_bench [blocks]
//
// A neighbour publishes that many blocks of one page of payload through the same code as a daemon,
// into files from which the records themselves are left out (they would be 40 GB): heads, manifests
// and footers are real, and all that another node reads of segments that are sealed. Then a
// terraced on the same folder learns what there is, and a client asks for 1,024 keys at a time.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "terrace/terrace.hpp"
#include <grpcpp/grpcpp.h>

#include "tests/doubles/pool_executor.h"
#include "tests/doubles/private_folder.h"
#include "tests/e2e/daemon/started_daemon.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/file_system.h"
#include "tiers/os/rooted_files.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/shared/pool_files.h"
#include "tiers/shared/shared_tier.h"

namespace terrace {
namespace {

constexpr uint32_t kKeysAProbe = 1024;
constexpr uint32_t kKeyBytes = 32;
constexpr uint32_t kProbes = 1000;
constexpr absl::string_view kRecordMagic = "TRRCREC\n";

void Require(const absl::Status& status, const char* what) {
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
    std::exit(1);
  }
}

// Record pages are not written, and files have holes where they would be.
class HollowFiles final : public RootedFiles {
 public:
  explicit HollowFiles(std::string root)
      : root_(std::move(root)), files_(*OpenRootedFiles(root_)) {}

  absl::StatusOr<uint64_t> Read(absl::string_view path,
                                uint64_t offset,
                                absl::Span<char> out,
                                ReadHow how) override {
    return files_->Read(path, offset, out, how);
  }
  absl::Status Write(absl::string_view path,
                     uint64_t offset,
                     absl::Span<const char> bytes) override {
    constexpr size_t kRecordBytes = 2 * kPageBytes;
    while (bytes.size() >= kRecordBytes &&
           absl::string_view(bytes.data(), kRecordMagic.size()) == kRecordMagic) {
      bytes.remove_prefix(kRecordBytes);
      offset += kRecordBytes;
    }
    return bytes.empty() ? absl::OkStatus() : files_->Write(path, offset, bytes);
  }
  absl::Status Sync(absl::string_view path) override { return files_->Sync(path); }
  absl::Status Make(absl::string_view path, uint64_t bytes) override {
    const std::string name = absl::StrCat(root_, "/", path);
    const Descriptor file(open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    return file.valid() && ftruncate(file.get(), static_cast<off_t>(bytes)) == 0
               ? absl::OkStatus()
               : absl::InternalError("a segment cannot be made");
  }
  absl::Status Create(absl::string_view path, absl::Span<const char> content) override {
    return files_->Create(path, content);
  }
  absl::Status Replace(absl::string_view path, absl::Span<const char> content) override {
    return files_->Replace(path, content);
  }
  absl::Status Remove(absl::string_view path) override { return files_->Remove(path); }
  absl::Status MakeFolder(absl::string_view path) override { return files_->MakeFolder(path); }
  absl::Status RemoveFolder(absl::string_view path) override { return files_->RemoveFolder(path); }
  absl::StatusOr<std::vector<FolderEntry>> List(absl::string_view path) override {
    return files_->List(path);
  }
  absl::StatusOr<FolderSpace> Space() override { return files_->Space(); }
  absl::Status CheckRoot() override { return files_->CheckRoot(); }

 private:
  const std::string root_;
  const std::unique_ptr<RootedFiles> files_;
};

std::string KeyOf(uint64_t n) {
  std::string key(kKeyBytes, 'k');
  std::memcpy(key.data(), &n, sizeof(n));
  return key;
}

std::string KeysFrom(uint64_t first) {
  std::string keys;
  for (uint64_t n = first; n < first + kKeysAProbe; ++n) {
    keys += KeyOf(n);
  }
  return keys;
}

// Publishes blocks of namespace `digest`.
class Neighbour {
 public:
  Neighbour(const std::string& folder, const Digest128& digest) : digest_(digest), files_(folder) {
    SharedTierOptions options;
    options.node = {7, 7};
    options.capacity_bytes = uint64_t{1} << 40;
    SharedTierParts parts;
    parts.files = pool_files_.get();
    parts.clock = &BootClock();
    parts.hashing = &hashing_;
    parts.maintenance = &maintenance_;
    absl::StatusOr<std::unique_ptr<SharedTier>> tier = OpenSharedTier(options, parts);
    Require(tier.status(), "the neighbour's tier");
    tier_ = *std::move(tier);
    ticker_ = std::thread([this] {
      while (!stop_) {
        tier_->Tick();
        absl::SleepFor(absl::Milliseconds(10));
      }
    });
    const std::string payload(kPageBytes, 'p');
    std::memcpy(slot_.bytes() + kPageBytes, payload.data(), payload.size());
    checksum_ = PayloadChecksum(payload);
  }
  ~Neighbour() {
    stop_ = true;
    ticker_.join();
    tier_.reset();
    pool_files_->Stop();
  }
  Neighbour(const Neighbour&) = delete;
  Neighbour& operator=(const Neighbour&) = delete;

  void Publish(uint64_t blocks) {
    while (tier_->figures().state != PoolState::kOnline) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    for (uint64_t n = 0; n < blocks;) {
      if (TryOne(n)) {
        ++n;
      } else {
        absl::SleepFor(absl::Milliseconds(1));
      }
    }
    while (published_ + failed_ < blocks) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    Require(failed_ == 0 ? absl::OkStatus() : absl::InternalError("refused"), "publish");
    std::atomic<bool> closed{false};
    tier_->Close(BootClock().Now() + absl::Seconds(20), [&closed](const absl::Status& status) {
      Require(status, "the neighbour's end");
      closed = true;
    });
    while (!closed) {
      absl::SleepFor(absl::Milliseconds(10));
    }
  }

 private:
  // False: the tier has enough for now.
  bool TryOne(uint64_t n) {
    const std::string key = KeyOf(n);
    WriteRequest request;
    request.identity = {digest_, 1, "", key};
    request.slot = slot_.span();
    request.payload_bytes = kPageBytes;
    request.checksum = checksum_;
    const auto busy = std::make_shared<std::atomic<bool>>(false);
    tier_->Publish(
        request, [] {},
        [this, busy](WriteOutcome outcome) {
          if (outcome == WriteOutcome::kBusy) {
            *busy = true;
          } else {
            ++(outcome == WriteOutcome::kWritten ? published_ : failed_);
          }
        });
    return !*busy;
  }

  const Digest128 digest_;
  HollowFiles files_;
  doubles::PoolExecutor hashing_{1};
  doubles::PoolExecutor maintenance_{2};
  std::unique_ptr<PoolFiles> pool_files_ = MakeThreadedPoolFiles({}, files_, BootClock());
  std::unique_ptr<SharedTier> tier_;
  AlignedBuffer slot_{2 * kPageBytes};
  Digest128 checksum_;
  std::atomic<uint64_t> published_{0};
  std::atomic<uint64_t> failed_{0};
  std::atomic<bool> stop_{false};
  std::thread ticker_;
};

v1::PoolStatus PoolOf(const StartedDaemon& daemon) {
  v1::PoolReply reply;
  grpc::ClientContext context;
  const grpc::Status status = v1::Admin::NewStub(daemon.AdminChannel())->Pool(&context, {}, &reply);
  return status.ok() && reply.pools_size() == 1 ? reply.pools(0) : v1::PoolStatus();
}

Digest128 OnlyNamespaceOf(const StartedDaemon& daemon) {
  v1::NamespacesReply reply;
  grpc::ClientContext context;
  const grpc::Status status =
      v1::Admin::NewStub(daemon.AdminChannel())->Namespaces(&context, {}, &reply);
  Digest128 digest;
  if (!status.ok() || reply.namespaces_size() != 1 ||
      !Digest128::FromBytes(reply.namespaces(0).namespace_digest(), &digest)) {
    Require(absl::InternalError(status.error_message()), "namespaces");
  }
  return digest;
}

// Random runs of 1,024 keys among `blocks` from `first` on; every one of them is looked up.
void Measure(const Client& client,
             const Namespace& ns,
             const char* what,
             uint64_t first,
             uint64_t blocks,
             uint8_t expected) {
  std::mt19937_64 random(5);
  std::vector<double> times;
  for (uint32_t i = 0; i < kProbes; ++i) {
    const std::string keys = KeysFrom(first + random() % (blocks - kKeysAProbe));
    const auto begun = std::chrono::steady_clock::now();
    const Completion probe = client.Probe(Part(ns, keys).Rule(TERRACE_RULE_INDEPENDENT));
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begun)
            .count());
    if (!probe.ok() || std::any_of(probe->states, probe->states + kKeysAProbe,
                                   [&](uint8_t state) { return (state & 0xfU) != expected; })) {
      Require(absl::InternalError(what), "a probe was answered otherwise");
    }
  }
  std::sort(times.begin(), times.end());
  std::printf("%-28s p50 %.3f ms, p99 %.3f ms\n", what, times[kProbes / 2],
              times[kProbes * 99 / 100]);
}

void Run(uint64_t blocks) {
  const doubles::PrivateFolder pool;
  absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon = StartedDaemon::Start(
      {.dram = "128MiB",
       .more_config = absl::StrCat("[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"",
                                   pool.path(), "\"\ncapacity = \"1TiB\"\n")});
  Require(daemon.status(), "terraced");
  Options options;
  const std::string runtime = (*daemon)->runtime_dir();
  options.runtime_dir = runtime.c_str();
  const Client client = Client::Open(options);
  terrace_namespace_record record{};
  record.model = "pool-probe";
  record.weights_revision = "1";
  record.kv_dtype = "bf16";
  record.layout = "none/1";
  record.hash_algorithm = "none";
  record.block_tokens = 16;
  record.block_bytes = kPageBytes;
  const Namespace ns = client.OpenNamespace(record);
  static_cast<void>(client.Probe(Part(ns, KeysFrom(0))));  // the daemon knows the namespace now
  const Digest128 digest = OnlyNamespaceOf(**daemon);
  Require((*daemon)->Stop() == 0 ? absl::OkStatus() : absl::InternalError("no clean end"), "stop");
  auto begun = std::chrono::steady_clock::now();
  const auto seconds = [&begun] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  };
  Neighbour(pool.path(), digest).Publish(blocks);
  std::printf("published in %.1f s\n", seconds());
  begun = std::chrono::steady_clock::now();
  Require((*daemon)->StartAgain(), "terraced");
  v1::PoolStatus status = PoolOf(**daemon);
  while (status.records() < blocks) {
    absl::SleepFor(absl::Milliseconds(100));
    status = PoolOf(**daemon);
  }
  std::printf("%llu records known after %.1f s, %.1f bytes each\n",
              static_cast<unsigned long long>(status.records()), seconds(),
              static_cast<double>(status.catalogue_bytes()) / static_cast<double>(blocks));
  while (!client.Probe(Part(ns, KeysFrom(0))).ok()) {  // until it has a session again
    absl::SleepFor(absl::Milliseconds(10));
  }
  Measure(client, ns, "1,024 keys of the pool", 0, blocks, TERRACE_KEY_LOWER);
  Measure(client, ns, "1,024 keys that nobody has", uint64_t{1} << 40, blocks, TERRACE_KEY_MISS);
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  const uint64_t blocks = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 5'000'000;
  if (blocks < 2 * terrace::kKeysAProbe) {
    std::fprintf(stderr, "usage: pool_probe_bench [blocks]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what has been measured is seen at once
  terrace::Run(blocks);
  return 0;
}
