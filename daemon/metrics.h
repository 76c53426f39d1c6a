// Prometheus metrics over HTTP on the loopback address; hides prometheus-cpp and its web server.
//
// Names begin with terrace_. Labels are verbs, carriers, codes, outcomes, reasons, tiers and
// tenants' aliases; never keys, salts, paths or process numbers. A metric has at most
// kMaxTenantSeries series of tenants; the rest is summed under tenant="other". Counting a call
// takes no lock; the store is asked when somebody scrapes, at most once a kSnapshotAge.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "daemon/call_observer.h"
#include "daemon/events/event_publisher.h"
#include "daemon/gpu_handoff.h"
#include "tiers/os/async_io.h"
#include "tiers/vocab/clock.h"

namespace terrace {

inline constexpr size_t kMaxTenantSeries = 200;  // "other" included
inline constexpr absl::Duration kSnapshotAge = absl::Milliseconds(200);

// Of the file that keeps what placement has learnt.
struct LearntFigures {
  uint64_t loaded = 0;   // policies that go on from an earlier life
  uint64_t refused = 0;  // files, and policies in them, that could not be read
  uint64_t saves = 0;
  uint64_t failed_saves = 0;
};

struct MetricsOptions {
  std::string listen;  // "127.0.0.1:9464"; port 0: any; "": no listener, Text() only
  std::string version = "";
  std::string copy_kernel = "";                           // "baseline", "avx2" or "avx512"
  std::function<uint64_t()> log_lines_dropped = nullptr;  // nullable; thread-safe
  std::function<std::optional<LearntFigures>()> learnt = nullptr;  // nullable; thread-safe
  // Nullable; asked only between SetStore(a store) and SetStore(nullptr).
  std::function<std::optional<IoFacts>()> io_facts = nullptr;
  std::function<std::optional<GpuFigures>()> gpu_figures = nullptr;
  std::function<std::vector<EventPublisherFigures>()> event_figures = nullptr;
};

// Thread-safe.
class Metrics : public CallObserver {
 public:
  // `clock` outlives the metrics. Errors: UNAVAILABLE (the address cannot be bound).
  static absl::StatusOr<std::unique_ptr<Metrics>> Start(MetricsOptions options, const Clock& clock);

  // The store to ask from now on; nullptr: none. When it returns, the store asked until now is left
  // alone.
  virtual void SetStore(const BlockStore* store) = 0;
  virtual void SetDraining(bool draining) = 0;
  // "127.0.0.1:9464", with the real port; "": no listener.
  [[nodiscard]] virtual std::string address() const = 0;
  // What a scrape would get, in the text format.
  [[nodiscard]] virtual std::string Text() const = 0;
};

}  // namespace terrace
