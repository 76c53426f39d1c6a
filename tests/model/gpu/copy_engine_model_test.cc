// Random saves, loads and cancellations through the copy engine over the stand-in driver, against
// what every block and slot has to hold.
#include <algorithm>
#include <deque>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include <gtest/gtest.h>

#include "tests/doubles/cuda/exporting_process.h"
#include "tests/doubles/cuda/kv_layouts.h"
#include "tests/doubles/cuda/stand_in.h"
#include "tests/doubles/seeded.h"
#include "tiers/gpu/copy_engine.h"
#include "tiers/os/file_system.h"

namespace terrace {
namespace {

constexpr uint32_t kBlocks = 24;
constexpr uint32_t kLayers = 4;
constexpr uint64_t kHalf = 1536;  // of a block: keys, or values, of one layer
constexpr uint64_t kPayload = 2 * kHalf * kLayers;
constexpr uint64_t kSlotBytes = 16384;
constexpr uint64_t kRegionBytes = uint64_t{2} << 20;
constexpr size_t kSlots = 32;
constexpr size_t kMaxInFlight = 12;
constexpr stand_in::KvShape kShape{kBlocks, kLayers, kHalf};

// A place that holds a payload, or nobody knows what.
struct Place {
  std::optional<std::string> content;
  bool busy = false;
};
struct Region {
  RegionGeometry geometry;
  uint32_t planes_per_layer = 1;
  cuda::DevicePointer address = 0;
  std::vector<Place> blocks{kBlocks};
};
struct Move {
  bool load = false;
  size_t region = 0;
  std::vector<std::pair<uint32_t, size_t>> pairs;  // block and slot
  uint64_t payload_bytes = 0;
  uint64_t token = 0;
  std::atomic<uint32_t> layers{0};
  std::optional<absl::Status> end;  // under the mutex
};

class Comparison {
 public:
  Comparison(uint64_t seed, bool gathers) : random_(seed), gathers_(gathers) {}

  void Run(int transfers) {
    Begin();
    while (started_ < transfers && !testing::Test::HasFatalFailure()) {
      Step();
    }
    while (!moves_.empty()) {
      SettleOldest();
    }
    SaveEverything();
    StandInCounters counters{};
    stand_in_counters(&counters);
    EXPECT_EQ(counters.late_copies, 0U);
    EXPECT_EQ(counters.faults, 0U);
    EXPECT_EQ(counters.pageable_copies, 0U);
    EXPECT_EQ(counters.reads_under_pending_write, 0U);
    EXPECT_GT(engine_->facts().bytes_through_ring, 0U);
    EXPECT_EQ(engine_->facts().bytes_gathered > 0, gathers_);
    EXPECT_GT(cancelled_, 0);
    std::cout << settled_ << " transfers, " << cancelled_ << " cancelled, " << compared_
              << " bytes compared, " << wrong_ << " wrong\n";
    EXPECT_EQ(wrong_, 0U);
    engine_.reset();
    (*driver_)->MemFree(regions_[0].address);
    (*driver_)->MemFree(regions_[1].address);
    imported_.reset();
    stand_in_counters(&counters);
    EXPECT_EQ(counters.mapped_bytes, 0U);
    EXPECT_EQ(counters.registered_bytes, 0U);
    EXPECT_EQ(counters.allocated_bytes, 0U);
  }

