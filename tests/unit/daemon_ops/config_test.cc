#include "daemon/config.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/config_toml.h"
#include "daemon/settings.h"
#include "tests/unit/daemon_ops/bad_configs.h"

namespace terrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Another value than the default for every setting, in the table's order.
constexpr char kEverythingChanged[] = R"([daemon]
runtime_dir = "/tmp/r"
data_dir = "/tmp/d"
io_threads = 3
io_poll_us = 70
copy_threads = 5
log_level = "debug"
log_format = "json"
core_dumps = true
[dram]
capacity = "3GiB"
huge_pages = false
touch_threads = 7
verify_one_in = 1
policy = "lru"
fetch_returns = false
keep = "off"
lease_share = 0.1
pin_share = 1
[limits]
connections_per_uid = 65
connections_total = 1025
calls_in_flight_per_uid = 257
message_bytes = 65537
hello_timeout = "2.5s"
write_stall_timeout = "1m30s"
reply_backlog = "17MiB"
probe_cap = "1ms"
get_cap = "10m"
put_cap = "31s"
other_cap = "32s"
tenants = 65
namespaces_per_tenant = 1025
scopes_per_tenant = 65537
holds_per_tenant = 16385
regions_per_session = 65
tickets_per_tenant = 4097
[sockets]
mode = "0666"
group = "0"
unlisted = "deny"
[metrics]
listen = "off"
[[tenant]]
alias = "search"
uids = [1001, 1002]
guaranteed = "1GiB"
limit = "2GiB"
[[tenant]]
alias = "chat.v2_x-1"
gids = [0, 4294967294]

[local]
capacity = "5GiB"
dir = "/mnt/nvme/terrace"
writes = "commit"
max_block = "8MiB"
free_reserve = "2GiB"
max_wait = "1s"
endurance_per_day = "55TiB"
endurance_burst = "1h"
scrub_per_second = "0B"
[gpu]
serve = "off"
staging = "128MiB"
)";

std::string ReadAll(const std::string& path) {
  const std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message());
}

class BadConfigTest : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedWithOnePreciseLine) {
  const BadConfig& bad = GetParam();
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(bad.text, "t.toml");
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message = MessageOf(loaded.status());
  if (bad.message.back() == '*') {
    EXPECT_EQ(message.substr(0, bad.message.size() - 1),
              bad.message.substr(0, bad.message.size() - 1));
  } else {
    EXPECT_EQ(message, bad.message);
  }
  EXPECT_EQ(message.find_first_of("\n\r"), std::string::npos) << message;
  EXPECT_LT(message.size(), 400U);
}

INSTANTIATE_TEST_SUITE_P(All,
                         BadConfigTest,
                         testing::ValuesIn(BadConfigs()),
                         [](const auto& param) { return param.param.name; });

TEST(Config, AnEmptyFileIsTheDefaults) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig("", "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.runtime_dir, "/run/terrace");
  EXPECT_EQ(loaded->config.data_dir, "/var/lib/terrace");
  EXPECT_EQ(loaded->config.store.dram_bytes, uint64_t{1} << 30);
  EXPECT_EQ(loaded->config.metrics_listen, "127.0.0.1:9464");
  EXPECT_EQ(loaded->config.unlisted, UnlistedPeers::kPerUid);
  EXPECT_THAT(loaded->config.tenants, IsEmpty());
  for (const std::string& origin : loaded->origins) {
    EXPECT_EQ(origin, "default");
  }
}

TEST(Config, DefaultsObeyTheirOwnRules) {
  Config config;
  for (const Setting& setting : Settings()) {
    const std::string line = std::string(setting.key()) + " = " + SettingText(setting, config);
    const auto entries = ParseToml("[s]\n" + line + "\n", "t");
    ASSERT_TRUE(entries.ok()) << entries.status();
    EXPECT_TRUE(AssignSetting(setting, entries->back().value, &config).ok()) << line;
  }
}

