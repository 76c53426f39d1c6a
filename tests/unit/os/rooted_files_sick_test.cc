// The kernel's rooted files on a mount that fails and lies.
#include <errno.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/sick_mount/sick_mount.h"
#include "tiers/os/rooted_files.h"

namespace terrace {
namespace {

using doubles::SickMount;
using doubles::SickOp;

class SickRootedFiles : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<SickMount>> mount = SickMount::Mount();
    if (!mount.ok()) {
      GTEST_SKIP() << mount.status().message();
    }
    mount_ = *std::move(mount);
    files_ = *OpenRootedFiles(mount_->path());
  }

  [[nodiscard]] std::string Behind(const std::string& path) const {
    return mount_->backing() + "/" + path;
  }
  // As another node does it.
  void Plant(const std::string& path, const std::string& text) const {
    std::ofstream(Behind(path)) << text;
  }
  [[nodiscard]] std::string TextBehind(const std::string& path) const {
    std::ostringstream text;
    text << std::ifstream(Behind(path)).rdbuf();
    return text.str();
  }
  std::string Text(const std::string& path, ReadHow how) {
    std::string text(100, '\0');
    const absl::StatusOr<uint64_t> got = files_->Read(path, 0, absl::MakeSpan(text), how);
    return got.ok() ? text.substr(0, *got) : got.status().ToString();
  }
  absl::Status ReadStatus(const std::string& path, ReadHow how = ReadHow::kFresh) {
    AlignedBuffer room(4096);
    return files_->Read(path, 0, room.span(), how).status();
  }
  static bool LeftNothing(const std::vector<FolderEntry>& entries) {
    for (const FolderEntry& entry : entries) {
      if (IsTemporaryName(entry.name)) {
        return false;
      }
    }
    return true;
  }

  std::unique_ptr<SickMount> mount_;
  std::unique_ptr<RootedFiles> files_;
};

TEST_F(SickRootedFiles, EveryErrorOfTheFileSystemComesBackAsItsKind) {
  struct Row {
    int error;
    absl::StatusCode code;
  };
  for (const Row& row :
       {Row{EIO, absl::StatusCode::kInternal}, Row{ESTALE, absl::StatusCode::kUnavailable},
        Row{ENOTCONN, absl::StatusCode::kUnavailable},
        Row{ETIMEDOUT, absl::StatusCode::kUnavailable},
        Row{ENOSPC, absl::StatusCode::kResourceExhausted},
        Row{EDQUOT, absl::StatusCode::kResourceExhausted},
        Row{EROFS, absl::StatusCode::kPermissionDenied}}) {
    SCOPED_TRACE(std::strerror(row.error));
    Plant("a", std::string(4096, 'x'));
    ASSERT_TRUE(files_->Write("a", 0, std::string(10, 'y')).ok());
    AlignedBuffer page(4096);
    const auto with = [&](SickOp op, const auto& call) {
      mount_->Fail(op, row.error);
      const absl::Status status = call();
      mount_->Heal();
      return status.code();
    };
    EXPECT_EQ(with(SickOp::kRead, [&] { return ReadStatus("a"); }), row.code);
    EXPECT_EQ(with(SickOp::kOpen, [&] { return ReadStatus("a"); }), row.code);
    EXPECT_EQ(with(SickOp::kWrite, [&] { return files_->Write("a", 0, page.span()); }), row.code);
    EXPECT_EQ(with(SickOp::kFsync, [&] { return files_->Sync("a"); }), row.code);
    EXPECT_EQ(with(SickOp::kCreate, [&] { return files_->Make("m", 1); }), row.code);
    EXPECT_EQ(with(SickOp::kCreate, [&] { return files_->Create("c", page.span()); }), row.code);
    EXPECT_EQ(with(SickOp::kWrite, [&] { return files_->Create("c", page.span()); }), row.code);
    EXPECT_EQ(with(SickOp::kFsync, [&] { return files_->Create("c", page.span()); }), row.code);
    EXPECT_EQ(with(SickOp::kRenameAnew, [&] { return files_->Create("c", page.span()); }),
              row.code);
    EXPECT_EQ(with(SickOp::kRename, [&] { return files_->Replace("a", page.span()); }), row.code);
    EXPECT_EQ(with(SickOp::kUnlink, [&] { return files_->Remove("a"); }), row.code);
    EXPECT_EQ(with(SickOp::kMkdir, [&] { return files_->MakeFolder("f"); }), row.code);
    EXPECT_EQ(with(SickOp::kReaddir, [&] { return files_->List("").status(); }), row.code);
    EXPECT_EQ(with(SickOp::kStatfs, [&] { return files_->Space().status(); }), row.code);
    EXPECT_EQ(with(SickOp::kStat, [&] { return files_->CheckRoot(); }),
              absl::StatusCode::kUnavailable);
    const absl::StatusOr<std::vector<FolderEntry>> left = files_->List("");
    ASSERT_TRUE(left.ok()) << left.status();
    EXPECT_TRUE(LeftNothing(*left));
    EXPECT_FALSE(std::filesystem::exists(Behind("c")));
    EXPECT_FALSE(std::filesystem::exists(Behind("m")));
    EXPECT_EQ(TextBehind("a"), std::string(10, 'y') + std::string(4086, 'x'));
  }
}

