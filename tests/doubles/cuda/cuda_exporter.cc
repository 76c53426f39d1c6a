// The process of an engine, as far as a test needs it: owns device memory and an event, fills the
// memory when told, and ends with its socket.
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tests/doubles/cuda/exporter_protocol.h"
#include "tests/doubles/cuda/stand_in.h"
#include "tiers/gpu/cuda_objects.h"

namespace terrace::stand_in {
namespace {

// Kernels are the stand-in's; a copy fills memory with any driver.
enum class Producer : uint8_t { kKernel, kCopy };

class Exporter {
 public:
  Exporter(Producer producer,
           const cuda::PrimaryContext& context,
           cuda::OwnedStream stream,
           cuda::OwnedEvent event)
      : producer_(producer),
        context_(context),
        driver_(context.driver()),
        stream_(std::move(stream)),
        event_(std::move(event)) {}

  ExporterAnswer Do(const ExporterCommand& command, Descriptor* passed) {
    ExporterAnswer answer;
    switch (command.verb) {
      case ExporterVerb::kAllocate:
        answer.result = driver_->MemAlloc(&memory_, command.bytes);
        if (answer.result == cuda::kSuccess) {
          answer.result = driver_->IpcGetMemHandle(&answer.memory, memory_);
        }
        break;
      case ExporterVerb::kAllocateShared:
        answer.result = AllocateShared(command.bytes, passed);
        break;
      case ExporterVerb::kHoldBack:
        stand_in_hold_back(static_cast<int>(command.value));
        break;
      case ExporterVerb::kFill:
        answer.result = Fill(command);
        if (answer.result == cuda::kSuccess) {
          answer.result = driver_->EventRecord(event_->get(), stream_.get());
        }
        break;
      case ExporterVerb::kFree:
        answer.result = driver_->MemFree(memory_);
        break;
      case ExporterVerb::kEvent:
        break;
      case ExporterVerb::kNewEvent:
        answer.result = MakeEvent();
        break;
    }
    if (answer.result == cuda::kSuccess) {
      answer.result = driver_->IpcGetEventHandle(&answer.event, event_->get());
    }
    return answer;
  }

 private:
  cuda::Result MakeEvent() {
    auto event = cuda::OwnedEvent::CreateShared(context_);
    if (!event.ok()) {
      return cuda::kOutOfMemory;
    }
    event_.emplace(*std::move(event));
    return cuda::kSuccess;
  }
  cuda::Result Fill(const ExporterCommand& command) {
    const cuda::DevicePointer to = memory_ + command.offset;
    const auto value = static_cast<unsigned char>(command.value);
    if (producer_ == Producer::kKernel) {
      return stand_in_kernel_fill(to, value, command.bytes, stream_.get());
    }
    const std::string bytes(command.bytes, static_cast<char>(value));
    const cuda::Result result =
        driver_->MemcpyHtoDAsync(to, bytes.data(), bytes.size(), stream_.get());
    return result == cuda::kSuccess ? driver_->StreamSynchronize(stream_.get()) : result;
  }

  cuda::Result AllocateShared(uint64_t bytes, Descriptor* passed) {
    cuda::AllocationProperties properties{};
    properties.type = cuda::kAllocationPinned;
    properties.requested_handle_types = cuda::kHandlePosixDescriptor;
    properties.location = {cuda::kLocationDevice, 0};
    cuda::AllocationHandle handle = 0;
    if (const cuda::Result result = driver_->MemCreate(&handle, bytes, &properties, 0);
        result != cuda::kSuccess) {
      return result;
    }
    const cuda::AccessDescription access{properties.location, cuda::kAccessReadWrite};
    for (const cuda::Result result : {driver_->MemAddressReserve(&memory_, bytes, 0, 0, 0),
                                      driver_->MemMap(memory_, bytes, 0, handle, 0),
                                      driver_->MemSetAccess(memory_, bytes, &access, 1)}) {
      if (result != cuda::kSuccess) {
        return result;
      }
    }
    int fd = -1;
    const cuda::Result exported =
        driver_->MemExportToShareableHandle(&fd, handle, cuda::kHandlePosixDescriptor, 0);
    *passed = Descriptor(fd);
    return exported;
  }

  const Producer producer_;
  const cuda::PrimaryContext& context_;
  const cuda::CudaDriver& driver_;
  cuda::OwnedStream stream_;
  std::optional<cuda::OwnedEvent> event_;
  cuda::DevicePointer memory_ = 0;
};

bool Answer(const ExporterAnswer& answer, const Descriptor& passed) {
  iovec piece{const_cast<ExporterAnswer*>(&answer), sizeof answer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (passed.valid()) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = passed.get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  return sendmsg(kExporterSocket, &message, MSG_NOSIGNAL) == sizeof answer;
}

int Serve(const char* library) {
  const auto driver = cuda::CudaDriver::Load(library);
  if (!driver.ok()) {
    return 1;
  }
  const auto context = cuda::PrimaryContext::Retain(**driver, 0);
  auto stream = cuda::OwnedStream::Create(*context, cuda::OwnedStream::Urgency::kFirst);
  auto event = cuda::OwnedEvent::CreateShared(*context);
  if (!stream.ok() || !event.ok()) {
    return 1;
  }
  Exporter exporter(*library == '\0' ? Producer::kCopy : Producer::kKernel, *context,
                    *std::move(stream), *std::move(event));
  ExporterCommand command;
  while (recv(kExporterSocket, &command, sizeof command, 0) == sizeof command) {
    Descriptor passed;
    const ExporterAnswer answer = exporter.Do(command, &passed);
    if (!Answer(answer, passed)) {
      break;
    }
  }
  // Not by way of destructors: an engine that ends does not tidy up either.
  _exit(0);
}

}  // namespace
}  // namespace terrace::stand_in

int main(int argc, char** argv) {
  return argc == 2 ? terrace::stand_in::Serve(argv[1]) : 2;
}
