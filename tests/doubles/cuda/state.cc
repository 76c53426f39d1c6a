#include "tests/doubles/cuda/state.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace terrace::stand_in {
namespace {

struct Fault {
  std::string function;
  unsigned calls_left = 0;
  cuda::Result result = cuda::kSuccess;
};

struct Shared {
  std::mutex mutex;
  std::condition_variable let_go;
  std::vector<Fault> faults;
  bool held_back = false;
  std::string hold_file;  // set once
  unsigned let = 0;
  StandInObserver observer = nullptr;
  void* observer_argument = nullptr;
  uint64_t queued[2] = {0, 0};
  uint64_t most_queued[2] = {0, 0};

  std::atomic<bool> initialised{false};
  std::atomic<int> devices{1};
  std::atomic<unsigned> delay_us{0};
  std::atomic<bool> read_only_registration{true};
  std::atomic<bool> kernels{false};
  std::atomic<bool> host_pointers{true};
  std::atomic<cuda::Result> lost_with{cuda::kSuccess};
  LiveCounters counters;
};

// What STAND_IN_CUDA of the environment says, for processes that no test can call into: words
// between semicolons. "fail=FUNCTION,NTH,RESULT", as stand_in_fail has it; "delay=MICROSECONDS";
// "ring": no memory can be registered read-only; "devices=N"; "kernels": modules can be loaded;
// "aliases": the device has addresses of its own for registered memory, and several copies in one
// call, which take none of the processor's, end the context; "hold=PATH": copies wait while there
// is such a file.
void ReadEnvironment(Shared& shared) {
  const char* const script = std::getenv("STAND_IN_CUDA");
  std::istringstream words(script == nullptr ? "" : script);
  for (std::string word; std::getline(words, word, ';');) {
    const std::string value = word.substr(std::min(word.size(), word.find('=') + 1));
    if (word.starts_with("fail=")) {
      std::istringstream fields(value);
      Fault fault;
      char comma = 0;
      std::getline(fields, fault.function, ',');
      fields >> fault.calls_left >> comma >> fault.result;
      shared.faults.push_back(fault);
    } else if (word.starts_with("delay=")) {
      shared.delay_us = static_cast<unsigned>(std::stoul(value));
    } else if (word.starts_with("devices=")) {
      shared.devices = std::stoi(value);
    } else if (word == "ring") {
      shared.read_only_registration = false;
    } else if (word == "kernels") {
      shared.kernels = true;
    } else if (word == "aliases") {
      shared.host_pointers = false;
    } else if (word.starts_with("hold=")) {
      shared.hold_file = value;
    }
  }
}

Shared& Everything() {
  static auto* const shared = [] {
    auto* const made = new Shared();
    ReadEnvironment(*made);
    return made;
  }();
  return *shared;
}

thread_local cuda::Context current_context = nullptr;

bool Ends(cuda::Result result) {
  return result == cuda::kIllegalAddress || result == cuda::kLaunchFailed ||
         result == cuda::kEccUncorrectable || result == cuda::kUnknown ||
         result == cuda::kLaunchTimeout || result == cuda::kContextIsDestroyed;
}

cuda::Result DueFault(const char* function) {
  Shared& shared = Everything();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  cuda::Result due = cuda::kSuccess;
  for (auto fault = shared.faults.begin(); fault != shared.faults.end();) {
    if (fault->function == function && --fault->calls_left == 0) {
      due = fault->result;
      fault = shared.faults.erase(fault);
    } else {
      ++fault;
    }
  }
  return due;
}

}  // namespace

cuda::Result Enter(const char* function, Needs needs) {
  const cuda::Result due = DueFault(function);
  if (due != cuda::kSuccess) {
    if (Ends(due)) {
      LoseContext(due);
    }
    return due;
  }
  if (needs != Needs::kNothing && !Everything().initialised) {
    return cuda::kNotInitialized;
  }
  if (needs == Needs::kContext) {
    if (current_context == nullptr) {
      return cuda::kInvalidContext;
    }
    return LostWith();
  }
  return cuda::kSuccess;
}

void SetInitialised() {
  Everything().initialised = true;
}

void SetCurrent(cuda::Context context) {
  current_context = context;
}

int Devices() {
  return Everything().devices;
}

cuda::Context ContextOf(cuda::Device device) {
  // Never looked into: the address is all that there is of it.
  return reinterpret_cast<cuda::Context>(reinterpret_cast<char*>(&Everything()) + device);
}

cuda::Device CurrentDevice() {
  return static_cast<cuda::Device>(reinterpret_cast<char*>(current_context) -
                                   reinterpret_cast<char*>(&Everything()));
}

void LoseContext(cuda::Result result) {
  cuda::Result none = cuda::kSuccess;
  Everything().lost_with.compare_exchange_strong(none, result);
  Everything().let_go.notify_all();
}

cuda::Result LostWith() {
  return Everything().lost_with;
}

