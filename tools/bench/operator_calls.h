// What a scenario asks of a daemon's operator interface. Wraps gRPC.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace terrace::bench {

// Thread-safe; every call blocks, for half a minute at most.
class OperatorCalls {
 public:
  // Does not wait for the daemon: calls fail with UNAVAILABLE while there is none.
  static std::unique_ptr<OperatorCalls> Create(const std::string& runtime_dir);
  virtual ~OperatorCalls() = default;

  // Of the local tier. NOT_FOUND: there is none.
  struct LocalState {
    bool recovering = false;  // what it holds is not found again yet
    uint64_t file_bytes = 0;
    std::string last_fault;  // of the medium; "": none
  };
  virtual absl::StatusOr<LocalState> Local() = 0;
  // Of the nearest shared tier. NOT_FOUND: there is none.
  struct PoolState {
    std::string state;  // "ready", ...
    uint64_t worker_pid = 0;
    uint64_t worker_calls = 0;
  };
  virtual absl::StatusOr<PoolState> Pool() = 0;
  // Payload read ahead of conversations that were to come back.
  struct ReadAhead {
    uint64_t bytes = 0;
    uint64_t used_bytes = 0;
    uint64_t wasted_bytes = 0;
  };
  virtual absl::StatusOr<ReadAhead> ForReturns() = 0;
  // Returns when everything stored so far survives a loss of power.
  virtual absl::Status Flush() = 0;
  // Whatever may go has gone from DRAM when this returns.
  virtual absl::Status EvictDram() = 0;
};

}  // namespace terrace::bench
