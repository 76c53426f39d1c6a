#include "daemon/metrics.h"

#include <cstdlib>
#include <regex>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/call_counts.h"
#include "daemon/config.h"
#include "tests/doubles/http_client.h"
#include "tests/doubles/manual_clock.h"
#include "tests/unit/daemon_ops/private_folder.h"
#include "tests/unit/daemon_ops/stub_store.h"

namespace terrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

StoreUsage FullUsage() {
  StoreUsage usage;
  usage.blocks = 3;
  usage.payload_bytes = 300;
  usage.used_slot_bytes = 400;
  usage.capacity_bytes = 1000;
  usage.assigned_slabs = 2;
  usage.free_slabs = 5;
  usage.page_kind = PageKind::kHuge;
  usage.sessions = 4;
  usage.leased_blocks = 6;
  usage.leased_bytes = 700;
  usage.quarantined_bytes = 80;
  usage.holds = 9;
  usage.regions = 10;
  usage.region_bytes = 1100;
  usage.tickets = 12;
  usage.calls_in_flight = 13;
  usage.metadata_bytes = 1400;
  StoreCounters& counters = usage.counters;
  for (size_t i = 0; i < counters.get_outcomes.size(); ++i) {
    counters.get_outcomes[i] = 100 + i;
  }
  counters.tier_hits[0] = 101;
  for (size_t i = 0; i < counters.put_outcomes.size(); ++i) {
    counters.put_outcomes[i] = 200 + i;
  }
  for (size_t i = 0; i < counters.put_reasons.size(); ++i) {
    counters.put_reasons[i] = 300 + i;
  }
  counters.corrupt = 15;
  counters.evictions = 3;
  counters.eviction_age_log2_s[0] = 1;   // below 1 s
  counters.eviction_age_log2_s[3] = 1;   // 4 to 8 s
  counters.eviction_age_log2_s[23] = 1;  // the last takes everything older
  return usage;
}

// One that serves, and two that the driver has not told the numbers of yet.
GpuFigures SomeGpus() {
  GpuDeviceFigures device;
  device.serving = true;
  device.number = 3;
  device.workers_lost = 2;
  device.worker.bytes_to_device = 77;
  device.worker.ring_memory_bytes = 88;
  device.worker.bytes_gathered = 66;
  device.save_piece_bytes = 4096;
  GpuFigures figures;
  figures.devices.push_back(device);
  for (const uint32_t number : {4, 5}) {
    figures.devices.emplace_back().number = number;
  }
  figures.loaded_bytes = 99;
  return figures;
}

class MetricsTest : public testing::Test {
 protected:
  void Start(const std::string& listen) {
    absl::StatusOr<std::unique_ptr<Metrics>> metrics =
        Metrics::Start({.listen = listen,
                        .version = "1.2.3",
                        .copy_kernel = "avx2",
                        .log_lines_dropped = [] { return 17; },
                        .gpu_figures = [] { return std::optional<GpuFigures>(SomeGpus()); }},
                       clock_);
    ASSERT_TRUE(metrics.ok()) << metrics.status();
    metrics_ = std::move(*metrics);
  }
  void SetUp() override { Start(""); }

  // A text in which every family has series.
  std::string FullText() {
    store_.usage = FullUsage();
    store_.tenants = {{.alias = "search", .used_bytes = 5}, {.alias = "uid-1000", .used_bytes = 6}};
    metrics_->SetStore(&store_);
    for (const std::string_view verb : kVerbs) {
      for (const Carrier carrier : {Carrier::kSession, Carrier::kGrpc}) {
        metrics_->Finished(
            {.verb = verb, .carrier = carrier, .duration = absl::Microseconds(30), .keys = 2});
        metrics_->Connection(carrier, "accepted");
      }
    }
    return metrics_->Text();
  }

  doubles::ManualClock clock_;
  StubStore store_{1000};
  std::unique_ptr<Metrics> metrics_;
};

