// What the kernel says about this process and its machine, and how the process is set up before
// anything else runs.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace terrace {

uint64_t ResidentBytes();    // 0 when unknown
uint64_t OpenDescriptors();  // 0 when unknown

// Where the kernel shows itself; a test points it elsewhere.
struct KernelFolders {
  std::string proc = "/proc";
  std::string cgroup = "/sys/fs/cgroup";
};

// Whether there seems to be a driver of GPUs: its device file, or TERRACE_CUDA_DRIVER of the
// environment.
bool HasGpuDriver();

// Whether `arena_bytes` more memory can be had: what the machine has available, reserved huge pages
// included where `huge_pages`, and the limits of the control groups that the process is in. What
// cannot be read limits nothing. Errors: RESOURCE_EXHAUSTED, naming dram.capacity, what is
// available and who limits it.
absl::Status CheckMemory(uint64_t arena_bytes, bool huge_pages, const KernelFolders& folders = {});

struct ProcessSetup {
  bool core_dumps = false;
};
// umask 0077; SIGPIPE ignored; no core dumps, no ptrace by the same user, unless asked for; as many
// descriptors as are allowed; malloc keeps large chunks (gRPC's messages are bound by page faults
// otherwise: 2.4 GB/s against 1.0); no deadlock detection in Abseil's mutexes, which Debian's gRPC
// runs. To be called once, before threads are started.
void SetUpProcess(const ProcessSetup& setup);

}  // namespace terrace
