// The [[events]] sections: read, refused, printed, compared.
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/config.h"
#include "daemon/config_events.h"
#include "tests/unit/daemon_ops/bad_tier_configs.h"

namespace terrace {
namespace {

using ::testing::HasSubstr;

constexpr char kTenants[] =
    "[[tenant]]\nalias = \"search\"\nuids = [1]\n[[tenant]]\nalias = \"batch\"\nuids = [2]\n";
// Another value than the default for every key.
constexpr char kEverything[] = R"([[events]]
tenant = "search"
zmq_endpoint = "tcp://127.0.0.1:5557"
zmq_replay_endpoint = "ipc:///run/t/replay.sock"
topic = "kv@pod-1@m"
model = "m/*"
dram_medium = "CPU_PINNED"
local_medium = "DISK"
format = "array"
hashes = "bytes"
data_parallel_rank = 3
buffer_steps = 7
buffer = "2MiB"
high_water_mark = 9
socket_mode = "0660"
[[events]]
tenant = "uid-1001"
zmq_endpoint = "tcp://[::1]:5559"
)";

LoadedConfig Loaded(const std::string& text) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(text, "t.toml");
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? *loaded : LoadedConfig();
}

std::vector<BadConfig> BadEvents() {
  const std::string head = "[[events]]\ntenant = \"uid-1\"\n";
  const std::string whole = head + "zmq_endpoint = \"tcp://127.0.0.1:1\"\n";
  const std::string of_daemon = head + "zmq_endpoint = \"ipc:///r/session.sock\"\n";
  return {
      {"AsTable", "[events]\n", "t.toml:1: events: write [[events]], once for each publisher"},
      {"AsValue", "events = 1\n", "t.toml:1: events: write [[events]], once for each publisher"},
      {"UnknownKey", whole + "topics = \"\"\n",
       "t.toml:4: unknown key 'topics' in [[events]]; did you mean topic?"},
      {"NoTenant", "[[events]]\nzmq_endpoint = \"tcp://127.0.0.1:1\"\n",
       "t.toml:1: events.tenant: is missing"},
      {"NoEndpoint", head, "t.toml:1: events.zmq_endpoint: is missing"},
      {"TenantUnknown", "[[events]]\ntenant = \"x\"\nzmq_endpoint = \"tcp://127.0.0.1:1\"\n",
       "t.toml:1: events.tenant: there is no tenant 'x'"},
      {"TenantNoUser", "[[events]]\ntenant = \"uid-x\"\nzmq_endpoint = \"tcp://127.0.0.1:1\"\n",
       "t.toml:1: events.tenant: there is no tenant 'uid-x'"},
      {"TenantThatNobodyCanBe", "[sockets]\nunlisted = \"deny\"\n" + whole,
       "t.toml:3: events.tenant: there is no tenant 'uid-1'"},
      {"TwoTenantsAtOneEndpoint",
       whole + "[[events]]\ntenant = \"uid-2\"\nzmq_endpoint = \"tcp://127.0.0.1:1\"\n",
       "t.toml:4: events.zmq_endpoint: tcp://127.0.0.1:1 is taken by an endpoint of tenant uid-1; "
       "each publisher has endpoints of its own"},
      {"ReplayAtTheSameEndpoint", whole + "zmq_replay_endpoint = \"tcp://127.0.0.1:1\"\n",
       "t.toml:1: events.zmq_endpoint: tcp://127.0.0.1:1 is taken by *"},
      {"TheDaemonsSocket", "[daemon]\nruntime_dir = \"/r\"\n" + of_daemon,
       "t.toml:3: events.zmq_endpoint: is a socket of the daemon: ipc:///r/session.sock"},
      {"Format", whole + "format = \"json\"\n",
       "t.toml:4: events.format: must be map or array, not 'json'"},
      {"Hashes", whole + "hashes = 64\n",
       "t.toml:4: events.hashes: must be int or bytes, not an integer"},
      {"Steps", whole + "buffer_steps = 1000001\n",
       "t.toml:4: events.buffer_steps: must be 0 to 1000000, not 1000001"},
      {"Buffer", whole + "buffer = \"1B\"\n",
       "t.toml:4: events.buffer: must be 1MiB to 64GiB, not 1B"},
      {"HighWaterMark", whole + "high_water_mark = 0\n",
       "t.toml:4: events.high_water_mark: must be 1 to 1000000, not 0"},
      {"Rank", whole + "data_parallel_rank = -1\n",
       "t.toml:4: events.data_parallel_rank: must be 0 to 65535, not -1"},
      {"Medium", whole + "dram_medium = \"\"\n",
       "t.toml:4: events.dram_medium: must have 1 to 32 characters, not 0"},
      {"Topic", whole + "topic = \"" + std::string(257, 'x') + "\"\n",
       "t.toml:4: events.topic: must have 0 to 256 characters, not 257"},
      {"TopicControl", whole + "topic = \"a\\u0001\"\n",
       "t.toml:4: events.topic: must not hold control characters: *"},
      {"Mode", whole + "socket_mode = \"0777\"\n",
       "t.toml:4: events.socket_mode: must be four octal digits in quotes with which the owner "
       "reads and writes and nobody executes, such as \"0660\", not '0777'"},
  };
}

