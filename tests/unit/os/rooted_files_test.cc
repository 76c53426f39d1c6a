// What the kernel's rooted files refuse to touch, and what they leave behind.
#include "tiers/os/rooted_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/unit/os/memfd.h"
#include "tiers/os/beneath.h"

namespace terrace {
namespace {

// A mount that is gone with the test, however that ends.
class Mounted {
 public:
  Mounted(const std::string& from,
          std::string to,
          const char* type,
          unsigned long flags,
          const char* options = "size=1m")
      : to_(std::move(to)),
        mounted_(mount(from.c_str(), to_.c_str(), type, flags, type ? options : nullptr) == 0) {}
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;
  ~Mounted() {
    if (mounted_) {
      umount2(to_.c_str(), MNT_DETACH);
    }
  }
  [[nodiscard]] bool mounted() const { return mounted_; }

 private:
  const std::string to_;
  const bool mounted_;
};

class RootedFilesTest : public testing::Test {
 protected:
  RootedFilesTest() {
    std::filesystem::create_directory(root_);
    std::filesystem::create_directory(private_.path() + "/outside");
    Plant(private_.path() + "/outside/secret", "secret");
    files_ = *OpenRootedFiles(root_);
  }

  static void Plant(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  static std::string TextAt(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  [[nodiscard]] std::string At(const std::string& path) const { return root_ + "/" + path; }

  absl::Status ReadStatus(const std::string& path, ReadHow how = ReadHow::kKept) {
    std::string room(100, '\0');
    return files_->Read(path, 0, absl::MakeSpan(room), how).status();
  }
  std::string Text(const std::string& path, ReadHow how) {
    std::string text(100, '\0');
    const absl::StatusOr<uint64_t> got = files_->Read(path, 0, absl::MakeSpan(text), how);
    return got.ok() ? text.substr(0, *got) : got.status().ToString();
  }

  doubles::PrivateFolder private_;
  const std::string root_ = private_.path() + "/root";
  std::unique_ptr<RootedFiles> files_;
};

TEST_F(RootedFilesTest, TheRootIsNeverMade) {
  EXPECT_TRUE(absl::IsNotFound(OpenRootedFiles(root_ + "-absent").status()));
  EXPECT_FALSE(std::filesystem::exists(root_ + "-absent"));
  Plant(At("file"), "x");
  EXPECT_TRUE(absl::IsInvalidArgument(OpenRootedFiles(At("file")).status()));
}

TEST_F(RootedFilesTest, NothingIsWrittenByOpening) {
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(RootedFilesTest, ASymbolicLinkInAnyComponentIsRefused) {
  std::filesystem::create_directories(At("a/b"));
  Plant(At("a/b/file"), "x");
  std::filesystem::create_directory_symlink("a", At("first"));
  std::filesystem::create_directory_symlink("b", At("a/second"));
  std::filesystem::create_symlink("file", At("a/b/third"));
  std::filesystem::create_directory_symlink(private_.path() + "/outside", At("out"));
  for (const char* path : {"first/b/file", "a/second/file", "a/b/third", "out/secret"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadStatus(path))) << path << ReadStatus(path);
    EXPECT_TRUE(absl::IsInvalidArgument(files_->Write(path, 0, std::string("y")))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(files_->Sync(path))) << path;
  }
  for (const char* path : {"first/b/new", "a/second/new", "out/new"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(files_->Make(path, 1))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(files_->Create(path, {}))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(files_->Replace(path, {}))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(files_->MakeFolder(path))) << path;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Remove("out/secret")));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->List("out").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->MakeFolder("out")));
  EXPECT_EQ(TextAt(At("a/b/file")), "x");
  EXPECT_EQ(TextAt(private_.path() + "/outside/secret"), "secret");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(private_.path() + "/outside"), {}),
            1);
}

