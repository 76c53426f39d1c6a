// The unit in which round trips are measured: an empty unary gRPC call over a Unix socket to a warm
// callback server in a process of its own. Wraps gRPC.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace terrace::bench {

inline constexpr const char* kEmptyServerVerb = "--serve-empty-calls";

// Serves on a socket path until SIGTERM; the exit status of the process.
int ServeEmptyCalls(const std::string& socket_path);

// Confined to one thread.
class EmptyCaller {
 public:
  // Starts this program as a server on a socket in a private folder, and warms it with a few
  // hundred calls. Errors: those of ChildProcess::Start; UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<EmptyCaller>> Start();
  virtual ~EmptyCaller() = default;
  virtual absl::Status Call() = 0;
};

// A probe of one key that is not there, over the daemon's gRPC socket.
class GrpcProber {
 public:
  // Opens a namespace of this name. Errors: UNAVAILABLE and those of OpenNamespace.
  static absl::StatusOr<std::unique_ptr<GrpcProber>> Connect(const std::string& runtime_dir,
                                                             const std::string& model);
  virtual ~GrpcProber() = default;
  virtual absl::Status Probe(const std::string& key) = 0;
};

}  // namespace terrace::bench