 private:
  void Begin() {
    stand_in_reset();
    driver_ = *cuda::CudaDriver::Load(TERRACE_STAND_IN_CUDA);
    context_.emplace(*cuda::PrimaryContext::Retain(*driver_, 0));
    ASSERT_TRUE(context_->MakeCurrent().ok());
    CopyEngineOptions options;
    options.max_bytes_in_flight = 96 << 10;
    options.ring_half_bytes = 20 << 10;
    options.kernels = "any image";
    options.gathered_piece_bytes = kHalf;
    stand_in_set_kernels(gathers_ ? 1 : 0);
    engine_ = *CopyEngine::Start(*context_, options);
    regions_.push_back({stand_in::KeysFirst(kShape), 2});
    regions_.push_back({stand_in::BlocksFirst(kShape), 1});
    regions_.push_back({stand_in::OneStridedAllocation(kShape, 512), kLayers});
    ASSERT_EQ((*driver_)->MemAlloc(&regions_[0].address, kRegionBytes), cuda::kSuccess);
    ASSERT_EQ((*driver_)->MemAlloc(&regions_[1].address, kRegionBytes), cuda::kSuccess);
    imported_.emplace(
        *cuda::ImportedMemory::OpenIpc(*context_, exporter_.Allocate(kRegionBytes), kRegionBytes));
    regions_[2].address = imported_->address();
    for (const Region& region : regions_) {
      ASSERT_EQ(*ValidateGpuGeometry(region.geometry, kRegionBytes), kPayload);
    }
    const auto access = cuda::PinnedMemory::Access::kReadWrite;
    ASSERT_EQ(*engine_->AddHostMemory(direct_.span(), access), HostPath::kDirect);
    stand_in_fail("cuMemHostRegister_v2", 1, cuda::kOutOfMemory);
    ASSERT_EQ(*engine_->AddHostMemory(by_ring_.span(), access), HostPath::kRing);
    for (size_t slot = 0; slot < kSlots; ++slot) {
      Refill(slot);
    }
  }

  // Every second slot is reached through the ring.
  char* SlotBytes(size_t slot) {
    return (slot % 2 == 0 ? direct_ : by_ring_).bytes() + slot / 2 * kSlotBytes;
  }
  void Refill(size_t slot) {
    slots_[slot].content = random_.Bytes(kPayload);
    slots_[slot].content->copy(SlotBytes(slot), kPayload);
  }

  void Step() {
    const uint64_t dice = random_.Below(100);
    if (dice < 8 && !moves_.empty()) {
      engine_->Cancel(moves_[random_.Below(moves_.size())]->token);
    } else if (dice < 11) {
      stand_in_set_delay_us(static_cast<unsigned>(random_.Below(3)) * 10);
    } else if (dice < 20) {
      const size_t slot = random_.Below(kSlots);
      if (!slots_[slot].busy) {
        Refill(slot);
      }
    } else if (moves_.size() == kMaxInFlight || (dice < 40 && !moves_.empty())) {
      SettleOldest();
    } else {
      Start();
    }
  }

  void Start() {
    auto move = std::make_unique<Move>();
    move->load = random_.OneIn(2);
    move->region = random_.Below(regions_.size());
    move->payload_bytes = random_.OneIn(4) ? 1 + random_.Below(kPayload) : kPayload;
    Region& region = regions_[move->region];
    std::vector<BlockPlace> places;
    for (uint64_t tries = 1 + random_.Below(4); tries > 0; --tries) {
      const auto block = static_cast<uint32_t>(random_.Below(kBlocks));
      const size_t slot = random_.Below(kSlots);
      if (region.blocks[block].busy || slots_[slot].busy) {
        continue;
      }
      region.blocks[block].busy = true;
      slots_[slot].busy = true;
      move->pairs.emplace_back(block, slot);
      places.push_back({block, SlotBytes(slot), move->payload_bytes});
    }
    if (places.empty()) {
      return;
    }
    const auto plan =
        PlanCopies({&region.geometry, region.address, places, region.planes_per_layer});
    ASSERT_TRUE(plan.ok()) << plan.status();
    DeviceTransfer transfer;
    transfer.direction = move->load ? cuda::CopyDirection::kToDevice : cuda::CopyDirection::kToHost;
    transfer.plan = *plan;
    transfer.layers_landed = &move->layers;
    const auto token =
        engine_->Submit(std::move(transfer), [this, raw = move.get()](const absl::Status& status) {
          const absl::MutexLock lock(&mutex_);
          raw->end = status;
        });
    ASSERT_TRUE(token.ok()) << token.status();
    move->token = *token;
    moves_.push_back(std::move(move));
    ++started_;
  }

