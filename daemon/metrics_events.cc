#include "daemon/metrics_events.h"

#include <string_view>

#include "daemon/concat.h"

namespace terrace {
namespace {

Labels Of(const std::vector<EventPublisherFigures>& publishers, size_t number) {
  return {Label("publisher", Concat(number)), Label("tenant", publishers[number].tenant)};
}

}  // namespace

void AddEvents(const std::vector<EventPublisherFigures>& publishers, Families* out) {
  if (publishers.empty()) {
    return;
  }
  const auto add = [&](std::string_view name, std::string_view help,
                       uint64_t EventPublisherFigures::*member) {
    out->Counter(name, help);
    for (size_t i = 0; i < publishers.size(); ++i) {
      out->Add(Of(publishers, i), publishers[i].*member);
    }
  };
  out->Counter("events_published_total",
               "Blocks that a publisher told routers of, by kind; cleared: of all at once.");
  for (size_t i = 0; i < publishers.size(); ++i) {
    for (const auto& [kind, count] :
         {std::pair("stored", publishers[i].stored), std::pair("removed", publishers[i].removed),
          std::pair("cleared", publishers[i].clears)}) {
      Labels labels = Of(publishers, i);
      labels.push_back(Label("kind", kind));
      out->Add(std::move(labels), count);
    }
  }
  add("events_batches_total", "Messages that a publisher sent.", &EventPublisherFigures::batches);
  add("events_bytes_total", "Their bytes.", &EventPublisherFigures::bytes);
  add("events_unsent_batches_total", "Of them, what ZeroMQ did not take.",
      &EventPublisherFigures::unsent);
  add("events_snapshots_total", "Times that a publisher told anew of all that is held.",
      &EventPublisherFigures::snapshots);
  add("events_watch_refusals_total",
      "Times that a publisher was refused a watch because too many watch the tenant.",
      &EventPublisherFigures::watch_refusals);
  add("events_replays_total", "Replays that subscribers asked for.",
      &EventPublisherFigures::replays);
  add("events_replays_ended_total", "Of them, that ended early for a reader that went or stood.",
      &EventPublisherFigures::replays_ended);
  add("events_replayed_batches_total", "Messages that replays sent.",
      &EventPublisherFigures::replayed_batches);
  add("events_bad_requests_total", "Messages at a replay socket that were no request.",
      &EventPublisherFigures::bad_requests);
}

}  // namespace terrace
