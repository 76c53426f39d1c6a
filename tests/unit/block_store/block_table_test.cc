#include "daemon/store/block_table.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

std::string RandomKey(std::mt19937_64& random, uint32_t bytes) {
  std::string key(bytes, '\0');
  for (char& c : key) {
    c = static_cast<char>(random());
  }
  return key;
}

TEST(BlockTable, KeysOfEveryLengthAreKept) {
  BlockTable table;
  std::mt19937_64 random(1);
  std::map<uint32_t, std::pair<BlockId, std::string>> added;
  for (uint32_t bytes = kMinKeyBytes; bytes <= kMaxKeyBytes; ++bytes) {
    const std::string key = RandomKey(random, bytes);
    added[bytes] = {table.Add(ScopeId{1}, key), key};
  }
  for (const auto& [bytes, entry] : added) {
    EXPECT_EQ(table.at(entry.first).key(), entry.second);
    EXPECT_EQ(table.at(entry.first).key().size(), bytes);
  }
}

TEST(BlockTable, ReusedIdsHaveANewSerial) {
  BlockTable table;
  const std::string key(32, 'k');
  const BlockId first = table.Add(ScopeId{0}, key);
  const uint32_t serial = table.at(first).serial;
  table.Remove(first);
  const BlockId second = table.Add(ScopeId{0}, key);
  EXPECT_EQ(first, second);
  EXPECT_NE(table.at(second).serial, serial);
  EXPECT_EQ(table.live(), 1U);
}

// Random inserts and erases against a map: probing, growth and backward shifts never lose or invent
// an entry.
TEST(ResidentIndex, AgreesWithAMapOverRandomOperations) {
  constexpr uint64_t kSeed = 20240607;
  RecordProperty("seed", std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  BlockTable table;
  ResidentIndex index(table, 42);
  std::map<std::pair<uint32_t, std::string>, BlockId> model;
  std::vector<std::string> keys;
  for (int i = 0; i < 3000; ++i) {
    keys.push_back(RandomKey(random, static_cast<uint32_t>(16 + random() % 49)));
  }
  for (int step = 0; step < 60000; ++step) {
    const auto scope = static_cast<uint32_t>(random() % 3);
    const std::string& key = keys[random() % keys.size()];
    const auto found = model.find({scope, key});
    ASSERT_EQ(index.Find(ScopeId{scope}, key), found == model.end() ? kNoBlock : found->second);
    if (found == model.end()) {
      const BlockId id = table.Add(ScopeId{scope}, key);
      index.Insert(id);
      model[{scope, key}] = id;
    } else if (random() % 2 == 0) {
      index.Erase(found->second);
      table.Remove(found->second);
      model.erase(found);
    }
  }
  ASSERT_EQ(index.size(), model.size());
}

TEST(ResidentIndex, ManyKeysAreFoundAsOneByOneAndTheSearchStopsAtTheFirstMiss) {
  BlockTable table;
  ResidentIndex index(table, 7);
  std::string packed;
  std::vector<BlockId> ids;
  for (uint32_t i = 0; i < 100; ++i) {
    std::string key(36, static_cast<char>(i));
    packed += key;
    if (i == 70) {
      ids.push_back(kNoBlock);
      continue;
    }
    ids.push_back(table.Add(ScopeId{0}, key));
    index.Insert(ids.back());
  }
  std::vector<BlockId> out(100, BlockId{12345});
  EXPECT_EQ(
      index.FindMany(ScopeId{0}, packed, 36, ResidentIndex::OnMiss::kGoOn, absl::MakeSpan(out)),
      100U);
  EXPECT_EQ(out, ids);
  EXPECT_EQ(
      index.FindMany(ScopeId{0}, packed, 36, ResidentIndex::OnMiss::kStop, absl::MakeSpan(out)),
      71U);
}

// Chains whose ids lie in rows, in rows with gaps and in no order at all, after blocks came and
// went.
TEST(ResidentIndex, ManyKeysAreFoundAsOneByOneWhereverTheirBlocksLie) {
  constexpr uint64_t kSeed = 20251125;
  constexpr uint32_t kKeyBytes = 36;
  RecordProperty("seed", std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  BlockTable table;
  ResidentIndex index(table, 42);
  std::vector<std::string> chains(40);
  for (std::string& chain : chains) {
    chain = RandomKey(random, kKeyBytes * static_cast<uint32_t>(1 + random() % 300));
  }
  for (int step = 0; step < 1500; ++step) {
    const std::string& chain = chains[random() % chains.size()];
    const auto scope = ScopeId{static_cast<uint32_t>(random() % 2)};
    const size_t keys = chain.size() / kKeyBytes;
    std::vector<BlockId> one_by_one(keys);
    for (size_t i = 0; i < keys; ++i) {
      one_by_one[i] = index.Find(scope, KeyView(chain).substr(i * kKeyBytes, kKeyBytes));
    }
    std::vector<BlockId> found(keys, BlockId{12345});
    ASSERT_EQ(index.FindMany(scope, chain, kKeyBytes, ResidentIndex::OnMiss::kGoOn,
                             absl::MakeSpan(found)),
              keys);
    ASSERT_EQ(found, one_by_one);
    const auto miss = std::find(one_by_one.begin(), one_by_one.end(), kNoBlock);
    const auto run =
        static_cast<size_t>(miss - one_by_one.begin()) + (miss == one_by_one.end() ? 0 : 1);
    ASSERT_EQ(index.FindMany(scope, chain, kKeyBytes, ResidentIndex::OnMiss::kStop,
                             absl::MakeSpan(found)),
              run);
    // Part of the chain comes or goes: from its front, its end or anywhere.
    const size_t some = random() % keys;
    for (size_t i = 0; i < keys; ++i) {
      const bool chosen = step % 3 == 0 ? i < some : step % 3 == 1 ? i >= some : random() % 4 == 0;
      if (!chosen) {
        continue;
      }
      const KeyView key = KeyView(chain).substr(i * kKeyBytes, kKeyBytes);
      if (one_by_one[i] == kNoBlock) {
        index.Insert(table.Add(scope, key));
      } else if (random() % 2 == 0) {
        index.Erase(one_by_one[i]);
        table.Remove(one_by_one[i]);
      }
    }
  }
}

TEST(ResidentIndex, AHiddenBlockIsNotFoundByWayOfItsNeighbour) {
  BlockTable table;
  ResidentIndex index(table, 7);
  const std::string keys = std::string(32, 'a') + std::string(32, 'b');
  const BlockId first = table.Add(ScopeId{0}, KeyView(keys).substr(0, 32));
  index.Insert(first);
  const BlockId second = table.Add(ScopeId{0}, KeyView(keys).substr(32));
  index.Insert(second);
  index.Erase(second);
  table.at(second).state = BlockState::kHidden;
  std::vector<BlockId> out(2);
  index.FindMany(ScopeId{0}, keys, 32, ResidentIndex::OnMiss::kGoOn, absl::MakeSpan(out));
  EXPECT_EQ(out, (std::vector<BlockId>{first, kNoBlock}));
}

TEST(BlockTable, MetadataStaysSmall) {
  BlockTable table;
  ResidentIndex index(table, 7);
  constexpr uint32_t kBlocks = 200000;
  for (uint32_t i = 0; i < kBlocks; ++i) {
    std::string key(36, '\0');
    std::memcpy(key.data(), &i, sizeof(i));
    index.Insert(table.Add(ScopeId{0}, key));
  }
  EXPECT_LE((table.memory_bytes() + index.memory_bytes()) / kBlocks, 160U);
}

}  // namespace
}  // namespace terrace
