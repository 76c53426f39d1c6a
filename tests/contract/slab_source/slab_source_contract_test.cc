// What every SlabSource promises, on sealed memory and on the heap double.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/heap_slab_source.h"
#include "tiers/dram/arena.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<SlabSource>()> make;
  bool mappable;  // slabs have a descriptor
};

std::vector<Implementation> Implementations() {
  return {{"Heap", [] { return std::make_unique<HeapSlabSource>(); }, false},
          {"SealedHuge", [] { return MakeSealedSlabSource(true, 2); }, true},
          {"SealedSmall", [] { return MakeSealedSlabSource(false, 1); }, true}};
}

class SlabSourceContract : public testing::TestWithParam<Implementation> {
 protected:
  std::unique_ptr<SlabMemory> Make(uint64_t bytes) {
    absl::StatusOr<std::unique_ptr<SlabMemory>> made = source_->Make(bytes);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *std::move(made) : nullptr;
  }

  std::unique_ptr<SlabSource> source_ = GetParam().make();
};

INSTANTIATE_TEST_SUITE_P(All,
                         SlabSourceContract,
                         testing::ValuesIn(Implementations()),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(SlabSourceContract, MemoryIsZeroedAlignedAndExactlySoLarge) {
  for (const uint64_t bytes : {2 * kMiB, 6 * kMiB}) {
    const std::unique_ptr<SlabMemory> slab = Make(bytes);
    ASSERT_NE(slab, nullptr);
    const absl::Span<char> memory = slab->memory();
    EXPECT_EQ(memory.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % kSlotAlignment, 0U);
    EXPECT_TRUE(std::all_of(memory.begin(), memory.end(), [](char c) { return c == 0; }));
  }
}

TEST_P(SlabSourceContract, SlabsDoNotOverlap) {
  std::vector<std::unique_ptr<SlabMemory>> slabs;
  for (char i = 0; i < 8; ++i) {
    slabs.push_back(Make(2 * kMiB));
    std::memset(slabs.back()->memory().data(), 'a' + i, 2 * kMiB);
  }
  for (char i = 0; i < 8; ++i) {
    const absl::Span<char> memory = slabs[static_cast<size_t>(i)]->memory();
    EXPECT_TRUE(std::all_of(memory.begin(), memory.end(), [i](char c) { return c == 'a' + i; }));
  }
}

TEST_P(SlabSourceContract, SlabsOutliveTheSource) {
  const std::unique_ptr<SlabMemory> slab = Make(2 * kMiB);
  source_.reset();
  std::memset(slab->memory().data(), 'x', slab->memory().size());
  EXPECT_EQ(slab->memory().back(), 'x');
}

TEST_P(SlabSourceContract, DescriptorShowsTheSameMemoryWhereThereIsOne) {
  const std::unique_ptr<SlabMemory> slab = Make(2 * kMiB);
  EXPECT_EQ(slab->descriptor().valid(), GetParam().mappable);
  if (!GetParam().mappable) {
    return;
  }
  slab->memory()[2 * kMiB - 1] = 'x';
  const absl::StatusOr<Mapping> view =
      Mapping::Map(slab->descriptor().get(), 0, 2 * kMiB, MapAccess::kReadOnly);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->data()[2 * kMiB - 1], 'x');
  EXPECT_EQ(
      Mapping::Map(slab->descriptor().get(), 0, 2 * kMiB, MapAccess::kReadWrite).status().code(),
      absl::StatusCode::kPermissionDenied);
}

TEST_P(SlabSourceContract, MayBeCalledFromSeveralThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        const std::unique_ptr<SlabMemory> slab = Make(2 * kMiB);
        ASSERT_NE(slab, nullptr);
        slab->memory()[0] = 'x';
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_P(SlabSourceContract, MoreThanThereIsIsResourceExhausted) {
  EXPECT_EQ(source_->Make(uint64_t{1} << 45).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_P(SlabSourceContract, NothingIsInvalid) {
  EXPECT_EQ(source_->Make(0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeapSlabSource, FailsAsScripted) {
  HeapSlabSource source;
  source.FailNext(2);
  EXPECT_EQ(source.Make(kMiB).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(source.Make(kMiB).status().code(), absl::StatusCode::kResourceExhausted);
  absl::StatusOr<std::unique_ptr<SlabMemory>> slab = source.Make(kMiB);
  ASSERT_TRUE(slab.ok());
  EXPECT_EQ(source.made(), 1);
  EXPECT_EQ(source.alive(), 1);
  slab->reset();
  EXPECT_EQ(source.alive(), 0);
}

}  // namespace
}  // namespace terrace
