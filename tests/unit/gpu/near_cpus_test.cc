#include "tiers/gpu/near_cpus.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

namespace terrace {
namespace {

using testing::ElementsAre;
using testing::Optional;

TEST(CpuListTest, RangesAndSingleOnesAreUnderstood) {
  EXPECT_THAT(ParseCpuList("0-3,8,10-11\n"), Optional(ElementsAre(0, 1, 2, 3, 8, 10, 11)));
  EXPECT_THAT(ParseCpuList("7"), Optional(ElementsAre(7)));
  EXPECT_THAT(ParseCpuList("\n"), Optional(ElementsAre()));
}

TEST(CpuListTest, WhatIsNoListIsRefused) {
  for (const char* text : {"a", "1-", "-1", "3-1", "1,1", "2,1", "1-2-3", "0-9999999", "1,,2"}) {
    EXPECT_EQ(ParseCpuList(text), std::nullopt) << text;
  }
}

// A sysfs of two nodes, with a device near the second.
class NearCpusTest : public testing::Test {
 protected:
  NearCpusTest() {
    std::string pattern = testing::TempDir() + "sysfs-XXXXXX";
    root_ = mkdtemp(pattern.data());
    Write("devices/system/node/online", "0-1\n");
    Write("devices/system/node/node0/cpulist", "0-1\n");
    Write("devices/system/node/node1/cpulist", "2-3,6\n");
    Write("bus/pci/devices/0000:3b:00.0/numa_node", "1\n");
  }
  ~NearCpusTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = std::filesystem::path(root_) / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  [[nodiscard]] std::optional<NearCpus> Find() const { return FindNearCpus(root_, "0000:3B:00.0"); }

  std::string root_;
};

TEST_F(NearCpusTest, ThoseOfTheDevicesNodeAreFound) {
  const auto near = Find();
  ASSERT_TRUE(near.has_value());
  EXPECT_EQ(near->node, 1);
  EXPECT_THAT(near->cpus, ElementsAre(2, 3, 6));
}

TEST_F(NearCpusTest, WithOneNodeNothingIsToBeDone) {
  Write("devices/system/node/online", "0\n");
  EXPECT_FALSE(Find().has_value());
}

TEST_F(NearCpusTest, ADeviceOfNoNodeIsNearNothing) {
  Write("bus/pci/devices/0000:3b:00.0/numa_node", "-1\n");
  EXPECT_FALSE(Find().has_value());
}

TEST_F(NearCpusTest, WhatSysfsDoesNotSayIsNotKnown) {
  EXPECT_FALSE(FindNearCpus(root_, "0000:00:00.0").has_value());
  EXPECT_FALSE(FindNearCpus(root_, "").has_value());
  EXPECT_FALSE(FindNearCpus(root_ + "/nowhere", "0000:3b:00.0").has_value());
  Write("bus/pci/devices/0000:3b:00.0/numa_node", "many\n");
  EXPECT_FALSE(Find().has_value());
}

TEST_F(NearCpusTest, ANodeOfMemoryAloneHasNone) {
  Write("devices/system/node/node1/cpulist", "\n");
  EXPECT_FALSE(Find().has_value());
}

TEST(StayOnTest, AThreadAndThoseThatItStartsStayOnWhatIsAllowed) {
  std::thread([] {
    const int here = sched_getcpu();
    ASSERT_GE(here, 0);
    ASSERT_TRUE(StayOn({static_cast<unsigned>(here)}).ok());
    std::thread([here] { EXPECT_EQ(sched_getcpu(), here); }).join();
    EXPECT_EQ(StayOn({8191}).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(sched_getcpu(), here) << "nothing has changed";
  }).join();
}

}  // namespace
}  // namespace terrace
