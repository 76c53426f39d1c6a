// What every FileSystem promises, on the kernel's, on the simulated disk and behind the decorator.
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/faulty_file_system.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/simulated_disk.h"
#include "tiers/os/file_system.h"

namespace terrace {
namespace {

struct Room {
  virtual ~Room() = default;
  virtual FileSystem& files() = 0;
  virtual std::string path() = 0;
};

struct KernelRoom final : Room {
  doubles::PrivateFolder folder;
  FileSystem& files() override { return KernelFileSystem(); }
  std::string path() override { return folder.path() + "/tier"; }
};

struct SimulatedRoom final : Room {
  doubles::SimulatedDisk disk;
  FileSystem& files() override { return disk; }
  std::string path() override { return "/tier"; }
};

struct DecoratedRoom final : Room {
  doubles::PrivateFolder folder;
  doubles::FaultPlan plan;
  doubles::FaultyFileSystem faulty{KernelFileSystem(), plan};
  FileSystem& files() override { return faulty; }
  std::string path() override { return folder.path() + "/tier"; }
};

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<Room>()> make;
};

class FileSystemContract : public testing::TestWithParam<Implementation> {
 protected:
  FileSystemContract() : folder_(MustOpen()) {}

  std::unique_ptr<Folder> MustOpen() {
    absl::StatusOr<std::unique_ptr<Folder>> opened =
        room_->files().OpenFolder(room_->path(), FolderMode::kCreate);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *std::move(opened) : nullptr;
  }
  std::unique_ptr<File> MustMake(const std::string& name) {
    absl::StatusOr<std::unique_ptr<File>> made =
        folder_->Open(name, OpenMode::kCreateNew, Caching::kBuffered);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *std::move(made) : nullptr;
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const absl::StatusOr<std::vector<FolderEntry>> entries = folder_->List();
    EXPECT_TRUE(entries.ok()) << entries.status();
    for (const FolderEntry& entry : *entries) {
      names.push_back(entry.name);
    }
    return names;
  }

  std::unique_ptr<Room> room_ = GetParam().make();
  std::unique_ptr<Folder> folder_;
};

INSTANTIATE_TEST_SUITE_P(
    All,
    FileSystemContract,
    testing::Values(Implementation{"Kernel", [] { return std::make_unique<KernelRoom>(); }},
                    Implementation{"Simulated", [] { return std::make_unique<SimulatedRoom>(); }},
                    Implementation{"Decorated", [] { return std::make_unique<DecoratedRoom>(); }}),
    [](const auto& instance) { return instance.param.name; });

TEST_P(FileSystemContract, AnAbsentFolderIsNotFoundUnlessItMayBeMade) {
  EXPECT_TRUE(absl::IsNotFound(
      room_->files().OpenFolder(room_->path() + "-absent", FolderMode::kExisting).status()));
  EXPECT_TRUE(room_->files().OpenFolder(room_->path(), FolderMode::kExisting).ok());
}

TEST_P(FileSystemContract, WhatIsWrittenIsReadAndTheRestIsZeros) {
  const std::unique_ptr<File> file = MustMake("a");
  ASSERT_TRUE(file->Preallocate(10000).ok());
  ASSERT_TRUE(WriteFully(*file, 5000, std::string("hello")).ok());
  std::string got(10000, 'x');
  ASSERT_TRUE(ReadFully(*file, 0, absl::MakeSpan(got)).ok());
  EXPECT_EQ(got, std::string(5000, '\0') + "hello" + std::string(4995, '\0'));
  EXPECT_EQ(*file->Size(), 10000U);
}

TEST_P(FileSystemContract, ReadingBeyondTheEndMovesNothing) {
  const std::unique_ptr<File> file = MustMake("a");
  ASSERT_TRUE(WriteFully(*file, 0, std::string("12345")).ok());
  std::string got(10, 'x');
  EXPECT_EQ(*file->ReadAt(0, absl::MakeSpan(got)), 5U);
  EXPECT_EQ(*file->ReadAt(5, absl::MakeSpan(got)), 0U);
  EXPECT_TRUE(absl::IsOutOfRange(ReadFully(*file, 0, absl::MakeSpan(got))));
}

TEST_P(FileSystemContract, PreallocationNeverShrinks) {
  const std::unique_ptr<File> file = MustMake("a");
  ASSERT_TRUE(file->Preallocate(10000).ok());
  ASSERT_TRUE(file->Preallocate(100).ok());
  EXPECT_EQ(*file->Size(), 10000U);
}

TEST_P(FileSystemContract, ANewFileIsNotMadeTwiceAndAnAbsentOneIsNotOpened) {
  MustMake("a");
  EXPECT_TRUE(
      absl::IsAlreadyExists(folder_->Open("a", OpenMode::kCreateNew, Caching::kBuffered).status()));
  EXPECT_TRUE(absl::IsNotFound(folder_->Open("b", OpenMode::kRead, Caching::kBuffered).status()));
}

TEST_P(FileSystemContract, NamesAreOneComponent) {
  for (const char* name : {"", "a/b", "../a"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        folder_->Open(name, OpenMode::kCreateNew, Caching::kBuffered).status()))
        << name;
  }
}

