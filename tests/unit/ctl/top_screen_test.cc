#include "tools/ctl/top_screen.h"

#include "absl/strings/str_split.h"
#include <gtest/gtest.h>

namespace terrace::ctl {
namespace {

const Style kPlainStyle(Style::Colour::kNever);

Look SomeLook(uint64_t hits) {
  Look look;
  look.status.set_boot_id(7);
  look.status.set_version("0.1.0");
  look.status.set_uptime_ms(100'000);
  look.status.set_hits(hits);
  look.status.set_misses(hits);
  look.status.set_bytes_out(hits << 20);
  v1::TierStatus* tier = look.tiers.add_tiers();
  tier->set_name("g2");
  tier->set_state("ready");
  tier->set_used_bytes(512 << 20);
  tier->set_capacity_bytes(1 << 30);
  for (const char* name : {"small", "large"}) {
    v1::TenantStatus* tenant = look.tenants.add_tenants();
    tenant->set_tenant(name);
    tenant->set_used_bytes(*name == 'l' ? 2048 : 1024);
    tenant->set_hits(hits);
  }
  return look;
}

TEST(TopRates, AreDifferencesOverTheInterval) {
  const Look before = SomeLook(1000);
  const Look now = SomeLook(1600);
  const TopRates rates = RatesOf(&before, now, absl::Seconds(2));
  EXPECT_EQ(rates.over, TopRates::Over::kInterval);
  EXPECT_DOUBLE_EQ(rates.hits, 300);
  EXPECT_DOUBLE_EQ(rates.bytes_out, 300.0 * (1 << 20));
}

TEST(TopRates, AreAveragesWithoutAnEarlierLook) {
  const TopRates rates = RatesOf(nullptr, SomeLook(1000), absl::ZeroDuration());
  EXPECT_EQ(rates.over, TopRates::Over::kUptime);
  EXPECT_DOUBLE_EQ(rates.hits, 10);
}

TEST(TopRates, StartAnewWhenTheDaemonRestarted) {
  Look before = SomeLook(1'000'000);
  before.status.set_boot_id(6);
  const TopRates rates = RatesOf(&before, SomeLook(1000), absl::Seconds(1));
  EXPECT_EQ(rates.over, TopRates::Over::kUptime);
  EXPECT_DOUBLE_EQ(rates.hits, 10);
}

TEST(TopScreen, ShowsTiersAndTenantsLargestFirst) {
  const Look before = SomeLook(1000);
  const std::string screen = TopScreen(&before, SomeLook(1600), absl::Seconds(2), kPlainStyle, {});
  EXPECT_NE(screen.find("terraced 0.1.0  up 1 min 40 s  accepting"), std::string::npos) << screen;
  EXPECT_NE(screen.find("300 hits/s, 300 misses/s (50%)"), std::string::npos) << screen;
  EXPECT_NE(screen.find("[############............]"), std::string::npos) << screen;
  EXPECT_LT(screen.find("large"), screen.find("small"));
}

TEST(TopScreen, NeverExceedsTheTerminal) {
  const Look look = SomeLook(12345);
  for (const Style::Colour colour : {Style::Colour::kNever, Style::Colour::kAnsi}) {
    const std::string screen =
        TopScreen(nullptr, look, absl::ZeroDuration(), Style(colour), {30, 9});
    const std::vector<std::string> lines = absl::StrSplit(screen, '\n');
    EXPECT_EQ(lines.size(), 10U) << "nine lines, each ended";
    for (const std::string& line : lines) {
      size_t width = 0;
      for (size_t i = 0; i < line.size(); ++i) {
        if (line[i] == '\x1b') {
          i = line.find('m', i);
        } else {
          ++width;
        }
      }
      EXPECT_LE(width, 30U) << line;
    }
  }
}

TEST(TopJson, CarriesTheThreeAnswers) {
  const Json json = TopJson(SomeLook(1000));
  EXPECT_EQ(json["status"]["hits"], 1000);
  EXPECT_EQ(json["tiers"][0]["name"], "g2");
  EXPECT_EQ(json["tenants"].size(), 2U);
  EXPECT_EQ(json["since_start"]["hits_per_s"], 10.0);
}

}  // namespace
}  // namespace terrace::ctl
