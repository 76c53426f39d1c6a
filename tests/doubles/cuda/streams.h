// The stand-in's streams, which are queues with a thread each, and its events, which other
// processes may open. Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "tests/doubles/cuda/device_memory.h"

namespace terrace::stand_in {

class StreamQueue : public std::enable_shared_from_this<StreamQueue> {
 public:
  static std::shared_ptr<StreamQueue> Start();
  void Add(std::function<void()> work);
  void Drain();
  // What is queued still runs; the thread ends behind it.
  void Finish();

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false;
  bool finishing_ = false;
};

// Recorded how often, and how far streams have come: in memory that processes share.
struct EventPage {
  uint64_t magic;
  uint64_t id;
  std::atomic<uint64_t> recorded;
  std::atomic<uint64_t> completed;
};

class SharedEvent {
 public:
  static std::shared_ptr<SharedEvent> Create(bool exportable);
  static std::shared_ptr<SharedEvent> Open(const cuda::IpcEventHandle& handle);
  cuda::Result Export(cuda::IpcEventHandle* handle) const;

  // The number of this recording, to be completed when the stream gets there.
  uint64_t Record() { return ++page().recorded; }
  void Complete(uint64_t number);
  [[nodiscard]] uint64_t recorded() const { return page().recorded; }
  [[nodiscard]] bool Reached(uint64_t number) const { return page().completed >= number; }

 private:
  [[nodiscard]] EventPage& page() const { return *reinterpret_cast<EventPage*>(mapping_.data()); }
  Descriptor fd_;
  Mapping mapping_;
  bool exportable_ = false;
};

// One copy between host and device, or within the device, when its turn has come.
struct Copy {
  bool to_device = false;
  cuda::DevicePointer device = 0;
  char* host = nullptr;                  // or, where null,
  cuda::DevicePointer other_device = 0;  // the other side: of a copy to `device`
  size_t bytes = 0;
};
// kSuccess, or what the driver answers at once.
cuda::Result EnqueueCopy(StreamQueue& stream, const Copy& copy);
cuda::Result EnqueueFill(StreamQueue& stream,
                         cuda::DevicePointer device,
                         unsigned char value,
                         size_t bytes);

}  // namespace terrace::stand_in
