// Counters and latency histograms of finished calls and of connections, by verb, carrier and code.
// Counting is lock-free.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "daemon/call_observer.h"

namespace terrace {

// The verbs of both services and of the session; what is not among them counts as the last one.
inline constexpr std::array<std::string_view, 35> kVerbs = {"Hello",
                                                            "OpenNamespace",
                                                            "ClearNamespace",
                                                            "RegisterRegion",
                                                            "UnregisterRegion",
                                                            "Probe",
                                                            "Prefetch",
                                                            "Ticket",
                                                            "Get",
                                                            "GetStream",
                                                            "Release",
                                                            "Put",
                                                            "PutStream",
                                                            "Flush",
                                                            "Delete",
                                                            "Pin",
                                                            "Unpin",
                                                            "Cancel",
                                                            "Watch",
                                                            "MapSlab",
                                                            "Ping",
                                                            "Status",
                                                            "Tiers",
                                                            "Pool",
                                                            "Tenants",
                                                            "Namespaces",
                                                            "Explain",
                                                            "SetQuota",
                                                            "Evict",
                                                            "Drain",
                                                            "Scrub",
                                                            "Verify",
                                                            "Reload",
                                                            "Checkpoint",
                                                            "other"};
inline constexpr std::array<std::string_view, 6> kConnectionKinds = {
    "accepted", "refused_limit", "refused_identity", "closed", "protocol_error", "other"};
inline constexpr std::array<std::string_view, 2> kCarriers = {"session", "grpc"};
inline constexpr size_t kStatusCodes = 17;
// Upper bounds in seconds: 10 us to 10 s, two or three a decade; one bucket more is above them all.
inline constexpr std::array<double, 18> kLatencyBounds = {1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4,
                                                          1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2,
                                                          1e-1, 2.5e-1, 5e-1, 1,    2.5,    10};

size_t VerbIndex(std::string_view verb);
size_t ConnectionKindIndex(std::string_view kind);

// Thread-safe; each number is exact, together they are not a snapshot of one moment.
struct CallCounts {
  struct OfVerb {
    std::array<std::atomic<uint64_t>, kLatencyBounds.size() + 1> buckets{};
    std::atomic<uint64_t> total_ns{0};
    std::atomic<uint64_t> keys{0};
    std::array<std::atomic<uint64_t>, kStatusCodes> codes{};
  };
  std::array<std::array<OfVerb, kVerbs.size()>, kCarriers.size()> calls{};
  std::array<std::array<std::atomic<uint64_t>, kConnectionKinds.size()>, kCarriers.size()>
      connections{};

  void Count(const FinishedCall& call);
  void CountConnection(Carrier carrier, std::string_view kind);
};

}  // namespace terrace