std::vector<BadConfig> BadEndpoints() {
  const std::string head = "[[events]]\ntenant = \"uid-1\"\n";
  const std::string form =
      "must be \"tcp://ADDRESS:PORT\" with an address in numbers (0.0.0.0 for every host that "
      "reaches this one) or \"ipc:///PATH\" of at most 107 bytes, not ";
  const auto endpoint = [&](const std::string& text) {
    return head + "zmq_endpoint = \"" + text + "\"\n";
  };
  const auto refused = [&](const std::string& text) {
    return "t.toml:3: events.zmq_endpoint: " + form + "'" + text + "'";
  };
  return {
      {"EndpointEmpty", endpoint(""), refused("")},
      {"EndpointAnyHost", endpoint("tcp://*:5557"), refused("tcp://*:5557")},
      {"EndpointName", endpoint("tcp://localhost:5557"), refused("tcp://localhost:5557")},
      {"EndpointNoPort", endpoint("tcp://127.0.0.1"), refused("tcp://127.0.0.1")},
      {"EndpointPort", endpoint("tcp://127.0.0.1:65536"), refused("tcp://127.0.0.1:65536")},
      {"EndpointPortSign", endpoint("tcp://127.0.0.1:+1"), refused("tcp://127.0.0.1:+1")},
      {"EndpointIpv6Bare", endpoint("tcp://::1:5557"), refused("tcp://::1:5557")},
      {"EndpointKind", endpoint("udp://127.0.0.1:1"), refused("udp://127.0.0.1:1")},
      {"EndpointInproc", endpoint("inproc://x"), refused("inproc://x")},
      {"EndpointRelative", endpoint("ipc://x"), refused("ipc://x")},
      {"EndpointLong", endpoint("ipc:///" + std::string(107, 'x')),
       "t.toml:3: events.zmq_endpoint: " + form + "*"},
      {"EndpointNumber", head + "zmq_endpoint = 5557\n",
       "t.toml:3: events.zmq_endpoint: " + form + "an integer"},
  };
}

class BadEventsTest : public testing::TestWithParam<BadConfig> {};