  void SettleOldest() {
    const std::unique_ptr<Move> move = std::move(moves_.front());
    moves_.pop_front();
    const auto ended = [&move] { return move->end.has_value(); };
    absl::Status status;
    {
      const absl::MutexLock lock(&mutex_);
      ASSERT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&ended), absl::Seconds(60)));
      status = *move->end;
    }
    ++settled_;
    ASSERT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
    cancelled_ += status.ok() ? 0 : 1;
    const Region& region = regions_[move->region];
    EXPECT_TRUE(!status.ok() ||
                move->layers == region.geometry.planes.size() / region.planes_per_layer);
    for (const auto& [block, slot] : move->pairs) {
      Settle(*move, status.ok(), regions_[move->region].blocks[block], slot);
    }
  }

  void Settle(const Move& move, bool landed, Place& block, size_t slot) {
    block.busy = false;
    slots_[slot].busy = false;
    const uint64_t bytes = move.payload_bytes;
    if (move.load) {
      if (!landed) {
        block.content.reset();
      } else if (bytes == kPayload || block.content) {
        std::string content = block.content.value_or(std::string(kPayload, '\0'));
        block.content = content.replace(0, bytes, *slots_[slot].content, 0, bytes);
      }
      return;
    }
    if (!landed || !block.content) {
      Refill(slot);
      return;
    }
    slots_[slot].content->replace(0, bytes, *block.content, 0, bytes);
    Compare(*slots_[slot].content, SlotBytes(slot));
  }

  void Compare(const std::string& expected, const char* seen) {
    compared_ += expected.size();
    for (size_t i = 0; i < expected.size(); ++i) {
      wrong_ += expected[i] == seen[i] ? 0 : 1;
    }
  }

  void SaveEverything() {
    for (size_t region = 0; region < regions_.size(); ++region) {
      for (uint32_t block = 0; block < kBlocks; ++block) {
        const std::vector<BlockPlace> place = {{block, SlotBytes(0), kPayload}};
        auto move = std::make_unique<Move>();
        move->region = region;
        move->payload_bytes = kPayload;
        move->pairs = {{block, 0}};
        DeviceTransfer save;
        save.direction = cuda::CopyDirection::kToHost;
        save.plan = *PlanCopies({&regions_[region].geometry, regions_[region].address, place,
                                 regions_[region].planes_per_layer});
        save.layers_landed = &move->layers;
        move->token =
            *engine_->Submit(std::move(save), [this, raw = move.get()](const absl::Status& status) {
              const absl::MutexLock lock(&mutex_);
              raw->end = status;
            });
        moves_.push_back(std::move(move));
        SettleOldest();
      }
    }
  }

  doubles::Seeded random_;
  const bool gathers_;
  std::unique_ptr<cuda::CudaDriver> driver_;
  std::optional<cuda::PrimaryContext> context_;
  stand_in::ExportingProcess exporter_;
  std::optional<cuda::ImportedMemory> imported_;
  AlignedBuffer direct_{kSlots / 2 * kSlotBytes};
  AlignedBuffer by_ring_{kSlots / 2 * kSlotBytes};
  std::vector<Region> regions_;
  std::vector<Place> slots_{kSlots};
  absl::Mutex mutex_;
  std::deque<std::unique_ptr<Move>> moves_;
  std::unique_ptr<CopyEngine> engine_;  // ends first: it calls back
  int started_ = 0;
  int settled_ = 0;
  int cancelled_ = 0;
  uint64_t compared_ = 0;
  uint64_t wrong_ = 0;
};

void RunSayingTheSeed(bool gathers) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Comparison(seed, gathers).Run(10000);
}

TEST(CopyEngineModelTest, TenThousandRandomTransfersLeaveNoWrongByte) {
  RunSayingTheSeed(false);
}

TEST(CopyEngineModelTest, TenThousandRandomTransfersOfGatheredPiecesLeaveNoWrongByte) {
  RunSayingTheSeed(true);
}

}  // namespace
}  // namespace terrace
