// What a test can make of the stand-in CUDA driver, and what it can learn from it. C, so that any
// program can drive the library; all calls are thread-safe and about this process alone.
//
// The stand-in has one device, or as many as it is told. Their memory lies in memfds and is mapped
// at addresses that the processor cannot touch, so that only copies reach it; an address that was
// given back is handed out again at once. Handles work between processes. Of kernels it knows those
// of this project by name, whatever the image, and runs them itself. What it does not do: the pace
// of real hardware.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STAND_IN_API __attribute__((visibility("default")))

typedef struct StandInCounters {
  // What is held now.
  uint64_t allocated_bytes;     // cuMemAlloc, cuMemCreate
  uint64_t allocation_handles;  // of cuMemCreate and imports
  uint64_t open_ipc_mappings;
  uint64_t mapped_bytes;  // imports by IPC, and ranges of cuMemMap
  uint64_t reserved_ranges;
  uint64_t registered_bytes;
  uint64_t streams;
  uint64_t events;
  uint64_t retained_contexts;
  uint64_t modules;
  uint64_t queued_bytes_to_device;  // of copies that have been asked for and have not run
  uint64_t queued_bytes_to_host;
  // What has been seen since the last stand_in_reset.
  uint64_t copies;
  uint64_t batches;
  uint64_t kernels;          // that have run
  uint64_t pageable_copies;  // from or to host memory that was not registered
  uint64_t most_queued_bytes_to_device;
  uint64_t most_queued_bytes_to_host;
  uint64_t
      reads_under_pending_write;  // of memory that a kernel had been told to write, and had not
  uint64_t late_copies;  // of memory that was unmapped, or became another's, before they ran
  uint64_t faults;       // copies that touched what is not mapped, or a dead exporter's
} StandInCounters;

STAND_IN_API void stand_in_counters(StandInCounters* out);
// No faults, no delay, nothing held back, the seen counters 0, an error that ended the context
// forgotten; what is held stays.
STAND_IN_API void stand_in_reset(void);

// Every copy and kernel takes this long from now on.
STAND_IN_API void stand_in_set_delay_us(unsigned delay);
// While held back, copies and kernels begin only as far as they are let.
STAND_IN_API void stand_in_hold_back(int hold);
STAND_IN_API void stand_in_let(unsigned count);

// The nth call of a function (from 1, from now) returns the result; "copy" is the nth copy that
// runs, and "flip", with any result, the nth that has a wrong byte. A result that ends the context
// makes all further calls fail with it.
STAND_IN_API void stand_in_fail(const char* function, unsigned nth, int result);

// One at the start. All fail together, and none reaches another's memory.
STAND_IN_API void stand_in_set_devices(int devices);

// The device's attributes for that are 0 or 1; 1 at the start.
STAND_IN_API void stand_in_set_read_only_registration(int supported);

// Whether the device takes the processor's addresses of registered memory; at the start it does.
// Where not, several copies in one call end the context.
STAND_IN_API void stand_in_set_host_pointers(int supported);

// Whether modules can be loaded; not at the start.
STAND_IN_API void stand_in_set_kernels(int supported);

// Enqueues what stands for a producer's kernel: when the stream gets there, fills the memory.
STAND_IN_API int stand_in_kernel_fill(uint64_t device,
                                      unsigned char value,
                                      size_t bytes,
                                      void* stream);

// Called by the stream's thread before each copy: whether it goes to the device, and where.
typedef void (*StandInObserver)(void* argument, int to_device, uint64_t device, size_t bytes);
STAND_IN_API void stand_in_observe(StandInObserver observer, void* argument);

#ifdef __cplusplus
}
#endif
