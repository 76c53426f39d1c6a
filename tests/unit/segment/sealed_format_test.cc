// The header of a sealed record, byte by byte.
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "tiers/os/file_system.h"
#include "tiers/segment/crc32c.h"
#include "tiers/segment/sealed_record_format.h"
#include "tiers/segment/segment_scan.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

SealedHeader SomeHeader() {
  SealedHeader header;
  header.tier_uuid = {0x0102030405060708, 0x1112131415161718};
  header.segment_epoch = 0x21;
  header.sequence = 0x22;
  header.segment = 0x23;
  header.page = 0x24;
  header.payload_bytes = 0x25;
  header.metadata_bytes = kInlineMetadataBytes + 1;
  header.stored_checksum = {0x31, 0x32};
  header.fingerprint = {0x41, 0x42};
  header.listed_checksum = {0x51, 0x52};
  header.salt.fill('s');
  header.tag.fill('t');
  return header;
}

std::string Encoded(const SealedHeader& header) {
  std::string page(kPageBytes, 'x');
  EncodeSealedHeader(header, absl::MakeSpan(page));
  return page;
}

std::string Number(uint8_t value, size_t bytes) {
  std::string text(bytes, '\0');
  text[0] = static_cast<char>(value);
  return text;
}

TEST(SealedRecordFormat, GoldenBytesOfTheHeader) {
  const std::string page = Encoded(SomeHeader());
  EXPECT_EQ(page.substr(0, 12), std::string("TRRCSLD\n\x01\0\0\x01", 12));
  EXPECT_EQ(page.substr(16, 16), std::string("\x08\x07\x06\x05\x04\x03\x02\x01"
                                             "\x18\x17\x16\x15\x14\x13\x12\x11",
                                             16));
  EXPECT_EQ(page.substr(32, 32), Number(0x21, 8) + Number(0x22, 8) + Number(0x23, 4) +
                                     Number(0x24, 4) + Number(0x25, 4) +
                                     std::string("\xf1\x0d\0\0", 4));
  EXPECT_EQ(page.substr(64, 48), Number(0x31, 8) + Number(0x32, 8) + Number(0x41, 8) +
                                     Number(0x42, 8) + Number(0x51, 8) + Number(0x52, 8));
  EXPECT_EQ(page.substr(112, 48), std::string(32, 's') + std::string(16, 't'));
  EXPECT_EQ(page.substr(kSealedTextAt), std::string(kSealedTextBytes, 'x'))
      << "it lay there before";
}

TEST(SealedRecordFormat, AHeaderIsReadBackAndWithAnyFlippedBitIsNone) {
  std::string page = Encoded(SomeHeader());
  SealedHeader read;
  ASSERT_EQ(DecodeSealedHeader(page, &read), HeaderFault::kNone);
  EXPECT_EQ(Encoded(read), page);
  for (size_t bit = 0; bit < size_t{kPageBytes} * 8; ++bit) {
    page[bit / 8] = static_cast<char>(page[bit / 8] ^ (1 << bit % 8));
    ASSERT_NE(DecodeSealedHeader(page, &read), HeaderFault::kNone) << bit;
    page[bit / 8] = static_cast<char>(page[bit / 8] ^ (1 << bit % 8));
  }
  EXPECT_EQ(DecodeSealedHeader({page.data(), kPageBytes - 1}, &read), HeaderFault::kNoRecord);
}

TEST(SealedRecordFormat, FieldsOutOfRangeAreRefused) {
  const auto fault = [](size_t at, const std::string& bytes) {
    std::string page = Encoded(SomeHeader());
    page.replace(at, bytes.size(), bytes);
    FieldWriter crc(absl::MakeSpan(page).subspan(12, 4));
    crc.U32(PageCrc32c(page, 12));
    SealedHeader read;
    return DecodeSealedHeader(page, &read);
  };
  EXPECT_EQ(fault(8, Number(2, 2)), HeaderFault::kNewerVersion);
  EXPECT_EQ(fault(8, Number(0, 2)), HeaderFault::kField);
  EXPECT_EQ(fault(10, Number(1, 1)), HeaderFault::kField);
  EXPECT_EQ(fault(11, Number(2, 1)), HeaderFault::kField) << "pages of that much metadata";
  EXPECT_EQ(fault(56, Number(0, 4)), HeaderFault::kField) << "no payload";
  EXPECT_EQ(fault(56, std::string("\x01\0\0\x04", 4)), HeaderFault::kField) << "64 MiB and a byte";
  EXPECT_EQ(fault(60, std::string("\x01\x30\0\0", 4)), HeaderFault::kField) << "12 KiB and a byte";
}

