// What the kernel's folders refuse, and what they report.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/in_child.h"
#include "tests/doubles/private_folder.h"
#include "tests/unit/os/memfd.h"
#include "tiers/os/file_system.h"

namespace terrace {
namespace {

class KernelFolderTest : public testing::Test {
 protected:
  [[nodiscard]] std::string Path(const std::string& name) const {
    return private_.path() + "/" + name;
  }
  doubles::PrivateFolder private_;
  std::unique_ptr<Folder> folder_ =
      *KernelFileSystem().OpenFolder(private_.path(), FolderMode::kExisting);
};

TEST_F(KernelFolderTest, LinksPipesAndFoldersAreNotOpenedAsFiles) {
  std::ofstream(Path("real")) << "x";
  std::filesystem::create_symlink("real", Path("symbolic"));
  std::ofstream(Path("twice")) << "x";
  std::filesystem::create_hard_link(Path("twice"), Path("again"));
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  std::filesystem::create_directory(Path("folder"));
  for (const char* name : {"symbolic", "twice", "again", "pipe", "folder"}) {
    const absl::Status status =
        folder_->Open(name, OpenMode::kReadWrite, Caching::kBuffered).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name << ": " << status;
  }
  EXPECT_TRUE(folder_->Open("real", OpenMode::kReadWrite, Caching::kBuffered).ok());
}

TEST_F(KernelFolderTest, NewFilesAreForTheOwnerAlone) {
  ASSERT_TRUE(folder_->Open("a", OpenMode::kCreateNew, Caching::kBuffered).ok());
  struct stat status {};
  ASSERT_EQ(stat(Path("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST_F(KernelFolderTest, AFolderThatIsSwappedIsNoticedAndNotFollowed) {
  std::filesystem::create_directory(Path("tier"));
  const std::unique_ptr<Folder> tier =
      *KernelFileSystem().OpenFolder(Path("tier"), FolderMode::kExisting);
  std::filesystem::rename(Path("tier"), Path("away"));
  EXPECT_TRUE(absl::IsNotFound(tier->IdentityAtPath().status()));
  std::filesystem::create_directory(Path("tier"));
  EXPECT_FALSE(*tier->Identity() == *tier->IdentityAtPath());
  ASSERT_TRUE(tier->Open("a", OpenMode::kCreateNew, Caching::kBuffered).ok());
  EXPECT_TRUE(std::filesystem::exists(Path("away/a")));
  EXPECT_FALSE(std::filesystem::exists(Path("tier/a")));
}

TEST_F(KernelFolderTest, AFileIsNoFolder) {
  std::ofstream(Path("file")) << "x";
  EXPECT_TRUE(absl::IsInvalidArgument(
      KernelFileSystem().OpenFolder(Path("file"), FolderMode::kExisting).status()));
  EXPECT_TRUE(absl::IsNotFound(
      KernelFileSystem().OpenFolder(Path("absent/folder"), FolderMode::kCreate).status()));
}

TEST_F(KernelFolderTest, TheEndOfAProcessEndsItsOwnership) {
  EXPECT_EQ(InChild([this] {
              const std::unique_ptr<Folder> mine =
                  *KernelFileSystem().OpenFolder(private_.path(), FolderMode::kExisting);
              return mine->OwnExclusively().ok() ? 0 : 1;
            }),
            0);
  ASSERT_TRUE(folder_->OwnExclusively().ok());
  EXPECT_EQ(InChild([this] {
              const std::unique_ptr<Folder> mine =
                  *KernelFileSystem().OpenFolder(private_.path(), FolderMode::kExisting);
              return absl::IsUnavailable(mine->OwnExclusively()) ? 0 : 1;
            }),
            0);
}

TEST_F(KernelFolderTest, MoreThanTheFileSystemCanHoldIsRefused) {
  const std::unique_ptr<File> file = *folder_->Open("a", OpenMode::kCreateNew, Caching::kBuffered);
  EXPECT_FALSE(file->Preallocate(uint64_t{1} << 62).ok());
  EXPECT_EQ(*file->Size(), 0U);
}

}  // namespace
}  // namespace terrace
