// Daemons of one pool: what one publishes another delivers, and a pool that is not there stops
// nobody.
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/e2e/shared_tier/pool_node.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;

class Nodes : public testing::Test {
 protected:
  Nodes() { fs::create_directory(pool()); }
  [[nodiscard]] std::string pool() const { return folder_.path() + "/pool"; }

  const doubles::PrivateFolder folder_;
};

TEST_F(Nodes, WhatOnePublishesTheOtherDelivers) {
  Node a(pool());
  ASSERT_TRUE(a.Becomes("ready")) << a.daemon().Log();
  Node b(pool());
  ASSERT_TRUE(b.Becomes("ready")) << b.daemon().Log();
  EXPECT_EQ(b.Hits(), 0U);
  ASSERT_TRUE(a.Publish()) << a.daemon().Log();
  EXPECT_TRUE(Eventually([&] { return b.Hits() == kBlocks; })) << b.daemon().Log();
  EXPECT_GE(b.Pool().hits(), kBlocks);
  EXPECT_TRUE(Eventually([&] { return a.Pool().nodes_size() == 2; }));
  EXPECT_EQ(a.Pool().published(), kBlocks);
  EXPECT_GT(a.Pool().worker().calls(), 0U);

  ASSERT_TRUE(a.Clear().ok());
  EXPECT_EQ(a.Hits(), 0U);
  EXPECT_TRUE(Eventually([&] { return b.Hits() == 0; })) << "cleared on the other";
}

TEST_F(Nodes, ANodeThatWasKilledKnowsItsPoolAndItsPoolKnowsItsBlocks) {
  Node a(pool());
  ASSERT_TRUE(a.Becomes("ready"));
  const std::string uuid = a.Pool().pool_uuid();
  ASSERT_TRUE(a.Publish()) << a.daemon().Log();
  const std::string node = a.Pool().nodes(0).node();
  a.daemon().Kill();
  Node b(pool());
  EXPECT_TRUE(Eventually([&] { return b.Hits() == kBlocks; })) << b.daemon().Log();
  fs::remove_all(a.daemon().dir() + "/data/local");
  ASSERT_TRUE(a.daemon().StartAgain().ok());
  a.Connect();
  ASSERT_TRUE(a.Becomes("ready"));
  EXPECT_EQ(a.Pool().pool_uuid(), uuid);
  EXPECT_EQ(a.Pool().nodes(0).node(), node);
  EXPECT_TRUE(Eventually([&] { return a.Hits() == kBlocks; })) << a.daemon().Log();
}

TEST_F(Nodes, APoolThatIsNotThereStopsNobody) {
  Node a(pool());
  ASSERT_TRUE(a.Becomes("ready"));
  ASSERT_TRUE(a.Publish()) << a.daemon().Log();
  ASSERT_EQ(a.daemon().Stop(), 0) << a.daemon().Log();
  fs::rename(pool(), pool() + ".away");
  ASSERT_TRUE(a.daemon().StartAgain().ok()) << a.daemon().Log();
  a.Connect();
  EXPECT_TRUE(Eventually([&] { return a.Hits() == kBlocks; })) << "they lie on the local tier, too";
  EXPECT_NE(a.Pool().state(), "ready");
  EXPECT_FALSE(fs::exists(pool())) << "nothing is made where the mount should be";
  // Another folder in its place is not the pool, and stays as it is.
  fs::create_directory(pool());
  const uint64_t starts = a.Pool().worker().starts();
  EXPECT_TRUE(Eventually([&] {
    return a.Pool().state() == "foreign" || a.Pool().worker().starts() > starts + 1;
  })) << a.daemon().Log();
  EXPECT_TRUE(fs::is_empty(pool()));
  fs::remove(pool());
  fs::rename(pool() + ".away", pool());
  EXPECT_TRUE(a.Becomes("ready")) << a.daemon().Log();
  EXPECT_EQ(a.daemon().Stop(), 0) << a.daemon().Log();
}

}  // namespace
}  // namespace terrace
