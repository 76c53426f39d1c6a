// Daemons of a pool that is protected: those who have its key share it, its folder tells nothing,
// and who has another key, or none, leaves it alone.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/doubles/seeded.h"
#include "tests/e2e/shared_tier/pool_node.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;

class ProtectedPool : public testing::Test {
 protected:
  ProtectedPool() { fs::create_directory(pool()); }
  [[nodiscard]] std::string pool() const { return folder_.path() + "/pool"; }
  // Lines of a configuration.
  std::string With(const std::string& auth, uint64_t seed) const {
    const std::string path = folder_.path() + "/key-" + std::to_string(seed);
    std::ofstream(path, std::ios::binary) << doubles::Seeded(seed).Bytes(32);
    fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
    return "auth = \"" + auth + "\"\nkey_file = \"" + path + "\"\n";
  }
  // Files of the pool that hold any of these, in their content or their names.
  [[nodiscard]] std::vector<std::string> FilesWith(const std::vector<std::string>& texts) const {
    std::vector<std::string> found;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(pool())) {
      std::string content = entry.path().string();
      if (entry.is_regular_file()) {
        std::ifstream file(entry.path(), std::ios::binary);
        content.append(std::istreambuf_iterator<char>(file), {});
      }
      for (const std::string& text : texts) {
        if (content.find(text) != std::string::npos) {
          found.push_back(entry.path().string());
        }
      }
    }
    return found;
  }

  const doubles::PrivateFolder folder_;
};

TEST_F(ProtectedPool, WhoHasTheKeySharesItAndNobodyElseReadsOrTouchesIt) {
  Node a(pool(), Node::Local::kNone, With("encrypt", 1));
  ASSERT_TRUE(a.Becomes("ready")) << a.daemon().Log();
  EXPECT_EQ(a.Pool().auth(), "encrypt");
  Node b(pool(), Node::Local::kNone, With("encrypt", 1));
  ASSERT_TRUE(b.Becomes("ready")) << b.daemon().Log();
  ASSERT_TRUE(a.Publish()) << a.daemon().Log();
  EXPECT_TRUE(Eventually([&] { return b.Hits() == kBlocks; })) << b.daemon().Log();
  EXPECT_GE(b.Pool().hits(), kBlocks);
  EXPECT_EQ(b.Pool().corrupt(), 0U);
  EXPECT_EQ(FilesWith({a.KeyOf(0), a.KeyOf(3), a.SomeOf(0), a.SomeOf(3)}),
            std::vector<std::string>());

  Node stranger(pool(), Node::Local::kNone, With("encrypt", 2));
  ASSERT_TRUE(stranger.Becomes("foreign")) << stranger.daemon().Log();
  EXPECT_NE(stranger.Pool().last_fault().find("another key"), std::string::npos)
      << stranger.Pool().last_fault();
  EXPECT_EQ(stranger.Hits(), 0U);
  Node careless(pool(), Node::Local::kNone);
  ASSERT_TRUE(careless.Becomes("foreign")) << careless.daemon().Log();
  EXPECT_NE(careless.Pool().last_fault().find("auth = encrypt"), std::string::npos);

  a.daemon().Kill();
  ASSERT_TRUE(a.daemon().StartAgain().ok()) << a.daemon().Log();
  a.Connect();
  EXPECT_TRUE(Eventually([&] { return a.Hits() == kBlocks; })) << a.daemon().Log();
  EXPECT_EQ(a.Pool().corrupt(), 0U);
  for (Node* node : {&a, &b, &stranger}) {
    EXPECT_EQ(node->daemon().Log().find(doubles::Seeded(1).Bytes(8)), std::string::npos);
  }
}

TEST_F(ProtectedPool, WithMacAloneThePayloadsCanBeReadAndNothingElse) {
  Node a(pool(), Node::Local::kNone, With("mac", 1));
  ASSERT_TRUE(a.Becomes("ready")) << a.daemon().Log();
  ASSERT_TRUE(a.Publish()) << a.daemon().Log();
  Node b(pool(), Node::Local::kNone, With("mac", 1));
  EXPECT_TRUE(Eventually([&] { return b.Hits() == kBlocks; })) << b.daemon().Log();
  EXPECT_EQ(b.Pool().auth(), "mac");
  EXPECT_FALSE(FilesWith({a.SomeOf(3)}).empty()) << "or the search finds nothing at all";
  EXPECT_EQ(FilesWith({a.KeyOf(0), a.KeyOf(3)}), std::vector<std::string>());
}

}  // namespace
}  // namespace terrace
