// What every RootedFiles promises, on the kernel's and on the mount in memory.
#include <errno.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "tests/doubles/memory_rooted_files.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/sick_mount/sick_mount.h"
#include "tiers/os/rooted_files.h"

namespace terrace {
namespace {

// A pool's mount, and views of it as several nodes have.
struct Room {
  virtual ~Room() = default;
  virtual std::unique_ptr<RootedFiles> View() = 0;
  // Makes an empty file without making its name durable, which takes its time.
  virtual void Plant(const std::string& path) = 0;
};

struct KernelRoom final : Room {
  doubles::PrivateFolder folder;
  std::unique_ptr<RootedFiles> View() override { return *OpenRootedFiles(folder.path()); }
  void Plant(const std::string& path) override { std::ofstream(folder.path() + "/" + path); }
};

struct MemoryRoom final : Room {
  doubles::MemoryMount mount;
  std::unique_ptr<RootedFiles> View() override {
    return std::make_unique<doubles::MemoryRootedFiles>(mount);
  }
  void Plant(const std::string& path) override { mount.Plant(path, ""); }
};

// The kernel's on a file system that has less than a local one.
struct FuseRoom final : Room {
  std::unique_ptr<doubles::SickMount> mount;
  std::unique_ptr<RootedFiles> View() override { return *OpenRootedFiles(mount->path()); }
  void Plant(const std::string& path) override { std::ofstream(mount->backing() + "/" + path); }
};

std::unique_ptr<Room> MakeFuseRoom() {
  absl::StatusOr<std::unique_ptr<doubles::SickMount>> mount = doubles::SickMount::Mount();
  if (!mount.ok()) {
    return nullptr;
  }
  // As on file systems that cannot rename without replacing.
  (*mount)->Fail(doubles::SickOp::kRenameAnew, EINVAL);
  auto room = std::make_unique<FuseRoom>();
  room->mount = *std::move(mount);
  return room;
}

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<Room>()> make;
  friend void PrintTo(const Implementation& implementation, std::ostream* out) {
    *out << implementation.name;
  }
};

class RootedFilesContract : public testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override {
    if (room_ == nullptr) {
      GTEST_SKIP() << "there is no FUSE here";
    }
    files_ = room_->View();
    other_ = room_->View();
  }

  // "": the status of the read instead.
  static std::string Text(RootedFiles& files, const std::string& path, ReadHow how) {
    std::string text(1 << 20, '\0');
    const absl::StatusOr<uint64_t> got = files.Read(path, 0, absl::MakeSpan(text), how);
    return got.ok() ? text.substr(0, *got) : got.status().ToString();
  }
  std::string Fresh(const std::string& path) { return Text(*files_, path, ReadHow::kFresh); }
  std::string FreshThere(const std::string& path) { return Text(*other_, path, ReadHow::kFresh); }
  std::vector<std::string> Names(const std::string& path) {
    std::vector<std::string> names;
    const absl::StatusOr<std::vector<FolderEntry>> entries = files_->List(path);
    EXPECT_TRUE(entries.ok()) << entries.status();
    if (entries.ok()) {
      for (const FolderEntry& entry : *entries) {
        names.push_back(entry.name);
      }
    }
    return names;
  }

  std::unique_ptr<Room> room_ = GetParam().make();
  std::unique_ptr<RootedFiles> files_;
  std::unique_ptr<RootedFiles> other_;
};

INSTANTIATE_TEST_SUITE_P(
    All,
    RootedFilesContract,
    testing::Values(Implementation{"Kernel", [] { return std::make_unique<KernelRoom>(); }},
                    Implementation{"Fuse", MakeFuseRoom},
                    Implementation{"Memory", [] { return std::make_unique<MemoryRoom>(); }}),
    [](const auto& instance) { return instance.param.name; });

TEST_P(RootedFilesContract, AFileThatIsMadeReadsAsZerosUntilItIsWritten) {
  ASSERT_TRUE(files_->Make("a", 10000).ok());
  EXPECT_EQ(Fresh("a"), std::string(10000, '\0'));
  ASSERT_TRUE(files_->Write("a", 5000, std::string("hello")).ok());
  ASSERT_TRUE(files_->Sync("a").ok());
  EXPECT_EQ(FreshThere("a"), std::string(5000, '\0') + "hello" + std::string(4995, '\0'));
}