TEST(Config, EverySettingReachesItsField) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(kEverythingChanged, "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Config& c = loaded->config;
  EXPECT_EQ(c.runtime_dir, "/tmp/r");
  EXPECT_EQ(c.data_dir, "/tmp/d");
  EXPECT_EQ(c.io_threads, 3U);
  EXPECT_EQ(c.io_poll_us, 70U);
  EXPECT_EQ(c.copy_threads, 5U);
  EXPECT_EQ(c.log_level, LogLevel::kDebug);
  EXPECT_EQ(c.log_format, LogFormat::kJson);
  EXPECT_TRUE(c.core_dumps);
  EXPECT_EQ(c.store.dram_bytes, uint64_t{3} << 30);
  EXPECT_FALSE(c.huge_pages);
  EXPECT_EQ(c.touch_threads, 7U);
  EXPECT_EQ(c.store.verify_one_in, 1U);
  EXPECT_EQ(c.store.policy, "lru");
  EXPECT_FALSE(c.store.fetch_returns);
  EXPECT_EQ(c.keep, KeepDram::kOff);
  EXPECT_EQ(c.store.lease_share, 0.1);
  EXPECT_EQ(c.store.pin_share, 1.0);
  EXPECT_EQ(c.local_bytes, uint64_t{5} << 30);
  EXPECT_EQ(LocalDrivesOf(c).front().path, "/mnt/nvme/terrace");
  EXPECT_EQ(c.store.local_writes, LocalWrites::kOnCommit);
  EXPECT_EQ(c.store.local_max_payload_bytes, uint64_t{8} << 20);
  EXPECT_EQ(c.local_free_reserve, uint64_t{2} << 30);
  EXPECT_EQ(c.store.max_wait_for_room, absl::Seconds(1));
  EXPECT_EQ(c.gpu, GpuUse::kOff);
  EXPECT_EQ(c.gpu_staging_bytes, uint64_t{128} << 20);
  EXPECT_EQ(c.store.local_endurance_per_day, uint64_t{55} << 40);
  EXPECT_EQ(c.store.local_endurance_burst, absl::Hours(1));
  EXPECT_EQ(c.local_scrub_bytes_per_second, 0U);
  EXPECT_EQ(c.front.connections_per_uid, 65U);
  EXPECT_EQ(c.front.connections_total, 1025U);
  EXPECT_EQ(c.front.calls_in_flight_per_uid, 257U);
  EXPECT_EQ(c.front.message_bytes, 65537U);
  EXPECT_EQ(c.front.hello_timeout, absl::Milliseconds(2500));
  EXPECT_EQ(c.front.write_stall_timeout, absl::Seconds(90));
  EXPECT_EQ(c.front.reply_backlog_bytes, uint64_t{17} << 20);
  EXPECT_EQ(c.front.probe_cap, absl::Milliseconds(1));
  EXPECT_EQ(c.front.get_cap, absl::Minutes(10));
  EXPECT_EQ(c.front.put_cap, absl::Seconds(31));
  EXPECT_EQ(c.front.other_cap, absl::Seconds(32));
  EXPECT_EQ(c.store.max_tenants, 65U);
  EXPECT_EQ(c.store.max_namespaces_per_tenant, 1025U);
  EXPECT_EQ(c.store.max_scopes_per_tenant, 65537U);
  EXPECT_EQ(c.store.max_holds_per_tenant, 16385U);
  EXPECT_EQ(c.store.max_regions_per_session, 65U);
  EXPECT_EQ(c.store.max_tickets_per_tenant, 4097U);
  EXPECT_EQ(c.socket_mode, 0666U);
  EXPECT_EQ(c.socket_gid, 0U);
  EXPECT_EQ(c.unlisted, UnlistedPeers::kDeny);
  EXPECT_EQ(c.metrics_listen, "");
  const TenantConfig search = {"search", {1001, 1002}, {}, uint64_t{1} << 30, uint64_t{2} << 30};
  const TenantConfig chat = {"chat.v2_x-1", {}, {0, 4294967294U}, 0, 0};
  EXPECT_THAT(c.tenants, ElementsAre(search, chat));
}

TEST(Config, TheTestAboveLeavesNoSettingOut) {
  const LoadedConfig changed = *ParseConfig(kEverythingChanged, "t.toml");
  for (const Setting& setting : Settings()) {
    EXPECT_NE(SettingText(setting, changed.config), SettingText(setting, Config())) << setting.name;
  }
}

constexpr std::string_view kTwoDrives =
    "[[tier]]\nkind = \"local\"\npath = \"/mnt/a/g3/\"\ncapacity = \"2GiB\"\n"
    "[[tier]]\nkind = \"local\"\npath = \"/mnt/b//g3\"\ncapacity = \"3GiB\"\n"
    "[local]\nwrites = \"commit\"\n";

