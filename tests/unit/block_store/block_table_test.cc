#include "daemon/store/block_table.h"

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
TEST(BlockIndex, AgreesWithAMapOverRandomOperations) {
  constexpr uint64_t kSeed = 20240607;
  RecordProperty("seed", std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  BlockTable table;
  BlockIndex index(table, 42);
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

TEST(BlockIndex, ManyKeysAreFoundAsOneByOneAndTheSearchStopsAtTheFirstMiss) {
  BlockTable table;
  BlockIndex index(table, 7);
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
  EXPECT_EQ(index.FindMany(ScopeId{0}, packed, 36, BlockIndex::OnMiss::kGoOn, absl::MakeSpan(out)),
            100U);
  EXPECT_EQ(out, ids);
  EXPECT_EQ(index.FindMany(ScopeId{0}, packed, 36, BlockIndex::OnMiss::kStop, absl::MakeSpan(out)),
            71U);
}

TEST(BlockTable, MetadataStaysSmall) {
  BlockTable table;
  BlockIndex index(table, 7);
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
