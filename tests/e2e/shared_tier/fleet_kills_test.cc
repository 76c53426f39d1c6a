// Four daemons on one folder, killed again and again while they put and get: no wrong byte, and
// nothing that was published is lost. TERRACE_FLEET_KILLS asks for more kills.
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/doubles/seeded.h"
#include "tests/e2e/shared_tier/pool_node.h"

namespace terrace {
namespace {

constexpr size_t kNodes = 4;

uint64_t Kills() {
  const char* wanted = std::getenv("TERRACE_FLEET_KILLS");
  return wanted == nullptr ? 50 : std::strtoull(wanted, nullptr, 10);
}

TEST(FleetKills, NothingPublishedIsLostAndNoByteIsWrong) {
  const doubles::PrivateFolder folder;
  const std::string pool = folder.path() + "/pool";
  std::filesystem::create_directory(pool);
  std::vector<std::unique_ptr<Node>> nodes;
  for (size_t i = 0; i < kNodes; ++i) {
    nodes.push_back(std::make_unique<Node>(pool, Node::Local::kNone));
    ASSERT_TRUE(nodes.back()->Becomes("ready")) << nodes.back()->daemon().Log();
  }
  doubles::Seeded random(1);
  std::set<uint32_t> published;
  for (uint64_t kills = 0; kills < Kills() && !testing::Test::HasFailure();) {
    Node& node = *nodes[random.Below(kNodes)];
    const auto block = static_cast<uint32_t>(random.Below(kBlocks));
    const uint64_t choice = random.Below(10);
    if (choice < 3) {
      if (node.PutOne(block, TERRACE_LEVEL_POOL).ok()) {
        published.insert(block);
      }
    } else if (choice < 8) {
      node.Hit(block);
    } else {
      if (choice == 9) {
        // It is published behind this, so that the daemon dies in the midst of it. Not OK where it
        // was there before.
        const absl::Status put = node.PutOne(block, TERRACE_LEVEL_DRAM);
        EXPECT_FALSE(absl::IsDeadlineExceeded(put)) << put;
      }
      node.daemon().Kill();
      ASSERT_TRUE(node.daemon().StartAgain().ok()) << node.daemon().Log();
      node.Connect();
      ++kills;
    }
  }
  EXPECT_FALSE(published.empty());
  for (const std::unique_ptr<Node>& node : nodes) {
    ASSERT_TRUE(node->Becomes("ready")) << node->daemon().Log();
    for (const uint32_t block : published) {
      EXPECT_TRUE(Eventually([&] { return node->Hit(block); })) << block << node->daemon().Log();
    }
  }
}

}  // namespace
}  // namespace terrace