cuda::Result BeginCopy() {
  Shared& shared = Everything();
  {
    std::unique_lock<std::mutex> lock(shared.mutex);
    shared.let_go.wait(lock, [&shared] {
      return !shared.held_back || shared.let > 0 || shared.lost_with != cuda::kSuccess;
    });
    if (shared.held_back && shared.let > 0) {
      --shared.let;
    }
  }
  while (!shared.hold_file.empty() && access(shared.hold_file.c_str(), F_OK) == 0 &&
         shared.lost_with == cuda::kSuccess) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (const unsigned delay = shared.delay_us; delay != 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(delay));
  }
  return DueFault("copy");
}

bool FlipsByte() {
  return DueFault("flip") != cuda::kSuccess;
}

bool ReadOnlyRegistration() {
  return Everything().read_only_registration;
}

bool Kernels() {
  return Everything().kernels;
}

bool HostPointers() {
  return Everything().host_pointers;
}

void Observe(bool to_device, uint64_t device, size_t bytes) {
  Shared& shared = Everything();
  StandInObserver observer = nullptr;
  void* argument = nullptr;
  {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    observer = shared.observer;
    argument = shared.observer_argument;
  }
  if (observer != nullptr) {
    observer(argument, to_device ? 1 : 0, device, bytes);
  }
}

LiveCounters& Counters() {
  return Everything().counters;
}

void CountQueued(bool to_device, uint64_t bytes) {
  Shared& shared = Everything();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  uint64_t& queued = shared.queued[to_device ? 1 : 0];
  uint64_t& most = shared.most_queued[to_device ? 1 : 0];
  queued += bytes;
  most = std::max(most, queued);
}

void CountUnqueued(bool to_device, uint64_t bytes) {
  Shared& shared = Everything();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.queued[to_device ? 1 : 0] -= bytes;
}

}  // namespace terrace::stand_in

using terrace::stand_in::Everything;

void stand_in_counters(StandInCounters* out) {
  auto& shared = Everything();
  const auto& live = shared.counters;
  out->allocated_bytes = live.allocated_bytes;
  out->allocation_handles = live.allocation_handles;
  out->open_ipc_mappings = live.open_ipc_mappings;
  out->mapped_bytes = live.mapped_bytes;
  out->reserved_ranges = live.reserved_ranges;
  out->registered_bytes = live.registered_bytes;
  out->streams = live.streams;
  out->events = live.events;
  out->retained_contexts = live.retained_contexts;
  out->modules = live.modules;
  out->copies = live.copies;
  out->batches = live.batches;
  out->kernels = live.kernels;
  out->pageable_copies = live.pageable_copies;
  out->reads_under_pending_write = live.reads_under_pending_write;
  out->late_copies = live.late_copies;
  out->faults = live.faults;
  const std::lock_guard<std::mutex> lock(shared.mutex);
  out->queued_bytes_to_host = shared.queued[0];
  out->queued_bytes_to_device = shared.queued[1];
  out->most_queued_bytes_to_host = shared.most_queued[0];
  out->most_queued_bytes_to_device = shared.most_queued[1];
}

void stand_in_reset(void) {
  auto& shared = Everything();
  auto& live = shared.counters;
  live.copies = 0;
  live.batches = 0;
  live.kernels = 0;
  live.pageable_copies = 0;
  live.reads_under_pending_write = 0;
  live.late_copies = 0;
  live.faults = 0;
  shared.delay_us = 0;
  shared.devices = 1;
  shared.read_only_registration = true;
  shared.kernels = false;
  shared.host_pointers = true;
  shared.lost_with = terrace::cuda::kSuccess;
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.faults.clear();
  shared.held_back = false;
  shared.let = 0;
  shared.observer = nullptr;
  shared.most_queued[0] = shared.queued[0];
  shared.most_queued[1] = shared.queued[1];
  shared.let_go.notify_all();
}

void stand_in_set_delay_us(unsigned delay) {
  Everything().delay_us = delay;
}

void stand_in_hold_back(int hold) {
  auto& shared = Everything();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.held_back = hold != 0;
  shared.let = 0;
  shared.let_go.notify_all();
}

void stand_in_let(unsigned count) {
  auto& shared = Everything();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.let += count;
  shared.let_go.notify_all();
}

void stand_in_fail(const char* function, unsigned nth, int result) {
  auto& shared = Everything();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.faults.push_back({function, nth, result});
}

void stand_in_set_read_only_registration(int supported) {
  Everything().read_only_registration = supported != 0;
}

void stand_in_set_kernels(int supported) {
  Everything().kernels = supported != 0;
}

void stand_in_set_devices(int devices) {
  Everything().devices = devices;
}

void stand_in_set_host_pointers(int supported) {
  Everything().host_pointers = supported != 0;
}

void stand_in_observe(StandInObserver observer, void* argument) {
  auto& shared = Everything();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.observer = observer;
  shared.observer_argument = argument;
}
