// The stand-in driver, loaded, with its device's context; and what is still held at the end.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "tests/doubles/cuda/stand_in.h"
#include "tiers/gpu/cuda_objects.h"

namespace terrace {

class StandInTest : public testing::Test {
 protected:
  StandInTest() {
    stand_in_reset();
    auto loaded = cuda::CudaDriver::Load(TERRACE_STAND_IN_CUDA);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    driver_ = *std::move(loaded);
    auto retained = cuda::PrimaryContext::Retain(*driver_, 0);
    EXPECT_TRUE(retained.ok()) << retained.status();
    context_.emplace(*std::move(retained));
    EXPECT_TRUE(context_->MakeCurrent().ok());
    before_ = Counters();
  }

  static StandInCounters Counters() {
    StandInCounters counters{};
    stand_in_counters(&counters);
    return counters;
  }

  // That all was given back that was taken since the beginning of the test.
  void ExpectNothingHeld() const {
    const StandInCounters now = Counters();
    EXPECT_EQ(now.allocated_bytes, before_.allocated_bytes);
    EXPECT_EQ(now.allocation_handles, before_.allocation_handles);
    EXPECT_EQ(now.open_ipc_mappings, before_.open_ipc_mappings);
    EXPECT_EQ(now.mapped_bytes, before_.mapped_bytes);
    EXPECT_EQ(now.reserved_ranges, before_.reserved_ranges);
    EXPECT_EQ(now.registered_bytes, before_.registered_bytes);
    EXPECT_EQ(now.streams, before_.streams);
    EXPECT_EQ(now.events, before_.events);
    EXPECT_EQ(now.modules, before_.modules);
  }

  [[nodiscard]] const cuda::CudaDriver& driver() const { return *driver_; }
  [[nodiscard]] const cuda::PrimaryContext& context() const { return *context_; }

  cuda::DevicePointer Allocate(size_t bytes) {
    cuda::DevicePointer pointer = 0;
    EXPECT_EQ(driver()->MemAlloc(&pointer, bytes), cuda::kSuccess);
    return pointer;
  }
  // By a stream of its own; returns when it is done.
  void Write(cuda::DevicePointer to, const std::string& from) {
    const auto stream = cuda::OwnedStream::Create(context(), cuda::OwnedStream::Urgency::kLast);
    EXPECT_EQ(driver()->MemcpyHtoDAsync(to, from.data(), from.size(), stream->get()),
              cuda::kSuccess);
    EXPECT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  }
  std::string Read(cuda::DevicePointer from, size_t bytes) {
    std::string out(bytes, '\0');
    const auto stream = cuda::OwnedStream::Create(context(), cuda::OwnedStream::Urgency::kLast);
    EXPECT_EQ(driver()->MemcpyDtoHAsync(out.data(), from, bytes, stream->get()), cuda::kSuccess);
    EXPECT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
    return out;
  }

 private:
  std::unique_ptr<cuda::CudaDriver> driver_;
  std::optional<cuda::PrimaryContext> context_;
  StandInCounters before_{};
};

}  // namespace terrace
