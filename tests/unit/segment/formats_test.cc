// Formats on disk: golden bytes, every field and back, every single bit flipped.
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"
#include "tiers/os/file_system.h"
#include "tiers/segment/crc32c.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/superblock_format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace terrace {
namespace {

std::string Hex(absl::Span<const char> bytes) {
  return absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size()));
}

RecordHeader SampleHeader() {
  RecordHeader header;
  header.kind = RecordKind::kBlock;
  header.tier_uuid = {0x0102030405060708, 0x1112131415161718};
  header.segment_epoch = 0x2122232425262728;
  header.sequence = 0x3132333435363738;
  header.segment = 0x41424344;
  header.page = 0x45464748;
  header.payload_bytes = 70000;
  header.checksum = {0x5152535455565758, 0x6162636465666768};
  header.metadata = "{}";
  header.metadata_bytes = 2;
  header.metadata_checksum = {0x7172737475767778, 0x8182838485868788};
  header.namespace_digest = {0x9192939495969798, 0xa1a2a3a4a5a6a7a8};
  header.generation = 3;
  header.first_token = 4096;
  header.tokens = 16;
  header.key = "0123456789abcdef0123456789abcdef";
  header.parent = "fedcba9876543210";
  header.salt = "salt";
  return header;
}

void ExpectSame(const RecordHeader& a, const RecordHeader& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.tier_uuid, b.tier_uuid);
  EXPECT_EQ(a.segment_epoch, b.segment_epoch);
  EXPECT_EQ(a.sequence, b.sequence);
  EXPECT_EQ(a.segment, b.segment);
  EXPECT_EQ(a.page, b.page);
  EXPECT_EQ(a.payload_bytes, b.payload_bytes);
  EXPECT_EQ(a.checksum, b.checksum);
  EXPECT_EQ(a.metadata, b.metadata);
  EXPECT_EQ(a.metadata_bytes, b.metadata_bytes);
  EXPECT_EQ(a.metadata_checksum, b.metadata_checksum);
  EXPECT_EQ(a.namespace_digest, b.namespace_digest);
  EXPECT_EQ(a.generation, b.generation);
  EXPECT_EQ(a.first_token, b.first_token);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.key, b.key);
  EXPECT_EQ(a.parent, b.parent);
  EXPECT_EQ(a.salt, b.salt);
}

TEST(Crc32cTest, AgreesWithThePublishedVectors) {
  // RFC 3720, B.4.
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43U);
  EXPECT_EQ(Crc32c(std::string("123456789")), 0xE3069283U);
  EXPECT_EQ(Crc32cPortable(std::string("123456789")), 0xE3069283U);
}

TEST(Crc32cTest, BothWaysAgreeAtEveryLengthAndInParts) {
  const std::string bytes = doubles::Seeded(1).Bytes(300);
  for (size_t length = 0; length <= bytes.size(); ++length) {
    const absl::Span<const char> all(bytes.data(), length);
    EXPECT_EQ(Crc32c(all), Crc32cPortable(all));
    EXPECT_EQ(Crc32c(all.subspan(length / 3), Crc32c(all.first(length / 3))), Crc32c(all));
  }
}

TEST(PayloadChecksumTest, EqualsTheReferenceAtEveryLength) {
  const std::string bytes = doubles::Seeded(2).Bytes(5000);
  for (size_t length = 0; length <= bytes.size(); ++length) {
    const XXH128_hash_t expected = XXH3_128bits(bytes.data(), length);
    EXPECT_EQ(PayloadChecksum({bytes.data(), length}),
              (Digest128{expected.high64, expected.low64}));
  }
}

