// Nodes of one pool: each a store over its own simulated disk and the pool in memory.
#pragma once

#include <memory>
#include <string>

#include "tests/doubles/local_room.h"
#include "tests/doubles/shared_pool_double.h"

namespace terrace::testing {

// Opened by the test, after it has set room.store_options.
struct SharedNode {
  explicit SharedNode(doubles::SharedPoolDouble& shared_pool, std::string name = "g4")
      : pool(shared_pool), tier(pool.Join(std::move(name))) {
    room.shared.push_back(tier.get());
  }
  // Nothing is held any more, and the store goes before the tier.
  ~SharedNode() {
    pool.HoldPublishes(false);
    pool.HoldReads(false);
    tier->Close(absl::ZeroDuration(), [](const absl::Status&) {});
    room.Abandon();
  }
  SharedNode(const SharedNode&) = delete;
  SharedNode& operator=(const SharedNode&) = delete;

  void Open(PublishWhen publish = PublishWhen::kOnCommit) {
    room.store_options.shared.resize(room.shared.size());
    room.store_options.shared.front().publish = publish;
    room.Open();
    room.Tick(absl::Milliseconds(10));
  }
  [[nodiscard]] SharedTierUsage usage() { return room.store().Usage().shared_tiers.front(); }
  [[nodiscard]] uint64_t drops(PublishDrop why) { return usage().drops[static_cast<size_t>(why)]; }

  doubles::SharedPoolDouble& pool;
  std::unique_ptr<SharedTier> tier;
  doubles::LocalRoom room;
};

}  // namespace terrace::testing