TEST_P(RootedFilesContract, AFileOfNoBytesIsAFile) {
  ASSERT_TRUE(files_->Make("a", 0).ok());
  EXPECT_EQ(Fresh("a"), "");
  ASSERT_TRUE(files_->Create("b", {}).ok());
  EXPECT_EQ(Fresh("b"), "");
}

TEST_P(RootedFilesContract, AlignedAndOtherTransfersOfOneFileAgree) {
  constexpr uint64_t kBytes = 5 * 4096 + 1234;
  ASSERT_TRUE(files_->Make("a", kBytes).ok());
  AlignedBuffer written(5 * 4096);
  for (uint64_t i = 0; i < written.size(); ++i) {
    written.bytes()[i] = static_cast<char>(i * 7 + i / 4096);
  }
  ASSERT_TRUE(files_->Write("a", 0, written.span()).ok());
  ASSERT_TRUE(files_->Write("a", 5 * 4096, std::string(1234, 'z')).ok());
  ASSERT_TRUE(files_->Sync("a").ok());
  for (const ReadHow how : {ReadHow::kKept, ReadHow::kFresh, ReadHow::kKept}) {
    AlignedBuffer got(8 * 4096);
    EXPECT_EQ(*other_->Read("a", 0, got.span(), how), kBytes);
    EXPECT_EQ(std::string(got.bytes(), kBytes),
              std::string(written.bytes(), written.size()) + std::string(1234, 'z'));
    std::string odd(5000, '\0');
    EXPECT_EQ(*other_->Read("a", 17, absl::MakeSpan(odd), how), 5000U);
    EXPECT_EQ(odd, std::string(written.bytes() + 17, 5000));
  }
}

TEST_P(RootedFilesContract, ReadingBeyondTheEndMovesNothing) {
  ASSERT_TRUE(files_->Create("a", std::string("12345")).ok());
  std::string got(10, 'x');
  EXPECT_EQ(*files_->Read("a", 2, absl::MakeSpan(got), ReadHow::kKept), 3U);
  EXPECT_EQ(*files_->Read("a", 5, absl::MakeSpan(got), ReadHow::kKept), 0U);
  EXPECT_EQ(*files_->Read("a", 4096, absl::MakeSpan(got), ReadHow::kKept), 0U);
}

TEST_P(RootedFilesContract, WritingBeyondTheEndMakesAFileLonger) {
  ASSERT_TRUE(files_->Make("a", 10).ok());
  ASSERT_TRUE(files_->Write("a", 8, std::string("1234")).ok());
  EXPECT_EQ(Fresh("a"), std::string(8, '\0') + "1234");
}

TEST_P(RootedFilesContract, WhatIsAbsentIsNotFound) {
  std::string room(10, '\0');
  EXPECT_TRUE(
      absl::IsNotFound(files_->Read("a", 0, absl::MakeSpan(room), ReadHow::kKept).status()));
  EXPECT_TRUE(
      absl::IsNotFound(files_->Read("a", 0, absl::MakeSpan(room), ReadHow::kFresh).status()));
  EXPECT_TRUE(absl::IsNotFound(files_->Write("a", 0, room)));
  EXPECT_TRUE(absl::IsNotFound(files_->Sync("a")));
  EXPECT_TRUE(absl::IsNotFound(files_->Remove("a")));
  EXPECT_TRUE(absl::IsNotFound(files_->RemoveFolder("a")));
  EXPECT_TRUE(absl::IsNotFound(files_->List("a").status()));
  EXPECT_TRUE(absl::IsNotFound(files_->Make("folder/a", 10)));
  EXPECT_TRUE(absl::IsNotFound(files_->Create("folder/a", room)));
  EXPECT_TRUE(absl::IsNotFound(files_->Replace("folder/a", room)));
  EXPECT_TRUE(absl::IsNotFound(files_->MakeFolder("folder/a")));
  EXPECT_TRUE(Names("").empty());
}

