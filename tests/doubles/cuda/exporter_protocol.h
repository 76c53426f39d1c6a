// What a test and the process that exports device memory to it say to each other: one packet a
// command, one packet an answer, over a SOCK_SEQPACKET socket.
#pragma once

#include <cstdint>

#include "tiers/gpu/cuda_types.h"

namespace terrace::stand_in {

inline constexpr int kExporterSocket = 3;  // in the exporting process

enum class ExporterVerb : uint32_t {
  kAllocate,        // `bytes` of memory, exported by legacy handle
  kAllocateShared,  // `bytes` of memory, exported by a descriptor, which comes along
  kHoldBack,        // kernels wait from now on (`value` 1) or go on (0)
  kFill,            // a kernel writes `value` to [offset, offset + bytes); the event is recorded
  kFree,
  kEvent,  // nothing but the answer, which has the event's handle every time
  kNewEvent,  // in the place of the event, which is destroyed
};

struct ExporterCommand {
  ExporterVerb verb = ExporterVerb::kAllocate;
  uint32_t value = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct ExporterAnswer {
  cuda::Result result = cuda::kSuccess;
  cuda::IpcMemHandle memory{};
  cuda::IpcEventHandle event{};
};

}  // namespace terrace::stand_in
