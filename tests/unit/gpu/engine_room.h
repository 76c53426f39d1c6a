// A copy engine over the stand-in driver, with device memory and host memory to move blocks
// between.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"

#include "tests/doubles/cuda/exporting_process.h"
#include "tests/doubles/eventually.h"
#include "tests/unit/gpu/stand_in_room.h"
#include "tiers/gpu/copy_engine.h"
#include "tiers/os/file_system.h"

namespace terrace {

// How transfers ended.
class Endings {
 public:
  std::function<void(absl::Status)> Into(size_t index) {
    return [this, index](const absl::Status& status) {
      const absl::MutexLock lock(&mutex_);
      if (ends_.size() <= index) {
        ends_.resize(index + 1);
      }
      ends_[index].push_back(status);
      order_.push_back(index);
    };
  }
  bool Has(size_t index) const {
    const absl::MutexLock lock(&mutex_);
    return index < ends_.size() && !ends_[index].empty();
  }
  absl::Status Await(size_t index) const {
    EXPECT_TRUE(doubles::Eventually([&] { return Has(index); })) << "transfer " << index;
    const absl::MutexLock lock(&mutex_);
    EXPECT_EQ(ends_[index].size(), 1U) << "ends once";
    return ends_[index].front();
  }
  std::vector<size_t> order() const {
    const absl::MutexLock lock(&mutex_);
    return order_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<std::vector<absl::Status>> ends_;
  std::vector<size_t> order_;
};

class EngineTest : public StandInTest {
 protected:
  static constexpr uint64_t kDeviceBytes = uint64_t{2} << 20;

  EngineTest() : host_(AlignedBuffer(kDeviceBytes)) { device_ = Allocate(kDeviceBytes); }
  ~EngineTest() override {
    stand_in_hold_back(0);
    engine_.reset();
    EXPECT_EQ(driver()->MemFree(device_), cuda::kSuccess);
    ExpectNothingHeld();
    EXPECT_EQ(Counters().queued_bytes_to_device, 0U);
    EXPECT_EQ(Counters().queued_bytes_to_host, 0U);
  }

  static CopyEngineOptions SmallOptions() {
    CopyEngineOptions options;
    options.max_bytes_in_flight = 64 << 10;
    options.ring_half_bytes = 16 << 10;
    options.kernels = {};
    return options;
  }
  static constexpr uint64_t kSmallPiece = 512;
  // Engines that gather pieces up to kSmallPiece; the stand-in has its kernels whatever the image.
  static CopyEngineOptions GatheringOptions() {
    static constexpr char kImage[] = "any";
    CopyEngineOptions options = SmallOptions();
    options.kernels = kImage;
    options.gathered_piece_bytes = kSmallPiece;
    stand_in_set_kernels(1);
    return options;
  }
  void Start(const CopyEngineOptions& options = SmallOptions()) {
    auto engine = CopyEngine::Start(context(), options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  // Start, with all of host() added; by the ring where the device cannot register it.
  void StartWith(HostPath path, const CopyEngineOptions& options = SmallOptions()) {
    Start(options);
    if (path == HostPath::kRing) {
      stand_in_fail("cuMemHostRegister_v2", 1, cuda::kOutOfMemory);
    }
    const auto added = engine_->AddHostMemory(host_.span(), cuda::PinnedMemory::Access::kReadWrite);
    ASSERT_TRUE(added.ok()) << added.status();
    ASSERT_EQ(*added, path);
  }

  // One layer, in pieces of at most so many bytes.
  DeviceTransfer One(cuda::CopyDirection direction, uint64_t offset, uint64_t bytes) {
    DeviceTransfer transfer;
    transfer.direction = direction;
    uint64_t done = 0;
    do {
      const uint64_t piece = std::min(piece_bytes_, bytes - done);
      transfer.plan.pieces.push_back(
          {device_ + offset + done, host_.bytes() + offset + done, piece});
      done += piece;
    } while (done < bytes);
    transfer.plan.layer_ends = {static_cast<uint32_t>(transfer.plan.pieces.size())};
    transfer.plan.bytes = bytes;
    return transfer;
  }
  DeviceTransfer Load(uint64_t offset, uint64_t bytes) {
    return One(cuda::CopyDirection::kToDevice, offset, bytes);
  }
  DeviceTransfer Save(uint64_t offset, uint64_t bytes) {
    return One(cuda::CopyDirection::kToHost, offset, bytes);
  }
  uint64_t Submit(DeviceTransfer transfer, size_t index) {
    const auto token = engine_->Submit(std::move(transfer), endings_.Into(index));
    EXPECT_TRUE(token.ok()) << token.status();
    return token.value_or(0);
  }
  void FillHost(char byte) { std::fill_n(host_.bytes(), kDeviceBytes, byte); }
  void ExpectIdle() {
    EXPECT_TRUE(doubles::Eventually([this] { return engine_->facts().transfers == 0; }));
  }

  Endings endings_;  // outlives the engine, which calls it
  uint64_t piece_bytes_ = kDeviceBytes;
  cuda::DevicePointer device_ = 0;
  AlignedBuffer host_;
  std::unique_ptr<CopyEngine> engine_;
};

}  // namespace terrace
