// What an index over RocksDB survives: restarts, damage, other tiers, folders of others.
#include "tiers/index/rocksdb_block_index.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/doubles/seeded.h"
#include "tiers/index/index_format.h"

namespace terrace {
namespace {

IndexedRecord RecordAt(uint32_t segment, uint32_t page) {
  return {{segment, page}, {1, 2}, 3, segment, page, 4, 1, 0};
}

class RocksdbIndexTest : public testing::Test {
 protected:
  absl::StatusOr<OpenedBlockIndex> Open(Digest128 uuid = {1, 2}) {
    return OpenRocksdbBlockIndex({.path = path_, .tier_uuid = uuid});
  }
  void Fill() {
    absl::StatusOr<OpenedBlockIndex> opened = Open();
    ASSERT_TRUE(opened.ok()) << opened.status();
    for (uint32_t page = 1; page < 200; ++page) {
      ASSERT_TRUE(opened->index->Apply({{}, {RecordAt(1, page)}, {{1, 9, page + 1, false}}}).ok());
    }
    ASSERT_TRUE(opened->index->Sync().ok());
  }
  static size_t Count(BlockIndex& index, absl::Status* status) {
    size_t records = 0;
    *status = index.Load(1, [&](const IndexedRecord& record) {
      EXPECT_EQ(record, RecordAt(1, record.page));
      ++records;
    });
    return records;
  }
  doubles::PrivateFolder folder_;
  const std::string path_ = folder_.path() + "/index";
};

TEST_F(RocksdbIndexTest, WhatWasAppliedIsThereAfterARestart) {
  Fill();
  absl::StatusOr<OpenedBlockIndex> opened = Open();
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->rebuilt_because, "");
  absl::Status status;
  EXPECT_EQ(Count(*opened->index, &status), 199U);
  EXPECT_EQ(*opened->index->Positions(), (std::vector<SegmentPosition>{{1, 9, 200, false}}));
}

TEST_F(RocksdbIndexTest, TheIndexOfAnotherTierIsSetAside) {
  Fill();
  absl::StatusOr<OpenedBlockIndex> opened = Open({3, 4});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_NE(opened->rebuilt_because, "");
  EXPECT_TRUE(opened->index->Positions()->empty());
  EXPECT_TRUE(std::filesystem::exists(path_ + ".bad/CURRENT"));
}

TEST_F(RocksdbIndexTest, AFolderOfSomebodyElseIsLeftAlone) {
  std::filesystem::create_directory(path_);
  std::ofstream(path_ + "/photo.jpg") << "x";
  EXPECT_TRUE(absl::IsFailedPrecondition(Open().status()));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/photo.jpg"));
}

TEST_F(RocksdbIndexTest, AnAsideFolderOfSomebodyElseIsLeftAlone) {
  Fill();
  std::filesystem::create_directory(path_ + ".bad");
  std::ofstream(path_ + ".bad/photo.jpg") << "x";
  EXPECT_TRUE(absl::IsFailedPrecondition(Open({3, 4}).status()));
  EXPECT_TRUE(std::filesystem::exists(path_ + ".bad/photo.jpg"));
}

TEST_F(RocksdbIndexTest, TwoCannotHaveItOpen) {
  absl::StatusOr<OpenedBlockIndex> first = Open();
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(absl::IsUnavailable(Open().status()));
}

TEST_F(RocksdbIndexTest, AnUnreadableIndexBeginsAnew) {
  Fill();
  std::ofstream(path_ + "/CURRENT") << "MANIFEST-999999\n";
  absl::StatusOr<OpenedBlockIndex> opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_NE(opened->rebuilt_because, "");
  EXPECT_TRUE(opened->index->Positions()->empty());
  EXPECT_TRUE(opened->index->Apply({{}, {RecordAt(1, 1)}, {}}).ok());
}

uint64_t MutationsWanted() {
  const char* const wanted = std::getenv("TERRACE_INDEX_MUTATIONS");
  return wanted == nullptr ? 60 : std::strtoull(wanted, nullptr, 10);
}

TEST_F(RocksdbIndexTest, MutatedFilesOpenOrAreRebuiltAndNeverLie) {
  Fill();
  const std::string sound = folder_.path() + "/sound";
  std::filesystem::copy(path_, sound, std::filesystem::copy_options::recursive);
  for (uint64_t seed = 0; seed < MutationsWanted(); ++seed) {
    SCOPED_TRACE(seed);
    doubles::Seeded seeded(seed);
    std::filesystem::remove_all(path_);
    std::filesystem::remove_all(path_ + ".bad");
    std::filesystem::copy(sound, path_, std::filesystem::copy_options::recursive);
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      if (entry.file_size() > 0) {
        files.push_back(entry.path());
      }
    }
    std::sort(files.begin(), files.end());
    const std::filesystem::path victim = files[seeded.Below(files.size())];
    const uint64_t bytes = std::filesystem::file_size(victim);
    if (seeded.OneIn(3)) {
      std::filesystem::resize_file(victim, seeded.Below(bytes));
    } else {
      std::fstream file(victim, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(seeded.Below(bytes)));
      const std::string garbage = seeded.Bytes(1 + seeded.Below(64));
      file.write(garbage.data(), static_cast<std::streamsize>(garbage.size()));
    }
    absl::StatusOr<OpenedBlockIndex> opened = Open();
    ASSERT_TRUE(opened.ok()) << opened.status();
    absl::Status status;
    Count(*opened->index, &status);  // compares what it visits
    const absl::StatusOr<std::vector<SegmentPosition>> positions = opened->index->Positions();
    if (status.ok() && positions.ok() && !positions->empty()) {
      // A prefix of what was applied: as many records as the position says.
      absl::Status again;
      EXPECT_EQ(Count(*opened->index, &again) + 1, positions->front().complete_pages);
    }
  }
}