TEST_F(MetricsTest, SayWhatRunsBeforeThereIsAStore) {
  const std::string text = metrics_->Text();
  EXPECT_THAT(text, HasSubstr("terrace_build_info{version=\"1.2.3\",copy_kernel=\"avx2\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("terrace_log_lines_dropped_total 17\n"));
  EXPECT_THAT(text, Not(HasSubstr("terrace_tier_capacity_bytes")));
}

TEST_F(MetricsTest, ShowWhatBecomesOfGpus) {
  const std::string text = FullText();
  for (const std::string_view line :
       {"terrace_gpu_loaded_bytes_total 99\n", "terrace_gpu_worker_serving{gpu=\"3\"} 1\n",
        "terrace_gpu_workers_lost_total{gpu=\"3\"} 2\n",
        "terrace_gpu_worker_copied_bytes{gpu=\"3\",verb=\"load\"} 77\n",
        "terrace_gpu_gathered_piece_bytes{gpu=\"3\",verb=\"save\"} 4096\n",
        "terrace_gpu_worker_gathered_bytes{gpu=\"3\"} 66\n",
        "terrace_gpu_host_memory_bytes{gpu=\"3\",kind=\"ring\"} 88\n",
        "terrace_gpu_worker_serving{gpu=\"4\"} 0\n", "terrace_gpu_worker_serving{gpu=\"5\"} 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, ShowWhatTheStoreUses) {
  const std::string text = FullText();
  for (const char* line : {
           "terrace_tier_capacity_bytes{tier=\"g2\"} 1000\n",
           "terrace_tier_used_bytes{tier=\"g2\"} 400\n",
           "terrace_tier_payload_bytes{tier=\"g2\"} 300\n",
           "terrace_tier_blocks{tier=\"g2\"} 3\n",
           "terrace_tier_slabs{tier=\"g2\",state=\"assigned\"} 2\n",
           "terrace_tier_slabs{tier=\"g2\",state=\"free\"} 5\n",
           "terrace_tier_page_kind{tier=\"g2\",kind=\"huge\"} 1\n",
           "terrace_tier_page_kind{tier=\"g2\",kind=\"small\"} 0\n",
           "terrace_sessions 4\n",
           "terrace_leased_blocks 6\n",
           "terrace_leased_bytes 700\n",
           "terrace_quarantined_bytes 80\n",
           "terrace_holds 9\n",
           "terrace_regions 10\n",
           "terrace_region_bytes 1100\n",
           "terrace_tickets 12\n",
           "terrace_calls_in_flight 13\n",
           "terrace_metadata_bytes 1400\n",
           "terrace_corrupt_records_total{tier=\"g2\"} 15\n",
           "terrace_tenant_used_bytes{tenant=\"search\"} 5\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, ShowWhoWatches) {
  FullText();
  store_.usage.watchers = 31;
  store_.usage.event_bytes = 32;
  store_.usage.counters.events = 33;
  store_.usage.counters.event_gaps = 34;
  clock_.Advance(absl::Seconds(1));
  const std::string text = metrics_->Text();
  for (const char* line : {"terrace_watchers 31\n", "terrace_event_journal_bytes 32\n",
                           "terrace_events_total 33\n", "terrace_event_gaps_total 34\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, ShowWhatPublishersOfEventsSay) {
  EXPECT_THAT(FullText(), Not(HasSubstr("terrace_events_published_total")));
  std::vector<EventPublisherFigures> figures(2);
  figures[0].tenant = "search";
  figures[0].stored = 41;
  figures[0].clears = 42;
  figures[1].tenant = "batch";
  figures[1].removed = 43;
  figures[1].batches = 44;
  figures[1].unsent = 45;
  figures[1].replays = 46;
  figures[1].bad_requests = 47;
  figures[1].snapshots = 48;
  MetricsOptions options;
  options.event_figures = [figures] { return figures; };
  const std::unique_ptr<Metrics> metrics = *Metrics::Start(std::move(options), clock_);
  metrics->SetStore(&store_);
  const std::string text = metrics->Text();
  for (const char* line :
       {"terrace_events_published_total{publisher=\"0\",tenant=\"search\",kind=\"stored\"} 41\n",
        "terrace_events_published_total{publisher=\"0\",tenant=\"search\",kind=\"cleared\"} 42\n",
        "terrace_events_published_total{publisher=\"1\",tenant=\"batch\",kind=\"removed\"} 43\n",
        "terrace_events_batches_total{publisher=\"1\",tenant=\"batch\"} 44\n",
        "terrace_events_unsent_batches_total{publisher=\"1\",tenant=\"batch\"} 45\n",
        "terrace_events_replays_total{publisher=\"1\",tenant=\"batch\"} 46\n",
        "terrace_events_bad_requests_total{publisher=\"1\",tenant=\"batch\"} 47\n",
        "terrace_events_snapshots_total{publisher=\"1\",tenant=\"batch\"} 48\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, ShowFromWhichPrefixOnATierPays) {
  EXPECT_THAT(FullText(), Not(HasSubstr("terrace_tier_break_even_tokens")));
  store_.usage.costs = {{.name = "g3", .break_even_tokens = 512, .never_pays = false},
                        {.name = "g4", .break_even_tokens = 1024, .never_pays = true},
                        {.name = "g5", .break_even_tokens = std::nullopt, .never_pays = false}};
  store_.usage.recompute_spans = 21;
  store_.usage.recompute_spans_refused = 22;
  clock_.Advance(absl::Seconds(1));
  const std::string text = metrics_->Text();
  EXPECT_THAT(text, HasSubstr("terrace_tier_break_even_tokens{tier=\"g3\"} 512\n"));
  EXPECT_THAT(text, HasSubstr("terrace_tier_break_even_tokens{tier=\"g4\"} +Inf\n"));
  EXPECT_THAT(text, Not(HasSubstr("break_even_tokens{tier=\"g5\"}"))) << "it is not known";
  EXPECT_THAT(text, HasSubstr("terrace_recompute_spans_total{result=\"taken\"} 21\n"));
  EXPECT_THAT(text, HasSubstr("terrace_recompute_spans_total{result=\"refused\"} 22\n"));
}

TEST_F(MetricsTest, ShowTheLocalTierWhereThereIsOne) {
  EXPECT_THAT(FullText(), Not(HasSubstr("terrace_local_")));
  store_.usage.local_tiers.push_back({.name = "g3", .figures = {}, .scrub = {}, .drives = {}});
  SegmentTierFigures& figures = store_.usage.local_tiers.front().figures;
  figures.state = TierState::kReadOnly;
  figures.capacity_bytes = 41;
  figures.live_bytes = 42;
  figures.records = 43;
  figures.free_segments = 44;
  figures.payload_bytes_written = 45;
  figures.recovered_by_footer = 46;
  figures.sync_faults = 47;
  figures.corrupt_payloads = 48;
  store_.usage.counters.tier_hits[1] = 49;
  store_.usage.counters.local_losses[static_cast<size_t>(WriteOutcome::kNoSpace)] = 50;
  store_.usage.counters.local_losses[0] = 51;
  clock_.Advance(absl::Seconds(1));
  const std::string text = metrics_->Text();
  for (const char* line : {
           "terrace_local_state{tier=\"g3\",state=\"read_only\"} 1\n",
           "terrace_local_state{tier=\"g3\",state=\"online\"} 0\n",
           "terrace_local_capacity_bytes{tier=\"g3\"} 41\n",
           "terrace_local_live_bytes{tier=\"g3\"} 42\n",
           "terrace_local_blocks{tier=\"g3\"} 43\n",
           "terrace_local_segments{tier=\"g3\",state=\"free\"} 44\n",
           "terrace_local_written_bytes_total{tier=\"g3\"} 45\n",
           "terrace_local_recovered_blocks_total{tier=\"g3\",by=\"footer\"} 46\n",
           "terrace_local_faults_total{tier=\"g3\",kind=\"sync\"} 47\n",
           "terrace_local_damaged_records_total{tier=\"g3\",what=\"payload\"} 48\n",
           "terrace_local_hits_total{tier=\"g3\"} 49\n",
           "terrace_lost_blocks_total{reason=\"no_space\"} 50\n",
           "terrace_lost_blocks_total{reason=\"too_large\"} 51\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, ShowWhatMayBeWrittenToTheLocalTier) {
  EXPECT_THAT(FullText(), Not(HasSubstr("terrace_local_write_amplification")));
  store_.usage.local_tiers.push_back({.name = "g3", .figures = {}, .scrub = {}, .drives = {}});
  store_.usage.local_tiers.front().figures.payload_bytes_written = 100;
  store_.usage.local_tiers.front().figures.bytes_written = 125;
  clock_.Advance(absl::Seconds(1));
  const std::string without = metrics_->Text();
  EXPECT_THAT(without, HasSubstr("terrace_local_write_amplification{tier=\"g3\"} 1.25\n"));
  EXPECT_THAT(without, Not(HasSubstr("terrace_local_endurance")));
  LocalBudgetUsage& budget = store_.usage.local_budget;
  budget.bytes_per_day = 90;
  budget.saved_up_bytes = -91;
  budget.price_seconds_per_byte = 0.5;
  budget.judged[static_cast<size_t>(Admission::kPriced)] = 92;
  budget.judged[static_cast<size_t>(Admission::kSlack)] = 93;
  clock_.Advance(absl::Seconds(1));
  const std::string text = metrics_->Text();
  for (const char* line : {
           "terrace_local_endurance_bytes_per_day{tier=\"g3\"} 90\n",
           "terrace_local_saved_up_bytes{tier=\"g3\"} -91\n",
           "terrace_local_price_seconds_per_byte{tier=\"g3\"} 0.5\n",
           "terrace_local_judged_blocks_total{tier=\"g3\",verdict=\"priced\"} 92\n",
           "terrace_local_judged_blocks_total{tier=\"g3\",verdict=\"slack\"} 93\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, ShowSharedTiersWithTheirWorkersAndTheWorstOfTheirNodes) {
  EXPECT_THAT(FullText(), Not(HasSubstr("terrace_shared_")));
  SharedTierUsage& shared = store_.usage.shared_tiers.emplace_back();
  shared.name = "g4";
  shared.figures.state = PoolState::kSuspended;
  shared.figures.records = 71;
  shared.figures.read_faults = 72;
  shared.figures.forged = 80;
  shared.figures.files.stuck = 3;
  shared.figures.files.starts = 74;
  shared.figures.files.calls[static_cast<size_t>(PoolOp::kSync)] = 75;
  shared.queued = 76;
  shared.published = 77;
  shared.drops[static_cast<size_t>(PublishDrop::kTooLarge)] = 78;
  shared.drops[static_cast<size_t>(PublishDrop::kClosed)] = 79;
  shared.nodes.resize(3);
  shared.nodes[0].self = true;
  shared.nodes[0].silence = absl::Hours(1);
  shared.nodes[1].behind_segments = 80;
  shared.nodes[2].silence = absl::Seconds(81);
  clock_.Advance(absl::Seconds(1));
  const std::string text = metrics_->Text();
  for (const char* line : {
           "terrace_shared_state{tier=\"g4\",state=\"suspended\"} 1\n",
           "terrace_shared_state{tier=\"g4\",state=\"online\"} 0\n",
           "terrace_shared_records{tier=\"g4\"} 71\n",
           "terrace_shared_faults_total{tier=\"g4\",kind=\"read\"} 72\n",
           "terrace_shared_forged_records_total{tier=\"g4\"} 80\n",
           "terrace_shared_worker_stuck{tier=\"g4\"} 3\n",
           "terrace_shared_worker_starts_total{tier=\"g4\"} 74\n",
           "terrace_shared_worker_calls_total{tier=\"g4\",op=\"sync\"} 75\n",
           "terrace_shared_queued_blocks{tier=\"g4\"} 76\n",
           "terrace_shared_published_total{tier=\"g4\"} 77\n",
           "terrace_shared_drops_total{tier=\"g4\",reason=\"too_large\"} 78\n",
           "terrace_shared_drops_total{tier=\"g4\",reason=\"closed\"} 79\n",
           "terrace_shared_lag_segments{tier=\"g4\"} 80\n",
           "terrace_shared_silence_seconds{tier=\"g4\"} 81\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, ShowEachDriveByItsPlaceInTheConfiguration) {
  store_.usage = FullUsage();
  std::vector<DriveView> drives(2);
  drives[0].path = "/a";
  drives[0].open = true;
  drives[0].figures.records = 61;
  drives[0].figures.transfers.caching = Caching::kDirect;
  drives[0].figures.corrupt_headers = 62;
  drives[1].path = "/b";
  drives[1].problem = "not there";
  drives[1].figures.write_faults = 63;
  drives[1].figures.bytes_written = 64;
  drives[1].pending_deletes = 65;
  store_.usage.local_tiers.push_back(
      {.name = "g3", .figures = {}, .scrub = {}, .drives = std::move(drives)});
  metrics_->SetStore(&store_);
  const std::string text = metrics_->Text();
  for (const char* line : {
           "terrace_local_drive_open{tier=\"g3\",drive=\"0\"} 1\n",
           "terrace_local_drive_open{tier=\"g3\",drive=\"1\"} 0\n",
           "terrace_local_drive_direct{tier=\"g3\",drive=\"0\"} 1\n",
           "terrace_local_drive_direct{tier=\"g3\",drive=\"1\"} 0\n",
           "terrace_local_drive_blocks{tier=\"g3\",drive=\"0\"} 61\n",
           "terrace_local_drive_faults_total{tier=\"g3\",drive=\"0\",kind=\"damage\"} 62\n",
           "terrace_local_drive_faults_total{tier=\"g3\",drive=\"1\",kind=\"write\"} 63\n",
           "terrace_local_drive_written_bytes_total{tier=\"g3\",drive=\"1\"} 64\n",
           "terrace_local_drive_pending_deletes{tier=\"g3\",drive=\"1\"} 65\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("/b"))) << "paths are no labels";
}

TEST_F(MetricsTest, CountMissesByReason) {
  const std::string text = FullText();
  EXPECT_THAT(text, HasSubstr("terrace_tier_hits_total{tier=\"g2\"} 101\n"));
  EXPECT_THAT(text, HasSubstr("terrace_misses_total{reason=\"absent\"} 100\n"));
  EXPECT_THAT(text, HasSubstr("terrace_misses_total{reason=\"corrupt\"} 102\n"));
  EXPECT_THAT(text, HasSubstr("terrace_misses_total{reason=\"cancelled\"} 108\n"));
  EXPECT_THAT(text, HasSubstr("terrace_put_keys_total{outcome=\"stored\"} 201\n"));
  EXPECT_THAT(text, HasSubstr("terrace_put_keys_total{outcome=\"failed\"} 204\n"));
  EXPECT_THAT(text, HasSubstr("terrace_put_refusals_total{reason=\"no_space\"} 301\n"));
  EXPECT_THAT(text, HasSubstr("terrace_put_refusals_total{reason=\"too_late\"} 313\n"));
}

TEST_F(MetricsTest, CumulateTheAgesOfEvictedBlocks) {
  const std::string text = FullText();
  EXPECT_THAT(text, HasSubstr("terrace_tier_eviction_age_seconds_count{tier=\"g2\"} 3\n"));
  EXPECT_THAT(text,
              HasSubstr("terrace_tier_eviction_age_seconds_bucket{tier=\"g2\",le=\"1\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("terrace_tier_eviction_age_seconds_bucket{tier=\"g2\",le=\"4\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("terrace_tier_eviction_age_seconds_bucket{tier=\"g2\",le=\"8\"} 2\n"));
  EXPECT_THAT(
      text, HasSubstr("terrace_tier_eviction_age_seconds_bucket{tier=\"g2\",le=\"4194304\"} 2\n"));
  EXPECT_THAT(text,
              HasSubstr("terrace_tier_eviction_age_seconds_bucket{tier=\"g2\",le=\"+Inf\"} 3\n"));
}

TEST_F(MetricsTest, CountCallsByVerbCarrierAndCode) {
  metrics_->Finished(
      {.verb = "Get", .carrier = Carrier::kSession, .duration = absl::Microseconds(10), .keys = 3});
  metrics_->Finished(
      {.verb = "Get", .carrier = Carrier::kSession, .duration = absl::Microseconds(11), .keys = 4});
  metrics_->Finished({.verb = "Get", .carrier = Carrier::kSession, .duration = absl::Minutes(1)});
  metrics_->Finished({.verb = "Put",
                      .carrier = Carrier::kGrpc,
                      .status = absl::StatusCode::kInvalidArgument,
                      .duration = absl::Milliseconds(1)});
  const std::string text = metrics_->Text();
  const std::string get = "{verb=\"Get\",carrier=\"session\"";
  EXPECT_THAT(text, HasSubstr("terrace_call_duration_seconds_count" + get + "} 3\n"));
  EXPECT_THAT(text, HasSubstr("terrace_call_duration_seconds_bucket" + get + ",le=\"1e-05\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("terrace_call_duration_seconds_bucket" + get + ",le=\"2.5e-05\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("terrace_call_duration_seconds_bucket" + get + ",le=\"10\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("terrace_call_duration_seconds_bucket" + get + ",le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("terrace_calls_total" + get + ",code=\"OK\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("terrace_call_keys_total" + get + "} 7\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "terrace_calls_total{verb=\"Put\",carrier=\"grpc\",code=\"INVALID_ARGUMENT\"} 1\n"));
}

TEST_F(MetricsTest, CountUnknownVerbsAndKindsAsOther) {
  metrics_->Finished({.verb = "Teleport",
                      .carrier = Carrier::kGrpc,
                      .status = static_cast<absl::StatusCode>(99),
                      .duration = absl::ZeroDuration()});
  metrics_->Connection(Carrier::kGrpc, "exploded");
  const std::string text = metrics_->Text();
  EXPECT_THAT(
      text, HasSubstr("terrace_calls_total{verb=\"other\",carrier=\"grpc\",code=\"UNKNOWN\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("terrace_connections_total{carrier=\"grpc\",kind=\"other\"} 1\n"));
}

TEST_F(MetricsTest, BoundTheTenantsAndKeepTheirSum) {
  for (uint64_t i = 0; i < 1000; ++i) {
    store_.tenants.push_back({.alias = "uid-" + std::to_string(i), .used_bytes = i, .hits = 1});
  }
  metrics_->SetStore(&store_);
  const std::string text = metrics_->Text();
  const std::regex series("terrace_tenant_used_bytes\\{tenant=\"([^\"]*)\"\\} ([0-9]+)");
  uint64_t sum = 0;
  size_t count = 0;
  for (std::sregex_iterator it(text.begin(), text.end(), series), end; it != end; ++it, ++count) {
    sum += std::stoull((*it)[2]);
  }
  EXPECT_EQ(count, kMaxTenantSeries);
  EXPECT_EQ(sum, 999U * 1000U / 2U);
  EXPECT_THAT(text, HasSubstr("terrace_tenant_used_bytes{tenant=\"uid-999\"} 999\n"));
  EXPECT_THAT(text, HasSubstr("terrace_tenant_hits_total{tenant=\"other\"} 801\n"));
}

TEST_F(MetricsTest, UseNoLabelThatCouldNameAKeyAPathOrAProcess) {
  const std::string text = FullText();
  const std::set<std::string> allowed = {"version", "copy_kernel", "verb",   "carrier", "code",
                                         "kind",    "tier",        "reason", "outcome", "delivery",
                                         "result",  "state",       "tenant", "le",      "gpu"};
  const std::regex label("([a-z_]+)=\"");
  for (std::sregex_iterator it(text.begin(), text.end(), label), end; it != end; ++it) {
    EXPECT_TRUE(allowed.contains((*it)[1])) << (*it)[1];
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(line.starts_with("# ") || line.starts_with("terrace_")) << line;
  }
}

TEST_F(MetricsTest, AskTheStoreAtMostOnceASnapshot) {
  metrics_->SetStore(&store_);
  static_cast<void>(metrics_->Text());
  static_cast<void>(metrics_->Text());
  EXPECT_EQ(store_.looks, 1);
  clock_.Advance(kSnapshotAge);
  static_cast<void>(metrics_->Text());
  EXPECT_EQ(store_.looks, 2);
}

TEST_F(MetricsTest, LeaveAStoreAloneThatWasTakenAway) {
  metrics_->SetStore(&store_);
  static_cast<void>(metrics_->Text());
  metrics_->SetStore(nullptr);
  clock_.Advance(kSnapshotAge);
  EXPECT_THAT(metrics_->Text(), Not(HasSubstr("terrace_tier_blocks")));
  EXPECT_EQ(store_.looks, 1);
}

TEST_F(MetricsTest, SayThatTheDaemonDrains) {
  EXPECT_THAT(metrics_->Text(), HasSubstr("terrace_draining 0\n"));
  metrics_->SetDraining(true);
  EXPECT_THAT(metrics_->Text(), HasSubstr("terrace_draining 1\n"));
}

TEST_F(MetricsTest, AreCleanUnderPromtool) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool is not installed";
  }
  const PrivateFolder folder;
  const std::string file = folder.Write("metrics", FullText());
  const std::string complaints = folder.path() + "/complaints";
  const int status =
      std::system(("promtool check metrics < " + file + " > " + complaints + " 2>&1").c_str());
  std::ifstream said(complaints);
  std::ostringstream text;
  text << said.rdbuf();
  EXPECT_EQ(status, 0) << text.str();
  EXPECT_EQ(text.str(), "");
}

TEST_F(MetricsTest, HaveNoAddressWithoutAListener) {
  EXPECT_EQ(metrics_->address(), "");
}

TEST_F(MetricsTest, AreServedOnThePortThatIsReported) {
  Start("127.0.0.1:0");
  EXPECT_THAT(metrics_->address(), StartsWith("127.0.0.1:"));
  EXPECT_THAT(metrics_->address(), Not(testing::EndsWith(":0")));
  metrics_->SetStore(&store_);
  const std::string reply = doubles::AskHttp(metrics_->address(), "GET /metrics HTTP/1.0\r\n\r\n");
  EXPECT_THAT(reply, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(reply, HasSubstr("\nterrace_tier_capacity_bytes{tier=\"g2\"}"));
}

TEST_F(MetricsTest, ServeNothingElse) {
  Start("127.0.0.1:0");
  EXPECT_THAT(doubles::AskHttp(metrics_->address(), "GET / HTTP/1.0\r\n\r\n"), HasSubstr(" 404 "));
  EXPECT_THAT(doubles::AskHttp(metrics_->address(), "GET /../../../etc/passwd HTTP/1.0\r\n\r\n"),
              Not(HasSubstr("root:")));
  EXPECT_THAT(
      doubles::AskHttp(metrics_->address(), "PUT /x HTTP/1.0\r\nContent-Length: 1\r\n\r\nx"),
      Not(HasSubstr(" 200 ")));
  EXPECT_THAT(doubles::AskHttp(metrics_->address(), "GET /metrics HTTP/1.0\r\nX: " +
                                                        std::string(5000, 'x') + "\r\n\r\n"),
              Not(HasSubstr(" 200 ")));
}

TEST_F(MetricsTest, SayWhenTheirAddressIsTaken) {
  Start("127.0.0.1:0");
  const absl::StatusOr<std::unique_ptr<Metrics>> second =
      Metrics::Start({.listen = metrics_->address()}, clock_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              StartsWith("metrics.listen: cannot listen on 127.0.0.1:"));
}

}  // namespace
}  // namespace terrace
