// Formats and names of a pool.
#include "tiers/shared/pool_format.h"

#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"
#include "tiers/os/rooted_files.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

PoolReport SomeReport() {
  PoolReport report;
  report.kind = ReportKind::kHead;
  report.ended = true;
  report.pool = {1, 2};
  report.life = {{3, 4}, 5};
  report.serial = 6;
  report.manifest = 7;
  report.segments.push_back({{{{3, 4}, 5}, 8}, ReportedState::kOpen, 256, 40, 10, 3});
  report.segments.push_back({{{{3, 4}, 1}, 9}, ReportedState::kGone, 256, 1, 1, 0});
  ReportedRecord record;
  record.record.fingerprint = {10, 11};
  record.record.checksum = {12, 13};
  record.record.sequence = 14;
  record.record.page = 15;
  record.record.payload_bytes = 5000;
  record.record.kind = 1;
  report.records.push_back(record);
  report.kills.push_back({{16, 17}, {{{18, 19}, 20}, 21}, 22});
  report.generations.push_back({{23, 24}, 25});
  report.heats.push_back({{{{26, 27}, 28}, 29}, 30});
  return report;
}

TEST(PoolFormat, AReportReadsBackAsItWasWritten) {
  const PoolReport report = SomeReport();
  const std::string bytes = EncodeReport(report);
  uint64_t announced = 0;
  ASSERT_EQ(ReportBytes({bytes.data(), kReportHeaderBytes}, &announced), HeaderFault::kNone);
  EXPECT_EQ(announced, bytes.size());
  PoolReport read;
  ASSERT_EQ(DecodeReport(bytes, &read), HeaderFault::kNone);
  EXPECT_EQ(read, report);
}

TEST(PoolFormat, OnlyAnExcerptBuildsOnASerial) {
  PoolReport report = SomeReport();
  report.since = 5;
  PoolReport read;
  EXPECT_EQ(DecodeReport(EncodeReport(report), &read), HeaderFault::kField);
  report.kind = ReportKind::kExcerpt;
  ASSERT_EQ(DecodeReport(EncodeReport(report), &read), HeaderFault::kNone);
  EXPECT_EQ(read, report);
  report.since = report.serial + 1;
  EXPECT_EQ(DecodeReport(EncodeReport(report), &read), HeaderFault::kField);
}

TEST(PoolFormat, EveryFlippedBitOfAReportIsFound) {
  std::string bytes = EncodeReport(SomeReport());
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      PoolReport read;
      EXPECT_NE(DecodeReport(bytes, &read), HeaderFault::kNone) << at << " " << bit;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
    }
  }
}

TEST(PoolFormat, AReportThatIsCutOffIsFound) {
  const std::string bytes = EncodeReport(SomeReport());
  for (size_t length = 0; length < bytes.size(); ++length) {
    PoolReport read;
    EXPECT_NE(DecodeReport({bytes.data(), length}, &read), HeaderFault::kNone) << length;
  }
}

// Whoever writes a report with a sound checksum may be a fault of its own, or an enemy.
TEST(PoolFormat, FieldsOutOfRangeAreRefusedAlthoughTheChecksumIsSound) {
  const auto refused = [](const PoolReport& report) {
    PoolReport read;
    return DecodeReport(EncodeReport(report), &read) == HeaderFault::kField;
  };
  PoolReport report = SomeReport();
  report.records[0].position = 2;
  EXPECT_TRUE(refused(report));
  report = SomeReport();
  report.records[0].record.page = 39;  // it would end behind the segment's end
  EXPECT_TRUE(refused(report));
  report = SomeReport();
  report.records[0].record.page = 9;  // before what the segment says it lists
  EXPECT_TRUE(refused(report));
  report = SomeReport();
  report.records[0].record.payload_bytes = 0;
  EXPECT_TRUE(refused(report));
  report = SomeReport();
  report.segments[0].end_page = 257;
  EXPECT_TRUE(refused(report));
  report = SomeReport();
  report.segments[0].state = static_cast<ReportedState>(9);
  EXPECT_TRUE(refused(report));
  report = SomeReport();
  report.segments[0].name.life.node = {};
  EXPECT_TRUE(refused(report));
}

TEST(PoolFormat, GoldenBytesOfTheSuperblock) {
  std::string page(kPageBytes, 'x');
  EncodePoolSuperblock({{0x1122334455667788, 0x99aabbccddeeff00}}, absl::MakeSpan(page));
  EXPECT_EQ(page.substr(0, 12), std::string("TRRCPOL\n\x01\0\0\0", 12));
  EXPECT_EQ(page.substr(16, 16),
            std::string("\x88\x77\x66\x55\x44\x33\x22\x11\x00\xff\xee\xdd\xcc\xbb\xaa\x99", 16));
  EXPECT_EQ(page.substr(32), std::string(kPageBytes - 32, '\0'));
  for (size_t at = 0; at < 64; ++at) {
    std::string flipped = page;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    PoolSuperblock pool;
    EXPECT_NE(DecodePoolSuperblock(flipped, &pool), HeaderFault::kNone) << at;
  }
}