TEST_F(SickRootedFiles, AReadOfAForgottenFileIsTriedOnceWithOneThatIsOpenedAnew) {
  Plant("a", std::string(4096, 'x'));
  ASSERT_TRUE(ReadStatus("a", ReadHow::kKept).ok());
  const uint64_t opened = mount_->calls(SickOp::kOpen);
  const uint64_t reads = mount_->calls(SickOp::kRead);
  mount_->Fail(SickOp::kRead, ESTALE);
  EXPECT_TRUE(absl::IsUnavailable(ReadStatus("a", ReadHow::kKept)));
  EXPECT_EQ(mount_->calls(SickOp::kOpen), opened + 1);
  EXPECT_EQ(mount_->calls(SickOp::kRead), reads + 2);
}

TEST_F(SickRootedFiles, AFileIsOpenedOnceForAllWhoReadItAtATime) {
  Plant("a", std::string(4096, 'x'));
  const uint64_t opened = mount_->calls(SickOp::kOpen);
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([this] { EXPECT_TRUE(ReadStatus("a", ReadHow::kKept).ok()); });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(mount_->calls(SickOp::kOpen), opened + 1);
  Plant("b", std::string(4096, 'x'));
  mount_->Fail(SickOp::kOpen, EIO);
  EXPECT_TRUE(absl::IsInternal(ReadStatus("b", ReadHow::kKept)));
  mount_->Heal();
  EXPECT_TRUE(ReadStatus("b", ReadHow::kKept).ok());
}

TEST_F(SickRootedFiles, AWriteAndASyncAreNeverRepeated) {
  ASSERT_TRUE(files_->Make("a", 4096).ok());
  AlignedBuffer page(4096);
  ASSERT_TRUE(files_->Write("a", 0, page.span()).ok());
  const uint64_t writes = mount_->calls(SickOp::kWrite);
  mount_->Fail(SickOp::kWrite, ESTALE);
  EXPECT_TRUE(absl::IsUnavailable(files_->Write("a", 0, page.span())));
  EXPECT_EQ(mount_->calls(SickOp::kWrite), writes + 1);
  mount_->Heal();
  ASSERT_TRUE(files_->Write("a", 0, page.span()).ok());
  const uint64_t syncs = mount_->calls(SickOp::kFsync);
  mount_->Fail(SickOp::kFsync, ESTALE);
  EXPECT_TRUE(absl::IsUnavailable(files_->Sync("a")));
  EXPECT_EQ(mount_->calls(SickOp::kFsync), syncs + 1);
}

TEST_F(SickRootedFiles, FilesAppearWholeWhereNamesCanOnlyBeLinked) {
  mount_->Fail(SickOp::kRenameAnew, EINVAL);
  ASSERT_TRUE(files_->Create("a", std::string("first")).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(files_->Create("a", std::string("second"))));
  EXPECT_EQ(TextBehind("a"), "first");
  EXPECT_EQ(std::filesystem::hard_link_count(Behind("a")), 1U);
  EXPECT_EQ(files_->List("")->size(), 1U);
}

TEST_F(SickRootedFiles, ShortReadsAreCompleted) {
  std::string text;
  for (int i = 0; i < 20000; ++i) {
    text.push_back(static_cast<char>(i * 31 + i / 256));
  }
  Plant("a", text);
  for (const uint64_t at_most : {512U, 4096U, 5000U}) {
    mount_->ShortenReads(at_most);
    AlignedBuffer room(6 * 4096);
    const absl::StatusOr<uint64_t> got = files_->Read("a", 0, room.span(), ReadHow::kFresh);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(std::string(room.bytes(), *got), text.substr(0, *got)) << at_most;
    // Less than a unit at a time is what the end of a file looks like.
    EXPECT_EQ(*got, at_most < 4096 ? at_most : text.size()) << at_most;
    const absl::StatusOr<uint64_t> seen = files_->Read("a", 0, room.span(), ReadHow::kGlance);
    ASSERT_TRUE(seen.ok()) << seen.status();
    EXPECT_GT(*seen, 0U);
    EXPECT_EQ(std::string(room.bytes(), *seen), text.substr(0, *seen)) << at_most;
  }
}