TEST(SealedRecordFormat, ATagCoversAllButWhatFollowsFromTheRest) {
  const SealedHeader header = SomeHeader();
  const auto covered = CoveredHeader(header);
  SealedHeader other = header;
  other.stored_checksum = {9, 9};
  other.tag.fill('u');
  EXPECT_EQ(CoveredHeader(other), covered);
  const std::string page = Encoded(header);
  for (size_t at = 0; at < kSealedTextAt; ++at) {
    const bool follows = (at >= 12 && at < 16) || (at >= 64 && at < 80) || at >= 144;
    EXPECT_EQ(covered[at], follows ? '\0' : page[at]) << at;
  }
}

TEST(SealedRecordFormat, GoldenBytesOfTheSealedText) {
  SealedText text;
  text.first_token = 0x61;
  text.tokens = 0x62;
  text.parent = "parent";
  text.metadata_tag.fill('m');
  text.metadata = "tokens";
  std::string bytes(kSealedTextBytes, 'x');
  EncodeSealedText(text, absl::MakeSpan(bytes));
  std::string expected = Number(0x61, 8) + Number(0x62, 4) + Number(6, 4) + "parent";
  expected.resize(80, '\0');
  expected += std::string(16, 'm') + "tokens";
  expected.resize(kSealedTextBytes, '\0');
  EXPECT_EQ(bytes, expected);
}

// A file of given pages.
class PagesFile final : public File {
 public:
  explicit PagesFile(std::string content) : content_(std::move(content)) {}
  absl::StatusOr<uint64_t> ReadAt(uint64_t offset, absl::Span<char> out) override {
    const uint64_t bytes =
        offset >= content_.size() ? 0 : std::min<uint64_t>(out.size(), content_.size() - offset);
    std::memcpy(out.data(), content_.data() + std::min<uint64_t>(offset, content_.size()), bytes);
    return bytes;
  }
  absl::StatusOr<uint64_t> WriteAt(uint64_t, absl::Span<const char>) override {
    return absl::UnimplementedError("");
  }
  absl::Status Sync() override { return absl::UnimplementedError(""); }
  absl::Status Preallocate(uint64_t) override { return absl::UnimplementedError(""); }
  [[nodiscard]] absl::StatusOr<uint64_t> Size() const override { return content_.size(); }
  [[nodiscard]] int descriptor() const override { return -1; }
  [[nodiscard]] bool direct() const override { return false; }

 private:
  const std::string content_;
};

TEST(SealedRecordFormat, AScanFollowsRecordsOfTheKindThatItIsToldAndNoOther) {
  SealedHeader header = SomeHeader();
  header.metadata_bytes = 0;
  header.page = 1;
  const std::string payload(kPageBytes, 'p');
  std::string segment(kPageBytes, '\0');
  segment += Encoded(header) + payload;
  header.page = 3;
  header.fingerprint = {0x43, 0x44};
  segment += Encoded(header) + payload;
  header.page = 7;  // which it does not lie at
  segment += Encoded(header) + payload;
  segment.resize(16 * uint64_t{kPageBytes});
  PagesFile file(segment);
  ScanRequest request;
  request.file = &file;
  request.tier_uuid = header.tier_uuid;
  request.number = header.segment;
  request.epoch = header.segment_epoch;
  request.segment_bytes = segment.size();
  ScanResult result;
  ASSERT_TRUE(ScanSegment(request, &result).ok());
  EXPECT_TRUE(result.records.empty());
  request.sealed = true;
  ASSERT_TRUE(ScanSegment(request, &result).ok());
  ASSERT_EQ(result.records.size(), 2U);
  EXPECT_EQ(result.records[0].fingerprint, (Digest128{0x41, 0x42}));
  EXPECT_EQ(result.records[0].checksum, header.listed_checksum);
  EXPECT_EQ(result.records[0].kind, static_cast<uint8_t>(RecordKind::kBlock));
  EXPECT_EQ(result.records[1].fingerprint, (Digest128{0x43, 0x44}));
  EXPECT_EQ(result.records[1].page, 3U);
  EXPECT_EQ(result.end_page, 5U);
}

}  // namespace
}  // namespace terrace
