// Keeps the process alive when a client truncates memory that we have mapped (SIGBUS).
//
// A client's region is a mapping of a file that the client owns; truncating it makes our access
// raise SIGBUS. Each such mapping is held as a GuardedRegion. The process-wide handler puts zero
// pages under the whole region and marks it failed; the copy runs on over zeros and its caller then
// sees failed() and throws the result away. A SIGBUS anywhere else goes to the previous handler.
// The idea is that of Wayland's wl_shm buffer access. Threads that touch regions must not block
// SIGBUS.
//
// At most kMaxGuardedRegions are alive at once, so that the handler walks a fixed table without
// locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "tiers/os/descriptor.h"

namespace terrace {

inline constexpr size_t kMaxGuardedRegions = 4096;

// Installs the SIGBUS handler; idempotent, thread-safe. Called by GuardedRegion::Map.
void InstallFaultGuard();

// A mapping of memory that somebody else can truncate. Move-only; thread-safe for reading and
// writing through data().
class GuardedRegion {
 public:
  GuardedRegion() = default;
  GuardedRegion(GuardedRegion&&) noexcept;
  GuardedRegion& operator=(GuardedRegion&&) noexcept;
  GuardedRegion(const GuardedRegion&) = delete;
  GuardedRegion& operator=(const GuardedRegion&) = delete;
  ~GuardedRegion();

  // Files in memory alone (memfd, tmpfs, hugetlbfs): an access to any other could hang. Blocks on
  // none. Errors: those of Mapping::Map; INVALID_ARGUMENT for other files; RESOURCE_EXHAUSTED when
  // kMaxGuardedRegions are alive.
  static absl::StatusOr<GuardedRegion> Map(int fd,
                                           uint64_t offset,
                                           uint64_t bytes,
                                           MapAccess access);

  [[nodiscard]] char* data() const { return mapping_.data(); }
  [[nodiscard]] size_t size() const { return mapping_.size(); }
  // True once any access faulted; stays true.
  [[nodiscard]] bool failed() const;

 private:
  Mapping mapping_;
  int slot_ = -1;
};

}  // namespace terrace
