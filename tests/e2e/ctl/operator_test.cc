// terracectl as an operator uses it: the real program against a real daemon, every verb by hand.
#include <csignal>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/e2e/daemon/program.h"
#include "tests/e2e/daemon/started_daemon.h"

namespace terrace {
namespace {

using Json = nlohmann::json;

constexpr absl::Duration kLimit = absl::Seconds(30);

class Operator : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon = StartedDaemon::Start({});
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
  }
  std::vector<std::string> Command(std::vector<std::string> args) const {
    args.insert(args.begin(), {TERRACECTL_PATH, "--runtime", daemon_->runtime_dir()});
    return args;
  }
  Ran Ctl(std::vector<std::string> args, const std::string& input = "") const {
    return RunProgram(Command(std::move(args)), input, {"TERRACE_RUNTIME", "NO_COLOR"});
  }
  Json CtlJson(std::vector<std::string> args,
               int exit_status,
               const std::string& input = "") const {
    args.emplace_back("--json");
    const Ran ran = Ctl(std::move(args), input);
    EXPECT_EQ(ran.exit_status, exit_status) << ran.out << ran.err;
    EXPECT_EQ(ran.err, "");
    Json json = Json::parse(ran.out, nullptr, false);
    EXPECT_TRUE(json.is_object()) << ran.out;
    return json;
  }
  static std::vector<std::string> OnBlocks(std::vector<std::string> args) {
    for (const char* more : {"--model", "llama", "--weights-revision", "r1", "--kv-dtype", "bf16",
                             "--layout", "by-hand/1", "--hash-algorithm", "sha256", "--block-bytes",
                             "8MiB", "--block-tokens", "16"}) {
      args.emplace_back(more);
    }
    return args;
  }
  // The daemon's own answer, or its words that it has none.
  bool Has(const char* feature) const {
    const Json status = CtlJson({"status"}, 0);
    for (const Json& name : status["features"]) {
      if (name == feature) {
        return true;
      }
    }
    return false;
  }
  std::string Path(const std::string& name) const { return daemon_->dir() + "/" + name; }

  std::unique_ptr<StartedDaemon> daemon_;
};

TEST_F(Operator, StoresLooksAndReadsBack) {
  const Ran put = Ctl(OnBlocks({"put", "--key-text", "a"}), "payload of a");
  EXPECT_EQ(put.exit_status, 0) << put.err;
  EXPECT_NE(put.out.find("stored"), std::string::npos) << put.out;
  EXPECT_EQ(CtlJson(OnBlocks({"put", "--key-text", "a"}), 0, "payload of a")["keys"][0]["outcome"],
            "duplicate");
  EXPECT_EQ(Ctl(OnBlocks({"put", "--key-text", "b", "--parent-text", "a", "--first-token", "16"}),
                "b's bytes")
                .exit_status,
            0);

  const Json probe = CtlJson(
      OnBlocks({"probe", "--key-text", "a", "--key-text", "b", "--key-text", "c", "--hold", "10s"}),
      0);
  EXPECT_EQ(probe["keys"][0]["state"], "ready");
  EXPECT_EQ(probe["keys"][1]["state"], "ready");
  EXPECT_EQ(probe["keys"][2]["state"], "miss");
  EXPECT_EQ(probe["boundary_tokens"], 32);
  EXPECT_EQ(probe["hold_id"].get<std::string>().size(), 32U);
  EXPECT_EQ(CtlJson({"status"}, 0)["holds"], 1);

  const Ran get =
      Ctl(OnBlocks({"get", "--key-text", "a", "--key-text", "b", "--hold-id", probe["hold_id"]}));
  EXPECT_EQ(get.exit_status, 0) << get.err;
  EXPECT_EQ(get.out, "payload of ab's bytes");
  const Ran missed = Ctl(OnBlocks({"get", "--key-text", "c"}));
  EXPECT_EQ(missed.exit_status, 1);
  EXPECT_EQ(missed.out, "");

  EXPECT_EQ(CtlJson(OnBlocks({"delete", "--key-text", "a", "--key-text", "c"}), 0)["deleted"], 1);
  EXPECT_EQ(Ctl(OnBlocks({"get", "--key-text", "a"})).exit_status, 1);
}

TEST_F(Operator, CopiesADigestFromTheListOfNamespaces) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), "x").exit_status, 0);
  const Json namespaces = CtlJson({"namespaces"}, 0);
  ASSERT_EQ(namespaces["namespaces"].size(), 1U);
  const std::string digest = namespaces["namespaces"][0]["namespace_digest"];
  EXPECT_EQ(namespaces["namespaces"][0]["blocks"], 1);
  EXPECT_NE(Ctl({"namespaces"}).out.find(digest), std::string::npos);
  EXPECT_EQ(Ctl({"get", "--namespace-digest", digest, "--key-text", "a"}).out, "x");
  std::ofstream(Path("record.json")) << namespaces["namespaces"][0]["record"].dump();
  EXPECT_EQ(Ctl({"get", "--record", Path("record.json"), "--key-text", "a"}).out, "x");
  EXPECT_EQ(Ctl({"get", "--namespace-digest", std::string(32, '0'), "--key-text", "a"}).exit_status,
            1);
}

