#include "daemon/metrics.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "daemon/call_counts.h"
#include "daemon/concat.h"
#include "daemon/metric_families.h"
#include "daemon/metrics_events.h"
#include "daemon/metrics_gpu.h"
#include "daemon/metrics_local.h"
#include "daemon/metrics_shared.h"
#include "daemon/process_facts.h"

namespace terrace {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr std::string_view kDramTier = "g2";
// By the values of the enums in tiers/vocab/outcome.h; "" is not a miss.
constexpr std::array<std::string_view, 9> kMissReasons = {"absent",        "",         "corrupt",
                                                          "busy",          "deadline", "invalid",
                                                          "region_failed", "trimmed",  "cancelled"};
constexpr std::array<std::string_view, 5> kPutOutcomes = {"", "stored", "duplicate", "declined",
                                                          "failed"};
constexpr std::array<std::string_view, 14> kPutReasons = {
    "",         "no_space",  "quota",   "admission",  "draining",    "invalid", "region_failed",
    "deadline", "cancelled", "cleared", "tier_fault", "not_present", "busy",    "too_late"};

constexpr std::array<std::string_view, kReturnEnds> kReturnEndNames = {
    "fetched", "resident", "overtaken", "late", "refused"};

// What is read from the store at one moment.
struct Snapshot {
  absl::Duration taken;
  StoreUsage usage;
  std::vector<TenantUsage> tenants;
  std::optional<IoFacts> io;
  std::optional<GpuFigures> gpu;
  std::vector<EventPublisherFigures> publishers;
};

ClientMetric MetricOf(const MetricPoint& point, MetricKind kind) {
  ClientMetric metric;
  for (const MetricLabel& label : point.labels) {
    metric.label.push_back({label.name, label.value});
  }
  if (kind != MetricKind::kHistogram) {
    (kind == MetricKind::kCounter ? metric.counter.value : metric.gauge.value) = point.value;
    return metric;
  }
  for (const MetricPoint::Bucket& bucket : point.buckets) {
    metric.histogram.bucket.push_back({bucket.count, bucket.upper_bound});
  }
  metric.histogram.bucket.push_back({point.count, std::numeric_limits<double>::infinity()});
  metric.histogram.sample_count = point.count;
  metric.histogram.sample_sum = point.sum;
  return metric;
}

MetricFamily FamilyOf(const MetricSeries& series) {
  MetricFamily family;
  family.name = series.name;
  family.help = series.help;
  family.type = series.kind == MetricKind::kCounter ? MetricType::Counter
                : series.kind == MetricKind::kGauge ? MetricType::Gauge
                                                    : MetricType::Histogram;
  for (const MetricPoint& point : series.points) {
    family.metric.push_back(MetricOf(point, series.kind));
  }
  return family;
}

Labels OfTier() {
  return {Label("tier", kDramTier)};
}

void AddCalls(const CallCounts& counts, Families* out) {
  const std::vector<double> bounds(kLatencyBounds.begin(), kLatencyBounds.end());
  const auto each = [&counts](const auto& visit) {
    for (size_t c = 0; c < kCarriers.size(); ++c) {
      for (size_t v = 0; v < kVerbs.size(); ++v) {
        const CallCounts::OfVerb& verb = counts.calls[c][v];
        uint64_t total = 0;
        for (const auto& bucket : verb.buckets) {
          total += bucket.load(std::memory_order_relaxed);
        }
        if (total > 0) {
          visit(verb, Labels{Label("verb", kVerbs[v]), Label("carrier", kCarriers[c])});
        }
      }
    }
  };
  out->Histogram("call_duration_seconds", "From the whole request read to the reply handed over.");
  each([&](const CallCounts::OfVerb& verb, Labels labels) {
    std::vector<uint64_t> buckets;
    for (const auto& bucket : verb.buckets) {
      buckets.push_back(bucket.load(std::memory_order_relaxed));
    }
    out->AddHistogram(std::move(labels), bounds, buckets,
                      static_cast<double>(verb.total_ns.load()) * 1e-9);
  });
  out->Counter("calls_total", "Finished calls by status code.");
  each([&](const CallCounts::OfVerb& verb, const Labels& labels) {
    for (size_t code = 0; code < verb.codes.size(); ++code) {
      if (verb.codes[code].load() == 0) {
        continue;
      }
      Labels with_code = labels;
      with_code.push_back(
          Label("code", absl::StatusCodeToString(static_cast<absl::StatusCode>(code))));
      out->Add(std::move(with_code), verb.codes[code].load());
    }
  });
  out->Counter("call_keys_total", "Keys that finished calls named.");
  each([&](const CallCounts::OfVerb& verb, Labels labels) {
    out->Add(std::move(labels), verb.keys.load());
  });
  out->Counter("connections_total", "Connections by what became of them.");
  for (size_t c = 0; c < kCarriers.size(); ++c) {
    for (size_t k = 0; k < kConnectionKinds.size(); ++k) {
      out->Add({Label("carrier", kCarriers[c]), Label("kind", kConnectionKinds[k])},
               counts.connections[c][k].load());
    }
  }
}

void AddEvictions(const StoreCounters& counters, Families* out) {
  out->Counter("tier_evictions_total", "Blocks evicted.").Add(OfTier(), counters.evictions);
  out->Counter("tier_evicted_bytes_total", "Bytes of evicted blocks.")
      .Add(OfTier(), counters.evicted_bytes);
  std::vector<double> bounds;
  std::vector<uint64_t> counts;
  double sum = 0;
  for (size_t i = 0; i < counters.eviction_age_log2_s.size(); ++i) {
    const auto upper = static_cast<double>(uint64_t{1} << i);
    // The last bucket takes everything older as well.
    if (i + 1 < counters.eviction_age_log2_s.size()) {
      bounds.push_back(upper);
    }
    counts.push_back(counters.eviction_age_log2_s[i]);
    sum += static_cast<double>(counters.eviction_age_log2_s[i]) * (i == 0 ? 0.5 : 0.75) * upper;
  }
  out->Histogram("tier_eviction_age_seconds",
                 "Time from a block's last use to its eviction. The sum is estimated from the "
                 "buckets' middles.")
      .AddHistogram(OfTier(), bounds, counts, sum);
}

void AddLearnt(const std::optional<LearntFigures>& figures, Families* out) {
  if (!figures.has_value()) {
    return;
  }
  out->Counter("placement_learnt_loads_total",
               "What placement had learnt, found at the start, by what became of it.")
      .Add({Label("result", "loaded")}, figures->loaded)
      .Add({Label("result", "refused")}, figures->refused);
  out->Counter("placement_learnt_saves_total", "Writes of what placement has learnt, by result.")
      .Add({Label("result", "ok")}, figures->saves)
      .Add({Label("result", "failed")}, figures->failed_saves);
}

void AddTraffic(const StoreCounters& counters, Families* out) {
  out->Counter("tier_hits_total", "Keys that a get delivered from the tier.")
      .Add(OfTier(), counters.tier_hits[0]);
  out->Counter("misses_total", "Keys that a get did not deliver, by reason.");
  for (size_t i = 0; i < counters.get_outcomes.size(); ++i) {
    if (!kMissReasons[i].empty()) {
      out->Add({Label("reason", kMissReasons[i])}, counters.get_outcomes[i]);
    }
  }
  out->Counter("put_keys_total", "Keys of puts by outcome.");
  for (size_t i = 0; i < counters.put_outcomes.size(); ++i) {
    if (!kPutOutcomes[i].empty()) {
      out->Add({Label("outcome", kPutOutcomes[i])}, counters.put_outcomes[i]);
    }
  }
  out->Counter("put_refusals_total", "Keys of puts that were declined or failed, by reason.");
  for (size_t i = 0; i < counters.put_reasons.size(); ++i) {
    if (!kPutReasons[i].empty()) {
      out->Add({Label("reason", kPutReasons[i])}, counters.put_reasons[i]);
    }
  }
  out->Counter("probe_keys_total", "Keys that probes asked about.").Add({}, counters.probe_keys);
  out->Counter("probe_hits_total", "Keys that probes found.").Add({}, counters.probe_hits);
  out->Counter("tier_written_bytes_total", "Payload bytes stored.")
      .Add(OfTier(), counters.bytes_in);
  out->Counter("tier_read_bytes_total", "Payload bytes delivered, by delivery.")
      .Add({Label("tier", kDramTier), Label("delivery", "copy")}, counters.bytes_copied_out)
      .Add({Label("tier", kDramTier), Label("delivery", "lease")}, counters.bytes_leased);
  out->Counter("corrupt_records_total", "Blocks dropped because their checksum did not match.")
      .Add(OfTier(), counters.corrupt);
  out->Counter("verified_blocks_total", "Blocks whose checksum was re-checked by a get.")
      .Add(OfTier(), counters.verified_on_get);
  out->Counter("prefetched_blocks_total", "Blocks that a prefetch moved up, by result.")
      .Add({Label("result", "arrived")}, counters.prefetch_arrived)
      .Add({Label("result", "failed")}, counters.prefetch_failed);
  out->Counter("expected_returns_total", "Returns of chains that engines told of, by result.");
  for (size_t i = 0; i < counters.returns.size(); ++i) {
    out->Add({Label("result", kReturnEndNames[i])}, counters.returns[i]);
  }
  out->Counter("return_read_bytes_total", "Payload read ahead of returns that were expected.")
      .Add({}, counters.return_bytes);
  out->Counter("return_used_bytes_total", "Of it, what was used before it left DRAM.")
      .Add({}, counters.return_bytes_used);
  out->Counter("return_wasted_bytes_total", "Of it, what left DRAM unused.")
      .Add({}, counters.return_bytes_wasted);
  out->Counter("single_flight_joined_total", "Reads that joined one that was running.")
      .Add({}, counters.single_flight_joined);
  out->Counter("events_total", "Events told to watchers, snapshots included.")
      .Add({}, counters.events);
  out->Counter("event_gaps_total", "Gaps that watchers were told of.").Add({}, counters.event_gaps);
  out->Counter("slabs_recut_total", "Slabs cut anew for another block size.")
      .Add({}, counters.slabs_recut);
  out->Counter("slabs_retired_total", "Slabs that left their tenant.")
      .Add({}, counters.slabs_retired);
  out->Counter("regions_failed_total", "Regions whose memory was taken away under a copy.")
      .Add({}, counters.regions_failed);
}

void AddKept(const KeptUsage& kept, Families* out) {
  out->Gauge("recovered_blocks", "Blocks in DRAM that an earlier life of the daemon left.")
      .Add({}, kept.blocks);
  out->Gauge("unrecovered_blocks", "Blocks that it left and that could not be used.")
      .Add({}, kept.dropped_blocks);
  out->Gauge("recovered_slabs", "Slabs of earlier lives that are not given back yet.")
      .Add({}, kept.slabs);
  out->Gauge("held_bytes", "Slabs that clients of the life before may still read in.")
      .Add({}, kept.held_bytes);
}

void AddOccupancy(const StoreUsage& usage, Families* out) {
  AddKept(usage.kept, out);
  out->Gauge("tier_capacity_bytes", "Bytes that the tier may take.")
      .Add(OfTier(), usage.capacity_bytes);
  out->Gauge("tier_used_bytes", "Bytes of slots in use, rounding included.")
      .Add(OfTier(), usage.used_slot_bytes);
  out->Gauge("tier_payload_bytes", "Payload bytes held.").Add(OfTier(), usage.payload_bytes);
  out->Gauge("tier_blocks", "Blocks held.").Add(OfTier(), usage.blocks);
  out->Gauge("tier_slabs", "Slabs by state.")
      .Add({Label("tier", kDramTier), Label("state", "assigned")}, usage.assigned_slabs)
      .Add({Label("tier", kDramTier), Label("state", "free")}, usage.free_slabs);
  out->Gauge("tier_page_kind", "1 for the kind of pages that the tier's memory has.");
  for (const PageKind kind : {PageKind::kHuge, PageKind::kTransparentHuge, PageKind::kSmall}) {
    out->Add({Label("tier", kDramTier), Label("kind", PageKindName(kind))},
             usage.page_kind == kind ? 1 : 0);
  }
  out->Gauge("tier_read_bytes_per_second",
             "Moving average of measured copies; 0: not measured yet.")
      .Add(OfTier(), usage.read_bytes_per_s);
  out->Gauge("tier_write_bytes_per_second",
             "Moving average of measured copies; 0: not measured yet.")
      .Add(OfTier(), usage.write_bytes_per_s);
  out->Gauge("metadata_bytes", "Bytes of index, block metadata and placement.")
      .Add({}, usage.metadata_bytes);
  out->Gauge("sessions", "Open sessions.").Add({}, usage.sessions);
  out->Gauge("leased_blocks", "Blocks under lease.").Add({}, usage.leased_blocks);
  out->Gauge("leased_bytes", "Bytes under lease.").Add({}, usage.leased_bytes);
  out->Gauge("quarantined_bytes",
             "Leased bytes whose session has ended but whose process may still read.")
      .Add({}, usage.quarantined_bytes);
  out->Gauge("holds", "Holds alive.").Add({}, usage.holds);
  out->Gauge("regions", "Registered regions.").Add({}, usage.regions);
  out->Gauge("region_bytes", "Bytes of registered regions.").Add({}, usage.region_bytes);
  out->Gauge("tickets", "Prefetches that are known.").Add({}, usage.tickets);
  out->Gauge("watchers", "Watches of events that are open.").Add({}, usage.watchers);
  out->Gauge("event_journal_bytes", "Bytes of events that are kept for watchers.")
      .Add({}, usage.event_bytes);
  out->Gauge("calls_in_flight", "Calls that the store works on.").Add({}, usage.calls_in_flight);
}

void AddCosts(const StoreUsage& usage, Families* out) {
  out->Gauge("tier_break_even_tokens",
             "Length of a prefix from which on loading it from the tier is faster than computing "
             "it, of the namespace where that is longest; +Inf: it never is.");
  for (const TierCost& cost : usage.costs) {
    if (cost.break_even_tokens.has_value()) {
      out->Add({Label("tier", cost.name)}, cost.never_pays
                                               ? std::numeric_limits<double>::infinity()
                                               : static_cast<double>(*cost.break_even_tokens));
    }
  }
  out->Counter("recompute_spans_total",
               "Times between a probe that missed and the put of what it missed, by whether they "
               "tell what computing takes.")
      .Add({Label("result", "taken")}, usage.recompute_spans)
      .Add({Label("result", "refused")}, usage.recompute_spans_refused);
}

// The tenants with the most bytes keep their names; the others are summed.
std::vector<TenantUsage> BoundedTenants(std::vector<TenantUsage> tenants) {
  if (tenants.size() <= kMaxTenantSeries) {
    return tenants;
  }
  std::stable_sort(tenants.begin(), tenants.end(), [](const TenantUsage& a, const TenantUsage& b) {
    return a.used_bytes > b.used_bytes;
  });
  TenantUsage other;
  other.alias = "other";
  for (size_t i = kMaxTenantSeries - 1; i < tenants.size(); ++i) {
    other.used_bytes += tenants[i].used_bytes;
    other.guaranteed_bytes += tenants[i].guaranteed_bytes;
    other.limit_bytes += tenants[i].limit_bytes;
    other.blocks += tenants[i].blocks;
    other.leased_bytes += tenants[i].leased_bytes;
    other.pinned_bytes += tenants[i].pinned_bytes;
    other.sessions += tenants[i].sessions;
    other.hits += tenants[i].hits;
    other.misses += tenants[i].misses;
  }
  tenants.resize(kMaxTenantSeries - 1);
  tenants.push_back(other);
  return tenants;
}

void AddTenants(const std::vector<TenantUsage>& all, Families* out) {
  const std::vector<TenantUsage> tenants = BoundedTenants(all);
  const auto each = [&](auto member) {
    for (const TenantUsage& tenant : tenants) {
      out->Add({Label("tenant", tenant.alias)}, tenant.*member);
    }
  };
  out->Gauge("tenant_used_bytes", "Bytes of slots that a tenant uses.");
  each(&TenantUsage::used_bytes);
  out->Gauge("tenant_guaranteed_bytes", "Bytes that a tenant can always have.");
  each(&TenantUsage::guaranteed_bytes);
  out->Gauge("tenant_limit_bytes", "Bytes that a tenant may use at most; 0: no limit.");
  each(&TenantUsage::limit_bytes);
  out->Gauge("tenant_blocks", "Blocks of a tenant.");
  each(&TenantUsage::blocks);
  out->Gauge("tenant_leased_bytes", "Bytes of a tenant under lease.");
  each(&TenantUsage::leased_bytes);
  out->Gauge("tenant_pinned_bytes", "Bytes of a tenant that are pinned.");
  each(&TenantUsage::pinned_bytes);
  out->Gauge("tenant_sessions", "Open sessions of a tenant.");
  each(&TenantUsage::sessions);
  out->Counter("tenant_hits_total", "Keys that gets of a tenant delivered.");
  each(&TenantUsage::hits);
  out->Counter("tenant_misses_total", "Keys that gets of a tenant did not deliver.");
  each(&TenantUsage::misses);
}

class Collector final : public prometheus::Collectable {
 public:
  Collector(MetricsOptions options, const Clock& clock)
      : options_(std::move(options)), clock_(clock), started_(absl::Now()) {}