TEST(RecordFormatTest, BytesAreAsTheGrammarSays) {
  AlignedBuffer page(kPageBytes);
  std::memset(page.bytes(), 'x', page.size());
  EncodeRecordHeader(SampleHeader(), page.span());
  EXPECT_EQ(Hex(page.span().first(144)),
            "545252435245430a"  // magic
            "0100"
            "01"
            "00"                                     // version, kind, extra pages
                + Hex(page.span().subspan(12, 4)) +  // CRC, compared below
                "08070605040302011817161514131211"
                "2827262524232221"
                "3837363534333231"
                "44434241"
                "48474645"
                "70110100"
                "02000000"
                "58575655545352516867666564636261"
                "78777675747372718887868584838281"
                "9897969594939291a8a7a6a5a4a3a2a1"
                "0300000000000000"
                "0010000000000000"
                "10000000"
                "2000"
                "1000"
                "0400"
                "000000000000");
  EXPECT_EQ(std::string(page.bytes() + 144, 32), "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(std::string(page.bytes() + 176, 32), std::string(32, '\0'));
  EXPECT_EQ(std::string(page.bytes() + 208, 17), std::string("fedcba9876543210\0", 17));
  EXPECT_EQ(std::string(page.bytes() + 272, 5), std::string("salt\0", 5));
  EXPECT_EQ(std::string(page.bytes() + 528, 3), std::string("{}\0", 3));
  uint32_t crc = 0;
  std::memcpy(&crc, page.bytes() + 12, 4);  // tests run on little-endian machines
  std::memset(page.bytes() + 12, 0, 4);
  EXPECT_EQ(crc, Crc32cPortable(page.span()));
  // Of the whole page: a change of the format has to change the version.
  EXPECT_EQ(crc, 0xb0987153U);
}

TEST(RecordFormatTest, EveryFieldComesBack) {
  const AlignedBuffer page(kPageBytes);
  RecordHeader header = SampleHeader();
  const std::string key(kMaxKeyBytes, 'k');
  const std::string parent(kMaxKeyBytes, 'p');
  const std::string salt(kMaxSaltBytes, 's');
  const std::string metadata(kInlineMetadataBytes, 'm');
  for (int variant = 0; variant < 3; ++variant) {
    if (variant == 1) {
      header.key = key;
      header.parent = parent;
      header.salt = salt;
      header.metadata = metadata;
      header.metadata_bytes = kInlineMetadataBytes;
      header.kind = RecordKind::kNote;
    } else if (variant == 2) {
      header.metadata = "";
      header.metadata_bytes = kMaxMetadataBytes;
      header.kind = RecordKind::kTombstones;
    }
    EncodeRecordHeader(header, page.span());
    RecordHeader got;
    ASSERT_EQ(DecodeRecordHeader(page.span(), &got), HeaderFault::kNone);
    ExpectSame(header, got);
  }
}

// Flips every bit of the page and expects that none goes unnoticed.
template <typename Decode>
void ExpectEveryFlipFound(const AlignedBuffer& page, Decode decode) {
  ASSERT_EQ(decode(), HeaderFault::kNone);
  for (size_t bit = 0; bit < page.size() * 8; ++bit) {
    page.bytes()[bit / 8] = static_cast<char>(page.bytes()[bit / 8] ^ (1 << bit % 8));
    ASSERT_NE(decode(), HeaderFault::kNone) << "bit " << bit;
    page.bytes()[bit / 8] = static_cast<char>(page.bytes()[bit / 8] ^ (1 << bit % 8));
  }
  ASSERT_EQ(decode(), HeaderFault::kNone);
}

TEST(RecordFormatTest, EverySingleBitFlipOfAHeaderIsFound) {
  const AlignedBuffer page(kPageBytes);
  EncodeRecordHeader(SampleHeader(), page.span());
  RecordHeader got;
  ExpectEveryFlipFound(page, [&] { return DecodeRecordHeader(page.span(), &got); });
}

void Reseal(const AlignedBuffer& page) {
  const uint32_t crc = PageCrc32c(page.span(), 12);
  std::memcpy(page.bytes() + 12, &crc, 4);
}

TEST(RecordFormatTest, FieldsOutOfRangeAreRefusedAlthoughTheChecksumIsRight) {
  const std::pair<size_t, uint16_t> bad[] = {{8, 0},       // version 0
                                             {10, 0},      // kind 0, extra pages 0
                                             {10, 4},      // kind 4
                                             {10, 0x101},  // an extra page for metadata that fits
                                             {59, 0xff},   // payload_bytes
                                             {62, 0x100},  // metadata_bytes
                                             {132, 65},    // key_bytes
                                             {134, 65},    // parent_bytes
                                             {136, 257},   // salt_bytes
                                             {140, 1},     // zeros
                                             {176, 1},     // behind the key
                                             {4094, 1}};   // behind the metadata
  for (const auto& [offset, value] : bad) {
    const AlignedBuffer page(kPageBytes);
    EncodeRecordHeader(SampleHeader(), page.span());
    std::memcpy(page.bytes() + offset, &value, 2);
    Reseal(page);
    RecordHeader got;
    EXPECT_EQ(DecodeRecordHeader(page.span(), &got), HeaderFault::kField) << offset;
  }
}

TEST(RecordFormatTest, ANewerVersionIsToldFromDamage) {
  const AlignedBuffer page(kPageBytes);
  EncodeRecordHeader(SampleHeader(), page.span());
  page.bytes()[8] = 2;
  RecordHeader got;
  EXPECT_EQ(DecodeRecordHeader(page.span(), &got), HeaderFault::kChecksum);
  Reseal(page);
  EXPECT_EQ(DecodeRecordHeader(page.span(), &got), HeaderFault::kNewerVersion);
}

TEST(RecordFormatTest, GarbageAndShortPagesAreNoRecords) {
  RecordHeader got;
  const AlignedBuffer zeros(kPageBytes);
  EXPECT_EQ(DecodeRecordHeader(zeros.span(), &got), HeaderFault::kNoRecord);
  EXPECT_EQ(DecodeRecordHeader(zeros.span().first(100), &got), HeaderFault::kNoRecord);
}

TEST(TombstonesTest, ComeBackAndEveryTruncationIsMalformed) {
  std::vector<OwnedIdentity> identities(3);
  identities[0].key = std::string(16, 'a');
  identities[1].key = std::string(64, 'b');
  identities[1].salt = std::string(256, 's');
  identities[2].generation = 7;
  identities[2].namespace_digest = {1, 2};
  identities[2].key = std::string(32, 'c');
  const std::string encoded = EncodeTombstones(identities);
  std::vector<OwnedIdentity> got;
  ASSERT_TRUE(DecodeTombstones(encoded, &got));
  ASSERT_EQ(got.size(), 3U);
  EXPECT_EQ(got[1].salt, identities[1].salt);
  EXPECT_EQ(got[2].generation, 7U);
  EXPECT_EQ(got[2].key, identities[2].key);
  for (size_t length = 0; length < encoded.size(); ++length) {
    EXPECT_FALSE(DecodeTombstones({encoded.data(), length}, &got)) << length;
  }
  EXPECT_FALSE(DecodeTombstones(encoded + "x", &got));
  EXPECT_FALSE(DecodeTombstones(std::string(4, '\xff'), &got));
}

TEST(SegmentFormatTest, HeadBytesAreAsTheGrammarSays) {
  const AlignedBuffer page(kPageBytes);
  EncodeSegmentHead(
      {{0x0102030405060708, 0x1112131415161718}, 7, SegmentRole::kOwn, 0x2122232425262728, 1 << 20},
      page.span());
  EXPECT_EQ(Hex(page.span().first(12)), "545252435345470a01000000");
  EXPECT_EQ(Hex(page.span().subspan(16, 48)),
            "08070605040302011817161514131211"
            "07000000"
            "01000000"
            "2827262524232221"
            "0000100000000000"
            "0000000000000000");
  SegmentHead got;
  ExpectEveryFlipFound(page, [&] { return DecodeSegmentHead(page.span(), &got); });
  EXPECT_EQ(got.number, 7U);
  EXPECT_EQ(got.role, SegmentRole::kOwn);
  EXPECT_EQ(got.epoch, 0x2122232425262728U);
  EXPECT_EQ(got.segment_bytes, 1U << 20);
}

TEST(SegmentFormatTest, TrailerBytesAreAsTheGrammarSays) {
  const AlignedBuffer page(kPageBytes);
  EncodeTrailer(
      {{1, 2}, 7, SegmentRole::kOwn, 9, 3, 60, 50, {0x5152535455565758, 0x6162636465666768}},
      page.span());
  EXPECT_EQ(Hex(page.span().first(12)), "54525243454e440a01000000");
  EXPECT_EQ(Hex(page.span().subspan(48, 32)),
            "03000000"
            "3c000000"
            "32000000"
            "00000000"
            "58575655545352516867666564636261");
  SegmentTrailer got;
  ExpectEveryFlipFound(page, [&] { return DecodeTrailer(page.span(), &got); });
  EXPECT_EQ(got.role, SegmentRole::kOwn);
  EXPECT_EQ(got.entries, 3U);
  EXPECT_EQ(got.end_page, 50U);
}

TEST(SegmentFormatTest, EntriesComeBackAndEveryFlipChangesTheirChecksum) {
  std::vector<IndexedRecord> entries;
  for (uint32_t i = 0; i < 3; ++i) {
    entries.push_back({{i, 1}, {i, 2}, 100 + i, 7, 1 + 4 * i, 10000, 1, 0});
  }
  const AlignedBuffer pages(uint64_t{FooterPages(entries.size()) - 1} * kPageBytes);
  EncodeEntries(entries, pages.span());
  EXPECT_EQ(Hex(pages.span().first(56)),
            "00000000000000000100000000000000"
            "00000000000000000200000000000000"
            "6400000000000000"
            "01000000"
            "10270000"
            "01"
            "00"
            "000000000000");
  SegmentTrailer trailer;
  trailer.number = 7;
  trailer.entries = 3;
  trailer.end_page = 13;
  std::vector<IndexedRecord> got;
  ASSERT_TRUE(DecodeEntries(pages.span(), trailer, &got));
  EXPECT_EQ(got, entries);
  const Digest128 checksum = PayloadChecksum(pages.span());
  for (size_t bit = 0; bit < pages.size() * 8; ++bit) {
    pages.bytes()[bit / 8] = static_cast<char>(pages.bytes()[bit / 8] ^ (1 << bit % 8));
    ASSERT_FALSE(PayloadChecksum(pages.span()) == checksum) << bit;
    pages.bytes()[bit / 8] = static_cast<char>(pages.bytes()[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(SegmentFormatTest, EntriesThatOverlapOrLeaveTheSegmentAreRefused) {
  SegmentTrailer trailer;
  trailer.entries = 2;
  trailer.end_page = 20;
  const AlignedBuffer pages(kPageBytes);
  std::vector<IndexedRecord> got;
  EncodeEntries(
      std::vector<IndexedRecord>{{{}, {}, 1, 0, 1, 10000, 1, 0}, {{}, {}, 2, 0, 4, 10000, 1, 0}},
      pages.span());
  EXPECT_FALSE(DecodeEntries(pages.span(), trailer, &got));
  EncodeEntries(
      std::vector<IndexedRecord>{{{}, {}, 1, 0, 1, 10000, 1, 0}, {{}, {}, 2, 0, 18, 10000, 1, 0}},
      pages.span());
  EXPECT_FALSE(DecodeEntries(pages.span(), trailer, &got));
}

TEST(SuperblockFormatTest, BytesAreAsTheGrammarSays) {
  const AlignedBuffer page(kPageBytes);
  EncodeSuperblock({{0x0102030405060708, 0x1112131415161718}, 5, 1 << 20}, page.span());
  EXPECT_EQ(Hex(page.span().first(12)), "545252435355500a01000000");
  EXPECT_EQ(Hex(page.span().subspan(16, 40)),
            "08070605040302011817161514131211"
            "0500000000000000"
            "0000100000000000"
            "0000000000000000");
  Superblock got;
  ExpectEveryFlipFound(page, [&] { return DecodeSuperblock(page.span(), &got); });
  EXPECT_EQ(got.epoch, 5U);
}

TEST(FingerprintTest, EveryPartOfAnIdentityCounts) {
  const Digest128 one = IdentityFingerprint({1, 2}, 3, "s", "k", 4);
  EXPECT_EQ(one, IdentityFingerprint({1, 2}, 3, "s", "k", 4));
  EXPECT_FALSE(one == IdentityFingerprint({9, 2}, 3, "s", "k", 4));
  EXPECT_FALSE(one == IdentityFingerprint({1, 9}, 3, "s", "k", 4));
  EXPECT_FALSE(one == IdentityFingerprint({1, 2}, 9, "s", "k", 4));
  EXPECT_FALSE(one == IdentityFingerprint({1, 2}, 3, "t", "k", 4));
  EXPECT_FALSE(one == IdentityFingerprint({1, 2}, 3, "s", "l", 4));
  EXPECT_FALSE(one == IdentityFingerprint({1, 2}, 3, "s", "k", 9));
  EXPECT_FALSE(IdentityFingerprint({1, 2}, 3, "sk", "", 4) == one);
}

}  // namespace
}  // namespace terrace
