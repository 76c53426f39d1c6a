// Whole runs of terracectl against a double of the daemon: what goes to which stream, exit codes,
// JSON shapes.
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/unit/ctl/daemon_double.h"
#include "tiers/os/descriptor.h"
#include "tools/ctl/command_line.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/proto_json.h"

namespace terrace::ctl {
namespace {

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string err;
};

class Verbs : public testing::Test {
 protected:
  static Outcome RunIn(const std::string& runtime,
                       std::vector<std::string> args,
                       const std::string& input = "",
                       Terminal::Kind out_kind = Terminal::Kind::kStream) {
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    Terminal terminal{in, out, err};
    terminal.out_kind = out_kind;
    Outcome outcome;
    outcome.exit_code = RunCtl(args, runtime, terminal);
    outcome.out = out.str();
    outcome.err = err.str();
    return outcome;
  }
  Outcome Run(std::vector<std::string> args, const std::string& input = "") {
    return RunIn(daemon_.runtime_dir(), std::move(args), input);
  }
  // Exactly one JSON object and a newline, nothing on the other stream.
  Json RunJson(std::vector<std::string> args, int exit_code, const std::string& input = "") {
    args.emplace_back("--json");
    const Outcome outcome = Run(args, input);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.out << outcome.err;
    EXPECT_EQ(outcome.err, "");
    EXPECT_EQ(outcome.out.find('\n'), outcome.out.size() - 1) << outcome.out;
    absl::StatusOr<Json> json = ParseJson(outcome.out);
    EXPECT_TRUE(json.ok() && json->is_object()) << outcome.out;
    return json.ok() ? *json : Json();
  }
  std::vector<std::string> OnBlocks(std::vector<std::string> args) const {
    for (const char* more :
         {"--model", "m", "--weights-revision", "r", "--kv-dtype", "bf16", "--layout", "l/1",
          "--hash-algorithm", "sha256", "--block-bytes", "8MiB"}) {
      args.emplace_back(more);
    }
    return args;
  }
  std::string Path(const std::string& name) const { return daemon_.runtime_dir() + "/" + name; }
  static std::string ReadFile(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

  DaemonDouble daemon_;
};

TEST_F(Verbs, PutThenGetGivesTheSameBytes) {
  const Outcome put = Run(OnBlocks({"put", "--key-text", "k"}), "hello");
  EXPECT_EQ(put.exit_code, 0) << put.err;
  EXPECT_NE(put.out.find("stored"), std::string::npos) << put.out;
  const Outcome get = Run(OnBlocks({"get", "--key-text", "k"}));
  EXPECT_EQ(get.exit_code, 0);
  EXPECT_EQ(get.out, "hello");
  EXPECT_EQ(get.err, "");
}

TEST_F(Verbs, ASecondPutIsADuplicateAndSucceeds) {
  EXPECT_EQ(RunJson(OnBlocks({"put", "--key-text", "k"}), 0, "x")["keys"][0]["outcome"], "stored");
  EXPECT_EQ(RunJson(OnBlocks({"put", "--key-text", "k"}), 0, "x")["keys"][0]["outcome"],
            "duplicate");
}

TEST_F(Verbs, SeveralFilesAreStoredUnderSeveralKeys) {
  std::ofstream(Path("a")) << "first";
  std::ofstream(Path("b")) << "second, longer";
  ASSERT_EQ(Run(OnBlocks({"put", "--key-text", "a", "--key-text", "b", "--file", Path("a"),
                          "--file", Path("b")}))
                .exit_code,
            0);
  EXPECT_EQ(Run(OnBlocks({"get", "--key-text", "b"})).out, "second, longer");
  EXPECT_EQ(Run(OnBlocks({"get", "--key-text", "a", "--key-text", "b"})).out,
            "firstsecond, longer");
}

TEST_F(Verbs, PayloadBeyondAMessageGoesInChunksAndComesBack) {
  std::string payload((size_t{5} << 20) + 123, '\0');
  for (size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<char>(i * 2654435761U >> 24U);
  }
  ASSERT_EQ(Run(OnBlocks({"put", "--key-text", "large"}), payload).exit_code, 0);
  EXPECT_NE(daemon_.LastRequest("PutStream"), "");
  const Json json = RunJson(OnBlocks({"get", "--key-text", "large", "--out", Path("out")}), 0);
  EXPECT_EQ(json["payload_bytes"], payload.size());
  EXPECT_EQ(json["out"], Path("out"));
  EXPECT_TRUE(ReadFile(Path("out")) == payload);
}

TEST_F(Verbs, AMissedGetFailsAndLeavesNoFile) {
  const Outcome text = Run(OnBlocks({"get", "--key-text", "absent"}));
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_EQ(text.out, "") << "standard output carries payload alone";
  EXPECT_NE(text.err.find("miss"), std::string::npos) << text.err;
  const Json json = RunJson(OnBlocks({"get", "--key-text", "absent", "--out", Path("out")}), 1);
  EXPECT_EQ(json["keys"][0]["outcome"], "miss");
  EXPECT_TRUE(json["out"].is_null());
  EXPECT_FALSE(std::filesystem::exists(Path("out")));
  EXPECT_FALSE(std::filesystem::exists(Path("out.partial")));
}

TEST_F(Verbs, AGetThatFailsLeavesAnExistingFileAsItWas) {
  std::ofstream(Path("out")) << "precious";
  daemon_.Fail("Get", {grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls"});
  EXPECT_EQ(Run(OnBlocks({"get", "--key-text", "k", "--out", Path("out")})).exit_code, 1);
  EXPECT_EQ(ReadFile(Path("out")), "precious");
}

TEST_F(Verbs, BinaryIsNotWrittenToATerminal) {
  ASSERT_EQ(Run(OnBlocks({"put", "--key-text", "k"}), "x").exit_code, 0);
  const Outcome get = RunIn(daemon_.runtime_dir(), OnBlocks({"get", "--key-text", "k"}), "",
                            Terminal::Kind::kTerminal);
  EXPECT_EQ(get.exit_code, 1);
  EXPECT_EQ(get.out, "");
  EXPECT_NE(get.err.find("--out"), std::string::npos) << get.err;
}

TEST_F(Verbs, ProbeShowsHitsMissesAndTheHold) {
  ASSERT_EQ(Run(OnBlocks({"put", "--key-text", "k"}), "x").exit_code, 0);
  const Json json =
      RunJson(OnBlocks({"probe", "--key-text", "k", "--key-text", "absent", "--hold", "5s"}), 0);
  EXPECT_EQ(json["keys"][0]["state"], "ready");
  EXPECT_EQ(json["keys"][1]["state"], "miss");
  EXPECT_EQ(json["part_hits"][0], 1);
  EXPECT_EQ(json["hold_id"], std::string(32, '7'));
  EXPECT_EQ(json["hold_ms"], 5000);
  EXPECT_EQ(json["boot_id"], "0123456789abcdef");
  EXPECT_EQ(json["namespace_digest"].get<std::string>().size(), 32U);
}

TEST_F(Verbs, ANamespaceIsTheSameByOptionsByFileAndByDigest) {
  ASSERT_EQ(Run(OnBlocks({"put", "--key-text", "k"}), "x").exit_code, 0);
  const Json namespaces = RunJson({"namespaces"}, 0);
  ASSERT_EQ(namespaces["namespaces"].size(), 1U);
  const std::string digest = namespaces["namespaces"][0]["namespace_digest"];
  std::ofstream(Path("record.json")) << namespaces["namespaces"][0]["record"].dump();
  EXPECT_EQ(Run({"get", "--namespace-digest", digest, "--key-text", "k"}).out, "x");
  EXPECT_EQ(Run({"get", "--record", Path("record.json"), "--key-text", "k"}).out, "x");
  EXPECT_NE(Run({"namespaces"}).out.find(digest), std::string::npos);
}

TEST_F(Verbs, ABadRecordFileIsNamedWithItsFault) {
  std::ofstream(Path("broken.json")) << "{";
  std::ofstream(Path("unknown.json")) << R"({"modell": "m"})";
  EXPECT_EQ(Run({"probe", "--record", Path("broken.json"), "--key-text", "k"}).err,
            "terracectl: " + Path("broken.json") + ": not valid JSON\n");
  EXPECT_EQ(Run({"probe", "--record", Path("unknown.json"), "--key-text", "k"}).err,
            "terracectl: " + Path("unknown.json") + ": NamespaceRecord has no field 'modell'\n");
  const Outcome missing = Run({"probe", "--record", Path("absent.json"), "--key-text", "k"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.err.find("No such file"), std::string::npos) << missing.err;
}

TEST_F(Verbs, AnEmptyPayloadAndAMissingFileAreRefusedBeforeTheCall) {
  EXPECT_NE(Run(OnBlocks({"put", "--key-text", "k"}), "").err.find("standard input is empty"),
            std::string::npos);
  EXPECT_NE(
      Run(OnBlocks({"put", "--key-text", "k", "--file", Path("absent")})).err.find("No such file"),
      std::string::npos);
  EXPECT_EQ(daemon_.LastRequest("Put"), "");
}

TEST_F(Verbs, DeletePinUnpinAndPrefetchAnswerByKey) {
  ASSERT_EQ(Run(OnBlocks({"put", "--key-text", "k"}), "x").exit_code, 0);
  EXPECT_EQ(RunJson(OnBlocks({"pin", "--key-text", "k", "--ttl", "1h"}), 0)["keys"][0]["pinned"],
            true);
  v1::PinRequest pin;
  ASSERT_TRUE(pin.ParseFromString(daemon_.LastRequest("Pin")));
  EXPECT_EQ(pin.ttl_s(), 3600U);
  EXPECT_EQ(RunJson(OnBlocks({"pin", "--key-text", "absent"}), 1)["keys"][0]["reason"],
            "not_present");
  EXPECT_EQ(RunJson(OnBlocks({"unpin", "--key-text", "k"}), 0)["unpinned"], 1);
  const Json prefetch = RunJson(OnBlocks({"prefetch", "--key-text", "k", "--wait", "1s"}), 0);
  EXPECT_EQ(prefetch["ticket"], 42);
  EXPECT_EQ(prefetch["result"]["state"], "done");
  EXPECT_TRUE(RunJson(OnBlocks({"prefetch", "--key-text", "k"}), 0)["result"].is_null());
  EXPECT_EQ(RunJson(OnBlocks({"delete", "--key-text", "k", "--key-text", "l"}), 0)["deleted"], 1);
}

TEST_F(Verbs, RequestsCarryWhatWasTyped) {
  ASSERT_EQ(Run(OnBlocks({"put", "--key-text", "k", "--salt-text", "s", "--parent-text", "p",
                          "--first-token", "256", "--wait-for", "source-free"}),
                "abc")
                .exit_code,
            0);
  v1::PutRequest put;
  ASSERT_TRUE(put.ParseFromString(daemon_.LastRequest("Put")));
  EXPECT_EQ(put.part().salt(), "s");
  EXPECT_EQ(put.part().key_bytes(), 32U);
  EXPECT_EQ(put.part().keys(), KeyOfText("k"));
  EXPECT_EQ(put.part().first_token(), 256U);
  EXPECT_EQ(put.parent(), KeyOfText("p"));
  EXPECT_EQ(put.wait_for(), v1::LEVEL_SOURCE_FREE);
  EXPECT_EQ(put.payload(), "abc");
  Run(OnBlocks({"get", "--key-text", "k", "--wait", "2s", "--hold-id", std::string(32, '7')}));
  v1::GetRequest get;
  ASSERT_TRUE(get.ParseFromString(daemon_.LastRequest("Get")));
  EXPECT_EQ(get.wait_pending(), 1U);
  EXPECT_EQ(get.hold_id(), std::string(16, '\x77'));
  EXPECT_EQ(get.delivery(), v1::DELIVERY_INLINE);
}

TEST_F(Verbs, AdminVerbsAnswerInBothForms) {
  EXPECT_NE(Run({"status"}).out.find("terraced"), std::string::npos);
  EXPECT_EQ(RunJson({"status"}, 0)["uptime_ms"], 65000);
  EXPECT_NE(Run({"tiers"}).out.find("g2"), std::string::npos);
  EXPECT_EQ(RunJson({"tiers"}, 0)["tiers"][0]["capacity_bytes"], 1 << 30);
  EXPECT_EQ(RunJson({"tiers"}, 0)["tiers"][1]["drives"][0]["blocks"], 17);
  EXPECT_EQ(RunJson({"tiers"}, 0)["tiers"][1]["drives"][1]["state"], "away");
  EXPECT_NE(Run({"tiers"}).out.find("no such folder"), std::string::npos);
  EXPECT_EQ(RunJson({"tenants"}, 0)["tenants"][0]["tenant"], "default");
  EXPECT_EQ(RunJson({"evict", "--target", "1MiB"}, 0)["used_bytes"], 1 << 20);
  EXPECT_EQ(RunJson({"drain"}, 0)["draining"], true);
  EXPECT_EQ(RunJson({"drain", "--resume"}, 0)["draining"], false);
  EXPECT_EQ(RunJson({"reload"}, 0)["changed"][0], "log.level");
  EXPECT_EQ(RunJson({"top", "--once"}, 0)["status"]["uptime_ms"], 65000);
  EXPECT_NE(Run({"top", "--once"}).out.find("averages since start"), std::string::npos);
  EXPECT_EQ(RunJson(OnBlocks({"explain", "--key-text", "k"}), 0)["text"], "It was never stored.");
}

TEST_F(Verbs, VerifyFailsWhenAChecksumIsWrong) {
  EXPECT_EQ(RunJson({"verify"}, 0)["corrupt"], 0);
  daemon_.SetCorrupt(3);
  EXPECT_EQ(RunJson({"verify"}, 1)["corrupt"], 3);
}

TEST_F(Verbs, AQuotaKeepsTheNumberThatWasNotNamed) {
  const Json limited = RunJson({"quota", "default", "--limit", "4GiB"}, 0);
  EXPECT_EQ(limited["guaranteed_bytes"], 1 << 30);
  EXPECT_EQ(limited["limit_bytes"], uint64_t{4} << 30);
  EXPECT_EQ(RunJson({"quota", "default", "--guaranteed", "0"}, 0)["limit_bytes"],
            uint64_t{4} << 30);
  EXPECT_EQ(RunJson({"quota", "default"}, 0)["guaranteed_bytes"], 0);
  EXPECT_EQ(RunJson({"quota", "nobody"}, 1)["error"]["code"], "NOT_FOUND");
}

TEST_F(Verbs, PoolShowsNodesAndTheWorker) {
  const Json json = RunJson({"pool"}, 0);
  ASSERT_EQ(json["pools"].size(), 1U) << json.dump(1);
  EXPECT_EQ(json["pools"][0]["tier"], "g4");
  EXPECT_EQ(json["pools"][0]["nodes"][0]["self"], true);
  EXPECT_EQ(json["pools"][0]["worker"]["stuck"], 1);
  const Outcome text = Run({"pool", "g4"});
  EXPECT_EQ(text.exit_code, 0);
  for (const char* part : {"g4\n", "suspended", "3 busy", "process 4242 serves", "1 stuck",
                           "the mount does not answer", "BEHIND", "encrypt", "6 of them forged"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part << "\n" << text.out;
  }
  EXPECT_EQ(RunJson({"pool", "g9"}, 1)["error"]["code"], "NOT_FOUND");
}

TEST_F(Verbs, PoolShowsWhatWouldGoForRoom) {
  const Outcome none = Run({"pool", "g4"});
  EXPECT_EQ(none.out.find("WOULD GO"), std::string::npos) << none.out;
  const Outcome text = Run({"pool", "g4", "--reclaim", "3GiB"});
  EXPECT_EQ(text.exit_code, 0);
  for (const char* part : {"WOULD GO", "nodes/01/s1", "1.2", "young", "together 3 GiB"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part << "\n" << text.out;
  }
  const Outcome nothing = Run({"pool", "g4", "--reclaim", "4KiB"});
  EXPECT_NE(nothing.out.find("no file that may go"), std::string::npos) << nothing.out;
  const Json json = RunJson({"pool", "g4", "--reclaim", "3GiB"}, 0);
  EXPECT_EQ(json["pools"][0]["reclaim"].size(), 2U);
  EXPECT_NE(Run({"pool", "--reclaim", "lots"}).err.find("--reclaim"), std::string::npos);
}

TEST_F(Verbs, TiersShowSharedOnes) {
  const Outcome text = Run({"tiers"});
  EXPECT_NE(text.out.find("g4: 12 segments of all nodes"), std::string::npos) << text.out;
}

TEST_F(Verbs, WhatThisVersionLacksSaysSo) {
  const Json scrub = RunJson({"scrub"}, 1);
  EXPECT_EQ(scrub["error"]["code"], "UNIMPLEMENTED");
  EXPECT_EQ(scrub["error"]["exit"], 1);
  for (const char* verb : {"scrub"}) {
    const Outcome outcome = Run({verb});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.err.find(std::string(verb) + ": not in this version"), std::string::npos)
        << outcome.err;
  }
}

TEST_F(Verbs, EventsAreLinesUntilThereAreEnough) {
  const Outcome outcome = Run({"events", "--snapshot", "--count", "3"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "7 stored in g2: 2 keys 61616161... behind 70707070... from token 32, of m (6e6e6e6e)\n"
            "7 snapshot ends\n"
            "8 removed from g2: 1 key 61616161..., of m (6e6e6e6e)\n");
  v1::WatchRequest sent;
  ASSERT_TRUE(sent.ParseFromString(daemon_.LastRequest("Watch")));
  EXPECT_TRUE(sent.snapshot());
  EXPECT_EQ(sent.namespaces_size(), 0);
}

TEST_F(Verbs, EventsAsJsonAreAnObjectALine) {
  const Outcome outcome =
      Run({"events", "--json", "--count", "5", "--namespace", "6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  std::vector<Json> lines;
  std::istringstream text(outcome.out);
  for (std::string line; std::getline(text, line);) {
    lines.push_back(*ParseJson(line));
  }
  ASSERT_EQ(lines.size(), 5U) << outcome.out;
  EXPECT_EQ(lines[0]["kind"], "stored");
  EXPECT_EQ(lines[0]["publisher_id"], "00000000000000ab");
  EXPECT_EQ(lines[0]["model"], "m");
  EXPECT_EQ(lines[0]["keys"].get<std::string>().size(), 128U);
  EXPECT_EQ(lines[3]["kind"], "cleared");
  EXPECT_EQ(lines[4]["kind"], "gap");
  v1::WatchRequest sent;
  ASSERT_TRUE(sent.ParseFromString(daemon_.LastRequest("Watch")));
  EXPECT_EQ(sent.namespaces(0), std::string(16, 'n'));
}

TEST_F(Verbs, EventsEndWithTheDaemonsWord) {
  daemon_.Hang("Watch");
  EXPECT_NE(Run({"events", "--timeout", "100ms"}).err.find("did not answer within"),
            std::string::npos);
  daemon_.Fail("Watch", {grpc::StatusCode::RESOURCE_EXHAUSTED, "watchers: at most 16 a tenant"});
  EXPECT_EQ(Run({"events"}).err, "terracectl: watchers: at most 16 a tenant\n");
}

TEST_F(Verbs, TheServersWordsReachTheOperator) {
  daemon_.Fail("Evict", {grpc::StatusCode::INVALID_ARGUMENT, "tier: 'g9' is not configured"});
  EXPECT_EQ(Run({"evict", "--target", "0"}).err, "terracectl: tier: 'g9' is not configured\n");
  const Json json = RunJson({"evict", "--target", "0"}, 1);
  EXPECT_EQ(json["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(json["error"]["message"], "tier: 'g9' is not configured");
}

TEST_F(Verbs, ARefusedConfigurationExitsWith78) {
  daemon_.Fail("Reload", {grpc::StatusCode::INVALID_ARGUMENT, "terraced.toml:3: unknown key"});
  EXPECT_EQ(RunJson({"reload"}, 78)["error"]["exit"], 78);
}

TEST_F(Verbs, AHungDaemonIsGivenUp) {
  daemon_.Hang("Status");
  const Outcome outcome = Run({"--timeout", "100ms", "status"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(outcome.err, "terracectl: the daemon at " + daemon_.runtime_dir() +
                             "/admin.sock did not answer within 100 ms\n");
}

TEST_F(Verbs, WrongUsageIsOneJsonObjectToo) {
  const Json json = RunJson({"evict"}, 2);
  EXPECT_EQ(json["error"]["code"], "USAGE");
  EXPECT_EQ(RunJson({"frob"}, 2)["error"]["exit"], 2);
  EXPECT_EQ(RunJson({"--version"}, 0)["version"], std::string(Version()));
  EXPECT_TRUE(RunJson({"put", "--help"}, 0)["help"].is_string());
}

TEST_F(Verbs, DoctorReachesTheDaemonAndReadsItsLimits) {
  const Json json = RunJson({"doctor", "--data", daemon_.runtime_dir()}, 1);
  bool daemon_ok = false;
  bool admin_failed = false;  // the double's socket is not 0600
  bool drive_ok = false;
  bool drive_failed = false;  // one of the double's is away
  for (const Json& finding : json["findings"]) {
    daemon_ok |= finding["check"] == "daemon" && finding["grade"] == "ok";
    admin_failed |= finding["check"] == "socket" && finding["grade"] == "fail";
    drive_ok |= finding["check"] == "drive" && finding["grade"] == "ok";
    drive_failed |= finding["check"] == "drive" && finding["grade"] == "fail";
  }
  EXPECT_TRUE(daemon_ok) << json.dump();
  EXPECT_TRUE(admin_failed) << json.dump();
  EXPECT_TRUE(drive_ok && drive_failed) << json.dump();
}

class NoDaemon : public Verbs {};

TEST_F(NoDaemon, AMissingSocketIsNamed) {
  const std::string dir = Path("empty");
  std::filesystem::create_directory(dir);
  const Outcome outcome = RunIn(dir, {"status"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_NE(outcome.err.find("no daemon answers at " + dir + "/admin.sock: no such socket"),
            std::string::npos)
      << outcome.err;
}

TEST_F(NoDaemon, ADeadDaemonsSocketRefuses) {
  const std::string dir = Path("stale");
  std::filesystem::create_directory(dir);
  {
    const Descriptor socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = dir + "/admin.sock";
    path.copy(static_cast<char*>(address.sun_path), path.size());
    ASSERT_EQ(bind(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
  }
  EXPECT_EQ(RunIn(dir, {"status"}).err,
            "terracectl: no daemon answers at " + dir +
                "/admin.sock: connection refused; is terraced running?\n");
  const Outcome json = RunIn(dir, {"tiers", "--json"});
  EXPECT_EQ(json.exit_code, 1);
  EXPECT_EQ((*ParseJson(json.out))["error"]["code"], "UNAVAILABLE");
}

TEST_F(NoDaemon, DoctorStillLooksAtTheHost) {
  const std::string dir = Path("private");
  std::filesystem::create_directory(dir);
  std::filesystem::permissions(dir, std::filesystem::perms::owner_all);
  const Outcome outcome = RunIn(dir, {"doctor", "--data", dir});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("WARN  daemon"), std::string::npos) << outcome.out;
  EXPECT_EQ(RunIn(dir, {"doctor", "--data", dir + "/absent"}).exit_code, 1);
}

}  // namespace
}  // namespace terrace::ctl
