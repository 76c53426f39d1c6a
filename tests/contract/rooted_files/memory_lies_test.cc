// The lies and faults that the mount in memory can be told to have.
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/memory_rooted_files.h"

namespace terrace::doubles {
namespace {

class MemoryLies : public testing::Test {
 protected:
  static std::string Text(MemoryRootedFiles& files, const std::string& path, ReadHow how) {
    std::string text(100, '\0');
    const absl::StatusOr<uint64_t> got = files.Read(path, 0, absl::MakeSpan(text), how);
    return got.ok() ? text.substr(0, *got) : got.status().ToString();
  }

  MemoryMount mount_;
  MemoryRootedFiles here_{mount_};
  MemoryRootedFiles there_{mount_};
};

TEST_F(MemoryLies, TheNthCallOfAKindFailsAndIsCounted) {
  here_.Fail(PoolOp::kMake, 2, absl::InternalError("EIO"));
  EXPECT_TRUE(here_.Make("a", 1).ok());
  EXPECT_TRUE(absl::IsInternal(here_.Make("b", 1)));
  EXPECT_TRUE(there_.Make("b", 1).ok());
  EXPECT_TRUE(here_.Make("c", 1).ok());
  EXPECT_EQ(here_.calls(PoolOp::kMake), 3U);
  EXPECT_EQ(here_.calls(), 3U);
  here_.Fail(PoolOp::kCheckRoot, 1, absl::UnavailableError("gone"), 2);
  EXPECT_FALSE(here_.CheckRoot().ok());
  here_.Heal();
  EXPECT_TRUE(here_.CheckRoot().ok());
}

TEST_F(MemoryLies, AKeptReaderSeesWhatItOpenedUntilItReadsFresh) {
  there_.KeepWhatIsOpened(true);
  ASSERT_TRUE(here_.Create("a", std::string("old")).ok());
  EXPECT_EQ(Text(there_, "a", ReadHow::kKept), "old");
  ASSERT_TRUE(here_.Replace("a", std::string("new")).ok());
  ASSERT_TRUE(here_.Create("b", std::string("x")).ok());
  EXPECT_EQ(Text(there_, "a", ReadHow::kKept), "old");
  EXPECT_EQ(Text(there_, "a", ReadHow::kFresh), "new");
  ASSERT_TRUE(here_.Write("a", 0, std::string("NEWER")).ok());
  EXPECT_EQ(Text(there_, "a", ReadHow::kKept), "new");
  ASSERT_TRUE(here_.Remove("a").ok());
  EXPECT_EQ(Text(there_, "a", ReadHow::kKept), "new");
  EXPECT_NE(Text(there_, "a", ReadHow::kFresh), "new");
}

TEST_F(MemoryLies, FrozenNamesHideWhatIsNewAndListWhatIsGone) {
  ASSERT_TRUE(here_.Create("old", {}).ok());
  there_.FreezeNames();
  ASSERT_TRUE(here_.Create("new", std::string("x")).ok());
  ASSERT_TRUE(here_.Remove("old").ok());
  EXPECT_EQ(there_.List("")->front().name, "old");
  std::string room(10, '\0');
  EXPECT_TRUE(
      absl::IsNotFound(there_.Read("new", 0, absl::MakeSpan(room), ReadHow::kFresh).status()));
  EXPECT_TRUE(
      absl::IsNotFound(there_.Read("old", 0, absl::MakeSpan(room), ReadHow::kFresh).status()));
  ASSERT_TRUE(there_.Create("mine", {}).ok());
  EXPECT_EQ(there_.List("")->size(), 2U);
  there_.ThawNames();
  EXPECT_EQ(Text(there_, "new", ReadHow::kFresh), "x");
}

TEST_F(MemoryLies, WhatIsHeldUntilSyncIsSeenHereAloneAndMayBeLost) {
  here_.HoldWritesUntilSync(true);
  ASSERT_TRUE(here_.Make("a", 3).ok());
  ASSERT_TRUE(here_.Write("a", 0, std::string("abc")).ok());
  EXPECT_EQ(Text(here_, "a", ReadHow::kFresh), "abc");
  EXPECT_EQ(Text(there_, "a", ReadHow::kFresh), std::string(3, '\0'));
  ASSERT_TRUE(here_.Sync("a").ok());
  EXPECT_EQ(Text(there_, "a", ReadHow::kFresh), "abc");
  ASSERT_TRUE(here_.Write("a", 0, std::string("xyz")).ok());
  here_.LoseUnsynced();
  EXPECT_EQ(Text(here_, "a", ReadHow::kFresh), "abc");
}

TEST_F(MemoryLies, ForeignHandsFlipTruncateAndPlant) {
  mount_.Plant("one/two", "abc");
  EXPECT_EQ(here_.List("one")->front().name, "two");
  mount_.FlipBit("one/two", 1, 0);
  EXPECT_EQ(mount_.Content("one/two"), "acc");
  here_.FlipReadsOf("one/two");
  EXPECT_EQ(Text(here_, "one/two", ReadHow::kKept), "abc");
  mount_.Truncate("one/two", 1);
  EXPECT_EQ(Text(there_, "one/two", ReadHow::kKept), "a");
  mount_.Rename("one/two", "one/three");
  EXPECT_EQ(mount_.Paths(), std::vector<std::string>{"one/three"});
  mount_.Erase("one/three");
  EXPECT_FALSE(mount_.Exists("one/three"));
}

TEST_F(MemoryLies, AFullMountTakesNothingMore) {
  mount_.SetTotalBytes(1000);
  EXPECT_TRUE(absl::IsResourceExhausted(here_.Make("a", 1001)));
  ASSERT_TRUE(here_.Make("a", 900).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(here_.Create("b", std::string(101, 'x'))));
  EXPECT_TRUE(absl::IsResourceExhausted(here_.Replace("b", std::string(101, 'x'))));
  EXPECT_TRUE(absl::IsResourceExhausted(here_.Write("a", 850, std::string(151, 'x'))));
  EXPECT_EQ(here_.Space()->available_bytes, 100U);
  EXPECT_LE(mount_.stored_bytes(), PagedContent::kPageBytes);
}

TEST_F(MemoryLies, ASwappedRootIsTold) {
  here_.SwapRoot(true);
  EXPECT_TRUE(absl::IsUnavailable(here_.CheckRoot()));
  EXPECT_TRUE(there_.CheckRoot().ok());
}

}  // namespace
}  // namespace terrace::doubles
