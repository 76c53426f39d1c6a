#include "tools/ctl/host_facts.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>

#include "tiers/os/descriptor.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5; newer than the distribution's headers
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace terrace::ctl {
namespace {

constexpr size_t kPageBytes = 4096;

// Small files of /proc and /sys; "" when not readable.
std::string ReadSmall(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void GatherKernel(HostFacts* facts) {
  utsname name{};
  if (uname(&name) == 0) {
    facts->kernel_release = static_cast<const char*>(name.release);
    const std::vector<std::string> parts =
        absl::StrSplit(facts->kernel_release, absl::ByAnyChar(".-"));
    if (parts.size() >= 2) {
      (void)absl::SimpleAtoi(parts[0], &facts->kernel_major);
      (void)absl::SimpleAtoi(parts[1], &facts->kernel_minor);
    }
  }
  facts->grpc_version = grpc::Version();
  const int version = GOOGLE_PROTOBUF_VERSION;
  facts->protobuf_version =
      absl::StrCat(version / 1000000, ".", version / 1000 % 1000, ".", version % 1000);
}

void GatherMemory(HostFacts* facts) {
  const std::string meminfo = ReadSmall("/proc/meminfo");
  facts->huge_pages_total = MeminfoNumber(meminfo, "HugePages_Total");
  facts->huge_pages_free = MeminfoNumber(meminfo, "HugePages_Free");
  facts->huge_page_bytes = MeminfoNumber(meminfo, "Hugepagesize") * 1024;
  facts->memory_bytes = MeminfoNumber(meminfo, "MemTotal") * 1024;
  facts->memory_available_bytes = MeminfoNumber(meminfo, "MemAvailable") * 1024;
  facts->shmem_thp = ChosenWord(ReadSmall("/sys/kernel/mm/transparent_hugepage/shmem_enabled"));
  for (const absl::string_view line : absl::StrSplit(ReadSmall("/proc/self/cgroup"), '\n')) {
    uint64_t limit = 0;
    if (absl::StartsWith(line, "0::") &&
        absl::SimpleAtoi(ReadSmall(absl::StrCat("/sys/fs/cgroup", line.substr(3), "/memory.max")),
                         &limit)) {
      facts->cgroup_limit_bytes = limit;
    }
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
    facts->own_memlock_bytes = limit.rlim_cur == RLIM_INFINITY ? kUnlimited : limit.rlim_cur;
  }
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    facts->own_descriptors = limit.rlim_cur == RLIM_INFINITY ? kUnlimited : limit.rlim_cur;
  }
}

bool SealsWork(unsigned flags, off_t bytes) {
  const Descriptor fd(memfd_create("terrace-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  return fd.valid() && ftruncate(fd.get(), bytes) == 0 &&
         fcntl(fd.get(), F_ADD_SEALS,
               F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
}

// A slab in small: one page present, then collapsed.
bool CollapseWorks(uint64_t huge_page_bytes) {
  const Descriptor fd(memfd_create("terrace-doctor", MFD_CLOEXEC));
  const uint64_t bytes = 2 * huge_page_bytes;  // holds one aligned huge page wherever it is mapped
  if (huge_page_bytes == 0 || !fd.valid() || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return false;
  }
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), 0, bytes, MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return false;
  }
  const auto begin = reinterpret_cast<uintptr_t>(mapping->data());
  char* aligned = mapping->data() + (huge_page_bytes - begin % huge_page_bytes) % huge_page_bytes;
  *aligned = 1;
  return madvise(aligned, huge_page_bytes, MADV_COLLAPSE) == 0;
}

bool PeerPidfdWorks() {
  std::array<int, 2> pair{-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return false;
  }
  const Descriptor left(pair[0]);
  const Descriptor right(pair[1]);
  int passed = -1;
  socklen_t bytes = sizeof(passed);
  const bool works = getsockopt(left.get(), SOL_SOCKET, SO_PEERPIDFD, &passed, &bytes) == 0;
  const Descriptor owned(works ? passed : -1);
  return works;
}

void GatherCalls(HostFacts* facts) {
  io_uring_params params{};
  const Descriptor ring(static_cast<int>(syscall(SYS_io_uring_setup, 4, &params)));
  facts->io_uring_errno = ring.valid() ? 0 : errno;
  (void)absl::SimpleAtoi(ReadSmall("/proc/sys/kernel/io_uring_disabled"),
                         &facts->io_uring_disabled);
  const Descriptor pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  facts->pidfd = pidfd.valid();
  facts->peer_pidfd = PeerPidfdWorks();
  facts->shmem_collapse = CollapseWorks(facts->huge_page_bytes);
  facts->seal_future_write = SealsWork(0, kPageBytes);
  facts->seal_future_write_huge =
      facts->huge_page_bytes > 0 &&
      SealsWork(MFD_HUGETLB, static_cast<off_t>(facts->huge_page_bytes));
}

void GatherGpu(HostFacts* facts) {
  facts->nvidia_device = access("/dev/nvidiactl", F_OK) == 0;
  const std::unique_ptr<void, int (*)(void*)> library(
      dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL), &dlclose);
  if (library == nullptr) {
    const char* why = dlerror();
    facts->libcuda_detail = why == nullptr ? "" : why;
    return;
  }
  facts->libcuda = true;
  // cuDriverGetVersion needs no cuInit, which could hang on a sick driver.
  using DriverGetVersion = int (*)(int*);
  const auto get_version =
      reinterpret_cast<DriverGetVersion>(dlsym(library.get(), "cuDriverGetVersion"));
  if (get_version != nullptr && get_version(&facts->cuda_driver_version) != 0) {
    facts->cuda_driver_version = 0;
  }
}

std::string FileSystemName(const struct statfs& fs) {
  struct Known {
    unsigned long magic;
    const char* name;
  };
  constexpr std::array<Known, 9> kKnown = {{{0xef53, "ext4"},
                                            {0x58465342, "xfs"},
                                            {0x9123683e, "btrfs"},
                                            {0x01021994, "tmpfs"},
                                            {0x794c7630, "overlay"},
                                            {0x6969, "nfs"},
                                            {0x0bd00bd0, "lustre"},
                                            {0x00c36400, "ceph"},
                                            {0x2fc12fc1, "zfs"}}};
  const auto magic = static_cast<unsigned long>(fs.f_type);
  for (const Known& known : kKnown) {
    if (known.magic == magic) {
      return known.name;
    }
  }
  return absl::StrFormat("file system %#x", magic);
}

// An unnamed file, or one that is unlinked at once where the file system has no O_TMPFILE.
Descriptor OpenScratch(const std::string& dir, int flags) {
  Descriptor fd(open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600));
  if (fd.valid() || (errno != EOPNOTSUPP && errno != EISDIR)) {
    return fd;
  }
  std::string path = absl::StrCat(dir, "/.terrace-doctor-XXXXXX");
  Descriptor named(mkostemp(path.data(), O_CLOEXEC | flags));
  const int error = errno;
  if (named.valid()) {
    (void)unlink(path.c_str());
  }
  errno = error;
  return named;
}

void GatherRuntime(HostFacts* facts) {
  struct stat st {};
  facts->runtime_exists = stat(facts->runtime_dir.c_str(), &st) == 0;
  if (!facts->runtime_exists) {
    return;
  }
  facts->runtime_is_dir = S_ISDIR(st.st_mode);
  facts->runtime_mode = st.st_mode & 07777U;
  for (const char* name : {"terrace.sock", "session.sock", "admin.sock"}) {
    SocketFact socket{name, false, 0};
    if (stat(absl::StrCat(facts->runtime_dir, "/", name).c_str(), &st) == 0 &&
        S_ISSOCK(st.st_mode)) {
      socket.exists = true;
      socket.mode = st.st_mode & 0777U;
    }
    facts->sockets.push_back(socket);
  }
}

}  // namespace

