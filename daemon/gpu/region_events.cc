#include "daemon/gpu/region_events.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace terrace {

absl::StatusOr<RegionEvents::Held> RegionEvents::Open(const cuda::PrimaryContext& context,
                                                      const cuda::IpcEventHandle& handle) {
  const std::string name(handle.reserved, sizeof(handle.reserved));
  if (const auto known = open_.find(name); known != open_.end()) {
    known->second.used = ++uses_;
    return known->second.event;
  }
  if (open_.size() >= kMaxEventsOfRegion && !MakeRoom()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("after_event: copies wait behind ", kMaxEventsOfRegion, " events already"));
  }
  absl::StatusOr<cuda::OwnedEvent> event = cuda::OwnedEvent::Open(context, handle);
  if (!event.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("after_event: ", event.status().message()));
  }
  Opened& opened = open_[name];
  opened.event = std::make_shared<const cuda::OwnedEvent>(*std::move(event));
  opened.used = ++uses_;
  return opened.event;
}

bool RegionEvents::MakeRoom() {
  auto oldest = open_.end();
  for (auto event = open_.begin(); event != open_.end(); ++event) {
    const bool idle = event->second.event.use_count() == 1;
    if (idle && (oldest == open_.end() || event->second.used < oldest->second.used)) {
      oldest = event;
    }
  }
  if (oldest == open_.end()) {
    return false;
  }
  open_.erase(oldest);
  return true;
}

}  // namespace terrace
