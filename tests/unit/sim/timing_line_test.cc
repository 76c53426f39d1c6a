#include "tools/sim/timing_line.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tools/trace/prefill_model.h"

namespace terrace::sim {
namespace {

using testing::HasSubstr;

TEST(TimingLine, WhatIsNotSaidIsTheDeclaredModel) {
  const absl::StatusOr<TimingOptions> timing = TimingOf({}, 512);
  ASSERT_TRUE(timing.ok()) << timing.status();
  EXPECT_DOUBLE_EQ(timing->recompute.Seconds(0, 131'072), PrefillSeconds(131'072));
  EXPECT_EQ(timing->block_bytes, uint64_t{160} << 20);
  EXPECT_GT(timing->speeds[0].bytes_per_second, timing->speeds[1].bytes_per_second);
  EXPECT_GT(timing->speeds[1].bytes_per_second, timing->speeds[2].bytes_per_second);
  EXPECT_THAT(DefaultBandwidths(), HasSubstr("dram=100,local="));
  EXPECT_THAT(DefaultLatencies(), HasSubstr("dram=0.01,local="));
}

TEST(TimingLine, WhatIsSaidIsInForce) {
  TimingLine line;
  line.bandwidths = {"local=3", "shared=0.5"};
  line.latencies = {"shared=7"};
  line.prefill = {"1000=2"};
  line.token_bytes = 10;
  line.lead_s = 0.25;
  line.stray_percent = 5;
  line.seed = 9;
  const absl::StatusOr<TimingOptions> timing = TimingOf(line, 16);
  ASSERT_TRUE(timing.ok()) << timing.status();
  EXPECT_DOUBLE_EQ(timing->speeds[1].bytes_per_second, 3e9);
  EXPECT_DOUBLE_EQ(timing->speeds[2].bytes_per_second, 0.5e9);
  EXPECT_EQ(timing->speeds[2].latency, absl::Milliseconds(7));
  EXPECT_DOUBLE_EQ(timing->recompute.Seconds(0, 500), 1);
  EXPECT_EQ(timing->block_bytes, 160U);
  EXPECT_EQ(timing->lead, absl::Milliseconds(250));
  EXPECT_EQ(timing->stray_percent, 5);
  EXPECT_EQ(timing->seed, 9U);
}

TEST(TimingLine, RefusesWhatIsNoSpeed) {
  for (const char* text : {"local", "local=", "disk=1", "local=0", "local=-1", "local=1e9",
                           "local=nan", "=1", "local=1x"}) {
    TimingLine line;
    line.bandwidths = {text};
    const absl::Status status = TimingOf(line, 512).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--bandwidth")) << text;
  }
  TimingLine line;
  line.latencies = {"local=-1"};
  EXPECT_THAT(std::string(TimingOf(line, 512).status().message()), HasSubstr("--latency"));
}

TEST(TimingLine, RefusesPromptsThatNoModelPassesThrough) {
  const std::vector<std::vector<std::string>> lines = {
      {"many=1"}, {"1000"}, {"0=1"}, {"1000=0"}, {"1000=2", "2000=1"}, {"1=1", "2=2", "3=3"}};
  for (const std::vector<std::string>& prefill : lines) {
    TimingLine line;
    line.prefill = prefill;
    const absl::Status status = TimingOf(line, 512).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << prefill.front();
    EXPECT_THAT(std::string(status.message()), HasSubstr("--prefill")) << prefill.front();
  }
}

TEST(TimingLine, RefusesATraceThatDoesNotTellTheTokensOfABlock) {
  EXPECT_EQ(TimingOf({}, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace terrace::sim
