// The SIGBUS handler and its table of regions.
#include "tiers/os/fault_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/base/const_init.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "tiers/os/descriptor.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

// One region. Written under `slots_mutex`, read by the handler without a lock: `version` is odd
// while begin and end change, so that the handler never combines the begin of one region with the
// end of another.
struct GuardSlot {
  std::atomic<uint32_t> version{0};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> failed{false};
};

static_assert(std::atomic<uintptr_t>::is_always_lock_free &&
              std::atomic<bool>::is_always_lock_free);

std::array<GuardSlot, kMaxGuardedRegions> slots;
std::atomic<size_t> slots_in_use{0};  // slots from here on were never used
ABSL_CONST_INIT absl::Mutex slots_mutex(absl::kConstInit);
struct sigaction previous_action;  // written once, before the handler is installed

void SetRange(GuardSlot& slot, uintptr_t begin, uintptr_t end) {
  slot.version.fetch_add(1);
  slot.begin.store(begin);
  slot.end.store(end);
  slot.version.fetch_add(1);
}

struct Range {
  uintptr_t begin = 0;
  uintptr_t end = 0;
};

// Empty when the slot is being changed: a region that is being accessed is not.
Range ReadRange(const GuardSlot& slot) {
  const uint32_t before = slot.version.load();
  const Range range{slot.begin.load(), slot.end.load()};
  return before % 2 == 0 && slot.version.load() == before ? range : Range{};
}

// Puts zeros under the region that holds `address`. The whole of it at once: page by page a client
// could make the process run out of mappings. By system call, because a sanitizer's mmap is no
// function for a signal handler.
bool Rescue(uintptr_t address) {
  const size_t count = slots_in_use.load();
  for (size_t i = 0; i < count; ++i) {
    const Range range = ReadRange(slots[i]);
    if (address < range.begin || address >= range.end) {
      continue;
    }
    slots[i].failed.store(true);
    const long mapped =
        syscall(SYS_mmap, range.begin, range.end - range.begin, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return mapped == static_cast<long>(range.begin);
  }
  return false;
}

void PassOn(int signal, siginfo_t* cause, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, cause, context);
    return;
  }
  const bool sent = cause->si_code <= 0;  // by kill(2) and the like
  if (previous_action.sa_handler == SIG_IGN && sent) {
    return;
  }
  if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
    return;
  }
  // Returning repeats the access that faulted, which then ends the process as if this handler
  // weren't there.
  struct sigaction fatal {};
  fatal.sa_handler = SIG_DFL;
  sigaction(signal, &fatal, nullptr);
  if (sent) {
    raise(signal);
  }
}

void OnSigbus(int signal, siginfo_t* cause, void* context) {
  const int saved_errno = errno;
  if (cause->si_code <= 0 || !Rescue(reinterpret_cast<uintptr_t>(cause->si_addr))) {
    PassOn(signal, cause, context);
  }
  errno = saved_errno;
}

class SlotList {
 public:
  // -1: all are taken.
  int Take(uintptr_t begin, uintptr_t end) {
    const absl::MutexLock lock(&slots_mutex);
    size_t index = slots_in_use.load();
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else if (index == kMaxGuardedRegions) {
      return -1;
    }
    slots[index].failed.store(false);
    SetRange(slots[index], begin, end);
    if (index == slots_in_use.load()) {
      slots_in_use.store(index + 1);
    }
    return static_cast<int>(index);
  }

  void Return(int index) {
    const absl::MutexLock lock(&slots_mutex);
    SetRange(slots[static_cast<size_t>(index)], 0, 0);
    free_.push_back(static_cast<size_t>(index));
  }

 private:
  std::vector<size_t> free_ ABSL_GUARDED_BY(slots_mutex);
};

SlotList& Slots() {
  // NOLINTNEXTLINE(cppcoreguidelines-owning-memory): outlives every region, static ones included
  static SlotList* const kSlots = new SlotList;
  return *kSlots;
}

}  // namespace

void InstallFaultGuard() {
  static absl::once_flag installed;
  absl::call_once(installed, [] {
    struct sigaction ours {};
    ours.sa_sigaction = OnSigbus;
    ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    TERRACE_CHECK(sigaction(SIGBUS, nullptr, &previous_action) == 0);
    TERRACE_CHECK(sigaction(SIGBUS, &ours, nullptr) == 0);
  });
}

absl::StatusOr<GuardedRegion> GuardedRegion::Map(int fd,
                                                 uint64_t offset,
                                                 uint64_t bytes,
                                                 MapAccess access) {
  InstallFaultGuard();
  // Only files in memory know seals. A page of any other file can be as slow as its owner likes:
  // one on a dead network or user-space file system would hold the copying thread for ever.
  if (fcntl(fd, F_GET_SEALS) < 0) {
    return absl::InvalidArgumentError(
        "region descriptor: must be a memfd or a file on tmpfs or hugetlbfs");
  }
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd, offset, bytes, access);
  if (!mapping.ok()) {
    return mapping.status();
  }
  GuardedRegion region;
  region.mapping_ = *std::move(mapping);
  const auto begin = reinterpret_cast<uintptr_t>(region.mapping_.data());
  region.slot_ = Slots().Take(begin, begin + region.mapping_.mapped_bytes());
  if (region.slot_ < 0) {
    return absl::ResourceExhaustedError("regions: all guard slots are taken");
  }
  return region;
}

GuardedRegion::GuardedRegion(GuardedRegion&& other) noexcept
    : mapping_(std::move(other.mapping_)), slot_(std::exchange(other.slot_, -1)) {}

GuardedRegion& GuardedRegion::operator=(GuardedRegion&& other) noexcept {
  GuardedRegion taken(std::move(other));
  std::swap(mapping_, taken.mapping_);
  std::swap(slot_, taken.slot_);
  return *this;
}

GuardedRegion::~GuardedRegion() {
  if (slot_ >= 0) {
    Slots().Return(slot_);  // before the address range may belong to something else
  }
}

bool GuardedRegion::failed() const {
  return slot_ >= 0 && slots[static_cast<size_t>(slot_)].failed.load();
}

}  // namespace terrace
