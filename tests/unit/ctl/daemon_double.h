// A daemon of the two gRPC services that keeps blocks in a map, on sockets in a folder of its own.
// Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "terrace/v1/admin.grpc.pb.h"
#include "terrace/v1/cache.grpc.pb.h"
#include <grpcpp/grpcpp.h>

namespace terrace::ctl {

class DaemonDouble {
 public:
  DaemonDouble();
  DaemonDouble(const DaemonDouble&) = delete;
  DaemonDouble& operator=(const DaemonDouble&) = delete;
  ~DaemonDouble();

  [[nodiscard]] const std::string& runtime_dir() const { return dir_; }
  // Every later call of this method ("Status", "Put", ...) ends with this.
  void Fail(const std::string& method, grpc::Status status);
  // Every later call waits until its client gives up.
  void Hang(const std::string& method);
  // Of the last call of the method, serialised; "" when there was none.
  std::string LastRequest(const std::string& method);
  void SetCorrupt(uint64_t corrupt);

  static constexpr uint64_t kBootId = 0x0123456789abcdef;

 private:
  class CacheService;
  class AdminService;
  struct State {
    absl::Mutex mutex;
    std::map<std::string, grpc::Status> failures ABSL_GUARDED_BY(mutex);
    std::map<std::string, std::string> requests ABSL_GUARDED_BY(mutex);
    std::map<std::string, std::string> blocks
        ABSL_GUARDED_BY(mutex);  // digest + salt + key -> payload
    std::map<std::string, v1::NamespaceRecord> namespaces ABSL_GUARDED_BY(mutex);
    std::string hanging ABSL_GUARDED_BY(mutex);
    uint64_t corrupt ABSL_GUARDED_BY(mutex) = 0;
    uint64_t guaranteed ABSL_GUARDED_BY(mutex) = uint64_t{1} << 30;
    uint64_t limit ABSL_GUARDED_BY(mutex) = 0;

    grpc::Status Enter(const std::string& method,
                       const google::protobuf::Message& request,
                       const grpc::ServerContext* context);
  };

  std::string dir_;
  State state_;
  std::unique_ptr<CacheService> cache_;
  std::unique_ptr<AdminService> admin_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace terrace::ctl
