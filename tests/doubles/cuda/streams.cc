#include "tests/doubles/cuda/streams.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <utility>

namespace terrace::stand_in {
namespace {

constexpr uint64_t kEventMagic = 0x544e4556'45444143;
constexpr size_t kPageBytes = 4096;

struct HandleWords {
  uint64_t magic;
  uint64_t id;
  int32_t pid;
  int32_t fd;
};

void Run(const Copy& copy, const Located& as_asked) {
  if (LostWith() != cuda::kSuccess) {
    return;
  }
  Observe(copy.to_device, copy.device, copy.bytes);
  if (const cuda::Result due = BeginCopy(); due != cuda::kSuccess) {
    LoseContext(due);
    return;
  }
  if (LostWith() != cuda::kSuccess) {
    return;
  }
  DeviceMemory& memory = DeviceMemory::Instance();
  const std::optional<Located> now = memory.Locate(copy.device, copy.bytes);
  if (!now || now->generation != as_asked.generation) {
    ++Counters().late_copies;
  }
  const std::optional<Located> other =
      copy.host == nullptr ? memory.Locate(copy.other_device, copy.bytes) : std::nullopt;
  if (!now || now->exporter_dead || (copy.host == nullptr && !other)) {
    ++Counters().faults;
    LoseContext(cuda::kIllegalAddress);
    return;
  }
  const Located& source = other ? *other : *now;
  const bool reads_device = other.has_value() || !copy.to_device;
  if (reads_device &&
      source.backing->UnderPendingWrite(source.offset, source.offset + copy.bytes)) {
    ++Counters().reads_under_pending_write;
  }
  char* const device = now->bytes();
  char* const opposite = other ? other->bytes() : copy.host;
  char* const to = copy.to_device ? device : opposite;
  std::memcpy(to, copy.to_device ? opposite : device, copy.bytes);
  if (FlipsByte()) {
    to[copy.bytes / 2] = static_cast<char>(~to[copy.bytes / 2]);
  }
  ++Counters().copies;
}

}  // namespace

std::shared_ptr<StreamQueue> StreamQueue::Start() {
  auto queue = std::make_shared<StreamQueue>();
  std::thread([queue] { queue->Loop(); }).detach();
  return queue;
}

void StreamQueue::Add(std::function<void()> work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(work));
  changed_.notify_all();
}

void StreamQueue::Drain() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
}

void StreamQueue::Finish() {
  const std::lock_guard<std::mutex> lock(mutex_);
  finishing_ = true;
  changed_.notify_all();
}

void StreamQueue::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return !queue_.empty() || finishing_; });
    if (queue_.empty()) {
      return;
    }
    const std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    work();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

std::shared_ptr<SharedEvent> SharedEvent::Create(bool exportable) {
  Descriptor fd(memfd_create("stand-in-event", MFD_CLOEXEC));
  if (!fd.valid() || ftruncate(fd.get(), kPageBytes) != 0) {
    return nullptr;
  }
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), 0, kPageBytes, MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return nullptr;
  }
  auto event = std::make_shared<SharedEvent>();
  event->fd_ = std::move(fd);
  event->mapping_ = *std::move(mapping);
  event->exportable_ = exportable;
  event->page().magic = kEventMagic;
  FillRandom({reinterpret_cast<char*>(&event->page().id), sizeof event->page().id});
  return event;
}

std::shared_ptr<SharedEvent> SharedEvent::Open(const cuda::IpcEventHandle& handle) {
  HandleWords words{};
  std::memcpy(&words, &handle, sizeof words);
  if (words.magic != kEventMagic || words.pid == getpid()) {
    return nullptr;
  }
  const std::string path = "/proc/" + std::to_string(words.pid) + "/fd/" + std::to_string(words.fd);
  Descriptor fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct stat facts {};
  if (!fd.valid() || fstat(fd.get(), &facts) != 0 ||
      facts.st_size != static_cast<off_t>(kPageBytes)) {
    return nullptr;
  }
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), 0, kPageBytes, MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return nullptr;
  }
  auto event = std::make_shared<SharedEvent>();
  event->fd_ = std::move(fd);
  event->mapping_ = *std::move(mapping);
  const bool named = event->page().magic == kEventMagic && event->page().id == words.id;
  return named ? event : nullptr;
}

cuda::Result SharedEvent::Export(cuda::IpcEventHandle* handle) const {
  if (!exportable_) {
    return cuda::kInvalidHandle;
  }
  const HandleWords words{kEventMagic, page().id, getpid(), fd_.get()};
  std::memset(handle, 0, sizeof *handle);
  std::memcpy(handle, &words, sizeof words);
  return cuda::kSuccess;
}

void SharedEvent::Complete(uint64_t number) {
  uint64_t seen = page().completed;
  while (seen < number && !page().completed.compare_exchange_weak(seen, number)) {
  }
}

cuda::Result EnqueueCopy(StreamQueue& stream, const Copy& copy) {
  const std::optional<Located> located = DeviceMemory::Instance().Locate(copy.device, copy.bytes);
  if (!located || copy.bytes == 0) {
    return cuda::kInvalidValue;
  }
  if (copy.host != nullptr) {
    const HostRegistry::Lookup host = HostRegistry::Instance().Find(copy.host, copy.bytes);
    if (host == HostRegistry::Lookup::kReadOnly && !copy.to_device) {
      return cuda::kInvalidValue;
    }
    if (host == HostRegistry::Lookup::kPageable) {
      ++Counters().pageable_copies;
    }
  }
  CountQueued(copy.to_device, copy.bytes);
  stream.Add([copy, located] {
    Run(copy, *located);
    CountUnqueued(copy.to_device, copy.bytes);
  });
  return cuda::kSuccess;
}

cuda::Result EnqueueFill(StreamQueue& stream,
                         cuda::DevicePointer device,
                         unsigned char value,
                         size_t bytes) {
  const std::optional<Located> located = DeviceMemory::Instance().Locate(device, bytes);
  if (!located || bytes == 0) {
    return cuda::kInvalidValue;
  }
  const int slot = located->backing->BeginPendingWrite(located->offset, located->offset + bytes);
  if (slot < 0) {
    return cuda::kOutOfMemory;
  }
  stream.Add([located, value, bytes, slot] {
    if (LostWith() == cuda::kSuccess && BeginCopy() == cuda::kSuccess) {
      std::memset(located->bytes(), value, bytes);
    }
    located->backing->EndPendingWrite(slot);
  });
  return cuda::kSuccess;
}

}  // namespace terrace::stand_in
