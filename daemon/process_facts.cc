#include "daemon/process_facts.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include <malloc.h>

#include "daemon/concat.h"
#include "daemon/settings.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

// A small file of the kernel; "" when it cannot be read.
std::string ReadSmall(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char buffer[8192];
  while (file.valid()) {
    const ssize_t got = read(file.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

std::optional<uint64_t> LeadingNumber(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) {
    return std::nullopt;
  }
  uint64_t number = 0;
  const std::from_chars_result result =
      std::from_chars(text.data() + begin, text.data() + text.size(), number);
  if (result.ec != std::errc()) {
    return std::nullopt;
  }
  return number;
}

// The number behind "NAME:" at the beginning of a line.
std::optional<uint64_t> LineNumber(std::string_view text, std::string_view name) {
  size_t line = 0;
  while (line < text.size()) {
    const std::string_view rest = text.substr(line);
    if (rest.starts_with(name)) {
      return LeadingNumber(rest.substr(name.size()));
    }
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) {
      break;
    }
    line += end + 1;
  }
  return std::nullopt;
}

// What the control group and its ancestors still allow (cgroup v2); nullopt: no limit that can be
// read.
std::optional<uint64_t> CgroupHeadroom(const KernelFolders& folders) {
  const std::string own = ReadSmall(folders.proc + "/self/cgroup");
  const size_t at = own.find("0::/");
  if (at == std::string::npos) {
    return std::nullopt;
  }
  std::filesystem::path path = own.substr(at + 4, own.find('\n', at) - at - 4);
  std::optional<uint64_t> least;
  while (true) {
    const std::string folder = (std::filesystem::path(folders.cgroup) / path).string();
    const std::optional<uint64_t> most = LeadingNumber(ReadSmall(folder + "/memory.max"));
    const std::optional<uint64_t> used = LeadingNumber(ReadSmall(folder + "/memory.current"));
    if (most && used) {
      // The page cache counts as used, but gives way.
      const uint64_t cache =
          LineNumber(ReadSmall(folder + "/memory.stat"), "inactive_file").value_or(0);
      const uint64_t busy = *used - std::min(*used, cache);
      const uint64_t room = *most - std::min(*most, busy);
      least = std::min(least.value_or(room), room);
    }
    if (path.empty()) {
      return least;
    }
    path = path.parent_path();
  }
}

absl::Status DoesNotFit(uint64_t arena_bytes, uint64_t available, std::string_view limited_by) {
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  return absl::ResourceExhaustedError(
      Concat("dram.capacity of ", SizeText(arena_bytes), " does not fit: ", limited_by, " ",
             SizeText(available / kMiB * kMiB), "; lower dram.capacity"));
}

void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return;
  }
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

uint64_t ResidentBytes() {
  const std::string statm = ReadSmall("/proc/self/statm");
  const size_t space = statm.find(' ');
  if (space == std::string::npos) {
    return 0;
  }
  return LeadingNumber(std::string_view(statm).substr(space)).value_or(0) *
         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t OpenDescriptors() {
  std::error_code error;
  uint64_t count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    ++count;
  }
  return count;
}

bool HasGpuDriver() {
  return std::getenv("TERRACE_CUDA_DRIVER") != nullptr || access("/dev/nvidiactl", F_OK) == 0;
}

absl::Status CheckMemory(uint64_t arena_bytes, bool huge_pages, const KernelFolders& folders) {
  const std::string meminfo = ReadSmall(folders.proc + "/meminfo");
  if (const std::optional<uint64_t> available_kib = LineNumber(meminfo, "MemAvailable:")) {
    uint64_t available = *available_kib * 1024;
    if (huge_pages) {
      // Reserved huge pages are no part of MemAvailable.
      const uint64_t pages = LineNumber(meminfo, "HugePages_Free:").value_or(0);
      available += pages * LineNumber(meminfo, "Hugepagesize:").value_or(0) * 1024;
    }
    if (arena_bytes > available) {
      return DoesNotFit(arena_bytes, available, "the machine has available");
    }
  }
  if (const std::optional<uint64_t> room = CgroupHeadroom(folders); room && arena_bytes > *room) {
    return DoesNotFit(arena_bytes, *room, "the memory limit of the control group leaves");
  }
  return absl::OkStatus();
}

void SetUpProcess(const ProcessSetup& setup) {
  umask(0077);
  std::signal(SIGPIPE, SIG_IGN);
  RaiseDescriptorLimit();
  if (!setup.core_dumps) {
    const rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
  }
  // 32 MiB is the most that glibc takes (HEAP_MAX_SIZE / 2).
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace terrace