  [[nodiscard]] std::vector<MetricFamily> Collect() const override {
    Families families;
    families.Gauge("build_info", "1; the labels say what runs.")
        .Add({Label("version", options_.version), Label("copy_kernel", options_.copy_kernel)}, 1);
    families.Gauge("start_time_seconds", "When the daemon was started, since the epoch.")
        .Add({}, absl::ToDoubleSeconds(started_ - absl::UnixEpoch()));
    families.Gauge("draining", "1 while the daemon admits nothing new.")
        .Add({}, draining_.load() ? 1 : 0);
    families.Gauge("resident_memory_bytes", "Resident bytes of the process, arena included.")
        .Add({}, ResidentBytes());
    families.Gauge("open_descriptors", "Open descriptors of the process.")
        .Add({}, OpenDescriptors());
    if (options_.log_lines_dropped) {
      families.Counter("log_lines_dropped_total", "Log lines lost because nobody read them.")
          .Add({}, options_.log_lines_dropped());
    }
    if (options_.learnt) {
      AddLearnt(options_.learnt(), &families);
    }
    AddCalls(counts, &families);
    if (const std::optional<Snapshot> snapshot = Look()) {
      AddTraffic(snapshot->usage.counters, &families);
      AddEvictions(snapshot->usage.counters, &families);
      AddOccupancy(snapshot->usage, &families);
      AddCosts(snapshot->usage, &families);
      AddTenants(snapshot->tenants, &families);
      AddLocalTiers(snapshot->usage, snapshot->io, &families);
      AddSharedTiers(snapshot->usage, &families);
      if (snapshot->gpu.has_value()) {
        AddGpus(*snapshot->gpu, &families);
      }
      AddEvents(snapshot->publishers, &families);
    }
    std::vector<MetricFamily> taken;
    for (const MetricSeries& series : families.Take()) {
      // A family without series would be a name without a value.
      if (!series.points.empty()) {
        taken.push_back(FamilyOf(series));
      }
    }
    return taken;
  }