TEST_P(RootedFilesContract, WhatExistsIsNeitherMadeNorCreatedAgain) {
  ASSERT_TRUE(files_->Create("a", std::string("mine")).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(other_->Create("a", std::string("theirs"))));
  EXPECT_TRUE(absl::IsAlreadyExists(other_->Make("a", 10)));
  EXPECT_EQ(Fresh("a"), "mine");
  ASSERT_TRUE(files_->MakeFolder("folder").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(files_->Make("folder", 10)));
  EXPECT_TRUE(absl::IsAlreadyExists(files_->Create("folder", {})));
  EXPECT_EQ(Names(""), (std::vector<std::string>{"a", "folder"}));
}

TEST_P(RootedFilesContract, OfSeveralThatCreateAFileOneWins) {
  constexpr int kWriters = 8;
  std::vector<std::unique_ptr<RootedFiles>> views(kWriters);
  std::vector<absl::Status> results(kWriters);
  std::vector<std::thread> threads;
  for (int i = 0; i < kWriters; ++i) {
    views[i] = room_->View();
    threads.emplace_back([&, i] {
      results[i] = views[i]->Create("a", std::string(1000, static_cast<char>('a' + i)));
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const std::string text = Fresh("a");
  for (int i = 0; i < kWriters; ++i) {
    if (text == std::string(1000, static_cast<char>('a' + i))) {
      EXPECT_TRUE(results[i].ok()) << results[i];
    } else {
      EXPECT_TRUE(absl::IsAlreadyExists(results[i])) << results[i];
    }
  }
  EXPECT_EQ(std::count(results.begin(), results.end(), absl::OkStatus()), 1);
  EXPECT_EQ(Names(""), std::vector<std::string>{"a"});
}

TEST_P(RootedFilesContract, AReplacedFileHasTheNewContentForWhoReadsItFresh) {
  ASSERT_TRUE(files_->Replace("a", std::string("first")).ok());
  EXPECT_EQ(Text(*other_, "a", ReadHow::kKept), "first");
  ASSERT_TRUE(files_->Replace("a", std::string("second one")).ok());
  EXPECT_EQ(Text(*files_, "a", ReadHow::kKept), "second one");
  EXPECT_EQ(FreshThere("a"), "second one");
  EXPECT_EQ(Text(*other_, "a", ReadHow::kKept), "second one");
  EXPECT_EQ(Names(""), std::vector<std::string>{"a"});
}

TEST_P(RootedFilesContract, AGlanceShowsWhatIsThereNowAndKeepsNothing) {
  std::string room(1 << 16, '\0');
  const auto glance = [&](const std::string& path, uint64_t offset) {
    const absl::StatusOr<uint64_t> got =
        other_->Read(path, offset, absl::MakeSpan(room), ReadHow::kGlance);
    return got.ok() ? room.substr(0, *got) : got.status().ToString();
  };
  ASSERT_TRUE(files_->Replace("a", std::string("first")).ok());
  EXPECT_EQ(Text(*other_, "a", ReadHow::kKept), "first");
  ASSERT_TRUE(files_->Replace("a", std::string("the second")).ok());
  EXPECT_EQ(glance("a", 0), "the second");
  EXPECT_EQ(glance("a", 4), "second");
  EXPECT_EQ(glance("a", 4096), "");
  ASSERT_TRUE(files_->MakeFolder("folder").ok());
  for (const char* path : {"folder", "../a"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        other_->Read(path, 0, absl::MakeSpan(room), ReadHow::kGlance).status()));
  }
  ASSERT_TRUE(files_->Remove("a").ok());
  EXPECT_TRUE(
      absl::IsNotFound(other_->Read("a", 0, absl::MakeSpan(room), ReadHow::kGlance).status()));
}

TEST_P(RootedFilesContract, AFolderThatIsMadeAgainIsUsedAgain) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(files_->MakeFolder("f").ok());
    ASSERT_TRUE(files_->Make("f/made", 10).ok());
    ASSERT_TRUE(files_->Replace("f/head", std::string("x")).ok());
    EXPECT_EQ(FreshThere("f/head"), "x");
    // By somebody else, so that this one does not know.
    for (const char* name : {"f/made", "f/head"}) {
      ASSERT_TRUE(other_->Remove(name).ok());
    }
    ASSERT_TRUE(other_->RemoveFolder("f").ok());
    if (i == 1) {
      EXPECT_TRUE(absl::IsNotFound(files_->Replace("f/head", std::string("x"))));
    }
    ASSERT_TRUE(other_->MakeFolder("f").ok());
  }
}

