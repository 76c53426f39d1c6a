#include "tools/bench/empty_call.h"

#include <csignal>
#include <filesystem>
#include <utility>

#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "terrace/v1/cache.grpc.pb.h"

#include "tools/bench/child_process.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/progress.h"

namespace terrace::bench {
namespace {

constexpr int kWarmCalls = 500;
constexpr std::chrono::seconds kDeadline{10};

// Check() with an empty request and an empty reply.
class EmptyService final : public grpc::health::v1::Health::CallbackService {
 public:
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* /*request*/,
                                  grpc::health::v1::HealthCheckResponse* /*response*/) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

absl::Status ToStatus(const grpc::Status& status, const std::string& what) {
  return status.ok() ? absl::OkStatus()
                     : absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                                    what + ": " + status.error_message());
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + kDeadline);
}

class UnixCaller final : public EmptyCaller {
 public:
  UnixCaller(std::string folder, ChildProcess server, const std::string& target)
      : folder_(std::move(folder)),
        server_(std::move(server)),
        stub_(grpc::health::v1::Health::NewStub(
            grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))) {}
  ~UnixCaller() override {
    server_.Stop();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  UnixCaller(const UnixCaller&) = delete;
  UnixCaller& operator=(const UnixCaller&) = delete;
  UnixCaller(UnixCaller&&) = delete;
  UnixCaller& operator=(UnixCaller&&) = delete;

  absl::Status Call() override {
    grpc::ClientContext context;
    SetDeadline(context);
    return ToStatus(stub_->Check(&context, request_, &response_), "empty call");
  }

 private:
  const std::string folder_;
  ChildProcess server_;
  std::unique_ptr<grpc::health::v1::Health::Stub> stub_;
  grpc::health::v1::HealthCheckRequest request_;
  grpc::health::v1::HealthCheckResponse response_;
};

class CacheProber final : public GrpcProber {
 public:
  CacheProber(const std::string& target, std::string model)
      : stub_(terrace::v1::Cache::NewStub(
            grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))),
        model_(std::move(model)) {}

  absl::Status Open() {
    terrace::v1::OpenNamespaceRequest request;
    terrace::v1::NamespaceRecord& record = *request.mutable_record();
    record.set_model(model_);
    record.set_weights_revision("0");
    record.set_kv_dtype("bf16");
    record.set_layout("terrace-bench/1");
    record.set_hash_algorithm("terrace-bench");
    record.set_block_tokens(16);
    record.set_block_bytes(4096);
    terrace::v1::OpenNamespaceReply reply;
    grpc::ClientContext context;
    SetDeadline(context);
    absl::Status status =
        ToStatus(stub_->OpenNamespace(&context, request, &reply), "OpenNamespace");
    terrace::v1::Part& part = *request_.add_parts();
    part.set_namespace_digest(reply.namespace_digest());
    part.set_rule(terrace::v1::RULE_PREFIX);
    return status;
  }

  absl::Status Probe(const std::string& key) override {
    terrace::v1::Part& part = *request_.mutable_parts(0);
    part.set_key_bytes(static_cast<uint32_t>(key.size()));
    part.set_keys(key);
    grpc::ClientContext context;
    SetDeadline(context);
    return ToStatus(stub_->Probe(&context, request_, &reply_), "Probe");
  }

 private:
  std::unique_ptr<terrace::v1::Cache::Stub> stub_;
  std::string model_;
  terrace::v1::ProbeRequest request_;
  terrace::v1::ProbeReply reply_;
};

}  // namespace

int ServeEmptyCalls(const std::string& socket_path) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before gRPC starts threads
  EmptyService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket_path, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    return 1;
  }
  int signal = 0;
  sigwait(&ends, &signal);
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

absl::StatusOr<std::unique_ptr<EmptyCaller>> EmptyCaller::Start() {
  absl::StatusOr<std::string> folder = MakePrivateFolder("");
  if (!folder.ok()) {
    return folder.status();
  }
  const std::string socket_path = *folder + "/empty.sock";
  absl::StatusOr<ChildProcess> server = ChildProcess::Start(
      {"/proc/self/exe", kEmptyServerVerb, socket_path}, *folder + "/empty.log");
  if (!server.ok()) {
    return server.status();
  }
  auto caller = std::make_unique<UnixCaller>(*folder, *std::move(server), "unix:" + socket_path);
  for (int i = 0; i < kWarmCalls; ++i) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    if (absl::Status status = caller->Call(); !status.ok()) {
      return status;
    }
  }
  return caller;
}

absl::StatusOr<std::unique_ptr<GrpcProber>> GrpcProber::Connect(const std::string& runtime_dir,
                                                                const std::string& model) {
  auto prober = std::make_unique<CacheProber>("unix:" + runtime_dir + "/terrace.sock", model);
  if (absl::Status status = prober->Open(); !status.ok()) {
    return status;
  }
  return prober;
}

}  // namespace terrace::bench
