#include "tiers/gpu/batch_trial.h"

#include <algorithm>
#include <vector>

#include "tiers/os/file_system.h"

namespace terrace {
namespace {

constexpr uint64_t kPiece = 4096;
constexpr uint64_t kPieces = 4;
constexpr uint64_t kBytes = kPiece * kPieces;

}  // namespace

absl::Status TryCopiesInBatches(const cuda::PrimaryContext& context) {
  const cuda::CudaDriver& driver = context.driver();
  if (!driver.copies_in_batches()) {
    return absl::UnimplementedError("the driver has no call for several copies");
  }
  if (context.Attribute(cuda::kAttributeHostPointers) == 0) {
    return absl::UnimplementedError("the device has addresses of its own for pinned memory");
  }
  const auto stream = cuda::OwnedStream::Create(context, cuda::OwnedStream::Urgency::kLast);
  const auto device = cuda::OwnedMemory::Allocate(context, kBytes);
  const AlignedBuffer host(2 * kBytes);  // what goes there, and what comes back
  if (!stream.ok() || !device.ok() || host.bytes() == nullptr) {
    return !stream.ok()   ? stream.status()
           : !device.ok() ? device.status()
                          : absl::ResourceExhaustedError("no memory to try copies with");
  }
  const auto pinned =
      cuda::PinnedMemory::Register(context, host.span(), cuda::PinnedMemory::Access::kReadWrite);
  if (!pinned.ok()) {
    return pinned.status();
  }
  for (uint64_t i = 0; i < kBytes; ++i) {
    host.bytes()[i] = static_cast<char>(i * 7 + i / kPiece + 1);
  }
  for (const auto direction : {cuda::CopyDirection::kToDevice, cuda::CopyDirection::kToHost}) {
    std::vector<cuda::CopyRange> copies;
    char* const side = host.bytes() + (direction == cuda::CopyDirection::kToDevice ? 0 : kBytes);
    for (uint64_t i = 0; i < kPieces; ++i) {
      // In another order in the device, so that each has to be a copy of its own.
      copies.push_back({device->address() + (kPieces - 1 - i) * kPiece, side + i * kPiece, kPiece});
    }
    cuda::Result result = driver.EnqueueCopies(direction, copies, stream->get());
    const cuda::Result ended = driver->StreamSynchronize(stream->get());
    result = result == cuda::kSuccess ? ended : result;
    if (result != cuda::kSuccess) {
      return driver.StatusOf(result, "several copies in one call");
    }
  }
  return std::equal(host.bytes(), host.bytes() + kBytes, host.bytes() + kBytes)
             ? absl::OkStatus()
             : absl::DataLossError("several copies in one call: bytes went astray");
}

}  // namespace terrace