TEST(IndexFormatTest, BytesAreAsTheGrammarSays) {
  EXPECT_EQ(PositionKey(0x01020304), std::string("p\x01\x02\x03\x04"));
  EXPECT_EQ(RecordKey(1, 2), std::string("r\0\0\0\1\0\0\0\2", 9));
  EXPECT_EQ(EncodePosition({1, 0x0102030405060708, 0x11121314, true}).substr(0, 13),
            std::string("\x08\x07\x06\x05\x04\x03\x02\x01\x14\x13\x12\x11\x01"));
  EXPECT_EQ(EncodeVersion({1, 2}).substr(0, 20),
            std::string("\1\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 20));
  EXPECT_EQ(RecordsEnd(0xffffffffU), "s");
}

TEST(IndexFormatTest, EveryBitOfAnEntryIsChecked) {
  const IndexedRecord record = RecordAt(5, 6);
  std::string key = RecordKey(5, 6);
  std::string value = EncodeRecord(record);
  IndexedRecord got;
  ASSERT_TRUE(DecodeRecord(key, value, &got));
  EXPECT_EQ(got, record);
  for (std::string* part : {&key, &value}) {
    for (size_t bit = 0; bit < part->size() * 8; ++bit) {
      (*part)[bit / 8] = static_cast<char>((*part)[bit / 8] ^ (1 << bit % 8));
      EXPECT_FALSE(DecodeRecord(key, value, &got)) << bit;
      (*part)[bit / 8] = static_cast<char>((*part)[bit / 8] ^ (1 << bit % 8));
    }
  }
  EXPECT_FALSE(DecodeRecord(RecordKey(5, 7), value, &got));
  EXPECT_FALSE(DecodeRecord(key, value.substr(1), &got));
  SegmentPosition position;
  EXPECT_FALSE(DecodePosition(PositionKey(2), EncodePosition({1, 2, 3, true}), &position));
}

}  // namespace
}  // namespace terrace
