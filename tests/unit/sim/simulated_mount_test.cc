// The file system of the simulation.
#include "tools/sim/simulated_mount.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace terrace::sim {
namespace {

constexpr auto kReplace = SimulatedMount::Existing::kReplace;
constexpr auto kKeep = SimulatedMount::Existing::kKeep;

std::string Content(const SimulatedMount& mount, const std::string& path) {
  std::string out(20000, '?');
  const absl::StatusOr<uint64_t> got = mount.Read(path, 0, absl::MakeSpan(out));
  EXPECT_TRUE(got.ok()) << got.status();
  return out.substr(0, got.value_or(0));
}

TEST(SimulatedMount, WhatIsWrittenIsReadWhereverPagesBegin) {
  SimulatedMount mount;
  ASSERT_TRUE(mount.Make("file", 10000).ok());
  std::string expected(10000, '\0');
  for (const uint64_t offset : {0U, 4000U, 4096U, 8190U}) {
    const std::string bytes(1500, static_cast<char>('a' + offset % 26));
    ASSERT_TRUE(mount.Write("file", offset, bytes).ok());
    expected.replace(offset, bytes.size(), bytes);
  }
  ASSERT_TRUE(mount.Write("file", 4100, std::string(3000, '\0')).ok());
  expected.replace(4100, 3000, std::string(3000, '\0'));
  EXPECT_EQ(Content(mount, "file"), expected);
  std::string middle(5000, '?');
  EXPECT_EQ(mount.Read("file", 3999, absl::MakeSpan(middle)).value(), 5000U);
  EXPECT_EQ(middle, expected.substr(3999, 5000));
  EXPECT_EQ(mount.Read("file", 9000, absl::MakeSpan(middle)).value(), 1000U);
  EXPECT_EQ(mount.Read("file", 10000, absl::MakeSpan(middle)).value(), 0U);
}

TEST(SimulatedMount, WholeFilesAreReplacedOrKept) {
  SimulatedMount mount;
  ASSERT_TRUE(mount.Put("file", std::string(9000, 'x'), kKeep).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(mount.Put("file", std::string("other"), kKeep)));
  EXPECT_EQ(Content(mount, "file"), std::string(9000, 'x'));
  ASSERT_TRUE(mount.Put("file", std::string("other"), kReplace).ok());
  EXPECT_EQ(Content(mount, "file"), "other");
}

TEST(SimulatedMount, FoldersHoldNames) {
  SimulatedMount mount;
  ASSERT_TRUE(mount.MakeFolder("a").ok());
  ASSERT_TRUE(mount.MakeFolder("a").ok());
  ASSERT_TRUE(mount.MakeFolder("a/b").ok());
  ASSERT_TRUE(mount.Make("a/file", 7).ok());
  const absl::StatusOr<std::vector<FolderEntry>> entries = mount.List("a");
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ((*entries)[0].name, "b");
  EXPECT_EQ((*entries)[0].kind, EntryKind::kFolder);
  EXPECT_TRUE(absl::IsFailedPrecondition(mount.RemoveFolder("a")));
  ASSERT_TRUE(mount.Remove("a/file").ok());
  ASSERT_TRUE(mount.RemoveFolder("a/b").ok());
  ASSERT_TRUE(mount.RemoveFolder("a").ok());
  EXPECT_FALSE(mount.HasFolder("a"));
}

TEST(SimulatedMount, SaysWhatIsWrong) {
  SimulatedMount mount;
  std::string out(1, '\0');
  ASSERT_TRUE(mount.MakeFolder("folder").ok());
  ASSERT_TRUE(mount.Make("file", 1).ok());
  EXPECT_TRUE(absl::IsNotFound(mount.Read("absent", 0, absl::MakeSpan(out)).status()));
  EXPECT_TRUE(absl::IsNotFound(mount.Write("absent", 0, out)));
  EXPECT_TRUE(absl::IsNotFound(mount.Remove("absent")));
  EXPECT_TRUE(absl::IsNotFound(mount.RemoveFolder("absent")));
  EXPECT_TRUE(absl::IsNotFound(mount.List("absent").status()));
  EXPECT_TRUE(absl::IsNotFound(mount.Make("absent/file", 1)));
  EXPECT_TRUE(absl::IsNotFound(mount.MakeFolder("absent/folder")));
  EXPECT_TRUE(absl::IsNotFound(mount.Put("absent/file", out, kReplace)));
  EXPECT_TRUE(absl::IsAlreadyExists(mount.Make("file", 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(mount.MakeFolder("file")));
  EXPECT_TRUE(absl::IsInvalidArgument(mount.Read("folder", 0, absl::MakeSpan(out)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(mount.Put("folder", out, kReplace)));
}

TEST(SimulatedMount, KnowsTheBytesOfSegments) {
  SimulatedMount mount;
  ASSERT_TRUE(mount.Make("one", 100).ok());
  ASSERT_TRUE(mount.Make("two", 200).ok());
  ASSERT_TRUE(mount.Put("report", std::string(50, 'x'), kReplace).ok());
  EXPECT_EQ(mount.made_bytes(), 300U);
  ASSERT_TRUE(mount.Remove("one").ok());
  EXPECT_EQ(mount.made_bytes(), 200U);
}

}  // namespace
}  // namespace terrace::sim