TEST_F(RootedFilesTest, AMadeFileDoesNotFollowALinkThatWaitsUnderItsName) {
  std::filesystem::create_symlink(private_.path() + "/outside/made", At("new"));
  EXPECT_TRUE(absl::IsAlreadyExists(files_->Make("new", 10)));
  EXPECT_TRUE(absl::IsAlreadyExists(files_->Create("new", std::string("x"))));
  EXPECT_FALSE(std::filesystem::exists(private_.path() + "/outside/made"));
  // The link itself is replaced.
  EXPECT_TRUE(files_->Replace("new", std::string("x")).ok());
  EXPECT_FALSE(std::filesystem::exists(private_.path() + "/outside/made"));
  EXPECT_EQ(Text("new", ReadHow::kFresh), "x");
}

TEST_F(RootedFilesTest, PipesAndDevicesAreRefusedAtOnce) {
  ASSERT_EQ(mkfifo(At("pipe").c_str(), 0600), 0);
  std::vector<std::string> planted = {"pipe"};
  if (mknod(At("null").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) {
    planted.emplace_back("null");
  }
  for (const std::string& path : planted) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadStatus(path))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(files_->Write(path, 0, std::string("x")))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(files_->Sync(path))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(files_->List(path).status())) << path;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(ReadStatus("pipe", ReadHow::kGlance)));
  const absl::StatusOr<std::vector<FolderEntry>> entries = files_->List("");
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), planted.size());
  for (const FolderEntry& entry : *entries) {
    EXPECT_EQ(entry.kind, EntryKind::kOther) << entry.name;
  }
}

TEST_F(RootedFilesTest, FilesOfSeveralNamesAreNotOpened) {
  std::filesystem::create_hard_link(private_.path() + "/outside/secret", At("twice"));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Write("twice", 0, std::string("x"))));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Sync("twice")));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadStatus("twice")));
  std::filesystem::create_hard_link(At("twice"), At("thrice"));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadStatus("twice")));
  EXPECT_EQ(TextAt(private_.path() + "/outside/secret"), "secret");
}

