#include "daemon/event_publishers.h"

#include <thread>
#include <utility>

#include "absl/status/statusor.h"

#include "daemon/config_events.h"

namespace terrace {

absl::Status EventPublishers::Start(const std::vector<EventPublisherOptions>& sections,
                                    const EventPublisher::Parts& parts) {
  for (const EventPublisherOptions& section : sections) {
    absl::StatusOr<std::unique_ptr<EventPublisher>> publisher =
        EventPublisher::Start(section, parts);
    if (!publisher.ok()) {
      return publisher.status();
    }
    log_.Info("publishing events", {{"tenant", section.tenant},
                                    {"endpoint", (*publisher)->endpoint()},
                                    {"replay", (*publisher)->replay_endpoint()}});
    if (IsOffHost(section.zmq_endpoint) || IsOffHost(section.zmq_replay_endpoint)) {
      log_.Warning("whoever reaches this host can read hashes and tokens of a tenant's blocks",
                   {{"tenant", section.tenant}, {"endpoint", section.zmq_endpoint}});
    }
    absl::MutexLock lock(&mutex_);
    running_.push_back(*std::move(publisher));
  }
  return absl::OkStatus();
}

void EventPublishers::Stop() {
  std::vector<std::unique_ptr<EventPublisher>> ending;
  {
    absl::MutexLock lock(&mutex_);
    ending.swap(running_);
  }
  std::vector<std::thread> stopping;
  for (std::unique_ptr<EventPublisher>& publisher : ending) {
    stopping.emplace_back([&publisher] { publisher.reset(); });
  }
  for (std::thread& thread : stopping) {
    thread.join();
  }
}

std::vector<EventPublisherFigures> EventPublishers::figures() const {
  absl::MutexLock lock(&mutex_);
  std::vector<EventPublisherFigures> figures;
  for (const std::unique_ptr<EventPublisher>& publisher : running_) {
    figures.push_back(publisher->figures());
  }
  return figures;
}

}  // namespace terrace
