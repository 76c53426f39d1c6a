// The publishers of events of a daemon: one for each [[events]] section.
#pragma once

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "daemon/events/event_publisher.h"
#include "daemon/log.h"

namespace terrace {

// Thread-safe; Start and Stop from one thread.
class EventPublishers {
 public:
  // `log` outlives it.
  explicit EventPublishers(Log& log) : log_(log) {}

  // Errors: as EventPublisher::Start; those before the one that failed go on until Stop.
  absl::Status Start(const std::vector<EventPublisherOptions>& sections,
                     const EventPublisher::Parts& parts);
  // All at once, because each may wait for its subscribers.
  void Stop();

  // In the order of the sections.
  [[nodiscard]] std::vector<EventPublisherFigures> figures() const;

 private:
  Log& log_;
  mutable absl::Mutex mutex_;
  std::vector<std::unique_ptr<EventPublisher>> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