TEST(Config, DrivesAreThoseThatAreListedElseTheOneOfLocal) {
  const auto drive = [](const std::string& path, uint64_t gib) {
    TierConfig tier;
    tier.name = "g3";
    tier.kind = kLocalKind;
    tier.path = path;
    tier.capacity_bytes = gib << 30;
    return tier;
  };
  const TierConfig first = drive("/mnt/a/g3", 2);
  const TierConfig second = drive("/mnt/b/g3", 3);
  const absl::StatusOr<LoadedConfig> two = ParseConfig(kTwoDrives, "t.toml");
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_THAT(LocalDrivesOf(two->config), ElementsAre(first, second));
  EXPECT_EQ(two->config.store.local_writes, LocalWrites::kOnCommit);
  EXPECT_THAT(two->tier_origins, ElementsAre("t.toml:1", "t.toml:5"));

  const TierConfig only = drive("/var/lib/terrace/local", 4);
  EXPECT_THAT(LocalDrivesOf(Config()), ElementsAre(only));
  EXPECT_THAT(LocalDrivesOf(ParseConfig("[local]\ncapacity = 0\n", "t.toml")->config), IsEmpty());

  const std::string json = PrintConfigJson(*two);
  EXPECT_THAT(json, HasSubstr(R"("tiers":[{"name":"g3","kind":"local","path":"/mnt/a/g3",)"
                              R"("capacity_bytes":2147483648,"origin":"t.toml:1"},{)"));
  EXPECT_THAT(json, Not(HasSubstr("local.dir")));
  EXPECT_THAT(PrintConfig(*two), HasSubstr("path = \"/mnt/b/g3\"  # t.toml:5\n"));
}

TEST(Config, AnotherDriveNeedsARestart) {
  const Config running = ParseConfig(kTwoDrives, "t.toml")->config;
  Config wanted = running;
  wanted.tiers.pop_back();
  EXPECT_THAT(CompareConfigs(running, wanted).needs_restart, ElementsAre("tier./mnt/b/g3"));
  EXPECT_THAT(CompareConfigs(wanted, running).needs_restart, ElementsAre("tier./mnt/b/g3"));
  EXPECT_THAT(CompareConfigs(running, running).needs_restart, IsEmpty());
}

constexpr std::string_view kTwoPools =
    "[[tier]]\nname = \"g3.5\"\nkind = \"shared\"\npath = \"/mnt/pod//terrace\"\n"
    "capacity = \"1TiB\"\n"
    "[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"/mnt/fleet/terrace\"\n"
    "capacity = \"100TiB\"\nnode_share = \"2TiB\"\npublish = \"reuse\"\nsegment_size = \"1GiB\"\n"
    "free_reserve = \"5TiB\"\ngrace = \"2m\"\ndead_after = \"1h\"\n"
    "[[tenant]]\nalias = \"a\"\nuids = [1]\npublish = \"never\"\n"
    "[[namespace]]\ntenant = \"a\"\nmodel = \"llama/*\"\npublish = \"eviction\"\n"
    "[[namespace]]\npublish = \"commit\"\nmodel = \"*\"\n";

TEST(Config, SharedTiersAreListedBesideTheLocalOne) {
  const absl::StatusOr<LoadedConfig> two = ParseConfig(kTwoPools, "t.toml");
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(LocalDrivesOf(two->config).size(), 1U) << "the one of [local]";
  const std::vector<TierConfig> shared = SharedTiersOf(two->config);
  ASSERT_EQ(shared.size(), 2U);
  EXPECT_EQ(shared[0].path, "/mnt/pod/terrace");
  EXPECT_EQ(shared[0].publish, PublishWhen::kOnCommit);
  EXPECT_EQ(shared[0].node_share_bytes, 0U);
  EXPECT_EQ(shared[0].segment_bytes, uint64_t{256} << 20);
  EXPECT_EQ(shared[1].name, "g4");
  EXPECT_EQ(shared[1].publish, PublishWhen::kOnReuse);
  EXPECT_EQ(shared[1].node_share_bytes, uint64_t{2} << 40);
  EXPECT_EQ(shared[1].free_reserve_bytes, uint64_t{5} << 40);
  EXPECT_EQ(shared[1].grace, absl::Minutes(2));
  EXPECT_EQ(shared[1].dead_after, absl::Hours(1));
  EXPECT_EQ(two->config.tenants[0].publish, PublishWhen::kNever);
  const std::string json = PrintConfigJson(*two);
  EXPECT_THAT(json, HasSubstr(R"("publish":"reuse","segment_bytes":1073741824)"));
  EXPECT_THAT(json, HasSubstr(R"("grace_ms":120000,"dead_after_ms":3600000)"));
  EXPECT_THAT(json, HasSubstr(R"("limit_bytes":0,"publish":"never")"));
  EXPECT_THAT(json, HasSubstr("local.dir"));
}