TEST_P(RootedFilesContract, AReaderGetsTheOldContentOrTheNewAndNeverAMixture) {
  ASSERT_TRUE(files_->Replace("a", std::string(3000, 'a')).ok());
  std::thread writer([this] {
    for (int i = 0; i < 60; ++i) {
      EXPECT_TRUE(
          files_->Replace("a", std::string(3000 + i, static_cast<char>('a' + i % 26))).ok());
    }
  });
  for (int i = 0; i < 60; ++i) {
    const std::string text = FreshThere("a");
    EXPECT_EQ(text, std::string(text.size(), text[0]));
    EXPECT_EQ((text.size() - 3000) % 26, static_cast<size_t>(text[0] - 'a'));
  }
  writer.join();
}

TEST_P(RootedFilesContract, FilesThatAreTooLargeToBeReplacedAsAWholeAreRefused) {
  const std::string large(kMaxSmallFileBytes + 1, 'x');
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Create("a", large)));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Replace("a", large)));
  EXPECT_TRUE(files_->Create("a", std::string(kMaxSmallFileBytes, 'x')).ok());
}

TEST_P(RootedFilesContract, WhatIsRemovedIsGoneForWhoReadsItFresh) {
  ASSERT_TRUE(files_->Create("a", std::string("x")).ok());
  EXPECT_EQ(Text(*files_, "a", ReadHow::kKept), "x");
  ASSERT_TRUE(files_->Remove("a").ok());
  std::string room(10, '\0');
  for (const ReadHow how : {ReadHow::kKept, ReadHow::kFresh}) {
    EXPECT_TRUE(absl::IsNotFound(files_->Read("a", 0, absl::MakeSpan(room), how).status()));
  }
  EXPECT_TRUE(
      absl::IsNotFound(other_->Read("a", 0, absl::MakeSpan(room), ReadHow::kFresh).status()));
}

TEST_P(RootedFilesContract, FoldersAreMadeOnceAndAgainWithoutHarm) {
  ASSERT_TRUE(files_->MakeFolder("one").ok());
  ASSERT_TRUE(other_->MakeFolder("one").ok());
  ASSERT_TRUE(files_->MakeFolder("one/two").ok());
  ASSERT_TRUE(files_->Make("one/two/file", 5).ok());
  EXPECT_EQ(Names("one"), std::vector<std::string>{"two"});
  EXPECT_TRUE(absl::IsFailedPrecondition(files_->RemoveFolder("one/two")));
  ASSERT_TRUE(files_->Remove("one/two/file").ok());
  ASSERT_TRUE(files_->RemoveFolder("one/two").ok());
  ASSERT_TRUE(files_->RemoveFolder("one").ok());
  EXPECT_TRUE(Names("").empty());
}

TEST_P(RootedFilesContract, AListingIsInOrderAndTellsFilesFromFolders) {
  ASSERT_TRUE(files_->MakeFolder("b").ok());
  ASSERT_TRUE(files_->Make("b/within", 1).ok());
  ASSERT_TRUE(files_->Make("c", 300).ok());
  ASSERT_TRUE(files_->Make("a", 20).ok());
  ASSERT_TRUE(files_->Make("b-", 3).ok());
  const absl::StatusOr<std::vector<FolderEntry>> entries = other_->List("");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 4U);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[0].bytes, 0U);  // sizes would cost a call each
  EXPECT_EQ((*entries)[0].kind, EntryKind::kFile);
  EXPECT_EQ((*entries)[1].name, "b");
  EXPECT_EQ((*entries)[1].kind, EntryKind::kFolder);
  EXPECT_EQ((*entries)[2].name, "b-");
  EXPECT_EQ((*entries)[3].name, "c");
  EXPECT_EQ((*entries)[3].kind, EntryKind::kFile);
}