TEST_F(Operator, SeesWhyABlockIsWhereItIs) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), "12345").exit_status, 0);
  const Json explained = CtlJson(OnBlocks({"explain", "--key-text", "a"}), 0);
  EXPECT_EQ(explained["state"], "ready");
  EXPECT_EQ(explained["tier"], "g2");
  EXPECT_EQ(explained["payload_bytes"], 5);
  EXPECT_NE(explained["text"], "");
  EXPECT_EQ(CtlJson(OnBlocks({"explain", "--key-text", "never"}), 0)["state"], "miss");
  EXPECT_NE(Ctl(OnBlocks({"explain", "--key-text", "a"})).out.find("state        ready"),
            std::string::npos);
}

TEST_F(Operator, PinsAgainstEvictionAndUnpins) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "kept"}), "x").exit_status, 0);
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "gone"}), "y").exit_status, 0);
  EXPECT_EQ(CtlJson(OnBlocks({"pin", "--key-text", "kept", "--ttl", "1h"}), 0)["keys"][0]["pinned"],
            true);
  EXPECT_EQ(CtlJson({"evict", "--target", "0"}, 0)["evicted_blocks"], 1);
  EXPECT_EQ(Ctl(OnBlocks({"get", "--key-text", "kept"})).out, "x");
  EXPECT_EQ(Ctl(OnBlocks({"get", "--key-text", "gone"})).exit_status, 1);
  EXPECT_EQ(CtlJson(OnBlocks({"unpin", "--key-text", "kept"}), 0)["unpinned"], 1);
  EXPECT_EQ(CtlJson({"evict", "--target", "0"}, 0)["evicted_blocks"], 1);
  EXPECT_EQ(CtlJson(OnBlocks({"pin", "--key-text", "gone"}), 1)["keys"][0]["reason"],
            "not_present");
}

TEST_F(Operator, ReadsTiersTenantsStatusAndTop) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), "x").exit_status, 0);
  const Json tiers = CtlJson({"tiers"}, 0);
  EXPECT_EQ(tiers["tiers"][0]["name"], "g2");
  EXPECT_EQ(tiers["tiers"][0]["blocks"], 1);
  EXPECT_GE(tiers["tiers"][0]["capacity_bytes"].get<uint64_t>(), uint64_t{256} << 20);
  EXPECT_EQ(tiers["tiers"][1]["drives"][0]["path"], daemon_->dir() + "/data/local");
  const Json tenants = CtlJson({"tenants"}, 0);
  ASSERT_EQ(tenants["tenants"].size(), 1U);
  const Json status = CtlJson({"status"}, 0);
  EXPECT_EQ(status["blocks"], 1);
  EXPECT_EQ(status["puts"], 1);
  EXPECT_EQ(status["block_bytes"], 1);
  EXPECT_EQ(status["draining"], false);
  EXPECT_EQ(status["boot_id"], tiers["boot_id"]);
  for (const char* verb : {"status", "tiers", "tenants"}) {
    const Ran ran = Ctl({verb});
    EXPECT_EQ(ran.exit_status, 0);
    EXPECT_EQ(ran.out.find('\x1b'), std::string::npos) << "no colours into a pipe";
  }
  EXPECT_NE(Ctl({"top", "--once"}).out.find("g2"), std::string::npos);
  EXPECT_EQ(CtlJson({"top"}, 0)["status"]["blocks"], 1);
}

TEST_F(Operator, SetsAQuotaThatHolds) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), "x").exit_status, 0);
  const std::string tenant = CtlJson({"tenants"}, 0)["tenants"][0]["tenant"];
  EXPECT_EQ(Ctl({"quota", tenant, "--guaranteed", "64MiB"}).exit_status, 0);
  const Json set = CtlJson({"quota", tenant, "--limit", "128MiB"}, 0);
  EXPECT_EQ(set["guaranteed_bytes"], 64 << 20);
  const Json tenants = CtlJson({"tenants"}, 0);
  EXPECT_EQ(tenants["tenants"][0]["guaranteed_bytes"], 64 << 20);
  EXPECT_EQ(tenants["tenants"][0]["limit_bytes"], 128 << 20);
  EXPECT_EQ(CtlJson({"quota", tenant, "--guaranteed", "1TiB"}, 1)["error"]["code"],
            "INVALID_ARGUMENT");
  EXPECT_EQ(Ctl({"quota", "nobody", "--limit", "1GiB"}).exit_status, 1);
}

