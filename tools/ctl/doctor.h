// What on this host would hurt. The judgement is pure: facts in, findings out; host_facts.h gathers
// the facts.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "tools/ctl/format.h"
#include "tools/ctl/proto_json.h"

namespace terrace::ctl {

inline constexpr uint64_t kUnlimited = ~uint64_t{0};

// A folder of a tier, tried with a real write of 4 KiB.
struct DirectIoFact {
  std::string dir;
  enum class Result : uint8_t { kWorks, kNoDirectIo, kNotWritable } result = Result::kNotWritable;
  std::string detail;       // of the failure, in the kernel's words
  std::string file_system;  // "ext4", "xfs", ... or its magic number
  uint64_t free_bytes = 0;
};

// A drive of the daemon's, as the daemon sees it.
struct DriveFact {
  std::string path;
  std::string state;               // "ready", "away", ...
  std::string problem;             // "": none
  std::string not_direct_because;  // "": O_DIRECT is used, or the drive is away
  uint64_t pending_deletes = 0;
};

// A shared tier of the daemon's, as the daemon sees it. The mount is not looked at here: whoever
// looks at one that hangs hangs as well.
struct PoolFact {
  std::string tier;
  std::string state;       // "ready", "suspended", ...
  std::string last_fault;  // "": none
  uint64_t stuck_workers = 0;
  uint64_t unraised_generations = 0;
};

struct SocketFact {
  std::string name;  // admin.sock, ...
  bool exists = false;
  mode_t mode = 0;  // permission bits
};

struct HostFacts {
  std::string kernel_release;
  int kernel_major = 0;
  int kernel_minor = 0;
  std::string grpc_version;
  std::string protobuf_version;

  uint64_t huge_pages_total = 0;
  uint64_t huge_pages_free = 0;
  uint64_t huge_page_bytes = 0;
  std::string shmem_thp;        // the chosen word of shmem_enabled; "": not readable
  bool shmem_collapse = false;  // MADV_COLLAPSE makes huge pages of shared memory (Linux 6.1)
  uint64_t memory_bytes = 0;
  uint64_t memory_available_bytes = 0;
  std::optional<uint64_t>
      cgroup_limit_bytes;  // memory.max of this process; none: unlimited or not readable

  uint64_t own_memlock_bytes = 0;  // of this shell; kUnlimited
  std::optional<uint64_t> daemon_memlock_bytes;
  uint64_t own_descriptors = 0;
  std::optional<uint64_t> daemon_descriptors;

  int io_uring_errno = 0;     // 0: works
  int io_uring_disabled = 0;  // /proc/sys/kernel/io_uring_disabled
  bool pidfd = false;
  bool peer_pidfd = false;  // SO_PEERPIDFD, Linux 6.5
  bool seal_future_write = false;
  bool seal_future_write_huge = false;  // meaningful when huge_pages_free > 0

  bool nvidia_device = false;  // /dev/nvidiactl
  bool libcuda = false;
  std::string libcuda_detail;   // why it doesn't load
  int cuda_driver_version = 0;  // 12040 is 12.4; 0: unknown

  std::vector<DirectIoFact> direct_io;

  std::string runtime_dir;
  bool runtime_exists = false;
  bool runtime_is_dir = false;
  mode_t runtime_mode = 0;
  std::vector<SocketFact> sockets;
  std::string own_version;
  std::string daemon_version;  // "": not reached
  std::string daemon_problem;  // why not
  std::vector<DriveFact> drives;
  std::vector<PoolFact> pools;
};

enum class Grade : uint8_t { kOk, kWarn, kFail };

struct Finding {
  std::string check;  // a fixed name, e.g. "huge-pages"
  Grade grade = Grade::kOk;
  std::string seen;
  std::string advice;  // "" when there is nothing to do
};

// In a fixed order, one or more a subject.
std::vector<Finding> Diagnose(const HostFacts& facts);

// "OK    huge-pages  ..." a line, the advice indented below it.
std::string DoctorText(absl::Span<const Finding> findings, const Style& style);
Json DoctorJson(absl::Span<const Finding> findings);
bool AnyFailed(absl::Span<const Finding> findings);

}  // namespace terrace::ctl
