// The driver's symbols, third part: modules and kernels.
#include <string_view>

#include "tests/doubles/cuda/kernels.h"
#include "tests/doubles/cuda/state.h"
#include "tests/doubles/cuda/streams.h"

using namespace terrace::cuda;
using terrace::GatherMove;
using terrace::stand_in::Counters;
using terrace::stand_in::EnqueueGather;
using terrace::stand_in::Enter;
using terrace::stand_in::GatherLaunch;
using terrace::stand_in::HostRegistry;
using terrace::stand_in::Needs;
using terrace::stand_in::StreamQueue;

#define STAND_IN_ENTER(needs)                                               \
  if (const Result entered = Enter(__func__, needs); entered != kSuccess) { \
    return entered;                                                         \
  }

namespace {

// What a handle of a function points to.
struct KnownKernel {
  std::string_view name;
  bool gathers;
};
KnownKernel known_kernels[] = {{terrace::kGatherKernel, true}, {terrace::kSpreadKernel, false}};

}  // namespace

STAND_IN_SYMBOL Result cuModuleLoadData(Module* module, const void* image) {
  STAND_IN_ENTER(Needs::kContext);
  if (!terrace::stand_in::Kernels()) {
    return kNotSupported;
  }
  if (image == nullptr) {
    return kInvalidValue;
  }
  ++Counters().modules;
  *module = reinterpret_cast<Module>(new char());
  return kSuccess;
}

STAND_IN_SYMBOL Result cuModuleUnload(Module module) {
  STAND_IN_ENTER(Needs::kContext);
  --Counters().modules;
  delete reinterpret_cast<char*>(module);
  return kSuccess;
}

STAND_IN_SYMBOL Result cuModuleGetFunction(Function* function, Module, const char* name) {
  STAND_IN_ENTER(Needs::kContext);
  for (KnownKernel& kernel : known_kernels) {
    if (kernel.name == name) {
      *function = reinterpret_cast<Function>(&kernel);
      return kSuccess;
    }
  }
  return kNotFound;
}

STAND_IN_SYMBOL Result cuMemHostGetDevicePointer_v2(DevicePointer* pointer,
                                                    void* memory,
                                                    unsigned flags) {
  STAND_IN_ENTER(Needs::kContext);
  if (flags != 0 || HostRegistry::Instance().Find(memory, 1) == HostRegistry::Lookup::kPageable) {
    return kInvalidValue;
  }
  *pointer = reinterpret_cast<DevicePointer>(memory);
  return kSuccess;
}

STAND_IN_SYMBOL Result cuLaunchKernel(Function function,
                                      unsigned grid_x,
                                      unsigned grid_y,
                                      unsigned grid_z,
                                      unsigned block_x,
                                      unsigned block_y,
                                      unsigned block_z,
                                      unsigned shared_bytes,
                                      Stream stream,
                                      void** parameters,
                                      void** extra) {
  STAND_IN_ENTER(Needs::kContext);
  if (grid_x == 0 || grid_x > terrace::kMaxGatherBlocks || grid_y != 1 || grid_z != 1 ||
      block_x != terrace::kGatherThreads || block_y != 1 || block_z != 1 || shared_bytes != 0 ||
      extra != nullptr) {
    return kInvalidValue;
  }
  GatherLaunch launch;
  launch.gathers = reinterpret_cast<KnownKernel*>(function)->gathers;
  launch.moves = *static_cast<const GatherMove**>(parameters[0]);
  launch.count = *static_cast<uint32_t*>(parameters[1]);
  launch.stage = *static_cast<DevicePointer*>(parameters[2]);
  return EnqueueGather(**reinterpret_cast<std::shared_ptr<StreamQueue>*>(stream), launch);
}
