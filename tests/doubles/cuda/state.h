// What the whole stand-in shares: the context's health, faults to come, delays and counters.
// Everything lives until the process ends, because streams' threads may. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "tests/doubles/cuda/stand_in.h"
#include "tiers/gpu/cuda_types.h"

#define STAND_IN_SYMBOL extern "C" __attribute__((visibility("default")))

namespace terrace::stand_in {

enum class Needs : uint8_t { kNothing, kInit, kContext };

// At the beginning of every call of the driver: what it has to answer at once, or kSuccess.
cuda::Result Enter(const char* function, Needs needs);

void SetInitialised();
// How many there are, from 0 on.
int Devices();
void SetCurrent(cuda::Context context);
cuda::Context ContextOf(cuda::Device device);
// Of the calling thread's context, which it has.
cuda::Device CurrentDevice();
// Ends the context with an error, as a fault of the device does.
void LoseContext(cuda::Result result);
// kSuccess, or what ended the context.
cuda::Result LostWith();

// Waits for the delay, and to be let when copies are held back; what the fault for the nth "copy"
// says, or kSuccess.
cuda::Result BeginCopy();
// Whether the copy that has just been made has a wrong byte.
bool FlipsByte();

bool ReadOnlyRegistration();
bool Kernels();
// Whether the device takes the processor's addresses of registered memory.
bool HostPointers();
void Observe(bool to_device, uint64_t device, size_t bytes);

// The counters, by the names of stand_in.h.
struct LiveCounters {
  std::atomic<uint64_t> allocated_bytes{0};
  std::atomic<uint64_t> allocation_handles{0};
  std::atomic<uint64_t> open_ipc_mappings{0};
  std::atomic<uint64_t> mapped_bytes{0};
  std::atomic<uint64_t> reserved_ranges{0};
  std::atomic<uint64_t> registered_bytes{0};
  std::atomic<uint64_t> streams{0};
  std::atomic<uint64_t> events{0};
  std::atomic<uint64_t> retained_contexts{0};
  std::atomic<uint64_t> modules{0};
  std::atomic<uint64_t> copies{0};
  std::atomic<uint64_t> batches{0};
  std::atomic<uint64_t> kernels{0};
  std::atomic<uint64_t> pageable_copies{0};
  std::atomic<uint64_t> reads_under_pending_write{0};
  std::atomic<uint64_t> late_copies{0};
  std::atomic<uint64_t> faults{0};
};
LiveCounters& Counters();

void CountQueued(bool to_device, uint64_t bytes);
void CountUnqueued(bool to_device, uint64_t bytes);

}  // namespace terrace::stand_in