TEST_F(Operator, DrainsAndAdmitsAgain) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), "x").exit_status, 0);
  EXPECT_EQ(Ctl({"drain"}).exit_status, 0);
  EXPECT_EQ(CtlJson({"status"}, 0)["draining"], true);
  const Json declined = CtlJson(OnBlocks({"put", "--key-text", "b"}), 1, "y");
  EXPECT_EQ(declined["keys"][0]["outcome"], "declined");
  EXPECT_EQ(declined["keys"][0]["reason"], "draining");
  EXPECT_EQ(Ctl(OnBlocks({"get", "--key-text", "a"})).out, "x") << "gets go on";
  EXPECT_EQ(Ctl({"drain", "--resume"}).exit_status, 0);
  EXPECT_EQ(Ctl(OnBlocks({"put", "--key-text", "b"}), "y").exit_status, 0);
}

TEST_F(Operator, VerifiesChecksums) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), std::string(100'000, 'z')).exit_status, 0);
  const Json verified = CtlJson({"verify"}, 0);
  EXPECT_EQ(verified["blocks"], 1);
  EXPECT_EQ(verified["bytes"], 100'000);
  EXPECT_EQ(verified["corrupt"], 0);
}

TEST_F(Operator, PrefetchesWhatIsThereAlready) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), "x").exit_status, 0);
  const Json prefetch =
      CtlJson(OnBlocks({"prefetch", "--key-text", "a", "--key-text", "b", "--wait", "2s"}), 0);
  EXPECT_EQ(prefetch["keys_ready"], 1);
  EXPECT_EQ(prefetch["keys_missing"], 1);
}

TEST_F(Operator, MovesPayloadThatNoMessageHolds) {
  std::string payload((size_t{5} << 20) + 77, '\0');
  for (size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<char>(i * 2654435761U >> 24U);
  }
  const Ran put = Ctl(OnBlocks({"put", "--key-text", "large"}), payload);
  EXPECT_TRUE(Has("streams"));
  ASSERT_EQ(put.exit_status, 0) << put.err;
  const Ran get = Ctl(OnBlocks({"get", "--key-text", "large", "--out", Path("out")}));
  EXPECT_EQ(get.exit_status, 0) << get.err;
  std::ifstream out(Path("out"), std::ios::binary);
  EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(out), {}) == payload);
  EXPECT_FALSE(std::filesystem::exists(Path("out.partial")));
}

TEST_F(Operator, ReloadsAndIsToldWhatIsWrong) {
  EXPECT_EQ(Ctl({"reload"}).out, "nothing differs\n");
  std::ofstream(daemon_->config_path(), std::ios::app) << "[daemon]\nlog_level = \"debug\"\n";
  const Json reloaded = CtlJson({"reload"}, 0);
  ASSERT_EQ(reloaded["changed"].size(), 1U) << reloaded.dump();
  EXPECT_NE(reloaded["changed"][0].get<std::string>().find("log_level"), std::string::npos);
  std::ofstream(daemon_->config_path(), std::ios::app) << "nonsense = 1\n";
  const Ran refused = Ctl({"reload"});
  EXPECT_EQ(refused.exit_status, 78) << refused.err;
  EXPECT_NE(refused.err.find("nonsense"), std::string::npos) << refused.err;
}

TEST_F(Operator, IsToldThatThereIsNoSharedTier) {
  EXPECT_EQ(Ctl({"pool"}).out, "no shared tier is configured\n");
  EXPECT_EQ(CtlJson({"pool", "g4"}, 1)["error"]["code"], "NOT_FOUND");
}

TEST_F(Operator, SeesWhatIsHeldAsEvents) {
  const Ran ran = Ctl({"events", "--snapshot", "--count", "1", "--json"});
  EXPECT_EQ(ran.exit_status, 0) << ran.err;
  const Json event = Json::parse(ran.out);
  EXPECT_TRUE(event["kind"] == "stored" || event["kind"] == "snapshot_end") << ran.out;
}

TEST_F(Operator, ExaminesTheHost) {
  const Json report = CtlJson({"doctor", "--data", daemon_->dir()}, 0);
  EXPECT_EQ(report["ok"], true) << report.dump(1);
  bool reached = false;
  bool drive_seen = false;
  for (const Json& finding : report["findings"]) {
    reached |= finding["check"] == "daemon" && finding["grade"] == "ok";
    drive_seen |= finding["check"] == "drive";
  }
  EXPECT_TRUE(reached) << report.dump(1);
  EXPECT_TRUE(drive_seen) << report.dump(1);
}