TEST(Config, RulesOfNamespacesKeepTheirOrderAndAreLive) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(kTwoPools, "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::vector<NamespaceRule> rules = NamespaceRulesOf(loaded->config);
  ASSERT_EQ(rules.size(), 2U);
  EXPECT_EQ(rules[0].tenant, "a");
  EXPECT_EQ(rules[0].model, "llama/*");
  EXPECT_EQ(rules[0].publish, PublishWhen::kOnEviction);
  EXPECT_EQ(rules[1].tenant, "");
  EXPECT_EQ(rules[1].publish, PublishWhen::kOnCommit);
  EXPECT_THAT(
      PrintConfigJson(*loaded),
      HasSubstr(R"({"tenant":"a","model":"llama/*","publish":"eviction","origin":"t.toml:)"));
  Config wanted = loaded->config;
  std::swap(wanted.namespaces[0], wanted.namespaces[1]);
  EXPECT_THAT(CompareConfigs(loaded->config, wanted).live, ElementsAre("namespace"));
  EXPECT_THAT(CompareConfigs(loaded->config, wanted).needs_restart, IsEmpty());
  EXPECT_EQ(WithLiveSettings(loaded->config, wanted).namespaces, wanted.namespaces);
  std::string many;
  for (int i = 0; i < 257; ++i) {
    many += "[[namespace]]\nmodel = \"m\"\npublish = \"never\"\n";
  }
  EXPECT_THAT(MessageOf(ParseConfig(many, "t.toml").status()), HasSubstr("at most 256 rules"));
}

TEST(Config, WhatComputingTakesIsDeclaredByTwoPromptsAndReadBack) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(
      "[[namespace]]\nmodel = \"llama/*\"\nrecompute = \" 8192 :600ms,131072: 19s\"\n", "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::vector<NamespaceRule> rules = NamespaceRulesOf(loaded->config);
  ASSERT_EQ(rules.size(), 1U);
  EXPECT_EQ(rules[0].publish, std::nullopt);
  ASSERT_TRUE(rules[0].recompute.has_value());
  EXPECT_NEAR(rules[0].recompute->Seconds(0, 8192), 0.6, 1e-9);
  EXPECT_NEAR(rules[0].recompute->Seconds(0, 131072), 19, 1e-9);
  const std::string printed = PrintConfig(*loaded);
  EXPECT_THAT(printed, HasSubstr("recompute = \"8192: 600ms, 131072: 19s\"  # t.toml:1\n"));
  EXPECT_EQ(ParseConfig(printed, "p.toml")->config.namespaces, loaded->config.namespaces);
  EXPECT_THAT(PrintConfigJson(*loaded), HasSubstr(R"("recompute":"8192: 600ms, 131072: 19s")"));
}

TEST(Config, AProtectedPoolIsPrintedWithTheWayToItsKeyAndReadBack) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(
      "[[tier]]\nname = \"g3.5\"\nkind = \"shared\"\npath = \"/mnt/pod\"\ncapacity = \"1TiB\"\n"
      "auth = \"mac\"\nkey_credential = \"pod.key\"\n"
      "[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"/mnt/fleet\"\ncapacity = \"1TiB\"\n"
      "auth = \"encrypt\"\nkey_file = \"/etc/terrace/fleet.key\"\n",
      "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::vector<TierConfig> shared = SharedTiersOf(loaded->config);
  EXPECT_EQ(shared[0].auth, PoolAuth::kMac);
  EXPECT_EQ(shared[0].key_credential, "pod.key");
  EXPECT_EQ(shared[1].auth, PoolAuth::kEncrypt);
  EXPECT_EQ(shared[1].key_file, "/etc/terrace/fleet.key");
  const std::string text = PrintConfig(*loaded);
  EXPECT_THAT(text,
              HasSubstr("auth = \"encrypt\"  # t.toml:8\nkey_file = \"/etc/terrace/fleet.key\""));
  const absl::StatusOr<LoadedConfig> again = ParseConfig(text, "printed.toml");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->config.tiers, loaded->config.tiers);
  const std::string json = PrintConfigJson(*loaded);
  EXPECT_THAT(json, HasSubstr(R"("auth":"mac","key_credential":"pod.key")"));
  EXPECT_THAT(json, HasSubstr(R"("auth":"encrypt","key_file":"/etc/terrace/fleet.key")"));
  EXPECT_THAT(PrintConfigJson(*ParseConfig(kTwoPools, "t.toml")), HasSubstr(R"("auth":"none")"));
}

TEST(Config, ASharedTierNeedsARestartAndATenantsPublishingDoesNot) {
  const Config running = ParseConfig(kTwoPools, "t.toml")->config;
  Config wanted = running;
  wanted.tiers[1].publish = PublishWhen::kOnCommit;
  wanted.tenants[0].publish = std::nullopt;
  const ConfigDifference difference = CompareConfigs(running, wanted);
  EXPECT_THAT(difference.needs_restart, ElementsAre("tier./mnt/fleet/terrace"));
  EXPECT_THAT(difference.live, ElementsAre("tenant.a"));
  EXPECT_EQ(WithLiveSettings(running, wanted).tenants[0].publish, std::nullopt);
  EXPECT_EQ(WithLiveSettings(running, wanted).tiers[1].publish, PublishWhen::kOnReuse);
}

TEST(Config, PrintedConfigReadsBackAsItself) {
  for (const std::string& text : {std::string(), std::string(kEverythingChanged),
                                  std::string(kTwoDrives), std::string(kTwoPools)}) {
    const absl::StatusOr<LoadedConfig> first = ParseConfig(text, "t.toml");
    ASSERT_TRUE(first.ok()) << first.status();
    const std::string printed = PrintConfig(*first);
    const absl::StatusOr<LoadedConfig> second = ParseConfig(printed, "p.toml");
    ASSERT_TRUE(second.ok()) << second.status() << "\n" << printed;
    for (const Setting& setting : Settings()) {
      EXPECT_EQ(SettingText(setting, first->config), SettingText(setting, second->config))
          << setting.name;
    }
    EXPECT_EQ(first->config.tiers, second->config.tiers);
    EXPECT_EQ(first->config.tenants, second->config.tenants);
    EXPECT_EQ(first->config.namespaces, second->config.namespaces);
    EXPECT_EQ(first->config.socket_gid, second->config.socket_gid);
  }
}

TEST(Config, PrintedConfigSaysWhereEverySettingCameFrom) {
  const LoadedConfig loaded =
      *ParseConfig("[dram]\ncapacity = \"2GiB\"\n[[tenant]]\nalias='a'\nuids=[1]\n", "/e/t.toml");
  const std::string printed = PrintConfig(loaded);
  EXPECT_THAT(printed, HasSubstr("capacity = \"2GiB\"  # /e/t.toml:2\n"));
  EXPECT_THAT(printed, HasSubstr("io_threads = 2  # default\n"));
  EXPECT_THAT(printed, HasSubstr("alias = \"a\"  # /e/t.toml:3\n"));
  for (const Setting& setting : Settings()) {
    EXPECT_THAT(printed, HasSubstr("\n" + std::string(setting.key()) + " = ")) << setting.name;
  }
}

TEST(Config, OriginsCannotBreakOutOfTheirComment) {
  LoadedConfig loaded = *ParseConfig("", "t.toml");
  loaded.origins[0] = "evil\n[dram]\ncapacity = 1";
  const absl::StatusOr<LoadedConfig> again = ParseConfig(PrintConfig(loaded), "p.toml");
  EXPECT_TRUE(again.ok()) << again.status();
}

TEST(Config, JsonHoldsEverySettingAndTenant) {
  const LoadedConfig loaded = *ParseConfig(kEverythingChanged, "t.toml");
  const std::string json = PrintConfigJson(loaded);
  EXPECT_EQ(json.find('\n'), std::string::npos);
  EXPECT_THAT(json, HasSubstr(R"({"name":"dram.capacity","value":"3GiB","origin":"t.toml:11"})"));
  EXPECT_THAT(json, HasSubstr(R"({"name":"dram.pin_share","value":1.0,"origin":"t.toml:19"})"));
  EXPECT_THAT(
      json,
      HasSubstr(
          R"({"alias":"search","uids":[1001, 1002],"gids":[],"guaranteed_bytes":1073741824)"));
}

TEST(Config, TheAnnotatedExampleIsTheDefaults) {
  const std::string text = ReadAll(TERRACE_EXAMPLE_CONFIG);
  ASSERT_FALSE(text.empty()) << TERRACE_EXAMPLE_CONFIG;
  const absl::StatusOr<LoadedConfig> as_it_is = ParseConfig(text, "terraced.toml");
  ASSERT_TRUE(as_it_is.ok()) << as_it_is.status();

  // "#key = value" is a setting, "# text" is prose.
  std::istringstream lines(text);
  std::string uncommented;
  for (std::string line; std::getline(lines, line);) {
    const bool setting = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    uncommented += (setting ? line.substr(1) : line) + "\n";
  }
  const absl::StatusOr<LoadedConfig> written_out = ParseConfig(uncommented, "terraced.toml");
  ASSERT_TRUE(written_out.ok()) << written_out.status();
  for (size_t i = 0; i < Settings().size(); ++i) {
    const Setting& setting = Settings()[i];
    EXPECT_EQ(as_it_is->origins[i], "default") << setting.name;
    EXPECT_NE(written_out->origins[i], "default") << setting.name << " is missing in the example";
    EXPECT_EQ(SettingText(setting, written_out->config), SettingText(setting, Config()))
        << setting.name;
  }
}

// The lines from "# [[...]]" up to the next that is none of a section in comments.
std::string ExampleOf(const std::string& begins_with) {
  const std::string text = ReadAll(TERRACE_EXAMPLE_CONFIG);
  const size_t begin = text.find(begins_with);
  if (begin == std::string::npos) {
    return "";
  }
  std::istringstream lines(text.substr(begin));
  std::string example;
  for (std::string line; std::getline(lines, line) && line.starts_with("# ");) {
    example += line.substr(2) + "\n";
  }
  return example;
}

TEST(Config, TheTiersOfTheExampleAreValid) {
  const std::string tiers = ExampleOf("# [[tier]]\n") + ExampleOf("# [[tier]]\n# name = \"g3.5\"");
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(tiers, "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status() << "\n" << tiers;
  EXPECT_EQ(LocalDrivesOf(loaded->config).size(), 2U);
  EXPECT_EQ(SharedTiersOf(loaded->config).size(), 2U);
}

TEST(Config, TheTenantOfTheExampleIsValid) {
  const std::string tenant = ExampleOf("# [[tenant]]\n");
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(tenant, "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status() << "\n" << tenant;
  ASSERT_EQ(loaded->config.tenants.size(), 1U);
  EXPECT_EQ(loaded->config.tenants[0].guaranteed_bytes, uint64_t{256} << 20);
  EXPECT_EQ(loaded->config.tenants[0].limit_bytes, 0U);
}

TEST(Config, BoundsAreInclusive) {
  EXPECT_TRUE(
      ParseConfig(
          "[dram]\ncapacity = \"64MiB\"\nverify_one_in = 0\nlease_share = 0\npin_share = 1.0\n",
          "t")
          .ok());
  EXPECT_TRUE(ParseConfig("[dram]\ncapacity = \"64TiB\"\nverify_one_in = 1000000\n", "t").ok());
  EXPECT_TRUE(
      ParseConfig("[daemon]\nio_threads = 64\nruntime_dir = \"/" + std::string(93, 'r') + "\"\n",
                  "t")
          .ok());
  EXPECT_TRUE(ParseConfig("[limits]\nhello_timeout = \"100ms\"\nprobe_cap = \"10m\"\n", "t").ok());
  EXPECT_TRUE(ParseConfig("[metrics]\nlisten = \"127.255.255.254:0\"\n", "t").ok());
}

TEST(Config, CharactersOutsideAsciiMayStandInStringsAndComments) {
  const std::string text =
      "\xef\xbb\xbf# caf\xc3\xa9 \"\n[daemon] # \xe2\x82\xac\nruntime_dir = "
      "\"/run/caf\xc3\xa9\\\"\" # '\n"
      "data_dir = '/var/\xe2\x82\xac\\'\n[sockets]\ngroup = \"\"\"0\"\"\"\n";
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(text, "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.runtime_dir, "/run/caf\xc3\xa9\"");
  EXPECT_EQ(loaded->config.data_dir, "/var/\xe2\x82\xac\\");
}

TEST(Config, StringsKeepWhatStandsInForOtherCharacters) {
  const std::string text =
      "[daemon]\nruntime_dir = \"/~7e/\\u007ec3/\\u00e9~\xc3\xa9`c3\"\n"
      "data_dir = \"\"\"/~c3\\\n  \xe2\x80\xa8\"\"\"\n";
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(text, "t.toml");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.runtime_dir, "/~7e/~c3/\xc3\xa9~\xc3\xa9`c3");
  EXPECT_EQ(loaded->config.data_dir, "/~c3\xe2\x80\xa8");
}

TEST(Config, SizesReadBackFromTheirText) {
  for (const uint64_t bytes :
       {uint64_t{0}, uint64_t{1}, uint64_t{1023}, uint64_t{1024}, uint64_t{1} << 20,
        (uint64_t{1} << 20) + 1, uint64_t{3} << 30, uint64_t{5} << 40}) {
    const absl::StatusOr<uint64_t> back = ParseSize(SizeText(bytes));
    ASSERT_TRUE(back.ok()) << SizeText(bytes);
    EXPECT_EQ(*back, bytes);
  }
  EXPECT_EQ(*ParseSize("64 MiB"), uint64_t{64} << 20);
  EXPECT_EQ(*ParseSize("4096"), 4096U);
}

TEST(Config, APeerBelongsToTheTenantThatListsItsUserElseItsGroup) {
  const Config config = ParseConfig(
                            "[[tenant]]\nalias = \"by-group\"\ngids = [50]\n"
                            "[[tenant]]\nalias = \"by-user\"\nuids = [1000]\n",
                            "t")
                            ->config;
  EXPECT_EQ(*TenantOf(config, {.uid = 1000, .gid = 50}), "by-user");
  EXPECT_EQ(*TenantOf(config, {.uid = 1001, .gid = 50}), "by-group");
  EXPECT_EQ(*TenantOf(config, {.uid = 1001, .gid = 51}), "uid-1001");
}

TEST(Config, UnlistedPeersCanBeDenied) {
  const Config config = ParseConfig("[sockets]\nunlisted = \"deny\"\n", "t")->config;
  EXPECT_EQ(TenantOf(config, {.uid = 0, .gid = 0}).status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST(Config, TheDifferenceNamesEverySettingThatDiffers) {
  const Config wanted = ParseConfig(kEverythingChanged, "t")->config;
  const ConfigDifference difference = CompareConfigs(Config(), wanted);
  EXPECT_THAT(difference.live, ElementsAre("daemon.log_level", "sockets.unlisted", "tenant.search",
                                           "tenant.chat.v2_x-1"));
  EXPECT_EQ(difference.needs_restart.size(), Settings().size() - 2) << "all others";
  EXPECT_THAT(difference.needs_restart, Contains("dram.capacity"));
}

TEST(Config, LiveSettingsAndNoOthersAreTakenOver) {
  const Config wanted = ParseConfig(kEverythingChanged, "t")->config;
  const Config result = WithLiveSettings(Config(), wanted);
  const ConfigDifference left = CompareConfigs(result, wanted);
  EXPECT_THAT(left.live, IsEmpty());
  EXPECT_EQ(left.needs_restart, CompareConfigs(Config(), wanted).needs_restart);
}

TEST(Config, EqualConfigsDoNotDiffer) {
  const Config config = ParseConfig(kEverythingChanged, "t")->config;
  const ConfigDifference difference = CompareConfigs(config, config);
  EXPECT_THAT(difference.live, IsEmpty());
  EXPECT_THAT(difference.needs_restart, IsEmpty());
}

TEST(Config, ATenantThatIsGoneIsADifference) {
  const Config running = ParseConfig("[[tenant]]\nalias = \"a\"\nuids = [1]\n", "t")->config;
  EXPECT_THAT(CompareConfigs(running, Config()).live, ElementsAre("tenant.a"));
}

}  // namespace
}  // namespace terrace
