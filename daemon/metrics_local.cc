#include "daemon/metrics_local.h"

#include <array>
#include <string>

namespace terrace {
namespace {

// By the values of WriteOutcome; "" is not a refusal. The first one is the store's own.
constexpr std::array<std::string_view, 10> kRefusals = {
    "too_large", "", "", "no_space", "busy", "read_only", "fault", "deadline", "deleted", "closed"};
constexpr std::array<std::string_view, 7> kStates = {"",       "recovering", "online", "read_only",
                                                     "faulty", "detached",   "closed"};

using Tiers = std::vector<LocalTierUsage>;

Labels Of(const LocalTierUsage& tier) {
  return {Label("tier", tier.name)};
}

template <typename Number>
void AddEach(const Tiers& tiers, Number SegmentTierFigures::*member, Families* out) {
  for (const LocalTierUsage& tier : tiers) {
    out->Add(Of(tier), tier.figures.*member);
  }
}

void AddState(const Tiers& tiers, Families* out) {
  out->Gauge("local_state", "1 for the state that the tier is in.");
  for (const LocalTierUsage& tier : tiers) {
    for (size_t state = 1; state < kStates.size(); ++state) {
      out->Add({Label("tier", tier.name), Label("state", kStates[state])},
               static_cast<size_t>(tier.figures.state) == state ? 1 : 0);
    }
  }
  out->Gauge("local_reads_suspended", "1 while reads are misses because they failed in a row.");
  for (const LocalTierUsage& tier : tiers) {
    out->Add(Of(tier), tier.figures.reads_suspended ? 1 : 0);
  }
  out->Gauge("local_direct", "1 where transfers bypass the page cache.");
  for (const LocalTierUsage& tier : tiers) {
    out->Add(Of(tier), tier.figures.transfers.caching == Caching::kDirect ? 1 : 0);
  }
}

void AddSpace(const Tiers& tiers, Families* out) {
  out->Gauge("local_capacity_bytes", "Bytes that the tier's files may take.");
  AddEach(tiers, &SegmentTierFigures::capacity_bytes, out);
  out->Gauge("local_file_bytes", "Bytes of the tier's files.");
  AddEach(tiers, &SegmentTierFigures::file_bytes, out);
  out->Gauge("local_live_bytes", "Bytes of records that can be read.");
  AddEach(tiers, &SegmentTierFigures::live_bytes, out);
  out->Gauge("local_blocks", "Blocks held.");
  AddEach(tiers, &SegmentTierFigures::records, out);
  out->Gauge("local_segments", "Segments by state.");
  for (const LocalTierUsage& tier : tiers) {
    const SegmentTierFigures& figures = tier.figures;
    const auto add = [&](std::string_view state, uint32_t count) {
      out->Add({Label("tier", tier.name), Label("state", state)}, count);
    };
    add("all", figures.segments);
    add("free", figures.free_segments);
    add("unproven", figures.unproven_segments);
    add("retired", figures.retired_segments);
    add("to_recover", figures.segments_to_recover);
  }
}

void AddTraffic(const Tiers& tiers, Families* out) {
  out->Counter("local_reads_total", "Records read.");
  AddEach(tiers, &SegmentTierFigures::reads, out);
  out->Counter("local_read_bytes_total", "Bytes of them.");
  AddEach(tiers, &SegmentTierFigures::read_bytes, out);
  out->Counter("local_writes_total", "Blocks written.");
  AddEach(tiers, &SegmentTierFigures::writes, out);
  out->Counter("local_written_bytes_total", "Payload bytes of them.");
  AddEach(tiers, &SegmentTierFigures::payload_bytes_written, out);
  out->Counter("local_device_written_bytes_total",
               "Bytes written in all: with headers, footers and what reclaim wrote again.");
  AddEach(tiers, &SegmentTierFigures::bytes_written, out);
  out->Counter("local_reclaimed_segments_total", "Segments emptied for others.");
  AddEach(tiers, &SegmentTierFigures::reclaimed_segments, out);
  out->Counter("local_reclaimed_blocks_total", "Blocks let go with them.");
  AddEach(tiers, &SegmentTierFigures::records_reclaimed, out);
  out->Counter("local_rewritten_blocks_total", "Blocks written again instead.");
  AddEach(tiers, &SegmentTierFigures::records_rewritten, out);
  out->Counter("local_recovered_blocks_total", "Blocks found again at the start, by where.");
  for (const LocalTierUsage& tier : tiers) {
    out->Add({Label("tier", tier.name), Label("by", "index")}, tier.figures.recovered_by_index);
    out->Add({Label("tier", tier.name), Label("by", "footer")}, tier.figures.recovered_by_footer);
    out->Add({Label("tier", tier.name), Label("by", "header")}, tier.figures.recovered_by_header);
  }
}

void AddFaults(const Tiers& tiers, Families* out) {
  out->Counter("local_faults_total", "Calls of the medium that failed, by kind.");
  for (const LocalTierUsage& tier : tiers) {
    const auto add = [&](std::string_view kind, uint64_t count) {
      out->Add({Label("tier", tier.name), Label("kind", kind)}, count);
    };
    add("read", tier.figures.read_faults);
    add("write", tier.figures.write_faults);
    add("sync", tier.figures.sync_faults);
    add("index", tier.figures.index_faults);
  }
  out->Counter("local_damaged_records_total", "Records found damaged, by what was wrong.");
  for (const LocalTierUsage& tier : tiers) {
    const auto add = [&](std::string_view what, uint64_t count) {
      out->Add({Label("tier", tier.name), Label("what", what)}, count);
    };
    add("header", tier.figures.corrupt_headers);
    add("payload", tier.figures.corrupt_payloads);
    add("stale", tier.figures.stale_records);
  }
  out->Counter("local_unsynced_blocks_dropped_total",
               "Blocks given up because a sync of theirs failed.");
  AddEach(tiers, &SegmentTierFigures::records_dropped_by_sync_faults, out);
  out->Counter("local_read_suspensions_total", "Times that reads were suspended.");
  AddEach(tiers, &SegmentTierFigures::read_suspensions, out);
  out->Counter("local_scrub_passes_total", "Scrubs that came to their end.");
  AddEach(tiers, &SegmentTierFigures::scrub_passes, out);
  out->Counter("local_scrubbed_bytes_total", "Bytes that scrubs read.");
  AddEach(tiers, &SegmentTierFigures::scrubbed_bytes, out);
}

// Drives are told apart by their place in the configuration, which bounds the label.
template <typename Number>
void AddEachDrive(const Tiers& tiers, const Number& number, Families* out) {
  for (const LocalTierUsage& tier : tiers) {
    for (size_t i = 0; i < tier.drives.size(); ++i) {
      out->Add({Label("tier", tier.name), Label("drive", std::to_string(i))},
               number(tier.drives[i]));
    }
  }
}

void AddDrives(const Tiers& tiers, Families* out) {
  const auto add = [&](const auto& number) { AddEachDrive(tiers, number, out); };
  const auto add_figure = [&](auto SegmentTierFigures::*member) {
    AddEachDrive(
        tiers, [member](const DriveView& d) { return d.figures.*member; }, out);
  };
  out->Gauge("local_drive_open", "1 while the drive is there; terracectl tiers says where it is.");
  add([](const DriveView& drive) { return drive.open ? 1 : 0; });
  out->Gauge("local_drive_reads_suspended", "1 while reads of it are misses.");
  add([](const DriveView& drive) { return drive.figures.reads_suspended ? 1 : 0; });
  out->Gauge("local_drive_direct", "1 where transfers bypass the page cache.");
  add([](const DriveView& drive) {
    return drive.open && drive.figures.transfers.caching == Caching::kDirect ? 1 : 0;
  });
  out->Gauge("local_drive_capacity_bytes", "Bytes that the tier's files may take on the drive.");
  add_figure(&SegmentTierFigures::capacity_bytes);
  out->Gauge("local_drive_file_bytes", "Bytes of the tier's files on the drive.");
  add_figure(&SegmentTierFigures::file_bytes);
  out->Gauge("local_drive_live_bytes", "Bytes of records on the drive that can be read.");
  add_figure(&SegmentTierFigures::live_bytes);
  out->Gauge("local_drive_blocks", "Blocks held on the drive.");
  add_figure(&SegmentTierFigures::records);
  out->Gauge("local_drive_pending_deletes", "Deletions that are not durable on the drive yet.");
  add([](const DriveView& drive) { return drive.pending_deletes; });
  out->Counter("local_drive_reads_total", "Records read from the drive.");
  add_figure(&SegmentTierFigures::reads);
  out->Counter("local_drive_written_bytes_total", "Bytes written to the drive in all.");
  add_figure(&SegmentTierFigures::bytes_written);
}

void AddDriveFaults(const Tiers& tiers, Families* out) {
  out->Counter("local_drive_faults_total", "Calls of the drive that failed, by kind.");
  for (const LocalTierUsage& tier : tiers) {
    for (size_t i = 0; i < tier.drives.size(); ++i) {
      const SegmentTierFigures& figures = tier.drives[i].figures;
      const auto add = [&](std::string_view kind, uint64_t count) {
        out->Add({Label("tier", tier.name), Label("drive", std::to_string(i)), Label("kind", kind)},
                 count);
      };
      add("read", figures.read_faults);
      add("write", figures.write_faults);
      add("sync", figures.sync_faults);
      add("damage", figures.corrupt_headers + figures.corrupt_payloads);
    }
  }
}

// What the store did with the tier that is nearest below DRAM.
void AddStoreSide(const StoreUsage& usage, Families* out) {
  const std::string& name = usage.local_tiers.front().name;
  const StoreCounters& counters = usage.counters;
  out->Counter("local_hits_total", "Keys that a get delivered from the tier.")
      .Add({Label("tier", name)}, counters.tier_hits[1]);
  out->Gauge("local_writes_in_flight", "Blocks on their way to the tier.")
      .Add({Label("tier", name)}, usage.local_writes_in_flight);
  out->Gauge("waiting_for_room", "Blocks that wait for a victim to be written.")
      .Add({}, usage.waiting_for_room);
  out->Counter("room_waits_total", "Times that a block waited for a victim to be written.")
      .Add({}, counters.room_waits);
  out->Counter("local_refusals_total", "Blocks that the tier did not take, by reason.");
  for (size_t i = 1; i < kRefusals.size(); ++i) {
    if (!kRefusals[i].empty()) {
      out->Add({Label("tier", name), Label("reason", kRefusals[i])}, counters.local_refusals[i]);
    }
  }
  out->Counter("lost_blocks_total",
               "Evicted blocks that no tier holds because the local one did not take them.");
  for (size_t i = 0; i < kRefusals.size(); ++i) {
    if (!kRefusals[i].empty()) {
      out->Add({Label("reason", kRefusals[i])}, counters.local_losses[i]);
    }
  }
}

// By the values of Admission.
constexpr std::array<std::string_view, kAdmissions> kVerdicts = {"slack", "worth", "completes",
                                                                 "priced", "spent"};

void AddBudget(const StoreUsage& usage, Families* out) {
  const LocalTierUsage& tier = usage.local_tiers.front();
  const SegmentTierFigures& figures = tier.figures;
  if (figures.payload_bytes_written > 0) {
    out->Gauge("local_write_amplification",
               "Bytes written in all for each byte of payload, since the start.")
        .Add(Of(tier), static_cast<double>(figures.bytes_written) /
                           static_cast<double>(figures.payload_bytes_written));
  }
  const LocalBudgetUsage& budget = usage.local_budget;
  if (budget.bytes_per_day == 0) {
    return;
  }
  out->Gauge("local_endurance_bytes_per_day", "Bytes that may be written a day.")
      .Add(Of(tier), budget.bytes_per_day);
  out->Gauge("local_saved_up_bytes", "Of them, not written yet; below 0: to be paid back.")
      .Add(Of(tier), budget.saved_up_bytes);
  out->Gauge("local_price_seconds_per_byte",
             "Seconds of computing, times their chance of being spared, that a byte has to be "
             "worth; 0: there is no price.")
      .Add(Of(tier), budget.price_seconds_per_byte);
  out->Counter("local_judged_blocks_total",
               "Blocks judged before they are written; the last two are not.");
  for (size_t i = 0; i < kVerdicts.size(); ++i) {
    out->Add({Label("tier", tier.name), Label("verdict", kVerdicts[i])}, budget.judged[i]);
  }
}

void AddIo(const IoFacts& io, Families* out) {
  out->Gauge("io_engine", "1 for the engine of transfers that is in use.")
      .Add({Label("engine", io.engine)}, 1);
  out->Gauge("io_fallback", "1 where io_uring is not available.")
      .Add({}, io.fallback_reason.empty() ? 0 : 1);
  out->Gauge("io_registered_bytes", "Memory that transfers know.").Add({}, io.registered_bytes);
  out->Gauge("io_registration_refused", "1 where memory could not be registered (memlock).")
      .Add({}, io.registration_refusal.empty() ? 0 : 1);
  out->Counter("io_resubmitted_total", "Transfers that were short, interrupted or refused.")
      .Add({}, io.resubmitted);
}

}  // namespace

void AddLocalTiers(const StoreUsage& usage, const std::optional<IoFacts>& io, Families* out) {
  if (usage.local_tiers.empty()) {
    return;
  }
  AddState(usage.local_tiers, out);
  AddSpace(usage.local_tiers, out);
  AddTraffic(usage.local_tiers, out);
  AddFaults(usage.local_tiers, out);
  AddDrives(usage.local_tiers, out);
  AddDriveFaults(usage.local_tiers, out);
  AddStoreSide(usage, out);
  AddBudget(usage, out);
  if (io.has_value()) {
    AddIo(*io, out);
  }
}

}  // namespace terrace
