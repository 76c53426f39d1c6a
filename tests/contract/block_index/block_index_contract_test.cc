// What every BlockIndex promises, over RocksDB and in memory.
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/memory_block_index.h"
#include "tests/doubles/private_folder.h"
#include "tiers/index/rocksdb_block_index.h"
#include "tiers/vocab/block_index.h"

namespace terrace {
namespace {

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<BlockIndex>(const std::string& folder)> make;
};

class BlockIndexContract : public testing::TestWithParam<Implementation> {
 protected:
  static IndexedRecord RecordAt(uint32_t segment, uint32_t page) {
    return {{segment, page},
            {page, segment},
            uint64_t{segment} << 32 | page,
            segment,
            page,
            page * 7,
            1,
            2};
  }
  std::vector<IndexedRecord> Load(uint32_t segment) {
    std::vector<IndexedRecord> records;
    EXPECT_TRUE(
        index_->Load(segment, [&](const IndexedRecord& record) { records.push_back(record); })
            .ok());
    return records;
  }
  doubles::PrivateFolder folder_;
  std::unique_ptr<BlockIndex> index_ = GetParam().make(folder_.path() + "/index");
};

std::unique_ptr<BlockIndex> OverRocksdb(const std::string& path) {
  absl::StatusOr<OpenedBlockIndex> opened =
      OpenRocksdbBlockIndex({.path = path, .tier_uuid = {1, 2}});
  EXPECT_TRUE(opened.ok()) << opened.status();
  return opened.ok() ? std::move(opened->index) : nullptr;
}

INSTANTIATE_TEST_SUITE_P(All,
                         BlockIndexContract,
                         testing::Values(Implementation{"Rocksdb", OverRocksdb},
                                         Implementation{
                                             "Memory",
                                             [](const std::string&) {
                                               return std::make_unique<doubles::MemoryBlockIndex>();
                                             }}),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(BlockIndexContract, IsEmptyAtFirst) {
  EXPECT_TRUE(index_->Positions()->empty());
  EXPECT_TRUE(Load(0).empty());
}

TEST_P(BlockIndexContract, RecordsComeBackBySegmentInOrderOfPage) {
  BlockIndex::Batch batch;
  for (const uint32_t page : {300U, 1U, 70000U}) {
    batch.records.push_back(RecordAt(7, page));
    batch.records.push_back(RecordAt(8, page));
  }
  batch.records.push_back(RecordAt(0xffffffffU, 5));
  ASSERT_TRUE(index_->Apply(batch).ok());
  EXPECT_EQ(Load(7),
            (std::vector<IndexedRecord>{RecordAt(7, 1), RecordAt(7, 300), RecordAt(7, 70000)}));
  EXPECT_EQ(Load(0xffffffffU).size(), 1U);
  EXPECT_TRUE(Load(6).empty());
}

TEST_P(BlockIndexContract, LaterPositionsReplaceEarlierOnes) {
  ASSERT_TRUE(index_->Apply({{}, {}, {{1, 10, 20, false}, {2, 11, 21, false}}}).ok());
  ASSERT_TRUE(index_->Apply({{}, {}, {{1, 10, 30, true}}}).ok());
  EXPECT_EQ(*index_->Positions(),
            (std::vector<SegmentPosition>{{1, 10, 30, true}, {2, 11, 21, false}}));
}

TEST_P(BlockIndexContract, AForgottenSegmentIsGoneBeforeWhatTheSameBatchAdds) {
  ASSERT_TRUE(index_->Apply({{}, {RecordAt(1, 1), RecordAt(2, 1)}, {{1, 1, 9, true}}}).ok());
  ASSERT_TRUE(index_->Apply({{1}, {RecordAt(1, 5)}, {{1, 2, 9, false}}}).ok());
  EXPECT_EQ(Load(1), std::vector<IndexedRecord>{RecordAt(1, 5)});
  EXPECT_EQ(Load(2).size(), 1U);
  EXPECT_EQ(*index_->Positions(), (std::vector<SegmentPosition>{{1, 2, 9, false}}));
  ASSERT_TRUE(index_->Apply({{1}, {}, {}}).ok());
  EXPECT_TRUE(index_->Positions()->empty());
  EXPECT_TRUE(index_->Sync().ok());
}

}  // namespace
}  // namespace terrace
