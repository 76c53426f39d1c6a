#include "daemon/worker/bounce_room.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <utility>

namespace terrace {
namespace {

constexpr uint64_t kPage = PageRanges::kPageBytes;

uint64_t RoundedUp(uint64_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

}  // namespace

class BounceRoom::Buffer final : public PoolBuffer {
 public:
  Buffer(std::shared_ptr<BounceRoom> room, uint64_t offset, uint64_t bytes)
      : room_(std::move(room)), offset_(offset), bytes_(bytes) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() override { room_->Give(offset_, bytes_); }

  [[nodiscard]] absl::Span<char> memory() const override {
    return {room_->mapping_.data() + offset_, bytes_};
  }

 private:
  const std::shared_ptr<BounceRoom> room_;
  const uint64_t offset_;
  const uint64_t bytes_;
};

BounceRoom::BounceRoom(Descriptor fd, Mapping mapping)
    : fd_(std::move(fd)), mapping_(std::move(mapping)), ranges_(mapping_.size()) {}

absl::StatusOr<std::shared_ptr<BounceRoom>> BounceRoom::Make(uint64_t bytes) {
  const uint64_t rounded = RoundedUp(bytes);
  Descriptor fd(memfd_create("terrace-bounce", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ftruncate(fd.get(), static_cast<off_t>(rounded)) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return StatusFromErrno(errno, "bounce memory");
  }
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), 0, rounded, MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return mapping.status();
  }
  return std::shared_ptr<BounceRoom>(new BounceRoom(std::move(fd), *std::move(mapping)));
}

std::shared_ptr<PoolBuffer> BounceRoom::Take(uint64_t bytes) {
  if (bytes > this->bytes()) {
    return nullptr;
  }
  const uint64_t rounded = RoundedUp(std::max<uint64_t>(bytes, 1));
  std::optional<uint64_t> offset;
  {
    absl::MutexLock lock(&mutex_);
    offset = ranges_.Take(rounded);
  }
  return offset.has_value() ? std::make_shared<Buffer>(shared_from_this(), *offset, rounded)
                            : nullptr;
}

std::optional<uint64_t> BounceRoom::OffsetOf(const PoolBuffer& buffer) const {
  // Pointers of different objects are ordered by std::less alone.
  const std::less<> before;
  const char* const begin = buffer.memory().data();
  if (before(begin, mapping_.data()) || !before(begin, mapping_.data() + mapping_.size())) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(begin - mapping_.data());
}

uint64_t BounceRoom::used() const {
  absl::MutexLock lock(&mutex_);
  return ranges_.used();
}

void BounceRoom::Give(uint64_t offset, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  ranges_.Give(offset, bytes);
}

}  // namespace terrace
