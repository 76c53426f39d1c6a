// The driver's symbols, second half: streams, events and copies.
#include <chrono>
#include <thread>

#include "tests/doubles/cuda/state.h"
#include "tests/doubles/cuda/streams.h"

using namespace terrace::cuda;
using terrace::stand_in::Copy;
using terrace::stand_in::Counters;
using terrace::stand_in::EnqueueCopy;
using terrace::stand_in::EnqueueFill;
using terrace::stand_in::Enter;
using terrace::stand_in::LostWith;
using terrace::stand_in::Needs;
using terrace::stand_in::SharedEvent;
using terrace::stand_in::StreamQueue;

#define STAND_IN_ENTER(needs)                                               \
  if (const Result entered = Enter(__func__, needs); entered != kSuccess) { \
    return entered;                                                         \
  }

namespace {

// A stream or event as the driver's caller holds it: a pointer to the pointer.
StreamQueue& QueueOf(Stream stream) {
  return **reinterpret_cast<std::shared_ptr<StreamQueue>*>(stream);
}

std::shared_ptr<SharedEvent>& EventOf(Event event) {
  return *reinterpret_cast<std::shared_ptr<SharedEvent>*>(event);
}

Event HandOut(std::shared_ptr<SharedEvent> event) {
  ++Counters().events;
  return reinterpret_cast<Event>(new std::shared_ptr<SharedEvent>(std::move(event)));
}

// False where the context ended first.
bool WaitUntil(const SharedEvent& event, uint64_t number) {
  while (!event.Reached(number)) {
    if (LostWith() != kSuccess) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

}  // namespace

STAND_IN_SYMBOL Result cuStreamCreateWithPriority(Stream* stream, unsigned, int) {
  STAND_IN_ENTER(Needs::kContext);
  ++Counters().streams;
  *stream = reinterpret_cast<Stream>(new std::shared_ptr<StreamQueue>(StreamQueue::Start()));
  return kSuccess;
}

STAND_IN_SYMBOL Result cuStreamDestroy_v2(Stream stream) {
  STAND_IN_ENTER(Needs::kNothing);
  QueueOf(stream).Finish();
  delete reinterpret_cast<std::shared_ptr<StreamQueue>*>(stream);
  --Counters().streams;
  return kSuccess;
}

STAND_IN_SYMBOL Result cuStreamSynchronize(Stream stream) {
  if (const Result entered = Enter(__func__, Needs::kContext);
      entered != kSuccess && entered != LostWith()) {
    return entered;
  }
  // Also after the context was lost, so that no thread of the stand-in is in a test's memory then.
  QueueOf(stream).Drain();
  return LostWith();
}

STAND_IN_SYMBOL Result cuStreamWaitEvent(Stream stream, Event event, unsigned) {
  STAND_IN_ENTER(Needs::kContext);
  const std::shared_ptr<SharedEvent> awaited = EventOf(event);
  const uint64_t number = awaited->recorded();
  QueueOf(stream).Add([awaited, number] { WaitUntil(*awaited, number); });
  return kSuccess;
}

#if STAND_IN_VERSION >= 11070
STAND_IN_SYMBOL Result cuStreamWaitValue64_v2(Stream stream,
                                              DevicePointer address,
                                              uint64_t value,
                                              unsigned flags) {
  STAND_IN_ENTER(Needs::kContext);
  const auto located = terrace::stand_in::DeviceMemory::Instance().Locate(address, sizeof value);
  if (!located || flags != kWaitValueAtLeast || address % sizeof value != 0) {
    return kInvalidValue;
  }
  QueueOf(stream).Add([located, value] {
    const auto* word = reinterpret_cast<std::atomic<uint64_t>*>(located->bytes());
    while (*word < value && LostWith() == kSuccess) {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  });
  return kSuccess;
}
#endif

STAND_IN_SYMBOL Result cuLaunchHostFunc(Stream stream, HostFunction function, void* argument) {
  STAND_IN_ENTER(Needs::kContext);
  QueueOf(stream).Add([function, argument] {
    if (LostWith() == kSuccess) {
      function(argument);
    }
  });
  return kSuccess;
}

STAND_IN_SYMBOL Result cuEventCreate(Event* event, unsigned flags) {
  STAND_IN_ENTER(Needs::kContext);
  const bool exportable = (flags & kEventInterprocess) != 0;
  if (exportable && (flags & kEventDisableTiming) == 0) {
    return kInvalidValue;
  }
  std::shared_ptr<SharedEvent> made = SharedEvent::Create(exportable);
  if (made == nullptr) {
    return kOutOfMemory;
  }
  *event = HandOut(std::move(made));
  return kSuccess;
}

STAND_IN_SYMBOL Result cuEventDestroy_v2(Event event) {
  STAND_IN_ENTER(Needs::kNothing);
  delete &EventOf(event);
  --Counters().events;
  return kSuccess;
}

STAND_IN_SYMBOL Result cuEventRecord(Event event, Stream stream) {
  STAND_IN_ENTER(Needs::kContext);
  const std::shared_ptr<SharedEvent> recorded = EventOf(event);
  const uint64_t number = recorded->Record();
  QueueOf(stream).Add([recorded, number] {
    if (LostWith() == kSuccess) {
      recorded->Complete(number);
    }
  });
  return kSuccess;
}

STAND_IN_SYMBOL Result cuEventQuery(Event event) {
  STAND_IN_ENTER(Needs::kContext);
  const SharedEvent& asked = *EventOf(event);
  return asked.Reached(asked.recorded()) ? kSuccess : kNotReady;
}

STAND_IN_SYMBOL Result cuEventSynchronize(Event event) {
  STAND_IN_ENTER(Needs::kContext);
  const std::shared_ptr<SharedEvent> awaited = EventOf(event);
  return WaitUntil(*awaited, awaited->recorded()) ? kSuccess : LostWith();
}

STAND_IN_SYMBOL Result cuIpcGetEventHandle(IpcEventHandle* handle, Event event) {
  STAND_IN_ENTER(Needs::kContext);
  return EventOf(event)->Export(handle);
}

STAND_IN_SYMBOL Result cuIpcOpenEventHandle(Event* event, IpcEventHandle handle) {
  STAND_IN_ENTER(Needs::kContext);
  std::shared_ptr<SharedEvent> opened = SharedEvent::Open(handle);
  if (opened == nullptr) {
    return kInvalidHandle;
  }
  *event = HandOut(std::move(opened));
  return kSuccess;
}

STAND_IN_SYMBOL Result cuMemcpyHtoDAsync_v2(DevicePointer to,
                                            const void* from,
                                            size_t bytes,
                                            Stream stream) {
  STAND_IN_ENTER(Needs::kContext);
  // Only read from: a copy's host side is one field for both directions.
  auto* host = const_cast<char*>(static_cast<const char*>(from));
  return EnqueueCopy(QueueOf(stream), {true, to, host, 0, bytes});
}

STAND_IN_SYMBOL Result cuMemcpyDtoHAsync_v2(void* to,
                                            DevicePointer from,
                                            size_t bytes,
                                            Stream stream) {
  STAND_IN_ENTER(Needs::kContext);
  return EnqueueCopy(QueueOf(stream), {false, from, static_cast<char*>(to), 0, bytes});
}

STAND_IN_SYMBOL Result cuMemcpyDtoDAsync_v2(DevicePointer to,
                                            DevicePointer from,
                                            size_t bytes,
                                            Stream stream) {
  STAND_IN_ENTER(Needs::kContext);
  return EnqueueCopy(QueueOf(stream), {true, to, nullptr, from, bytes});
}

#if STAND_IN_VERSION >= 12080
namespace {

Result EnqueueBatch(const DevicePointer* to,
                    const DevicePointer* from,
                    const size_t* sizes,
                    size_t count,
                    const CopyAttributes* attributes,
                    const size_t* first,
                    size_t attributes_count,
                    Stream stream) {
  if (count == 0 || stream == nullptr || attributes_count != 1 || first[0] != 0 ||
      attributes->source_access_order != kSourceInStreamOrder) {
    return kInvalidValue;
  }
  ++Counters().batches;
  if (!terrace::stand_in::HostPointers()) {
    QueueOf(stream).Add([] { terrace::stand_in::LoseContext(kIllegalAddress); });
    return kSuccess;
  }
  auto& memory = terrace::stand_in::DeviceMemory::Instance();
  // The order within a batch is the driver's affair: here it is the last first.
  for (size_t i = count; i-- > 0;) {
    const bool to_device = memory.Locate(to[i], sizes[i]).has_value();
    const Copy copy{to_device, to_device ? to[i] : from[i],
                    reinterpret_cast<char*>(to_device ? from[i] : to[i]), 0, sizes[i]};
    if (const Result result = EnqueueCopy(QueueOf(stream), copy); result != kSuccess) {
      return result;
    }
  }
  return kSuccess;
}

}  // namespace

STAND_IN_SYMBOL Result cuMemcpyBatchAsync(DevicePointer* to,
                                          DevicePointer* from,
                                          size_t* sizes,
                                          size_t count,
                                          CopyAttributes* attributes,
                                          size_t* first,
                                          size_t attributes_count,
                                          size_t* fail_index,
                                          Stream stream) {
  STAND_IN_ENTER(Needs::kContext);
  *fail_index = SIZE_MAX;
  return EnqueueBatch(to, from, sizes, count, attributes, first, attributes_count, stream);
}
#endif

#if STAND_IN_VERSION >= 13000
STAND_IN_SYMBOL Result cuMemcpyBatchAsync_v2(DevicePointer* to,
                                             DevicePointer* from,
                                             size_t* sizes,
                                             size_t count,
                                             CopyAttributes* attributes,
                                             size_t* first,
                                             size_t attributes_count,
                                             Stream stream) {
  STAND_IN_ENTER(Needs::kContext);
  return EnqueueBatch(to, from, sizes, count, attributes, first, attributes_count, stream);
}
#endif

STAND_IN_SYMBOL int stand_in_kernel_fill(uint64_t device,
                                         unsigned char value,
                                         size_t bytes,
                                         void* stream) {
  return EnqueueFill(QueueOf(static_cast<Stream>(stream)), device, value, bytes);
}