TEST_P(BadEventsTest, IsRefusedWithOnePreciseLine) {
  const BadConfig& bad = GetParam();
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(bad.text, "t.toml");
  ASSERT_FALSE(loaded.ok());
  const std::string message(loaded.status().message());
  if (bad.message.back() == '*') {
    EXPECT_TRUE(message.starts_with(bad.message.substr(0, bad.message.size() - 1))) << message;
  } else {
    EXPECT_EQ(message, bad.message);
  }
  EXPECT_EQ(message.find_first_of("\n\r"), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(Endpoints,
                         BadEventsTest,
                         testing::ValuesIn(BadEndpoints()),
                         [](const auto& bad) { return bad.param.name; });
INSTANTIATE_TEST_SUITE_P(Others, BadEventsTest, testing::ValuesIn(BadEvents()), [](const auto& bad) {
  return bad.param.name;
});

TEST(EventsConfig, EveryKeyReachesItsField) {
  EXPECT_TRUE(Loaded("").config.events.empty()) << "off unless it is asked for";
  const LoadedConfig loaded = Loaded(std::string(kTenants) + kEverything);
  ASSERT_EQ(loaded.config.events.size(), 2U);
  const EventPublisherOptions& events = loaded.config.events[0];
  EXPECT_EQ(events.tenant, "search");
  EXPECT_EQ(events.zmq_endpoint, "tcp://127.0.0.1:5557");
  EXPECT_EQ(events.zmq_replay_endpoint, "ipc:///run/t/replay.sock");
  EXPECT_EQ(events.topic, "kv@pod-1@m");
  EXPECT_EQ(events.model, "m/*");
  EXPECT_EQ(events.dram_medium, "CPU_PINNED");
  EXPECT_EQ(events.local_medium, "DISK");
  EXPECT_EQ(events.format, EventFormat::kArray);
  EXPECT_EQ(events.hashes, EventHashes::kBytes);
  EXPECT_EQ(events.data_parallel_rank, 3U);
  EXPECT_EQ(events.buffer_steps, 7U);
  EXPECT_EQ(events.buffer_bytes, uint64_t{2} << 20);
  EXPECT_EQ(events.high_water_mark, 9U);
  EXPECT_EQ(events.socket_mode, 0660U);
  const EventPublisherOptions& defaults = loaded.config.events[1];
  EXPECT_EQ(defaults.zmq_endpoint, "tcp://[::1]:5559");
  EXPECT_EQ(defaults.dram_medium, "CPU");
  EXPECT_EQ(defaults.local_medium, "STORAGE");
  EXPECT_EQ(defaults.format, EventFormat::kMap);
  EXPECT_EQ(defaults.hashes, EventHashes::kInt);
}

TEST(EventsConfig, IsPrintedAndReadBack) {
  const LoadedConfig loaded = Loaded(std::string(kTenants) + kEverything);
  const LoadedConfig again = Loaded(PrintConfig(loaded));
  EXPECT_TRUE(again.config.events == loaded.config.events);
  const std::string json = PrintConfigJson(loaded);
  EXPECT_THAT(json, HasSubstr("\"events\":[{\"tenant\":\"search\",\"zmq_endpoint\":\"tcp://"));
  EXPECT_THAT(json, HasSubstr("\"origin\":\"t.toml:7\"}"));
}

TEST(EventsConfig, ADifferenceNeedsARestart) {
  const Config running = Loaded(kTenants).config;
  const Config wanted = Loaded(std::string(kTenants) + kEverything).config;
  EXPECT_THAT(CompareConfigs(running, wanted).needs_restart, testing::ElementsAre("events"));
  EXPECT_TRUE(WithLiveSettings(running, wanted).events.empty());
  EXPECT_TRUE(CompareConfigs(wanted, wanted).needs_restart.empty());
}

TEST(EventsConfig, TheSectionOfTheExampleIsTheDefaults) {
  const std::ifstream file(TERRACE_EXAMPLE_CONFIG);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string example = text.str();
  const size_t begin = example.find("# [[events]]\n");
  ASSERT_NE(begin, std::string::npos);
  std::istringstream lines(example.substr(begin, example.find("\n\n", begin) - begin));
  std::string section;
  size_t keys = 0;
  for (std::string line; std::getline(lines, line);) {
    section += line.substr(2) + "\n";
    keys += line.find(" = ") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(keys, std::size(kEventsKeys)) << "every key stands there";
  EventPublisherOptions expected;
  expected.tenant = "search";
  expected.zmq_endpoint = "tcp://127.0.0.1:5557";
  expected.zmq_replay_endpoint = "tcp://127.0.0.1:5558";
  expected.model = "meta-llama/*";
  const LoadedConfig loaded = Loaded(kTenants + section);
  ASSERT_EQ(loaded.config.events.size(), 1U);
  EXPECT_TRUE(loaded.config.events[0] == expected);
}

TEST(EventsConfig, ThereAreSixteenPublishersAtMost) {
  std::string text;
  for (size_t i = 1; i <= kMaxEventPublishers; ++i) {
    text +=
        "[[events]]\ntenant = \"uid-1\"\nzmq_endpoint = \"ipc:///s" + std::to_string(i) + "\"\n";
  }
  EXPECT_EQ(Loaded(text).config.events.size(), kMaxEventPublishers);
  text += "[[events]]\ntenant = \"uid-1\"\nzmq_endpoint = \"ipc:///s0\"\n";
  EXPECT_EQ(ParseConfig(text, "t.toml").status().message(),
            "t.toml:49: events: at most 16 sections");
}

TEST(EventsConfig, WhatOtherHostsReachIsKnown) {
  for (const char* here :
       {"tcp://127.0.0.1:1", "tcp://127.8.8.8:1", "tcp://[::1]:1", "ipc:///x", ""}) {
    EXPECT_FALSE(IsOffHost(here)) << here;
  }
  for (const char* everywhere : {"tcp://0.0.0.0:1", "tcp://10.0.0.1:1", "tcp://[::]:1"}) {
    EXPECT_TRUE(IsOffHost(everywhere)) << everywhere;
  }
}

}  // namespace
}  // namespace terrace