TEST_F(Operator, FindsNoDaemonOnceItStopped) {
  EXPECT_EQ(daemon_->Stop(), 0) << daemon_->Log();
  const Ran ran = Ctl({"status"});
  EXPECT_EQ(ran.exit_status, 1);
  EXPECT_NE(ran.err.find("no daemon answers at " + daemon_->runtime_dir() + "/admin.sock"),
            std::string::npos)
      << ran.err;
}

TEST_F(Operator, FindsARefusingSocketOnceItWasKilled) {
  daemon_->Kill();
  EXPECT_EQ(Ctl({"tiers"}).err, "terracectl: no daemon answers at " + daemon_->runtime_dir() +
                                    "/admin.sock: connection refused; is terraced running?\n");
  ASSERT_TRUE(daemon_->StartAgain().ok());
  EXPECT_EQ(Ctl({"tiers"}).exit_status, 0);
}

TEST_F(Operator, TakesTheRuntimeFolderFromTheEnvironment) {
  const Ran ran = RunProgram({TERRACECTL_PATH, "status", "--json"}, "",
                             {"TERRACE_RUNTIME=" + daemon_->runtime_dir()});
  EXPECT_EQ(ran.exit_status, 0) << ran.err;
}

// ---- on a terminal

TEST_F(Operator, WatchesTheDaemonLiveUntilQ) {
  absl::StatusOr<TerminalProgram> top =
      TerminalProgram::Start(Command({"top", "--interval", "100ms"}), {"NO_COLOR", "TERM=xterm"});
  ASSERT_TRUE(top.ok()) << top.status();
  ASSERT_TRUE(top->WaitFor("terraced", 3, kLimit)) << top->shown();
  EXPECT_NE(top->shown().find("\x1b[?1049h"), std::string::npos) << "the alternate screen";
  top->Type("q");
  EXPECT_EQ(top->WaitForEnd(kLimit), 0);
  EXPECT_NE(top->shown().find("\x1b[?25h\x1b[?1049l"), std::string::npos)
      << "the screen is put back";
}

TEST_F(Operator, GetsTheScreenBackAfterAnInterrupt) {
  absl::StatusOr<TerminalProgram> top = TerminalProgram::Start(Command({"top"}), {"TERM=xterm"});
  ASSERT_TRUE(top.ok()) << top.status();
  ASSERT_TRUE(top->WaitFor("g2", 1, kLimit)) << top->shown();
  top->Signal(SIGINT);
  EXPECT_EQ(top->WaitForEnd(kLimit), 0);
  EXPECT_NE(top->shown().find("\x1b[?1049l"), std::string::npos);
}

TEST_F(Operator, WatchesTheDaemonComeBack) {
  absl::StatusOr<TerminalProgram> top =
      TerminalProgram::Start(Command({"top", "--interval", "100ms"}), {"TERM=xterm"});
  ASSERT_TRUE(top.ok()) << top.status();
  ASSERT_TRUE(top->WaitFor("g2", 1, kLimit)) << top->shown();
  daemon_->Kill();
  ASSERT_TRUE(top->WaitFor("connection refused", 1, kLimit)) << top->shown();
  ASSERT_TRUE(daemon_->StartAgain().ok());
  ASSERT_TRUE(top->WaitFor("averages since start", 2, kLimit)) << top->shown();
  top->Type("q");
  EXPECT_EQ(top->WaitForEnd(kLimit), 0);
}

TEST_F(Operator, SeesColoursOnATerminalUnlessNoColorIsSet) {
  absl::StatusOr<TerminalProgram> coloured =
      TerminalProgram::Start(Command({"status"}), {"NO_COLOR", "TERM=xterm"});
  ASSERT_TRUE(coloured.ok()) << coloured.status();
  EXPECT_EQ(coloured->WaitForEnd(kLimit), 0);
  EXPECT_NE(coloured->shown().find("\x1b["), std::string::npos) << coloured->shown();
  absl::StatusOr<TerminalProgram> plain =
      TerminalProgram::Start(Command({"status"}), {"NO_COLOR=1", "TERM=xterm"});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->WaitForEnd(kLimit), 0);
  EXPECT_EQ(plain->shown().find("\x1b["), std::string::npos) << plain->shown();
}

TEST_F(Operator, GetsNoBinaryOnATerminal) {
  ASSERT_EQ(Ctl(OnBlocks({"put", "--key-text", "a"}), "secret bytes").exit_status, 0);
  absl::StatusOr<TerminalProgram> get =
      TerminalProgram::Start(Command(OnBlocks({"get", "--key-text", "a"})), {"TERM=xterm"});
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->WaitForEnd(kLimit), 1);
  EXPECT_EQ(get->shown().find("secret bytes"), std::string::npos);
  EXPECT_NE(get->shown().find("--out"), std::string::npos) << get->shown();
}

}  // namespace
}  // namespace terrace
