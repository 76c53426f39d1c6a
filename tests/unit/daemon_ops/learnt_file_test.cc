#include "daemon/learnt_file.h"

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "daemon/store/learnt_format.h"
#include "tests/doubles/eventually.h"
#include "tests/doubles/faulty_file_system.h"
#include "tests/doubles/simulated_disk.h"
#include "tiers/placement/eviction_policy.h"

namespace terrace {
namespace {

class CountingLog final : public Log {
 public:
  void Write(LogLevel level,
             std::string_view /*event*/,
             std::initializer_list<LogField> /*fields*/) override {
    EXPECT_EQ(level, LogLevel::kWarning);
    const std::lock_guard<std::mutex> lock(mutex_);
    ++lines_;
  }
  void SetLevel(LogLevel /*level*/) override {}
  [[nodiscard]] uint64_t dropped() const override { return 0; }
  [[nodiscard]] uint64_t suppressed() const override { return 0; }
  int lines() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }

 private:
  std::mutex mutex_;
  int lines_ = 0;
};

// What a policy that has seen nothing would save.
std::string SavedByAPolicy() {
  RecencySource recency;
  const auto policy = MakeEvictionPolicy("phl", recency);
  return (*policy)->BeginLesson()->Save();
}

class LearntFileTest : public testing::Test {
 protected:
  LearntFileTest() { EXPECT_TRUE(disk_.OpenFolder("/data", FolderMode::kCreate).ok()); }
  LearntFile Open() { return LearntFile({&files_, "/data", "phl", &log_}); }

  const std::vector<LearntPolicy> known_ = {{"a", 4096, SavedByAPolicy()},
                                            {"b", 8192, SavedByAPolicy()}};
  doubles::SimulatedDisk disk_;
  doubles::FaultPlan plan_;
  doubles::FaultyFileSystem files_{disk_, plan_};
  CountingLog log_;
};

TEST_F(LearntFileTest, WhatIsWrittenIsReadInALaterLife) {
  Open().Write(known_);
  disk_.CutPower();
  disk_.RestoreAfterPowerLoss(1);
  LearntFile file = Open();
  EXPECT_EQ(file.Read(), known_);
  EXPECT_EQ(file.figures().loaded, 2U);
  EXPECT_EQ(log_.lines(), 0);
}

TEST_F(LearntFileTest, NoFileIsNothingToLog) {
  LearntFile file = Open();
  EXPECT_TRUE(file.Read().empty());
  EXPECT_EQ(file.figures().refused, 0U);
  EXPECT_EQ(log_.lines(), 0);
}

TEST_F(LearntFileTest, AFileThatIsCutAnywhereBeginsAnewWithALineInTheLog) {
  Open().Write({{"a", 4096, SavedByAPolicy()}});
  const std::string name(LearntFile::kName);
  for (uint64_t length = disk_.SizeOf("/data", name); length > 0; --length) {
    disk_.Truncate("/data", name, length - 1);
    LearntFile file = Open();
    const int lines = log_.lines();
    EXPECT_TRUE(file.Read().empty()) << length;
    EXPECT_EQ(file.figures().refused, 1U);
    EXPECT_EQ(log_.lines(), lines + 1);
  }
}

TEST_F(LearntFileTest, GarbageAndOversizeBeginAnew) {
  const std::string name(LearntFile::kName);
  disk_.Create("/data", name, std::string(10'000, 'x'));
  EXPECT_TRUE(Open().Read().empty());
  disk_.Truncate("/data", name, kMaxLearntBytes + 1);
  EXPECT_TRUE(Open().Read().empty());
  EXPECT_EQ(log_.lines(), 2);
}

TEST_F(LearntFileTest, APolicyThatIsOfNoUseTakesNoOtherWithIt) {
  Open().Write({{"a", 4096, "of another version"}, known_[1]});
  LearntFile file = Open();
  EXPECT_EQ(file.Read(), std::vector<LearntPolicy>{known_[1]});
  EXPECT_EQ(file.figures().loaded, 1U);
  EXPECT_EQ(file.figures().refused, 1U);
}

TEST_F(LearntFileTest, AFailedWriteKeepsWhatWasThere) {
  Open().Write(known_);
  for (const doubles::FileCall call :
       {doubles::FileCall::kOpenFolder, doubles::FileCall::kOpen, doubles::FileCall::kWrite,
        doubles::FileCall::kSync, doubles::FileCall::kRename}) {
    LearntFile file = Open();
    plan_.Fail(call, 1, absl::InternalError("injected"));
    file.Write({});
    EXPECT_EQ(file.figures().failed_saves, 1U);
    plan_.Heal();
    EXPECT_EQ(file.Read(), known_);
  }
  EXPECT_EQ(log_.lines(), 5);
}

TEST_F(LearntFileTest, AReadThatFailsBeginsAnew) {
  Open().Write(known_);
  for (const doubles::FileCall call : {doubles::FileCall::kOpenFolder, doubles::FileCall::kOpen,
                                       doubles::FileCall::kSize, doubles::FileCall::kRead}) {
    plan_.Fail(call, 1, absl::InternalError("injected"));
    EXPECT_TRUE(Open().Read().empty());
    plan_.Heal();
  }
  EXPECT_EQ(log_.lines(), 4);
}

TEST_F(LearntFileTest, ALossOfPowerLeavesTheOldFileOrTheNewOne) {
  const std::vector<LearntPolicy> newer = {known_[0]};
  for (int64_t calls = 0; calls < 8; ++calls) {
    Open().Write(known_);
    disk_.CutPowerAfter(calls);
    Open().Write(newer);
    disk_.RestoreAfterPowerLoss(static_cast<uint64_t>(calls));
    LearntFile file = Open();
    const std::vector<LearntPolicy> read = file.Read();
    EXPECT_TRUE(read == known_ || read == newer) << calls;
    EXPECT_EQ(file.figures().refused, 0U);
  }
}

TEST_F(LearntFileTest, TheKeeperWritesNowAndThenAndWhenItStops) {
  LearntFile file = Open();
  {
    LearntKeeper often(
        file, [this] { return known_; }, absl::Milliseconds(1));
    EXPECT_TRUE(doubles::Eventually([&file] { return file.figures().saves >= 3; }));
  }
  EXPECT_EQ(file.Read(), known_);
  const uint64_t saves = file.figures().saves;
  {
    LearntKeeper seldom(
        file, [] { return std::vector<LearntPolicy>{}; }, absl::Hours(1));
  }
  EXPECT_EQ(file.figures().saves, saves + 1);
  EXPECT_TRUE(file.Read().empty());
}

}  // namespace
}  // namespace terrace