std::string ChosenWord(absl::string_view text) {
  const size_t from = text.find('[');
  const size_t to = text.find(']');
  if (from == absl::string_view::npos || to == absl::string_view::npos || to < from) {
    return "";
  }
  return std::string(text.substr(from + 1, to - from - 1));
}

uint64_t MeminfoNumber(absl::string_view meminfo, absl::string_view name) {
  for (const absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    uint64_t number = 0;
    if (words.size() >= 2 && words[0] == absl::StrCat(name, ":") &&
        absl::SimpleAtoi(words[1], &number)) {
      return number;
    }
  }
  return 0;
}

std::optional<uint64_t> SoftLimit(absl::string_view limits, absl::string_view name) {
  for (const absl::string_view line : absl::StrSplit(limits, '\n')) {
    if (!absl::StartsWith(line, name)) {
      continue;
    }
    const std::vector<absl::string_view> words =
        absl::StrSplit(line.substr(name.size()), ' ', absl::SkipEmpty());
    uint64_t number = 0;
    if (!words.empty() && words[0] == "unlimited") {
      return kUnlimited;
    }
    if (!words.empty() && absl::SimpleAtoi(words[0], &number)) {
      return number;
    }
  }
  return std::nullopt;
}

bool ReadLimits(pid_t pid, uint64_t* memlock_bytes, uint64_t* descriptors) {
  const std::string limits = ReadSmall(absl::StrCat("/proc/", pid, "/limits"));
  const std::optional<uint64_t> memlock = SoftLimit(limits, "Max locked memory");
  const std::optional<uint64_t> files = SoftLimit(limits, "Max open files");
  if (!memlock.has_value() || !files.has_value()) {
    return false;
  }
  *memlock_bytes = *memlock;
  *descriptors = *files;
  return true;
}

