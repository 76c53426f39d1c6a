#include "daemon/worker/bounce_room.h"

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
  Buffer(Buffer&&) = delete;
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() override { room_->Give(offset_, bytes_); }

  [[nodiscard]] absl::Span<char> memory() const override {
    return {room_->memory_.memory().data() + offset_, bytes_};
  }

 private:
  const std::shared_ptr<BounceRoom> room_;
  const uint64_t offset_;
  const uint64_t bytes_;
};

BounceRoom::BounceRoom(SealedMemory memory)
    : memory_(std::move(memory)), ranges_(memory_.memory().size()) {}

absl::StatusOr<std::shared_ptr<BounceRoom>> BounceRoom::Make(uint64_t bytes) {
  absl::StatusOr<SealedMemory> memory =
      SealedMemory::Create({.bytes = std::max<uint64_t>(bytes, 1),
                            .huge_pages = true,
                            .reserved_pages = false,  // those are meant for the DRAM tier
                            .touch_threads = 1,
                            .writers = SealedMemory::Writers::kWhoeverMapsIt});
  if (!memory.ok()) {
    return memory.status();
  }
  return std::shared_ptr<BounceRoom>(new BounceRoom(*std::move(memory)));
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
  const absl::Span<char> memory = memory_.memory();
  if (before(begin, memory.data()) || !before(begin, memory.data() + memory.size())) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(begin - memory.data());
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
