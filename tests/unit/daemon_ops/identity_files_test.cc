// What a data folder remembers of this node and its pools.
#include "daemon/identity_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/unit/daemon_ops/private_folder.h"

namespace terrace {
namespace {

using absl::StatusCode;

TEST(IdentityFiles, ANodeIsItselfForEver) {
  const PrivateFolder folder;
  const absl::StatusOr<Digest128> first = NodeIdentity(folder.path());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->IsZero());
  EXPECT_EQ(*NodeIdentity(folder.path()), *first);
  struct stat status = {};
  ASSERT_EQ(stat((folder.path() + "/node").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  EXPECT_EQ(status.st_size, 33);
  const PrivateFolder other;
  EXPECT_NE(*NodeIdentity(other.path()), *first);
}

TEST(IdentityFiles, APoolIsRememberedByTheTiersName) {
  const PrivateFolder folder;
  EXPECT_TRUE(RememberedPool(folder.path(), "g4")->IsZero());
  ASSERT_TRUE(RememberPool(folder.path(), "g4", {7, 8}).ok());
  ASSERT_TRUE(RememberPool(folder.path(), "g3.5", {9, 10}).ok());
  ASSERT_TRUE(RememberPool(folder.path(), "g4", {7, 8}).ok());
  EXPECT_EQ(*RememberedPool(folder.path(), "g4"), (Digest128{7, 8}));
  EXPECT_EQ(*RememberedPool(folder.path(), "g3.5"), (Digest128{9, 10}));
}

TEST(IdentityFiles, WhatIsNoIdentityIsRefusedAndLeftAsItIs) {
  for (const char* text :
       {"", "\n", "00112233445566778899aabbccddeeff", "0\n", "00000000000000000000000000000000\n",
        "x0112233445566778899aabbccddeeff\n", "00112233445566778899aabbccddeeff\nmore"}) {
    const PrivateFolder folder;
    const std::string file = folder.Write("node", text);
    const absl::Status status = NodeIdentity(folder.path()).status();
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << text;
    EXPECT_EQ(status.message().find(file), 0U) << status;
    EXPECT_EQ(std::filesystem::file_size(file), std::string(text).size());
  }
}

TEST(IdentityFiles, WhatCannotBeWrittenIsSaid) {
  EXPECT_EQ(NodeIdentity("/no/such/folder").status().code(), StatusCode::kInternal);
  const PrivateFolder folder;
  std::filesystem::create_directory(folder.path() + "/node");
  EXPECT_EQ(NodeIdentity(folder.path()).status().code(), StatusCode::kInternal);
  if (geteuid() != 0) {
    ASSERT_EQ(chmod(folder.path().c_str(), 0500), 0);
    EXPECT_EQ(RememberPool(folder.path(), "g4", {1, 2}).code(), StatusCode::kPermissionDenied);
    ASSERT_EQ(chmod(folder.path().c_str(), 0700), 0);
  }
}

}  // namespace
}  // namespace terrace