TEST_F(RootedFilesTest, FilesAndFoldersAreForTheOwnerAlone) {
  ASSERT_TRUE(files_->MakeFolder("f").ok());
  ASSERT_TRUE(files_->Make("f/made", 10).ok());
  ASSERT_TRUE(files_->Create("f/created", {}).ok());
  ASSERT_TRUE(files_->Replace("f/replaced", {}).ok());
  struct stat status {};
  ASSERT_EQ(stat(At("f").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700U);
  for (const char* path : {"f/made", "f/created", "f/replaced"}) {
    ASSERT_EQ(stat(At(path).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U) << path;
    EXPECT_EQ(status.st_nlink, 1U) << path;
  }
}

TEST_F(RootedFilesTest, SpaceOfAMadeFileIsReserved) {
  ASSERT_TRUE(files_->Make("a", 1 << 20).ok());
  struct stat status {};
  ASSERT_EQ(stat(At("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 1 << 20);
  EXPECT_GE(status.st_blocks * 512, 1 << 20);
}

TEST_F(RootedFilesTest, AKeptReaderGoesOnWithWhatItOpenedAndAFreshOneDoesNot) {
  Plant(At("a"), "old");
  EXPECT_EQ(Text("a", ReadHow::kKept), "old");
  Plant(At("b"), "new");
  std::filesystem::rename(At("b"), At("a"));
  EXPECT_EQ(Text("a", ReadHow::kKept), "old");
  EXPECT_EQ(Text("a", ReadHow::kFresh), "new");
  EXPECT_EQ(Text("a", ReadHow::kKept), "new");
}

TEST_F(RootedFilesTest, AFolderThatIsMovedAwayIsNotWrittenToAfterTheRootWasChecked) {
  ASSERT_TRUE(files_->MakeFolder("f").ok());
  ASSERT_TRUE(files_->Replace("f/a", std::string("first")).ok());
  std::filesystem::rename(At("f"), At("away"));
  std::filesystem::create_directory(At("f"));
  ASSERT_TRUE(files_->CheckRoot().ok());
  ASSERT_TRUE(files_->Replace("f/a", std::string("second")).ok());
  EXPECT_EQ(TextAt(At("f/a")), "second");
  EXPECT_EQ(TextAt(At("away/a")), "first");
}

TEST_F(RootedFilesTest, NoMoreFilesStayOpenThanAreCounted) {
  constexpr int kFiles = 700;
  for (int i = 0; i < kFiles; ++i) {
    Plant(At("file-" + std::to_string(i)), std::to_string(i));
    ASSERT_EQ(Text("file-" + std::to_string(i), ReadHow::kKept), std::to_string(i));
  }
  const auto open = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  EXPECT_LE(open, 512 + 32);
  EXPECT_GE(open, 512);
}

TEST_F(RootedFilesTest, NamesThatCannotBeSaidAreListedAsNoFiles) {
  Plant(At(".nfs0001"), "x");
  std::filesystem::create_directory(At("a b"));
  Plant(At("good"), "x");
  const absl::StatusOr<std::vector<FolderEntry>> entries = files_->List("");
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 3U);
  EXPECT_EQ((*entries)[0].name, ".nfs0001");
  EXPECT_EQ((*entries)[0].kind, EntryKind::kOther);
  EXPECT_EQ((*entries)[1].name, "a b");
  EXPECT_EQ((*entries)[1].kind, EntryKind::kOther);
  EXPECT_EQ((*entries)[2].kind, EntryKind::kFile);
}

TEST_F(RootedFilesTest, ARootThatIsSwappedForAnotherIsNoticedAndNotWrittenTo) {
  std::filesystem::rename(root_, root_ + "-away");
  EXPECT_TRUE(absl::IsUnavailable(files_->CheckRoot()));
  std::filesystem::create_directory(root_);
  EXPECT_TRUE(absl::IsUnavailable(files_->CheckRoot()));
  ASSERT_TRUE(files_->Create("a", std::string("x")).ok());
  EXPECT_FALSE(std::filesystem::exists(At("a")));
  EXPECT_EQ(TextAt(root_ + "-away/a"), "x");
  std::filesystem::remove_all(root_);
  std::filesystem::rename(root_ + "-away", root_);
  EXPECT_TRUE(files_->CheckRoot().ok());
}

TEST_F(RootedFilesTest, AFileSystemWithoutRoomSaysSoAndKeepsNoHalfFile) {
  const Mounted mounted("none", root_, "tmpfs", 0);
  if (!mounted.mounted()) {
    GTEST_SKIP() << "needs to mount a tmpfs";
  }
  files_ = *OpenRootedFiles(root_);
  EXPECT_TRUE(absl::IsResourceExhausted(files_->Make("large", 4 << 20)));
  EXPECT_TRUE(absl::IsResourceExhausted(files_->Create("large", std::string(2 << 20, 'x'))));
  EXPECT_TRUE(absl::IsResourceExhausted(files_->Replace("large", std::string(2 << 20, 'x'))));
  EXPECT_TRUE(std::filesystem::is_empty(root_));
  EXPECT_TRUE(files_->Make("small", 0).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(files_->Write("small", 0, std::string(2 << 20, 'x'))));
  // A short write comes before the refusal.
  EXPECT_GT(std::filesystem::file_size(At("small")), 0U);
  EXPECT_LT(files_->Space()->available_bytes, 1U << 20);
  ASSERT_EQ(mount("none", root_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, "size=1m"), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(files_->Make("b", 1)));
  EXPECT_TRUE(absl::IsPermissionDenied(files_->Replace("b", {})));
  EXPECT_TRUE(absl::IsPermissionDenied(files_->Remove("small")));
}

// Each in both ways of resolving a path.
class BeneathTest : public RootedFilesTest, public testing::WithParamInterface<Resolution> {
 protected:
  [[nodiscard]] BeneathFolder Root() const { return *BeneathFolder::Open(root_, GetParam()); }
  static int ErrorOf(const BeneathFolder& root, const std::string& path, int flags = O_RDONLY) {
    errno = 0;
    return root.OpenWithin(path, flags).valid() ? 0 : errno;
  }
};

INSTANTIATE_TEST_SUITE_P(BothWays,
                         BeneathTest,
                         testing::Values(Resolution::kKernel, Resolution::kByComponents),
                         [](const auto& instance) {
                           return instance.param == Resolution::kKernel ? "Kernel" : "Components";
                         });

TEST_P(BeneathTest, OpensWhatLiesWithinAndTheFolderItself) {
  std::filesystem::create_directories(At("a/b"));
  Plant(At("a/b/file"), "x");
  const BeneathFolder root = Root();
  EXPECT_EQ(ErrorOf(root, "a/b/file"), 0);
  EXPECT_EQ(ErrorOf(root, "a/b", O_RDONLY | O_DIRECTORY), 0);
  EXPECT_EQ(ErrorOf(root, "", O_RDONLY | O_DIRECTORY), 0);
  EXPECT_EQ(ErrorOf(root, "a/c/file"), ENOENT);
  EXPECT_EQ(ErrorOf(root, "a/b/file/within"), ENOTDIR);
  EXPECT_TRUE(root.OpenWithin("a/new", O_CREAT | O_EXCL | O_WRONLY, 0600).valid());
  EXPECT_TRUE(std::filesystem::exists(At("a/new")));
}

TEST_P(BeneathTest, FollowsNoLink) {
  std::filesystem::create_directories(At("a/b"));
  std::filesystem::create_directory_symlink("a", At("first"));
  std::filesystem::create_symlink(private_.path() + "/outside/secret", At("a/last"));
  const BeneathFolder root = Root();
  for (const char* path : {"first/b", "first", "a/last"}) {
    const int error = ErrorOf(root, path);
    EXPECT_TRUE(error == ELOOP || error == ENOTDIR) << path << ": " << error;
  }
}

TEST_P(BeneathTest, EntersNoOtherMount) {
  std::filesystem::create_directory(At("mounted"));
  const Mounted mounted("none", At("mounted"), "tmpfs", 0);
  if (!mounted.mounted()) {
    GTEST_SKIP() << "needs to mount a tmpfs";
  }
  Plant(At("mounted/file"), "x");
  const BeneathFolder root = Root();
  EXPECT_EQ(ErrorOf(root, "mounted/file"), EXDEV);
  EXPECT_EQ(ErrorOf(root, "mounted", O_RDONLY | O_DIRECTORY), EXDEV);
  EXPECT_TRUE(absl::IsInvalidArgument(ReadStatus("mounted/file")));
  EXPECT_TRUE(absl::IsInvalidArgument(files_->Make("mounted/new", 1)));
}

TEST_P(BeneathTest, EntersNoSecondMountOfTheSameFileSystem) {
  std::filesystem::create_directory(At("again"));
  const Mounted mounted(private_.path() + "/outside", At("again"), nullptr, MS_BIND);
  if (!mounted.mounted()) {
    GTEST_SKIP() << "needs to mount a folder";
  }
  EXPECT_EQ(ErrorOf(Root(), "again/secret"), EXDEV);
}

// In an overlay of several file systems each file has the device number of the one that it lies on.
TEST_P(BeneathTest, OpensFilesOfAnotherDeviceNumberInTheSameMount) {
  const std::string memory = private_.path() + "/memory";
  std::filesystem::create_directory(memory);
  const Mounted upper("none", memory, "tmpfs", 0);
  std::filesystem::create_directories(memory + "/upper");
  std::filesystem::create_directories(memory + "/work");
  const std::string layers = "lowerdir=" + private_.path() + "/outside,upperdir=" + memory +
                             "/upper,workdir=" + memory + "/work";
  const Mounted overlay("overlay", root_, "overlay", 0, layers.c_str());
  if (!upper.mounted() || !overlay.mounted()) {
    GTEST_SKIP() << "needs to mount an overlay";
  }
  Plant(At("new"), "x");
  const BeneathFolder root = Root();
  EXPECT_EQ(ErrorOf(root, "secret"), 0);
  EXPECT_EQ(ErrorOf(root, "new"), 0);
  EXPECT_EQ(ErrorOf(root, "", O_RDONLY | O_DIRECTORY), 0);
}

}  // namespace
}  // namespace terrace