TEST_P(RootedFilesContract, AFolderWithTooManyEntriesIsNotListed) {
  if (GetParam().name == "Fuse") {
    GTEST_SKIP() << "the kernel's without FUSE shows it in a tenth of the time";
  }
  ASSERT_TRUE(files_->MakeFolder("f").ok());
  for (uint32_t i = 0; i < RootedFiles::kMaxEntries; ++i) {
    room_->Plant(absl::StrCat("f/", i));
  }
  ASSERT_EQ(files_->List("f")->size(), RootedFiles::kMaxEntries);
  ASSERT_TRUE(files_->Make("f/one-more", 0).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(files_->List("f").status()));
}

TEST_P(RootedFilesContract, AFolderIsNoFileAndAFileNoFolder) {
  ASSERT_TRUE(files_->MakeFolder("folder").ok());
  ASSERT_TRUE(files_->Make("file", 5).ok());
  std::string room(10, '\0');
  EXPECT_TRUE(absl::IsInvalidArgument(
      files_->Read("folder", 0, absl::MakeSpan(room), ReadHow::kKept).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Write("folder", 0, room)));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Sync("folder")));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Replace("folder", room)));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Remove("folder")));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->MakeFolder("file")));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->RemoveFolder("file")));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->List("file").status()));
}

TEST_P(RootedFilesContract, PathsThatBreakTheRuleAreRefusedByEveryCall) {
  std::string room(10, '\0');
  for (const std::string& path :
       {std::string("/a"), std::string("../a"), std::string("a/../b"), std::string("./a"),
        std::string("a//b"), std::string("a/"), std::string(".hidden"), std::string("a b"),
        std::string(65, 'x'), std::string("1/2/3/4/5/6/7/8/9"), std::string("a\0b", 3)}) {
    EXPECT_FALSE(IsRootedPath(path)) << path;
    const std::vector<absl::Status> results = {
        files_->Read(path, 0, absl::MakeSpan(room), ReadHow::kKept).status(),
        files_->Write(path, 0, room),
        files_->Sync(path),
        files_->Make(path, 1),
        files_->Create(path, room),
        files_->Replace(path, room),
        files_->Remove(path),
        files_->MakeFolder(path),
        files_->RemoveFolder(path),
        files_->List(path).status()};
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_TRUE(absl::IsInvalidArgument(results[i])) << path << " call " << i << results[i];
    }
  }
  for (const absl::Status& status : {files_->Make("", 1), files_->Remove(""),
                                     files_->MakeFolder(""), files_->RemoveFolder("")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  }
}

TEST_P(RootedFilesContract, SpaceIsToldAndTheRootIsWhereItWas) {
  const absl::StatusOr<FolderSpace> space = files_->Space();
  ASSERT_TRUE(space.ok()) << space.status();
  EXPECT_GT(space->available_bytes, 0U);
  EXPECT_GE(space->total_bytes, space->available_bytes);
  EXPECT_TRUE(files_->CheckRoot().ok());
}

TEST(RootedPath, MayHaveEightNamesOf64Bytes) {
  EXPECT_TRUE(IsRootedPath("1/2/3/4/5/6/7/8"));
  EXPECT_TRUE(IsRootedPath(std::string(64, 'x')));
  EXPECT_TRUE(IsRootedPath("Az09.-_/b.c"));
  const std::string name(64, 'x');
  EXPECT_FALSE(IsRootedPath(absl::StrCat(name, "/", name, "/", name, "/", name)));
  EXPECT_FALSE(IsRootedPath(""));
}

TEST(RootedPath, TemporaryNamesAreKnownByTheirForm) {
  EXPECT_TRUE(IsTemporaryName("tmp-0123456789abcdef"));
  EXPECT_TRUE(IsRootedPath("tmp-0123456789abcdef"));
  for (const char* name : {"tmp-0123456789abcde", "tmp-0123456789abcdef0", "tmp-0123456789ABCDEF",
                           "tmp-", "", "tmq-0123456789abcdef"}) {
    EXPECT_FALSE(IsTemporaryName(name)) << name;
  }
}

}  // namespace
}  // namespace terrace
