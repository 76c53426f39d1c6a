// A client that knows nothing of Terrace but what the server tells it (a stand-in for grpcurl)
// lists, describes and calls the data plane by hand.
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/e2e/daemon/program.h"
#include "tests/e2e/daemon/started_daemon.h"

namespace terrace {
namespace {

using Json = nlohmann::json;

constexpr const char* kKey = "AAECAwQFBgcICQoLDA0ODw==";  // the bytes 0 to 15
constexpr const char* kRecord =
    R"({"record": {"model": "m", "weights_revision": "r", "kv_dtype": "bf16", "layout": "l/1",
        "hash_algorithm": "sha256", "block_bytes": "65536"}})";

class GenericClient : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon = StartedDaemon::Start({});
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
  }
  Ran Client(std::vector<std::string> args, const std::string& input = "") {
    args.insert(args.begin(), {GENERIC_CLIENT_PATH, daemon_->runtime_dir() + "/terrace.sock"});
    return RunProgram(args, input);
  }
  Json Call(const std::string& method, const std::string& request) {
    const Ran ran = Client({"call", method}, request);
    EXPECT_EQ(ran.exit_status, 0) << ran.err;
    Json json = Json::parse(ran.out, nullptr, false);
    EXPECT_TRUE(json.is_object()) << ran.out;
    return json;
  }
  // One key of the namespace as the field "part" or an element of "parts".
  static std::string Part(const std::string& digest) {
    return R"({"namespace_digest": ")" + digest + R"(", "key_bytes": 16, "keys": ")" + kKey +
           R"("})";
  }

  std::unique_ptr<StartedDaemon> daemon_;
};

TEST_F(GenericClient, ListsCacheHealthAndReflection) {
  const Ran ran = Client({"list"});
  EXPECT_EQ(ran.exit_status, 0) << ran.err;
  for (const char* service : {"terrace.v1.Cache\n", "grpc.health.v1.Health\n",
                              "grpc.reflection.v1alpha.ServerReflection\n"}) {
    EXPECT_NE(ran.out.find(service), std::string::npos) << ran.out;
  }
  EXPECT_EQ(ran.out.find("terrace.v1.Admin"), std::string::npos)
      << "operators have a socket of their own";
}

TEST_F(GenericClient, DescribesServicesAndMessages) {
  const Ran service = Client({"describe", "terrace.v1.Cache"});
  EXPECT_EQ(service.exit_status, 0) << service.err;
  for (const char* verb : {"rpc Probe(", "rpc Put(", "rpc Get(", "rpc OpenNamespace("}) {
    EXPECT_NE(service.out.find(verb), std::string::npos) << service.out;
  }
  const Ran message = Client({"describe", "terrace.v1.PutRequest"});
  EXPECT_NE(message.out.find("bytes payload = 5;"), std::string::npos) << message.out;
  EXPECT_EQ(Client({"describe", "terrace.v1.Nothing"}).exit_status, 1);
}

TEST_F(GenericClient, ServesTheStandardHealthCheck) {
  EXPECT_EQ(Call("grpc.health.v1.Health/Check", "{}")["status"], "SERVING");
}

TEST_F(GenericClient, PutsProbesAndGetsByHand) {
  const Json opened = Call("terrace.v1.Cache/OpenNamespace", kRecord);
  const std::string digest = opened["namespace_digest"];
  EXPECT_EQ(opened["generation"], "1");
  const std::string parts = R"({"parts": [)" + Part(digest) + "]}";
  EXPECT_EQ(Call("terrace.v1.Cache/Probe", parts)["states"], "AA==");  // one byte: MISS
  const Json put =
      Call("terrace.v1.Cache/Put",
           R"({"part": )" + Part(digest) + R"(, "payload_bytes": [5], "payload": "aGVsbG8="})");
  EXPECT_EQ(put["outcomes"], "AQ==");                                  // STORED
  EXPECT_EQ(Call("terrace.v1.Cache/Probe", parts)["states"], "AQ==");  // READY on g2
  const Json get = Call("terrace.v1.Cache/Get", parts);
  EXPECT_EQ(get["outcomes"], "AQ==");
  EXPECT_EQ(get["payload"], "aGVsbG8=");
  EXPECT_EQ(get["payload_bytes"], Json::array({5}));
  EXPECT_EQ(get["boot_id"], put["boot_id"]);
}

TEST_F(GenericClient, IsToldWhatIsWrongWithARequest) {
  const Ran ran =
      Client({"call", "terrace.v1.Cache/Probe"}, R"({"parts": [{"namespace_digest": "AAAA"}]})");
  EXPECT_EQ(ran.exit_status, 1);
  EXPECT_EQ(ran.err.substr(0, 3), "3: ") << "INVALID_ARGUMENT: " << ran.err;
  EXPECT_NE(ran.err.find("namespace_digest"), std::string::npos) << ran.err;
}

TEST_F(GenericClient, CannotCallTheOperatorsServiceThere) {
  const Ran ran = Client({"call", "terrace.v1.Admin/Status"}, "{}");
  EXPECT_EQ(ran.exit_status, 1) << ran.out;
  EXPECT_EQ(ran.err.substr(0, 4), "12: ") << "UNIMPLEMENTED: " << ran.err;
}

}  // namespace
}  // namespace terrace