  void SetStore(const BlockStore* store) {
    absl::MutexLock lock(&mutex_);
    store_ = store;
    snapshot_.reset();
  }
  void SetDraining(bool draining) { draining_.store(draining); }

  CallCounts counts;

 private:
  // The mutex is held while the store is asked, so that SetStore can promise to leave it alone;
  // only scrapes wait.
  std::optional<Snapshot> Look() const {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = clock_.Now();
    const bool fresh = snapshot_.has_value() && now - snapshot_->taken < kSnapshotAge;
    if (!fresh && store_ != nullptr) {
      snapshot_ = Snapshot{
          now,
          store_->Usage(),
          store_->Tenants(),
          options_.io_facts ? options_.io_facts() : std::nullopt,
          options_.gpu_figures ? options_.gpu_figures() : std::nullopt,
          options_.event_figures ? options_.event_figures() : std::vector<EventPublisherFigures>()};
    }
    return snapshot_;
  }

  const MetricsOptions options_;
  const Clock& clock_;
  const absl::Time started_;
  std::atomic<bool> draining_{false};
  mutable absl::Mutex mutex_;
  const BlockStore* store_ ABSL_GUARDED_BY(mutex_) = nullptr;
  mutable std::optional<Snapshot> snapshot_ ABSL_GUARDED_BY(mutex_);
};

class ExposedMetrics final : public Metrics {
 public:
  ExposedMetrics(MetricsOptions options, const Clock& clock)
      : listen_(options.listen),
        collector_(std::make_shared<Collector>(std::move(options), clock)) {}

