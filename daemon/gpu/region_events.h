// Events of a region's owner that saves and loads wait behind, opened by handle and kept for the
// next call: an engine uses a few again and again, or makes one a call.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "tiers/gpu/cuda_objects.h"

namespace terrace {

inline constexpr size_t kMaxEventsOfRegion = 64;  // open at a time

// Thread-compatible.
class RegionEvents {
 public:
  // Owners: this table, and copies that wait behind the event.
  using Held = std::shared_ptr<const cuda::OwnedEvent>;

  // Where the table is full, the event that nobody waits behind and that was used longest ago makes
  // room. Errors: INVALID_ARGUMENT ("after_event": names none), RESOURCE_EXHAUSTED (copies wait
  // behind all of them).
  absl::StatusOr<Held> Open(const cuda::PrimaryContext& context,
                            const cuda::IpcEventHandle& handle);
  [[nodiscard]] size_t size() const { return open_.size(); }

 private:
  struct Opened {
    Held event;
    uint64_t used = 0;
  };
  bool MakeRoom();

  std::map<std::string, Opened> open_;  // by handle
  uint64_t uses_ = 0;
};

}  // namespace terrace
