// That a sick mount goes, however the test ends that has it.
#include "tests/doubles/sick_mount/sick_mount.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/doubles/eventually.h"

namespace terrace::doubles {
namespace {

class SickMountTest : public testing::Test {
 protected:
  void SetUp() override {
    if (absl::StatusOr<std::unique_ptr<SickMount>> mount = SickMount::Mount(); !mount.ok()) {
      GTEST_SKIP() << mount.status().message();
    }
  }
  // Another device than the folder around it.
  static bool IsMounted(const std::string& path) {
    struct stat inner {};
    struct stat outer {};
    return stat(path.c_str(), &inner) != 0 ||
           (stat((path + "/..").c_str(), &outer) == 0 && inner.st_dev != outer.st_dev);
  }
};

TEST_F(SickMountTest, IsGoneWithItsObjectAlsoWhileSomebodyHangsInIt) {
  std::unique_ptr<SickMount> mount = *SickMount::Mount();
  std::ofstream(mount->path() + "/file") << "text";
  mount->Hang(SickOp::kStat);
  std::thread hangs([path = mount->path() + "/file"] {
    struct stat status {};
    EXPECT_NE(stat(path.c_str(), &status), 0);
  });
  EXPECT_TRUE(Eventually([&] { return mount->hanging() == 1; }));
  const std::string path = mount->path();
  mount.reset();
  hangs.join();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SickMountTest, IsGoneWithAProcessThatIsKilledAlsoWhileItHangs) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe(ends), 0);
  const pid_t owner = fork();
  if (owner == 0) {
    const std::unique_ptr<SickMount> mount = *SickMount::Mount();
    mount->Hang(SickOp::kRead);
    [[maybe_unused]] const ssize_t told =
        write(ends[1], mount->path().c_str(), mount->path().size());
    pause();
    _exit(0);
  }
  char text[4096];
  const ssize_t got = read(ends[0], text, sizeof(text));
  ASSERT_GT(got, 0);
  const std::string path(text, static_cast<size_t>(got));
  EXPECT_TRUE(IsMounted(path));
  ASSERT_EQ(kill(owner, SIGKILL), 0);
  ASSERT_EQ(waitpid(owner, nullptr, 0), owner);
  EXPECT_TRUE(Eventually([&] { return !IsMounted(path); }));
  std::filesystem::remove_all(std::filesystem::path(path).parent_path());
  close(ends[0]);
  close(ends[1]);
}

TEST_F(SickMountTest, HangsUntilItIsHealed) {
  const std::unique_ptr<SickMount> mount = *SickMount::Mount();
  mount->Hang(SickOp::kMkdir);
  std::thread makes(
      [path = mount->path() + "/folder"] { EXPECT_TRUE(std::filesystem::create_directory(path)); });
  EXPECT_TRUE(Eventually([&] { return mount->hanging() == 1; }));
  EXPECT_FALSE(std::filesystem::exists(mount->backing() + "/folder"));
  mount->Heal();
  makes.join();
  EXPECT_TRUE(std::filesystem::exists(mount->backing() + "/folder"));
  EXPECT_EQ(mount->calls(SickOp::kMkdir), 1U);
}

}  // namespace
}  // namespace terrace::doubles
