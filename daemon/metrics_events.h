// What metrics say of publishers of events. Hides nothing; cut off from metrics.cc for its length.
#pragma once

#include <vector>

#include "daemon/events/event_publisher.h"
#include "daemon/metric_families.h"

namespace terrace {

// By tenant, and by the publisher's number among those that are configured.
void AddEvents(const std::vector<EventPublisherFigures>& publishers, Families* out);

}  // namespace terrace