  absl::Status Listen() {
    if (listen_.empty()) {
      return absl::OkStatus();
    }
    // A scrape is a short GET: two threads, 2 s, 4 KiB.
    const std::vector<std::string> options = {
        "listening_ports",    listen_, "num_threads",      "2",
        "request_timeout_ms", "2000",  "max_request_size", "4096"};
    try {
      exposer_ = std::make_unique<prometheus::Exposer>(options);
      const std::vector<int> ports = exposer_->GetListeningPorts();
      if (ports.empty()) {
        return absl::UnavailableError(Concat("metrics.listen: cannot listen on ", listen_));
      }
      exposer_->RegisterCollectable(collector_);
      address_ = Concat(listen_.substr(0, listen_.rfind(':')), ":", ports.front());
    } catch (const std::exception& error) {
      return absl::UnavailableError(Concat("metrics.listen: cannot listen on ", listen_,
                                           "; another process may have the port: ", error.what()));
    }
    return absl::OkStatus();
  }

  void Finished(const FinishedCall& call) override { collector_->counts.Count(call); }
  void Connection(Carrier carrier, std::string_view kind) override {
    collector_->counts.CountConnection(carrier, kind);
  }
  void SetStore(const BlockStore* store) override { collector_->SetStore(store); }
  void SetDraining(bool draining) override { collector_->SetDraining(draining); }
  [[nodiscard]] std::string address() const override { return address_; }
  [[nodiscard]] std::string Text() const override {
    return prometheus::TextSerializer().Serialize(collector_->Collect());
  }

 private:
  const std::string listen_;
  std::string address_;
  // The exposer knows it weakly; it is shared only because its interface wants that.
  std::shared_ptr<Collector> collector_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Metrics>> Metrics::Start(MetricsOptions options,
                                                        const Clock& clock) {
  auto metrics = std::make_unique<ExposedMetrics>(std::move(options), clock);
  if (absl::Status status = metrics->Listen(); !status.ok()) {
    return status;
  }
  return metrics;
}

}  // namespace terrace