TEST(PoolFormat, TheSuperblockOfAProtectedPoolIsOfAVersionThatOthersLeaveAlone) {
  PoolSuperblock superblock{{0x1122334455667788, 0x99aabbccddeeff00}, PoolAuth::kEncrypt};
  superblock.proof.fill('p');
  std::string page(kPageBytes, 'x');
  EncodePoolSuperblock(superblock, absl::MakeSpan(page));
  EXPECT_EQ(page.substr(8, 4), std::string("\x02\0\x02\0", 4));
  EXPECT_EQ(page.substr(32, 32), std::string(32, 'p'));
  EXPECT_EQ(page.substr(64), std::string(kPageBytes - 64, '\0'));
  PoolSuperblock read;
  ASSERT_EQ(DecodePoolSuperblock(page, &read), HeaderFault::kNone);
  EXPECT_EQ(read.pool, superblock.pool);
  EXPECT_EQ(read.auth, PoolAuth::kEncrypt);
  EXPECT_EQ(read.proof, superblock.proof);
}

TEST(PoolFormat, ASuperblockWhoseVersionAndAuthDisagreeIsNone) {
  for (const PoolSuperblock& odd :
       {PoolSuperblock{{1, 2}, static_cast<PoolAuth>(3)},
        PoolSuperblock{{1, 2}, PoolAuth::kNone, {'p'}}, PoolSuperblock{{0, 0}, PoolAuth::kMac}}) {
    std::string page(kPageBytes, '\0');
    EncodePoolSuperblock(odd, absl::MakeSpan(page));
    PoolSuperblock read;
    EXPECT_EQ(DecodePoolSuperblock(page, &read), HeaderFault::kField);
  }
}

TEST(PoolFormat, TheFrameOfASealedReportIsCheckedInFull) {
  std::string whole(400, 'c');
  BeginSealedReport(whole.size(), absl::MakeSpan(whole));
  FinishSealedReport(absl::MakeSpan(whole));
  EXPECT_EQ(whole.substr(0, 12), std::string("TRRCRPS\n\x01\0\0\0", 12));
  EXPECT_EQ(whole.substr(16, 16), std::string("\x90\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16));
  ASSERT_TRUE(IsWholeSealedReport(whole));
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    EXPECT_FALSE(IsWholeSealedReport(flipped)) << at;
  }
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(IsWholeSealedReport({whole.data(), length})) << length;
  }
  uint64_t bytes = 0;
  for (const uint32_t announced : {0U, 207U, 80U + (4U << 20U) + 1}) {
    FieldWriter writer(absl::MakeSpan(whole).subspan(16, 4));
    writer.U32(announced);
    EXPECT_EQ(SealedReportBytes(whole, &bytes), HeaderFault::kField) << announced;
  }
}

TEST(PoolFormat, NamesAreRootedPathsAndReadBack) {
  const NodeLife life{{0xfedcba9876543210, 0x0123456789abcdef}, 0x42};
  EXPECT_EQ(MemberName(life), "fedcba98765432100123456789abcdef.0000000000000042");
  EXPECT_EQ(SegmentPath({life, 5000}),
            "nodes/fedcba98765432100123456789abcdef/0000000000000042/000004/s00001388");
  for (const std::string& path : {MemberPath(life), ClaimPath(life), HeadPath(life),
                                  ManifestPath(life, 7), SegmentPath({life, 0xffffffff})}) {
    EXPECT_TRUE(IsRootedPath(path)) << path;
  }
  EXPECT_EQ(ParseMemberName(MemberName(life))->life, life);
  EXPECT_FALSE(ParseMemberName(MemberName(life))->claimed);
  EXPECT_TRUE(ParseMemberName(MemberName(life) + ".claimed")->claimed);
  for (const char* foreign : {"", ".claimed", "fedcba98765432100123456789abcdef",
                              "fedcba98765432100123456789abcdeg.0000000000000042",
                              "fedcba98765432100123456789abcdef.000000000000004",
                              "FEDCBA98765432100123456789ABCDEF.0000000000000042"}) {
    EXPECT_FALSE(ParseMemberName(foreign).has_value()) << foreign;
  }
}

TEST(PoolFormat, LivesAreToldApart) {
  EXPECT_NE(LifeId({1, 1}, {{2, 2}, 3}), LifeId({1, 1}, {{2, 2}, 4}));
  EXPECT_NE(LifeId({1, 1}, {{2, 2}, 3}), LifeId({1, 1}, {{2, 3}, 3}));
  EXPECT_NE(LifeId({1, 1}, {{2, 2}, 3}), LifeId({1, 2}, {{2, 2}, 3}));
}

}  // namespace
}  // namespace terrace
