#include "tests/e2e/daemon/one_block.h"

#include "absl/status/status.h"
#include <grpcpp/grpcpp.h>

namespace terrace {

std::unique_ptr<v1::Cache::Stub> CacheStub(const std::string& runtime_dir) {
  return v1::Cache::NewStub(grpc::CreateChannel("unix:" + runtime_dir + "/terrace.sock",
                                                grpc::InsecureChannelCredentials()));
}

absl::StatusOr<v1::Part> OneBlockPart(v1::Cache::Stub& stub, uint64_t block_bytes) {
  v1::OpenNamespaceRequest request;
  v1::NamespaceRecord& record = *request.mutable_record();
  record.set_model("m");
  record.set_weights_revision("1");
  record.set_kv_dtype("bf16");
  record.set_layout("l/1");
  record.set_hash_algorithm("sha256");
  record.set_block_tokens(16);
  record.set_block_bytes(block_bytes);
  v1::OpenNamespaceReply reply;
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  const grpc::Status status = stub.OpenNamespace(&context, request, &reply);
  if (!status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  v1::Part part;
  part.set_namespace_digest(reply.namespace_digest());
  part.set_key_bytes(32);
  part.set_keys(std::string(32, 'k'));
  return part;
}

}  // namespace terrace
