#include "daemon/call_counts.h"

#include <algorithm>

#include "absl/time/time.h"

namespace terrace {
namespace {

template <size_t N>
size_t IndexOrLast(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::min(static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin()),
                  N - 1);
}

size_t CarrierIndex(Carrier carrier) {
  return carrier == Carrier::kSession ? 0 : 1;
}

// Counters of their own: nothing is published by them.
void Add(std::atomic<uint64_t>& counter, uint64_t by) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

}  // namespace

size_t VerbIndex(std::string_view verb) {
  return IndexOrLast(kVerbs, verb);
}
size_t ConnectionKindIndex(std::string_view kind) {
  return IndexOrLast(kConnectionKinds, kind);
}

void CallCounts::Count(const FinishedCall& call) {
  OfVerb& verb = calls[CarrierIndex(call.carrier)][VerbIndex(call.verb)];
  const double seconds = absl::ToDoubleSeconds(call.duration);
  const auto bound = std::lower_bound(kLatencyBounds.begin(), kLatencyBounds.end(), seconds);
  Add(verb.buckets[static_cast<size_t>(bound - kLatencyBounds.begin())], 1);
  Add(verb.total_ns,
      static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(call.duration))));
  Add(verb.keys, call.keys);
  const auto code = static_cast<size_t>(call.status);
  Add(verb.codes[code < kStatusCodes ? code : static_cast<size_t>(absl::StatusCode::kUnknown)], 1);
}

void CallCounts::CountConnection(Carrier carrier, std::string_view kind) {
  Add(connections[CarrierIndex(carrier)][ConnectionKindIndex(kind)], 1);
}

}  // namespace terrace