TEST_P(FileSystemContract, RenameReplacesAndRemoveForgets) {
  ASSERT_TRUE(WriteFully(*MustMake("a"), 0, std::string("A")).ok());
  ASSERT_TRUE(WriteFully(*MustMake("b"), 0, std::string("B")).ok());
  ASSERT_TRUE(folder_->Rename("a", "b").ok());
  EXPECT_EQ(Names(), std::vector<std::string>{"b"});
  std::string got(1, ' ');
  ASSERT_TRUE(
      ReadFully(**folder_->Open("b", OpenMode::kRead, Caching::kBuffered), 0, absl::MakeSpan(got))
          .ok());
  EXPECT_EQ(got, "A");
  ASSERT_TRUE(folder_->Remove("b").ok());
  EXPECT_EQ(Names(), std::vector<std::string>{});
  EXPECT_TRUE(absl::IsNotFound(folder_->Remove("b")));
  EXPECT_TRUE(absl::IsNotFound(folder_->Rename("b", "c")));
}

TEST_P(FileSystemContract, AnOpenFileOutlivesItsName) {
  const std::unique_ptr<File> file = MustMake("a");
  ASSERT_TRUE(folder_->Remove("a").ok());
  ASSERT_TRUE(WriteFully(*file, 0, std::string("A")).ok());
  std::string got(1, ' ');
  ASSERT_TRUE(ReadFully(*file, 0, absl::MakeSpan(got)).ok());
  EXPECT_EQ(got, "A");
}

TEST_P(FileSystemContract, ListingIsInOrderWithSizes) {
  for (const char* name : {"c", "a", "b"}) {
    ASSERT_TRUE(WriteFully(*MustMake(name), 0, std::string(name) + "bytes").ok());
  }
  const absl::StatusOr<std::vector<FolderEntry>> entries = folder_->List();
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 3U);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[2].name, "c");
  EXPECT_EQ((*entries)[1].bytes, 6U);
  EXPECT_EQ((*entries)[1].kind, EntryKind::kFile);
}

TEST_P(FileSystemContract, OnlyOneOwnsAFolderUntilItEnds) {
  std::unique_ptr<Folder> second = MustOpen();
  ASSERT_TRUE(folder_->OwnExclusively().ok());
  EXPECT_TRUE(folder_->OwnExclusively().ok());
  EXPECT_TRUE(absl::IsUnavailable(second->OwnExclusively()));
  folder_.reset();
  EXPECT_TRUE(second->OwnExclusively().ok());
}

TEST_P(FileSystemContract, AFolderKnowsWhetherItsPathLeadsToIt) {
  const std::unique_ptr<Folder> same = MustOpen();
  EXPECT_EQ(*folder_->Identity(), *same->Identity());
  EXPECT_EQ(*folder_->Identity(), *folder_->IdentityAtPath());
}

TEST_P(FileSystemContract, SpaceAndSyncAnswer) {
  const absl::StatusOr<FolderSpace> space = folder_->Space();
  ASSERT_TRUE(space.ok());
  EXPECT_GT(space->total_bytes, 0U);
  EXPECT_LE(space->available_bytes, space->total_bytes);
  EXPECT_TRUE(MustMake("a")->Sync().ok());
  EXPECT_TRUE(folder_->Sync().ok());
}

TEST_P(FileSystemContract, TheProbeSaysHowTransfersWorkAndLeavesNothing) {
  const absl::StatusOr<TransferFact> fact = folder_->ProbeTransfers();
  ASSERT_TRUE(fact.ok()) << fact.status();
  EXPECT_EQ(Names(), std::vector<std::string>{});
  EXPECT_EQ(fact->reason.empty(), fact->caching == Caching::kDirect);
  absl::StatusOr<std::unique_ptr<File>> file =
      folder_->Open("a", OpenMode::kCreateNew, fact->caching);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->direct(), fact->caching == Caching::kDirect);
  AlignedBuffer written(8192);
  std::memset(written.bytes(), 'w', written.size());
  AlignedBuffer got(8192);
  ASSERT_TRUE(WriteFully(**file, 4096, written.span()).ok());
  ASSERT_TRUE(ReadFully(**file, 4096, got.span()).ok());
  EXPECT_EQ(std::memcmp(written.bytes(), got.bytes(), got.size()), 0);
}

}  // namespace
}  // namespace terrace
