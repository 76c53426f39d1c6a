// A client that works without end, to be killed at any moment.
//
//   doomed_client RUNTIME SEED KEYS PROGRESS
//
// Counts what it has done in the first eight bytes of the file PROGRESS, which its killer watches.
// It ends by itself only when something is wrong: exit 3 for a block with wrong bytes, 4 for a call
// that never ended, 2 for wrong usage.
#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/e2e/clients_die/engine.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint32_t kDeadlineMs = 20'000;

class Doomed {
 public:
  Doomed(const std::string& runtime_dir, uint64_t seed, uint32_t key_count)
      : dice_(seed),
        key_count_(key_count),
        engine_(Engine::Open(runtime_dir, "doomed", kDeadlineMs)) {}

  // 0: go on.
  int Step() {
    if (engine_ == nullptr) {
      return 2;
    }
    std::vector<uint32_t> ids;
    for (uint32_t k = 0, n = 1 + dice_.Below(8); k < n; ++k) {
      ids.push_back(dice_.Below(key_count_));
    }
    switch (dice_.Below(8)) {
      case 0:
      case 1:
        return Put(ids);
      case 2:
        return Code(engine_->Probe(ids, 60'000));  // a hold that nobody ends
      case 3:
      case 4:
        return Lease(ids);
      case 5:
        return Load(ids);
      case 6:
        return OpenRegion();
      default:
        return Release();
    }
  }

 private:
  static int Code(const Engine::Reply& reply) { return reply.status == Engine::kNever ? 4 : 0; }

  int Put(const std::vector<uint32_t>& ids) { return Code(engine_->Put(ids)); }

  int Lease(const std::vector<uint32_t>& ids) {
    const Engine::Reply reply = engine_->Lease(ids);
    for (size_t k = 0; k < reply.outcomes.size(); ++k) {
      if (reply.outcomes[k] == TERRACE_GET_OK &&
          !IsPayload(ids[k], reply.payload[k], reply.payload_bytes[k])) {
        return 3;
      }
    }
    if (!IsZero(reply.lease)) {
      leases_.push_back(reply.lease);
    }
    return Code(reply);
  }

  int Load(const std::vector<uint32_t>& ids) {
    const Engine::Reply reply = engine_->Load(ids);
    for (uint32_t k = 0; k < reply.outcomes.size(); ++k) {
      if (reply.outcomes[k] == TERRACE_GET_OK &&
          !engine_->Loaded(k, ids[k], reply.payload_bytes[k])) {
        return 3;
      }
    }
    return Code(reply);
  }

  int OpenRegion() {
    if (regions_.size() >= 8) {
      (void)terrace_unregister_region(engine_->client(), regions_.back(), kDeadlineMs);
      regions_.pop_back();
      return 0;
    }
    const Descriptor memory(memfd_create("doomed", MFD_CLOEXEC));
    terrace_region_spec spec{};
    spec.struct_bytes = sizeof(spec);
    spec.fd = memory.get();
    spec.bytes = uint64_t{4} * kBlockBytes;
    spec.block_count = 4;
    spec.block_bytes = kBlockBytes;
    terrace_region region = 0;
    if (memory.valid() && ftruncate(memory.get(), static_cast<off_t>(spec.bytes)) == 0 &&
        terrace_register_region(engine_->client(), &spec, &region) == TERRACE_OK) {
      regions_.push_back(region);
    }
    return 0;
  }

  int Release() {
    if (leases_.empty()) {
      return 0;
    }
    const terrace_id128 lease = leases_.back();
    leases_.pop_back();
    return Code(engine_->Release({lease}, {}));
  }

  Dice dice_;
  uint32_t key_count_;
  std::unique_ptr<Engine> engine_;
  std::vector<terrace_id128> leases_;
  std::vector<terrace_region> regions_;
};

int Run(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: doomed_client RUNTIME SEED KEYS PROGRESS\n");
    return 2;
  }
  const Descriptor file(open(argv[4], O_RDWR | O_CLOEXEC));
  const absl::StatusOr<Mapping> shared = Mapping::Map(file.get(), 0, 4096, MapAccess::kReadWrite);
  if (!shared.ok()) {
    return 2;
  }
  auto* progress = reinterpret_cast<std::atomic<uint64_t>*>(shared->data());
  Doomed doomed(argv[1], std::strtoull(argv[2], nullptr, 10),
                static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10)));
  while (true) {
    const int code = doomed.Step();
    if (code != 0) {
      return code;
    }
    progress->fetch_add(1);
  }
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  return terrace::Run(argc, argv);
}
