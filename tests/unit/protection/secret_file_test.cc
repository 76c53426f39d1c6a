// Where a secret may lie, and what is said where it may not.
#include "daemon/protection/secret_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;

class SecretFile : public testing::Test {
 protected:
  std::string Make(const std::string& name, const std::string& content, mode_t mode) {
    const std::string path = folder_.path() + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  static std::string Said(const std::string& path, absl::StatusCode code) {
    const absl::StatusOr<SecretBytes> read = ReadSecret({path, "", ""});
    EXPECT_EQ(read.status().code(), code) << read.status();
    EXPECT_EQ(read.status().message().find(path), 0U) << read.status();
    EXPECT_EQ(read.status().message().find(kSecret.substr(0, 8)), absl::string_view::npos);
    return std::string(read.status().message());
  }

  inline static const std::string kSecret = "forty bytes that nobody but us may read!";
  const doubles::PrivateFolder folder_;
};

TEST_F(SecretFile, AllOfTheFileIsTheSecret) {
  for (const std::string& content :
       {kSecret, kSecret + "\n", std::string(32, '\0'), std::string(4096, 'x')}) {
    for (const mode_t mode : {0600U, 0400U}) {
      const std::string path = Make("key", content, mode);
      const absl::StatusOr<SecretBytes> read = ReadSecret({path, "", ""});
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(std::string(read->view().begin(), read->view().end()), content);
      fs::remove(path);
    }
  }
}

TEST_F(SecretFile, AFileThatIsAbsentIsSaidToBe) {
  Said(folder_.path() + "/none", absl::StatusCode::kNotFound);
  const std::string file = Make("file", "", 0600);
  Said(file + "/below", absl::StatusCode::kNotFound);
}

TEST_F(SecretFile, OthersMustHaveNoRights) {
  for (const mode_t mode : {0640U, 0620U, 0604U, 0602U, 0644U, 0666U, 0700U, 0601U}) {
    const std::string path = Make("key", kSecret, mode);
    EXPECT_NE(Said(path, absl::StatusCode::kPermissionDenied).find("chmod 0600"),
              std::string::npos);
    fs::remove(path);
  }
}

TEST_F(SecretFile, AnothersFileIsRefused) {
  const std::string path = Make("key", kSecret, 0600);
  if (chown(path.c_str(), 12345, 0) != 0) {
    GTEST_SKIP() << "only root can give files away";
  }
  EXPECT_NE(Said(path, absl::StatusCode::kPermissionDenied).find("12345"), std::string::npos);
}

TEST_F(SecretFile, ItMustHaveNeitherTooFewNorTooManyBytes) {
  EXPECT_NE(Said(Make("short", std::string(31, 'x'), 0600), absl::StatusCode::kFailedPrecondition)
                .find("32 to 4096 bytes, not 31"),
            std::string::npos);
  Said(Make("empty", "", 0600), absl::StatusCode::kFailedPrecondition);
  Said(Make("long", std::string(4097, 'x'), 0600), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SecretFile, LinksAreRefused) {
  const std::string path = Make("key", kSecret, 0600);
  const std::string symbolic = folder_.path() + "/symbolic";
  fs::create_symlink(path, symbolic);
  EXPECT_NE(Said(symbolic, absl::StatusCode::kFailedPrecondition).find("symbolic link"),
            std::string::npos);
  const std::string hard = folder_.path() + "/hard";
  fs::create_hard_link(path, hard);
  Said(hard, absl::StatusCode::kFailedPrecondition);
  Said(path, absl::StatusCode::kFailedPrecondition);
}

TEST_F(SecretFile, WhatIsNoRegularFileIsRefusedWithoutWaitingForIt) {
  const std::string fifo = folder_.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(Said(fifo, absl::StatusCode::kFailedPrecondition).find("regular file"),
            std::string::npos);
  Said(folder_.path(), absl::StatusCode::kFailedPrecondition);
  Said("/dev/zero", absl::StatusCode::kFailedPrecondition);
}

TEST_F(SecretFile, ACredentialIsReadFromTheFolderOfTheServiceManager) {
  for (const mode_t mode : {0400U, 0440U, 0600U}) {
    const std::string path = Make("pool.key", kSecret, mode);
    const absl::StatusOr<SecretBytes> read = ReadSecret({"", "pool.key", folder_.path()});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(std::string(read->view().begin(), read->view().end()), kSecret);
    fs::remove(path);
  }
  Make("pool.key", kSecret, 0444);
  EXPECT_TRUE(absl::IsPermissionDenied(ReadSecret({"", "pool.key", folder_.path()}).status()));
}

TEST_F(SecretFile, WithoutAServiceManagerThereAreNoCredentials) {
  const absl::Status status = ReadSecret({"", "pool.key", ""}).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_NE(status.message().find("CREDENTIALS_DIRECTORY"), absl::string_view::npos);
  EXPECT_NE(status.message().find("LoadCredential="), absl::string_view::npos);
  EXPECT_TRUE(absl::IsNotFound(ReadSecret({"", "pool.key", folder_.path()}).status()));
}

}  // namespace
}  // namespace terrace
