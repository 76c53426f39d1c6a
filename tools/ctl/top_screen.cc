#include "tools/ctl/top_screen.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace terrace::ctl {
namespace {

constexpr int kBarCells = 24;

// Cuts a line to `columns` visible characters; escape sequences and continuation bytes of UTF-8
// take no room.
std::string Cut(absl::string_view line, size_t columns) {
  std::string out;
  size_t width = 0;
  bool cut = false;
  for (size_t i = 0; i < line.size();) {
    if (line[i] == '\x1b') {
      const size_t end = std::min(line.find('m', i), line.size() - 1);
      absl::StrAppend(&out, line.substr(i, end + 1 - i));
      i = end + 1;
      continue;
    }
    if ((static_cast<unsigned char>(line[i]) & 0xc0U) != 0x80U) {
      cut = ++width > columns;
    }
    if (!cut) {
      out.push_back(line[i]);
    }
    ++i;
  }
  return out;
}

std::string Fit(const std::string& text, ScreenSize size) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (!lines.empty() && lines.back().empty()) {
    lines.pop_back();
  }
  if (size.rows > 0 && lines.size() > size.rows) {
    lines.resize(size.rows);
  }
  std::string out;
  for (const std::string& line : lines) {
    absl::StrAppend(&out, size.columns > 0 ? Cut(line, size.columns) : line, "\n");
  }
  return out;
}

std::string TierLines(const Look& now, const Style& style) {
  Table table({{"TIER"},
               {"STATE"},
               {"USE"},
               {"USED", Table::Align::kRight},
               {"CAPACITY", Table::Align::kRight},
               {"BLOCKS", Table::Align::kRight}});
  for (const v1::TierStatus& tier : now.tiers.tiers()) {
    const bool ready = tier.state() == "ready";
    table.Add({Printable(tier.name()),
               Table::Cell(Printable(tier.state()), ready ? Tone::kGood : Tone::kWarning),
               Bar(tier.used_bytes(), tier.capacity_bytes(), kBarCells),
               FormatBytes(tier.used_bytes()), FormatBytes(tier.capacity_bytes()),
               FormatCount(tier.blocks())});
  }
  return table.Render(style);
}

std::string TenantLines(const Look* before,
                        const Look& now,
                        const TopRates& rates,
                        absl::Duration elapsed,
                        const Style& style) {
  Table table({{"TENANT"},
               {"USED", Table::Align::kRight},
               {"LEASED", Table::Align::kRight},
               {"BLOCKS", Table::Align::kRight},
               {"SESSIONS", Table::Align::kRight},
               {"HITS/s", Table::Align::kRight},
               {"MISSES/s", Table::Align::kRight}});
  std::vector<const v1::TenantStatus*> tenants;
  for (const v1::TenantStatus& tenant : now.tenants.tenants()) {
    tenants.push_back(&tenant);
  }
  std::sort(tenants.begin(), tenants.end(),
            [](const v1::TenantStatus* a, const v1::TenantStatus* b) {
              return a->used_bytes() != b->used_bytes() ? a->used_bytes() > b->used_bytes()
                                                        : a->tenant() < b->tenant();
            });
  const bool interval = rates.over == TopRates::Over::kInterval;
  const double seconds = interval ? absl::ToDoubleSeconds(elapsed)
                                  : static_cast<double>(now.status.uptime_ms()) / 1000;
  for (const v1::TenantStatus* tenant : tenants) {
    uint64_t hits = tenant->hits();
    uint64_t misses = tenant->misses();
    if (interval && before != nullptr) {
      for (const v1::TenantStatus& earlier : before->tenants.tenants()) {
        if (earlier.tenant() == tenant->tenant()) {
          hits -= std::min(hits, earlier.hits());
          misses -= std::min(misses, earlier.misses());
        }
      }
    }
    const auto rate = [&](uint64_t count) {
      return seconds > 0 ? FormatRate(static_cast<double>(count) / seconds) : "-";
    };
    table.Add({Printable(tenant->tenant()), FormatBytes(tenant->used_bytes()),
               FormatBytes(tenant->leased_bytes()), FormatCount(tenant->blocks()),
               FormatCount(tenant->sessions()), rate(hits), rate(misses)});
  }
  return table.Render(style);
}

}  // namespace

