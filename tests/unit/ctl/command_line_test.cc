#include "tools/ctl/command_line.h"

#include <gtest/gtest.h>

#include "tools/ctl/format.h"

namespace terrace::ctl {
namespace {

constexpr const char* kDigest = "00112233445566778899aabbccddeeff";

std::variant<CommandLine, EarlyEnd> Parse(std::vector<std::string> args,
                                          absl::string_view environment = "") {
  return ParseCommandLine(args, environment);
}

CommandLine Line(std::vector<std::string> args) {
  std::variant<CommandLine, EarlyEnd> parsed = Parse(std::move(args));
  if (const auto* end = std::get_if<EarlyEnd>(&parsed)) {
    ADD_FAILURE() << end->text;
    return {};
  }
  return std::get<CommandLine>(std::move(parsed));
}

EarlyEnd End(std::vector<std::string> args) {
  std::variant<CommandLine, EarlyEnd> parsed = Parse(std::move(args));
  if (!std::holds_alternative<EarlyEnd>(parsed)) {
    ADD_FAILURE() << "was accepted";
    return {-1, "", "", CommandLine::Output::kText};
  }
  return std::get<EarlyEnd>(std::move(parsed));
}

TEST(CommandLine, RuntimeComesFromTheOptionThenTheEnvironmentThenTheDefault) {
  EXPECT_EQ(std::get<CommandLine>(Parse({"status"})).runtime_dir, "/run/terrace");
  EXPECT_EQ(std::get<CommandLine>(Parse({"status"}, "/tmp/e")).runtime_dir, "/tmp/e");
  EXPECT_EQ(std::get<CommandLine>(Parse({"--runtime", "/tmp/o", "status"}, "/tmp/e")).runtime_dir,
            "/tmp/o");
}

TEST(CommandLine, GlobalOptionsStandBeforeOrBehindTheVerb) {
  for (const CommandLine& line : {Line({"--json", "--timeout", "3s", "status"}),
                                  Line({"status", "--json", "--timeout", "3"})}) {
    EXPECT_EQ(line.verb, "status");
    EXPECT_EQ(line.output, CommandLine::Output::kJson);
    EXPECT_EQ(line.timeout, absl::Seconds(3));
  }
}

TEST(CommandLine, KeysAreHexadecimalOrHashedText) {
  const std::string key(32, '\x5a');
  const CommandLine line = Line({"probe", "--namespace-digest", kDigest, "--key", Hex(key),
                                 "--key-text", "hello", "--key-text", "world"});
  ASSERT_EQ(line.blocks.keys.size(), 3U);
  EXPECT_EQ(line.blocks.keys[0], key);
  EXPECT_EQ(Hex(line.blocks.keys[1]),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
  EXPECT_EQ(line.blocks.keys[2].size(), 32U);
  EXPECT_EQ(Hex(line.blocks.ns.digest), kDigest);
}

TEST(CommandLine, RecordOptionsFillTheRecord) {
  const CommandLine line =
      Line({"put",   "--model",    "m",          "--weights-revision", "r",     "--kv-dtype",
            "bf16",  "--layout",   "l/1",        "--block-bytes",      "64KiB", "--hash-algorithm",
            "h",     "--group",    "2",          "--shard-count",      "4",     "--shard-rank",
            "3",     "--sharding", "replicated", "--key-suffix",       "0002",  "--label",
            "a=b=c", "--label",    "d=",         "--key-text",         "k"});
  const v1::NamespaceRecord& record = line.blocks.ns.record;
  EXPECT_EQ(record.model(), "m");
  EXPECT_EQ(record.weights_revision(), "r");
  EXPECT_EQ(record.block_bytes(), 65536U);
  EXPECT_EQ(record.group(), 2U);
  EXPECT_EQ(record.shard_count(), 4U);
  EXPECT_EQ(record.shard_rank(), 3U);
  EXPECT_EQ(record.sharding(), v1::SHARDING_REPLICATED);
  EXPECT_EQ(record.key_suffix(), std::string("\x00\x02", 2));
  EXPECT_EQ(record.labels().at("a"), "b=c");
  EXPECT_EQ(record.labels().at("d"), "");
  EXPECT_TRUE(line.blocks.ns.digest.empty());
}

TEST(CommandLine, OptionsOfAVerbAreRead) {
  const std::vector<std::string> ns = {"--namespace-digest", kDigest, "--key-text", "k"};
  const auto with = [&](std::vector<std::string> args) {
    args.insert(args.end(), ns.begin(), ns.end());
    return Line(args);
  };
  EXPECT_EQ(with({"probe", "--hold", "30s"}).probe.hold, absl::Seconds(30));
  EXPECT_EQ(with({"probe", "--prefetch"}).probe.prefetch, ProbeOptions::Prefetch::kYes);
  EXPECT_EQ(with({"put", "--wait-for", "local-synced"}).put.wait_for, v1::LEVEL_LOCAL_SYNCED);
  EXPECT_EQ(with({"put", "--parent-text", "p"}).put.parent, KeyOfText("p"));
  EXPECT_EQ(with({"get", "--hold-id", kDigest, "--wait", "2s"}).get.wait, absl::Seconds(2));
  EXPECT_EQ(with({"prefetch", "--priority", "high", "--deadline", "1m"}).prefetch.priority,
            v1::PRIORITY_HIGH);
  EXPECT_EQ(with({"pin", "--ttl", "1h"}).pin_ttl, absl::Hours(1));
  EXPECT_EQ(with({"explain", "--tenant", "t"}).tenant, "t");
  EXPECT_EQ(with({"get", "--rule", "window", "--window", "128"}).blocks.window_tokens, 128U);
  EXPECT_EQ(with({"get", "--salt-text", "s"}).blocks.salt, "s");
  EXPECT_EQ(Line({"evict", "--target", "512MiB"}).evict_target_bytes, uint64_t{512} << 20);
  EXPECT_EQ(Line({"quota", "t", "--limit", "2GiB"}).quota.limit_bytes, uint64_t{2} << 30);
  EXPECT_FALSE(Line({"quota", "t", "--limit", "0"}).quota.guaranteed_bytes.has_value());
  EXPECT_EQ(Line({"quota", "t", "--limit", "0"}).quota.limit_bytes, 0U);
  EXPECT_EQ(Line({"top", "--once"}).top.repeat, TopOptions::Repeat::kOnce);
  EXPECT_EQ(Line({"top", "--json"}).top.repeat, TopOptions::Repeat::kOnce);
  EXPECT_EQ(Line({"doctor", "--data", "/a", "--data", "/b"}).doctor_dirs,
            (std::vector<std::string>{"/a", "/b"}));
}

struct WrongUsage {
  std::vector<std::string> args;
  std::string says;  // a piece of the complaint
};

class WrongUsages : public testing::TestWithParam<WrongUsage> {};

TEST_P(WrongUsages, EndWithTwoAndSayWhat) {
  const EarlyEnd end = End(GetParam().args);
  EXPECT_EQ(end.exit_code, kExitUsage);
  EXPECT_EQ(end.topic, "usage");
  EXPECT_NE(end.text.find(GetParam().says), std::string::npos) << end.text;
}

INSTANTIATE_TEST_SUITE_P(
    Each,
    WrongUsages,
    testing::Values(
        WrongUsage{{}, "name a verb"},
        WrongUsage{{"frob"}, "no verb 'frob'"},
        WrongUsage{{"status", "extra"}, "extra"},
        WrongUsage{{"status", "--nope"}, "--nope"},
        WrongUsage{{"--timeout", "0", "status"}, "--timeout"},
        WrongUsage{{"--timeout", "soon", "status"}, "--timeout"},
        WrongUsage{{"probe", "--key-text", "k"}, "name a namespace"},
        WrongUsage{{"probe", "--namespace-digest", kDigest}, "at least one key"},
        WrongUsage{{"probe", "--namespace-digest", "0011", "--key-text", "k"}, "a digest has 32"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--model", "m", "--key-text", "k"},
                   "in one way only"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--record", "f", "--key-text", "k"},
                   "in one way only"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--key", "zz"}, "--key: character 1"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--key", "0011"},
                   "2 bytes; a key has 16 to 64"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--key", std::string(32, '0'),
                    "--key-text", "k"},
                   "16 and of 32 bytes"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--key-text", "k", "--rule", "odd"},
                   "prefix, window"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--key-text", "k", "--rule", "window"},
                   "--window"},
        WrongUsage{{"probe", "--namespace-digest", kDigest, "--key-text", "k", "--salt-text",
                    std::string(257, 's')},
                   "257 bytes, the limit is 256"},
        WrongUsage{{"put", "--namespace-digest", kDigest, "--key-text", "a", "--key-text", "b",
                    "--file", "x"},
                   "2 keys and 1 files"},
        WrongUsage{{"put", "--namespace-digest", kDigest, "--key-text", "a", "--key-text", "b",
                    "--file", "-", "--file", "-"},
                   "once only"},
        WrongUsage{{"get", "--namespace-digest", kDigest, "--key-text", "k", "--json"}, "--out"},
        WrongUsage{{"get", "--namespace-digest", kDigest, "--key-text", "k", "--hold-id", "00"},
                   "--hold-id"},
        WrongUsage{{"explain", "--namespace-digest", kDigest, "--key-text", "a", "--key-text", "b"},
                   "one key"},
        WrongUsage{{"probe", "--model", "m", "--label", "nolabel", "--key-text", "k"},
                   "NAME=VALUE"},
        WrongUsage{{"probe", "--model", "m", "--block-bytes", "big", "--key-text", "k"},
                   "--block-bytes"},
        WrongUsage{{"evict"}, "--target"},
        WrongUsage{{"evict", "--target", "-5"}, "--target"},
        WrongUsage{{"quota"}, "TENANT"},
        WrongUsage{{"top", "--interval", "1ms"}, "--interval"},
        WrongUsage{{"events", "--namespace", "abcd"}, "--namespace"},
        WrongUsage{{"events", "--count", "many"}, "--count"}));

TEST(CommandLine, EveryVerbHasHelpWithAnExample) {
  for (const char* verb :
       {"status",   "top",    "tiers",   "tenants", "namespaces", "probe",  "put",   "get",
        "prefetch", "delete", "explain", "evict",   "drain",      "verify", "quota", "reload",
        "pin",      "unpin",  "doctor",  "scrub",   "events",     "pool"}) {
    const EarlyEnd end = End({verb, "--help"});
    EXPECT_EQ(end.exit_code, kExitOk);
    EXPECT_EQ(end.topic, "help");
    EXPECT_NE(end.text.find(std::string("Example:\n  terracectl ") + verb), std::string::npos)
        << end.text;
    EXPECT_NE(End({"--help"}).text.find(verb), std::string::npos);
  }
}

TEST(CommandLine, VersionAndErrorsRememberThatJsonWasAskedFor) {
  EXPECT_EQ(End({"--version"}).text, "terracectl " + std::string(Version()));
  EXPECT_EQ(End({"--version", "--json"}).output, CommandLine::Output::kJson);
  EXPECT_EQ(End({"frob", "--json"}).output, CommandLine::Output::kJson);
  EXPECT_EQ(End({"evict", "--target", "x", "--json"}).output, CommandLine::Output::kJson);
}

TEST(CommandLine, ARuntimeFolderThatNoSocketFitsIntoIsAConfigurationError) {
  const EarlyEnd end = End({"--runtime", "/" + std::string(120, 'x'), "status"});
  EXPECT_EQ(end.exit_code, kExitConfiguration);
  EXPECT_EQ(End({"--runtime", "", "status"}).exit_code, kExitConfiguration);
}

}  // namespace
}  // namespace terrace::ctl