TEST_F(SickRootedFiles, AFileSystemWithoutDirectTransfersIsUsedWithoutThem) {
  Plant("a", std::string(4096, 'x'));
  Plant("b", std::string(4096, 'x'));
  mount_->Fail(SickOp::kOpenDirect, EINVAL);
  EXPECT_TRUE(ReadStatus("a").ok());
  const uint64_t tried = mount_->calls(SickOp::kOpenDirect);
  EXPECT_EQ(tried, 1U);
  EXPECT_TRUE(ReadStatus("b").ok());
  AlignedBuffer page(4096);
  EXPECT_TRUE(files_->Write("a", 0, page.span()).ok());
  EXPECT_EQ(mount_->calls(SickOp::kOpenDirect), tried);
}

TEST_F(SickRootedFiles, ATransferThatIsRefusedIsMadeOnceMoreThroughThePageCache) {
  Plant("a", std::string(4096, 'x'));
  const uint64_t reads = mount_->calls(SickOp::kRead);
  mount_->Fail(SickOp::kRead, EINVAL);
  EXPECT_TRUE(absl::IsInvalidArgument(ReadStatus("a")));
  // Once directly; how often for the page cache is the kernel's affair.
  EXPECT_GE(mount_->calls(SickOp::kRead), reads + 2);
  mount_->Heal();
  // None has ever succeeded here.
  const uint64_t tried = mount_->calls(SickOp::kOpenDirect);
  EXPECT_TRUE(ReadStatus("a").ok());
  EXPECT_EQ(mount_->calls(SickOp::kOpenDirect), tried);
}

TEST_F(SickRootedFiles, AFileOfAGivenSizeIsMadeWhereSpaceCannotBeReserved) {
  mount_->Fail(SickOp::kAllocate, EOPNOTSUPP);
  ASSERT_TRUE(files_->Make("a", 5000).ok());
  EXPECT_EQ(std::filesystem::file_size(Behind("a")), 5000U);
  mount_->Fail(SickOp::kAllocate, ENOSPC);
  EXPECT_TRUE(absl::IsResourceExhausted(files_->Make("b", 5000)));
  EXPECT_FALSE(std::filesystem::exists(Behind("b")));
}

TEST_F(SickRootedFiles, WhatAnotherNodeWroteIsSeenFresh) {
  Plant("a", "old");
  EXPECT_EQ(Text("a", ReadHow::kKept), "old");
  Plant("b", "newer");
  std::filesystem::rename(Behind("b"), Behind("a"));
  EXPECT_EQ(Text("a", ReadHow::kFresh), "newer");
}

TEST_F(SickRootedFiles, NamesThatTheMountDoesNotKnowYetAreAbsentAndLaterThere) {
  Plant("old", "x");
  mount_->Freeze();
  Plant("new", "x");
  std::filesystem::remove(Behind("old"));
  EXPECT_TRUE(absl::IsNotFound(ReadStatus("new")));
  EXPECT_FALSE(ReadStatus("old").ok());
  ASSERT_EQ(files_->List("")->size(), 1U);
  EXPECT_EQ(files_->List("")->front().name, "old");
  ASSERT_TRUE(files_->Create("mine", std::string("x")).ok());
  EXPECT_EQ(Text("mine", ReadHow::kFresh), "x");
  mount_->Thaw();
  EXPECT_TRUE(ReadStatus("new").ok());
  EXPECT_TRUE(absl::IsNotFound(ReadStatus("old")));
}

TEST_F(SickRootedFiles, AMountThatIsGoneIsUnavailableAndTheFolderBelowItIsLeftAlone) {
  ASSERT_TRUE(files_->Create("a", std::string("x")).ok());
  mount_->Unmount();
  EXPECT_TRUE(absl::IsUnavailable(files_->CheckRoot()));
  EXPECT_TRUE(absl::IsUnavailable(ReadStatus("a")));
  EXPECT_TRUE(absl::IsUnavailable(files_->Make("b", 1)));
  EXPECT_TRUE(absl::IsUnavailable(files_->Replace("a", {})));
  EXPECT_TRUE(absl::IsUnavailable(files_->MakeFolder("f")));
  EXPECT_TRUE(absl::IsUnavailable(files_->List("").status()));
  EXPECT_TRUE(absl::IsUnavailable(files_->Space().status()));
  EXPECT_TRUE(std::filesystem::is_empty(mount_->path()));
}

}  // namespace
}  // namespace terrace
