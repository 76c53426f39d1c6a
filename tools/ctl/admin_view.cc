#include "tools/ctl/admin_view.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "tools/ctl/proto_json.h"

namespace terrace::ctl {
namespace {

std::string BlocksAndBytes(uint64_t blocks, uint64_t bytes) {
  return absl::StrCat(FormatCount(blocks), " (", FormatBytes(bytes), ")");
}

std::string RateOrDash(uint64_t bytes_per_s) {
  return bytes_per_s == 0 ? "-" : FormatByteRate(static_cast<double>(bytes_per_s));
}

std::string LimitOrNone(uint64_t bytes) {
  return bytes == 0 ? "none" : FormatBytes(bytes);
}

Table::Column Left(const char* title) {
  return {title, Table::Align::kLeft};
}
Table::Column Right(const char* title) {
  return {title, Table::Align::kRight};
}

std::string LocalTierText(const v1::TierStatus& tier) {
  std::string text = absl::StrCat("\n", Printable(tier.name()), ": ", FormatCount(tier.segments()),
                                  " segments of ", FormatBytes(tier.segment_bytes()), " in all, ",
                                  FormatCount(tier.free_segments()), " free");
  if (tier.segments_to_recover() > 0) {
    absl::StrAppend(&text, ", ", FormatCount(tier.segments_to_recover()), " to be recovered");
  }
  absl::StrAppend(&text, "; ", FormatBytes(tier.written_bytes()), " of payload written");
  if (tier.written_bytes() > 0) {
    absl::StrAppend(&text, absl::StrFormat(" (%.3f times that on the device)",
                                           static_cast<double>(tier.device_written_bytes()) /
                                               static_cast<double>(tier.written_bytes())));
  }
  absl::StrAppend(&text, "; ", FormatCount(tier.lost_blocks()), " evicted blocks not taken, ",
                  FormatCount(tier.corrupt()), " damaged records\n");
  if (tier.endurance_per_day() > 0) {
    const int64_t saved = tier.saved_up_bytes();
    const uint64_t bytes = static_cast<uint64_t>(saved < 0 ? -saved : saved);
    absl::StrAppend(&text, "    may be written: ", FormatBytes(tier.endurance_per_day()),
                    " a day, ", FormatBytes(bytes),
                    saved < 0 ? " beyond that already; " : " saved up; ",
                    tier.price_us_per_mib() == 0
                        ? "no price"
                        : absl::StrFormat("worth from %.3g us a MiB on", tier.price_us_per_mib()),
                    "; ", FormatCount(tier.declined_blocks()), " blocks were not worth it\n");
  }
  if (!tier.last_fault().empty()) {
    absl::StrAppend(&text, "    last fault: ", Printable(tier.last_fault()), "\n");
  }
  return text;
}

std::string SharedTierText(const v1::TierStatus& tier) {
  std::string text = absl::StrCat("\n", Printable(tier.name()), ": ", FormatCount(tier.segments()),
                                  " segments of all nodes; ", FormatBytes(tier.written_bytes()),
                                  " of payload published; ", FormatCount(tier.corrupt()),
                                  " bad records; `terracectl pool` has more\n");
  if (!tier.last_fault().empty()) {
    absl::StrAppend(&text, "    last fault: ", Printable(tier.last_fault()), "\n");
  }
  return text;
}

std::string PublishersText(const v1::StatusReply& reply, const Style& style) {
  Table table({Left("PUBLISHES"), Left("ENDPOINT"), Left("REPLAY"), Right("NEXT"), Right("SENT"),
               Right("UNSENT"), Right("SNAPSHOTS"), Right("REPLAYS")});
  for (const v1::PublisherStatus& publisher : reply.publishers()) {
    table.Add({Printable(publisher.tenant()), Printable(publisher.endpoint()),
               publisher.replay_endpoint().empty() ? "-" : Printable(publisher.replay_endpoint()),
               absl::StrCat(publisher.next_sequence()), FormatCount(publisher.batches()),
               Table::Cell(FormatCount(publisher.unsent()),
                           publisher.unsent() > 0 ? Tone::kWarning : Tone::kPlain),
               FormatCount(publisher.snapshots()), FormatCount(publisher.replays())});
  }
  return absl::StrCat("\n", table.Render(style));
}

std::string DrivesText(const v1::TierStatus& tier, const Style& style) {
  Table table({Left("DRIVE"), Left("STATE"), Right("USED"), Right("FILES"), Right("CAPACITY"),
               Right("BLOCKS"), Right("FAULTS"), Right("DAMAGED"), Left("O_DIRECT"),
               Left("PROBLEM")});
  for (const v1::DriveStatus& drive : tier.drives()) {
    const bool away = drive.state() == "away";
    table.Add({Printable(drive.path()),
               Table::Cell(Printable(drive.state()), drive.state() == "ready" ? Tone::kGood
                                                     : away                   ? Tone::kBad
                                                                              : Tone::kWarning),
               FormatBytes(drive.used_bytes()), FormatBytes(drive.segment_bytes()),
               FormatBytes(drive.capacity_bytes()), FormatCount(drive.blocks()),
               FormatCount(drive.read_faults() + drive.write_faults() + drive.sync_faults()),
               FormatCount(drive.corrupt()),
               away             ? "-"
               : drive.direct() ? "yes"
                                : "no",
               drive.problem().empty() ? "-" : Printable(drive.problem())});
  }
  return table.Render(style);
}

}  // namespace

std::string StatusText(const v1::StatusReply& reply, const Style& style) {
  const uint64_t asked = reply.hits() + reply.misses();
  std::vector<std::string> features;
  for (const int feature : reply.features()) {
    features.push_back(EnumName(v1::Feature_descriptor(), feature));
  }
  std::string out = absl::StrCat(
      style.Paint(Tone::kStrong, absl::StrCat("terraced ", Printable(reply.version()))), "  up ",
      FormatElapsed(absl::Milliseconds(reply.uptime_ms())), "  ",
      reply.draining() ? style.Paint(Tone::kWarning, "draining")
                       : style.Paint(Tone::kGood, "accepting"),
      "\n");
  std::vector<Fact> facts = {
      {"blocks", BlocksAndBytes(reply.blocks(), reply.block_bytes())},
      {"sessions", FormatCount(reply.sessions())},
      {"leases", BlocksAndBytes(reply.leases(), reply.leased_bytes())},
      {"holds", FormatCount(reply.holds())},
      {"regions", BlocksAndBytes(reply.regions(), reply.region_bytes())},
      {"tickets", FormatCount(reply.tickets())},
      {"quarantined", FormatBytes(reply.quarantined_bytes()),
       reply.quarantined_bytes() > 0 ? Tone::kWarning : Tone::kPlain},
      {"gets", absl::StrCat(FormatCount(reply.hits()), " hits, ", FormatCount(reply.misses()),
                            " misses (", FormatShare(reply.hits(), asked), ")")},
      {"puts", FormatCount(reply.puts())},
      {"evictions", FormatCount(reply.evictions())},
      {"corrupt", FormatCount(reply.corrupt()), reply.corrupt() > 0 ? Tone::kBad : Tone::kPlain},
      {"bytes in", FormatBytes(reply.bytes_in())},
      {"bytes out", FormatBytes(reply.bytes_out())},
      {"for returns", absl::StrCat(FormatBytes(reply.return_bytes()), " read ahead, ",
                                   FormatBytes(reply.return_used_bytes()), " used, ",
                                   FormatBytes(reply.return_wasted_bytes()), " unused")},
      {"resident", FormatBytes(reply.resident_bytes())},
      {"descriptors", FormatCount(reply.open_descriptors())},
      {"copy kernel", reply.copy_kernel().empty() ? "-" : Printable(reply.copy_kernel())},
      {"metrics", reply.metrics_address().empty() ? "off" : Printable(reply.metrics_address())},
      {"watchers", FormatCount(reply.watchers())},
      {"features", features.empty() ? "-" : absl::StrJoin(features, " ")},
      {"boot id", absl::StrFormat("%016x", reply.boot_id())},
  };
  if (reply.recovered_blocks() + reply.unrecovered_blocks() > 0) {
    facts.push_back(
        {"recovered",
         absl::StrCat(BlocksAndBytes(reply.recovered_blocks(), reply.recovered_bytes()),
                      " of the life before; ", FormatCount(reply.unrecovered_blocks()), " lost"),
         reply.unrecovered_blocks() > 0 ? Tone::kWarning : Tone::kPlain});
  }
  if (reply.held_bytes() > 0) {
    facts.push_back({"held",
                     absl::StrCat(FormatBytes(reply.held_bytes()),
                                  " that clients of the life before may still read in"),
                     Tone::kWarning});
  }
  out += RenderFacts(facts, style);
  return reply.publishers().empty() ? out : out + PublishersText(reply, style);
}

std::string TiersText(const v1::TiersReply& reply, const Style& style) {
  Table table({Left("TIER"), Left("KIND"), Left("STATE"), Right("USED"), Right("CAPACITY"),
               Right("USE"), Right("BLOCKS"), Right("HITS"), Right("SLABS"), Right("FREE"),
               Left("PAGES"), Right("READ"), Right("WRITE")});
  for (const v1::TierStatus& tier : reply.tiers()) {
    const bool dram = tier.kind() == "dram";
    table.Add({Printable(tier.name()), Printable(tier.kind()),
               Table::Cell(Printable(tier.state()),
                           tier.state() == "ready" ? Tone::kGood : Tone::kWarning),
               FormatBytes(tier.used_bytes()), FormatBytes(tier.capacity_bytes()),
               FormatShare(tier.used_bytes(), tier.capacity_bytes()), FormatCount(tier.blocks()),
               FormatCount(tier.hits()), dram ? FormatCount(tier.slabs()) : "-",
               dram ? FormatCount(tier.free_slabs()) : "-",
               tier.page_kind().empty() ? "-" : Printable(tier.page_kind()),
               RateOrDash(tier.read_bytes_per_s()), RateOrDash(tier.write_bytes_per_s())});
  }
  std::string text = table.Render(style);
  for (const v1::TierStatus& tier : reply.tiers()) {
    if (tier.kind() == "local") {
      text += LocalTierText(tier);
      text += DrivesText(tier, style);
    } else if (tier.kind() == "shared") {
      text += SharedTierText(tier);
    }
  }
  return text;
}

std::string TenantsText(const v1::TenantsReply& reply, const Style& style) {
  if (reply.tenants().empty()) {
    return "no tenant yet: one appears with its first connection\n";
  }
  Table table({Left("TENANT"), Right("USED"), Right("GUARANTEED"), Right("LIMIT"), Right("BLOCKS"),
               Right("LEASED"), Right("PINNED"), Right("SESSIONS"), Right("HITS"), Right("MISSES"),
               Right("RATIO")});
  for (const v1::TenantStatus& tenant : reply.tenants()) {
    const bool over = tenant.limit_bytes() > 0 && tenant.used_bytes() > tenant.limit_bytes();
    table.Add({Printable(tenant.tenant()),
               Table::Cell(FormatBytes(tenant.used_bytes()), over ? Tone::kWarning : Tone::kPlain),
               FormatBytes(tenant.guaranteed_bytes()), LimitOrNone(tenant.limit_bytes()),
               FormatCount(tenant.blocks()), FormatBytes(tenant.leased_bytes()),
               FormatBytes(tenant.pinned_bytes()), FormatCount(tenant.sessions()),
               FormatCount(tenant.hits()), FormatCount(tenant.misses()),
               FormatShare(tenant.hits(), tenant.hits() + tenant.misses())});
  }
  return table.Render(style);
}

std::string NamespacesText(const v1::NamespacesReply& reply, const Style& style) {
  if (reply.namespaces().empty()) {
    return "no namespace is open\n";
  }
  Table table({Left("DIGEST"), Left("TENANT"), Left("MODEL"), Left("REVISION"), Left("DTYPE"),
               Left("LAYOUT"), Right("GROUP"), Right("SHARD"), Right("BLOCK"), Right("TOKENS"),
               Right("GEN"), Right("BLOCKS"), Right("BYTES")});
  for (const v1::NamespaceStatus& ns : reply.namespaces()) {
    const v1::NamespaceRecord& record = ns.record();
    const uint32_t shards = std::max(1U, record.shard_count());
    table.Add({Table::Cell(Hex(ns.namespace_digest()), Tone::kStrong), Printable(ns.tenant()),
               Printable(record.model()), Printable(record.weights_revision()),
               Printable(record.kv_dtype()), Printable(record.layout()),
               absl::StrCat(record.group()), absl::StrCat(record.shard_rank(), "/", shards),
               FormatBytes(record.block_bytes()),
               record.block_tokens() == 0 ? "-" : FormatCount(record.block_tokens()),
               FormatCount(ns.generation()), FormatCount(ns.blocks()), FormatBytes(ns.bytes())});
  }
  return table.Render(style);
}

std::string ExplainText(const v1::ExplainReply& reply, const Style& style) {
  const std::string state = EnumName(v1::KeyState_descriptor(), reply.state());
  const Tone tone = reply.state() == v1::KEY_STATE_READY ? Tone::kGood : Tone::kWarning;
  std::vector<Fact> facts = {{"state", state, tone}};
  if (reply.state() != v1::KEY_STATE_MISS && reply.state() != v1::KEY_STATE_INVALID) {
    const std::vector<Fact> more = {
        {"tier", reply.tier().empty() ? "-" : Printable(reply.tier())},
        {"payload", FormatBytes(reply.payload_bytes())},
        {"generation", FormatCount(reply.generation())},
        {"place", absl::StrCat("slab ", reply.slab_id(), ", offset ", reply.slab_offset())},
        {"leases", FormatCount(reply.leases())},
        {"holds", FormatCount(reply.holds())},
        {"pinned", reply.pinned() ? "yes" : "no"},
        {"stored", absl::StrCat(FormatElapsed(absl::Milliseconds(reply.age_ms())), " ago")},
        {"touched", absl::StrCat(FormatElapsed(absl::Milliseconds(reply.idle_ms())), " ago")},
        {"eviction", absl::StrCat(FormatCount(reply.eviction_rank()), " blocks go before it")},
        {"first token", FormatCount(reply.first_token())},
    };
    facts.insert(facts.end(), more.begin(), more.end());
  }
  std::string out = RenderFacts(facts, style);
  if (!reply.text().empty()) {
    absl::StrAppend(&out, Printable(reply.text()), "\n");
  }
  return out;
}

std::string VerifyText(const v1::VerifyReply& reply, const Style& style) {
  const std::string checked = absl::StrCat(FormatCount(reply.blocks()), " blocks (",
                                           FormatBytes(reply.bytes()), ") checked: ");
  if (reply.corrupt() == 0) {
    return absl::StrCat(checked, style.Paint(Tone::kGood, "all checksums hold"), "\n");
  }
  return absl::StrCat(
      checked, style.Paint(Tone::kBad, absl::StrCat(FormatCount(reply.corrupt()), " corrupt")),
      ", dropped; check this host's memory\n");
}

std::string EvictText(const v1::EvictReply& reply) {
  return absl::StrCat("evicted ", FormatCount(reply.evicted_blocks()), " blocks (",
                      FormatBytes(reply.evicted_bytes()), "), ", FormatBytes(reply.used_bytes()),
                      " in use\n");
}

std::string ReloadText(const v1::ReloadReply& reply, const Style& style) {
  std::string out;
  for (const std::string& setting : reply.changed()) {
    absl::StrAppend(&out, style.Paint(Tone::kGood, "changed"), "        ", Printable(setting),
                    "\n");
  }
  for (const std::string& setting : reply.needs_restart()) {
    absl::StrAppend(&out, style.Paint(Tone::kWarning, "needs restart"), "  ", Printable(setting),
                    "\n");
  }
  return out.empty() ? "nothing differs\n" : out;
}

}  // namespace terrace::ctl
