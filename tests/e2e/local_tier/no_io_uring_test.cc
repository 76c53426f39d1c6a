// A host that forbids io_uring: the local tier works with threads, and the daemon says so.
#include <csignal>
#include <memory>
#include <string>
#include <utility>

#include "terrace/v1/cache.grpc.pb.h"
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/http_client.h"
#include "tests/e2e/daemon/one_block.h"
#include "tests/e2e/daemon_lifecycle/daemon_run.h"

namespace terrace {
namespace {

using ::testing::HasSubstr;

// All metrics of a daemon, from the address that it logged.
std::string Scrape(const DaemonRun& run) {
  EXPECT_TRUE(run.Logged("metrics=127.0.0.1:"));
  const std::string log = run.err();
  const size_t at = log.find("metrics=") + 8;
  return doubles::AskHttp(log.substr(at, log.find(' ', at) - at), "GET /metrics HTTP/1.0\r\n\r\n");
}

// One block, put and got inline.
class OneBlock {
 public:
  explicit OneBlock(const DaemonRun& run) : stub_(CacheStub(run.runtime())) {
    absl::StatusOr<v1::Part> part = OneBlockPart(*stub_, sizeof(kPayload));
    EXPECT_TRUE(part.ok()) << part.status();
    part_ = part.ok() ? *std::move(part) : v1::Part();
  }
  // The level that was reached.
  int Put() {
    v1::PutRequest request;
    *request.mutable_part() = part_;
    request.add_payload_bytes(sizeof(kPayload));
    request.set_payload(kPayload, sizeof(kPayload));
    request.set_wait_for(v1::LEVEL_LOCAL_SYNCED);
    v1::PutReply reply;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Put(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.levels().empty() ? 0 : reply.levels()[0];
  }
  bool GetsWhatWasPut() {
    v1::GetRequest request;
    *request.add_parts() = part_;
    request.set_delivery(v1::DELIVERY_INLINE);
    request.set_wait_pending(1);
    v1::GetReply reply;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Get(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.payload() == std::string(kPayload, sizeof(kPayload));
  }

 private:
  static constexpr char kPayload[] = "a payload that no page is filled by";

  std::unique_ptr<v1::Cache::Stub> stub_;
  v1::Part part_;
};

TEST(NoIoUring, TheLocalTierWorksWithThreadsAndSaysSo) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  EXPECT_TRUE(run.Logged("no io_uring for the local tier")) << run.err();
  EXPECT_EQ(OneBlock(run).Put(), v1::LEVEL_LOCAL_SYNCED);
  const std::string metrics = Scrape(run);
  EXPECT_THAT(metrics, HasSubstr("terrace_io_engine{engine=\"threads\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("terrace_io_fallback 1\n"));
  EXPECT_THAT(metrics, HasSubstr("terrace_local_writes_total{tier=\"g3\"} 1\n"));
  run.Signal(SIGKILL);
  ASSERT_EQ(run.End(), 128 + SIGKILL);
  // What it wrote is there, and read by threads as well.
  ASSERT_TRUE(run.StartSmall()) << run.err();
  bool found = false;
  for (int tries = 0; tries < 1000 && !found; ++tries) {
    found = OneBlock(run).GetsWhatWasPut();
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace terrace