TopRates RatesOf(const Look* before, const Look& now, absl::Duration elapsed) {
  TopRates rates;
  const v1::StatusReply& s = now.status;
  static const v1::StatusReply kZero;
  const bool interval = before != nullptr && before->status.boot_id() == s.boot_id() &&
                        elapsed > absl::ZeroDuration();
  rates.over = interval ? TopRates::Over::kInterval : TopRates::Over::kUptime;
  const v1::StatusReply& from = interval ? before->status : kZero;
  const double seconds =
      interval ? absl::ToDoubleSeconds(elapsed) : static_cast<double>(s.uptime_ms()) / 1000;
  const auto rate = [seconds](uint64_t later, uint64_t earlier) {
    return seconds > 0 && later > earlier ? static_cast<double>(later - earlier) / seconds : 0;
  };
  rates.hits = rate(s.hits(), from.hits());
  rates.misses = rate(s.misses(), from.misses());
  rates.puts = rate(s.puts(), from.puts());
  rates.evictions = rate(s.evictions(), from.evictions());
  rates.bytes_in = rate(s.bytes_in(), from.bytes_in());
  rates.bytes_out = rate(s.bytes_out(), from.bytes_out());
  return rates;
}

std::string TopScreen(const Look* before,
                      const Look& now,
                      absl::Duration elapsed,
                      const Style& style,
                      ScreenSize size) {
  const TopRates rates = RatesOf(before, now, elapsed);
  const v1::StatusReply& s = now.status;
  const double asked = rates.hits + rates.misses;
  std::string out = absl::StrCat(
      style.Paint(Tone::kStrong, absl::StrCat("terraced ", Printable(s.version()))), "  up ",
      FormatElapsed(absl::Trunc(absl::Milliseconds(s.uptime_ms()), absl::Seconds(1))), "  ",
      s.draining() ? style.Paint(Tone::kWarning, "draining")
                   : style.Paint(Tone::kGood, "accepting"),
      "  ", FormatCount(s.sessions()), " sessions  ",
      rates.over == TopRates::Over::kUptime ? "averages since start"
                                            : absl::StrCat("over ", FormatElapsed(elapsed)),
      "\n\n");
  absl::StrAppend(&out, "gets   ", FormatRate(rates.hits), " hits/s, ", FormatRate(rates.misses),
                  " misses/s (",
                  asked <= 0 ? "-" : absl::StrCat(static_cast<int>(100 * rates.hits / asked), "%"),
                  "), out ", FormatByteRate(rates.bytes_out), "\n");
  absl::StrAppend(&out, "puts   ", FormatRate(rates.puts), "/s, in ",
                  FormatByteRate(rates.bytes_in), ", ", FormatRate(rates.evictions),
                  " evictions/s\n");
  absl::StrAppend(&out, "held   ", FormatCount(s.leases()), " leases (",
                  FormatBytes(s.leased_bytes()), "), ", FormatCount(s.holds()), " holds, ",
                  FormatCount(s.regions()), " regions (", FormatBytes(s.region_bytes()), "), ",
                  FormatCount(s.tickets()), " tickets\n");
  absl::StrAppend(&out, "store  ", FormatCount(s.blocks()), " blocks (",
                  FormatBytes(s.block_bytes()), "), resident ", FormatBytes(s.resident_bytes()),
                  ", ",
                  style.Paint(s.corrupt() > 0 ? Tone::kBad : Tone::kPlain,
                              absl::StrCat(s.corrupt(), " corrupt")),
                  "\n\n");
  absl::StrAppend(&out, TierLines(now, style), "\n",
                  TenantLines(before, now, rates, elapsed, style));
  return Fit(out, size);
}

Json TopJson(const Look& now) {
  const TopRates rates = RatesOf(nullptr, now, absl::ZeroDuration());
  Json json;
  json["status"] = JsonOf(now.status);
  json["tiers"] = JsonOf(now.tiers)["tiers"];
  json["tenants"] = JsonOf(now.tenants)["tenants"];
  json["since_start"] = {{"hits_per_s", rates.hits},         {"misses_per_s", rates.misses},
                         {"puts_per_s", rates.puts},         {"evictions_per_s", rates.evictions},
                         {"bytes_in_per_s", rates.bytes_in}, {"bytes_out_per_s", rates.bytes_out}};
  return json;
}

}  // namespace terrace::ctl