DirectIoFact TryDirectIo(const std::string& dir) {
  DirectIoFact fact;
  fact.dir = dir;
  struct statfs fs {};
  if (statfs(dir.c_str(), &fs) != 0) {
    fact.detail = std::strerror(errno);
    return fact;
  }
  fact.file_system = FileSystemName(fs);
  fact.free_bytes = static_cast<uint64_t>(fs.f_bavail) * static_cast<uint64_t>(fs.f_bsize);
  const Descriptor plain = OpenScratch(dir, 0);
  if (!plain.valid()) {
    fact.detail = std::strerror(errno);
    return fact;
  }
  fact.result = DirectIoFact::Result::kNoDirectIo;
  const Descriptor direct = OpenScratch(dir, O_DIRECT);
  if (!direct.valid()) {
    fact.detail = absl::StrCat("O_DIRECT is refused: ", std::strerror(errno));
    return fact;
  }
  struct Page {
    alignas(kPageBytes) std::array<char, kPageBytes> bytes;
  };
  const auto written = std::make_unique<Page>();
  const auto read_back = std::make_unique<Page>();
  written->bytes.fill('t');
  read_back->bytes.fill(0);
  // Opening may succeed where the transfer does not, so only the transfer counts.
  if (pwrite(direct.get(), written->bytes.data(), kPageBytes, 0) !=
      static_cast<ssize_t>(kPageBytes)) {
    fact.detail = absl::StrCat("an O_DIRECT write failed: ", std::strerror(errno));
  } else if (pread(direct.get(), read_back->bytes.data(), kPageBytes, 0) !=
             static_cast<ssize_t>(kPageBytes)) {
    fact.detail = absl::StrCat("an O_DIRECT read failed: ", std::strerror(errno));
  } else if (written->bytes != read_back->bytes) {
    fact.detail = "an O_DIRECT read returned other bytes than were written";
  } else {
    fact.result = DirectIoFact::Result::kWorks;
  }
  return fact;
}

HostFacts GatherHostFacts(const std::string& runtime_dir, const std::vector<std::string>& dirs) {
  HostFacts facts;
  facts.runtime_dir = runtime_dir;
  GatherKernel(&facts);
  GatherMemory(&facts);
  GatherCalls(&facts);
  GatherGpu(&facts);
  GatherRuntime(&facts);
  for (const std::string& dir : dirs) {
    facts.direct_io.push_back(TryDirectIo(dir));
  }
  return facts;
}

}  // namespace terrace::ctl
