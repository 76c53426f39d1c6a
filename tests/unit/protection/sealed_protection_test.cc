// Records and reports of a sealed pool, and a foreign hand that knows every format and no key.
#include "daemon/protection/sealed_protection.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/protection/ciphers.h"
#include "tests/doubles/seeded.h"
#include "tiers/segment/crc32c.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/sealed_record_format.h"
#include "tiers/shared/pool_format.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

std::unique_ptr<PoolSecret> SecretOf(PoolAuth auth, char fill) {
  SecretBytes bytes(kMinSecretBytes);
  std::fill(bytes.span().begin(), bytes.span().end(), fill);
  absl::StatusOr<std::unique_ptr<PoolSecret>> secret = MakePoolSecret(auth, std::move(bytes));
  EXPECT_TRUE(secret.ok()) << secret.status();
  return *std::move(secret);
}

// A record as it lies in a segment, and what a reader expects there.
struct Written {
  std::string bytes;
  std::string payload;
  std::string key = "the key of a block, of 32 bytes.";
  std::string salt = "salt of a tenant";
  ExpectedRecord expected;
  bool sound = false;
};

// What anybody can do: all checksums as if the bytes were meant to be so.
void Recompute(std::string* record, uint32_t payload_bytes) {
  const Digest128 sum = PayloadChecksum({record->data() + kPageBytes, payload_bytes});
  const absl::Span<char> page = absl::MakeSpan(*record).first(kPageBytes);
  FieldWriter writer(page.subspan(64, 16));
  writer.Digest(sum);
  FieldWriter crc(page.subspan(12, 4));
  crc.U32(PageCrc32c(page, 12));
}

class Sealed : public testing::TestWithParam<PoolAuth> {
 protected:
  static constexpr uint32_t kPayload = 300;

  Sealed() : secret_(SecretOf(GetParam(), 's')), protection_(secret_->ProtectionOf(kPool)) {}

  std::unique_ptr<Written> Write(const PublishedPlace& place,
                                 const std::string& metadata = "tokens",
                                 Digest128 space = {77, 78}) {
    auto written = std::make_unique<Written>();
    written->payload = doubles::Seeded(place.page).Bytes(kPayload);
    PublishedRecord record;
    record.place = place;
    record.sequence = 5;
    record.identity = {space, 3, written->salt, written->key};
    record.fingerprint = protection_->Fingerprint(record.identity);
    record.payload = written->payload;
    record.checksum = PayloadChecksum(written->payload);
    record.parent = "the key of the parent";
    record.first_token = 4711;
    record.tokens = 16;
    record.metadata = metadata;
    written->bytes.resize(RecordPages(kPayload, static_cast<uint32_t>(metadata.size())) *
                          uint64_t{kPageBytes});
    bool copied = false;
    written->sound = protection_->WriteRecord(
        record, [&copied] { copied = true; }, absl::MakeSpan(written->bytes));
    EXPECT_TRUE(copied);
    written->expected = {place, record.identity, record.fingerprint, record.checksum};
    return written;
  }
  RecordVerdict Read(const std::string& bytes, const ExpectedRecord& expected) const {
    std::string payload(kPayload, '?');
    const RecordVerdict verdict = protection_->ReadRecord(expected, bytes, absl::MakeSpan(payload));
    if (verdict == RecordVerdict::kGenuine) {
      EXPECT_TRUE(PayloadChecksum(payload) == expected.checksum) << "WRONG BYTES";
    }
    return verdict;
  }

  static constexpr Digest128 kPool{0x1111, 0x2222};
  static constexpr PublishedPlace kPlace{kPool, 99, 7, 12};
  const std::unique_ptr<PoolSecret> secret_;
  const std::unique_ptr<PoolProtection> protection_;
};

INSTANTIATE_TEST_SUITE_P(Auth,
                         Sealed,
                         testing::Values(PoolAuth::kMac, PoolAuth::kEncrypt),
                         [](const auto& its) { return std::string(AuthText(its.param)); });

TEST_P(Sealed, ARecordIsReadBack) {
  for (const std::string& metadata :
       {std::string(), std::string("tokens"), std::string(kInlineMetadataBytes, 'm'),
        std::string(kMaxMetadataBytes, 'm')}) {
    const auto written = Write(kPlace, metadata);
    EXPECT_TRUE(written->sound);
    EXPECT_EQ(Read(written->bytes, written->expected), RecordVerdict::kGenuine);
  }
}

TEST_P(Sealed, APayloadThatRottedBeforeIsNotSound) {
  PublishedRecord record;
  record.place = kPlace;
  record.identity = {{1, 2}, 1, "", "a key of sixteen"};
  record.payload = "not what was hashed";
  record.checksum = PayloadChecksum("what was hashed");
  std::string out(2 * uint64_t{kPageBytes}, '\0');
  EXPECT_FALSE(protection_->WriteRecord(
      record, [] {}, absl::MakeSpan(out)));
}

TEST_P(Sealed, AnyFlippedBitIsDamageAndWithNewChecksumsAForgery) {
  const auto written = Write(kPlace);
  for (size_t at = 0; at < kPageBytes + kPayload; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = written->bytes;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      // Without the CRC none is read at all; a payload's damage is told by its own checksum.
      ASSERT_EQ(Read(bytes, written->expected), RecordVerdict::kDamaged) << at << " " << bit;
      const bool checksum = (at >= 12 && at < 16) || (at >= 64 && at < 80);
      Recompute(&bytes, kPayload);
      if (checksum) {
        ASSERT_EQ(bytes, written->bytes);
        continue;
      }
      const RecordVerdict verdict = Read(bytes, written->expected);
      ASSERT_NE(verdict, RecordVerdict::kGenuine) << at << " " << bit;
      // What says that it is another format, place or block is not even opened.
      const bool opened = (at >= 40 && at < 48) || at >= 96;
      ASSERT_TRUE(!opened || verdict == RecordVerdict::kForged) << at << " " << bit;
    }
  }
}

TEST_P(Sealed, WhatIsCutOffAnywhereIsDamage) {
  const auto written = Write(kPlace);
  for (size_t length = 0; length < kPageBytes + kPayload; ++length) {
    ASSERT_EQ(Read(written->bytes.substr(0, length), written->expected), RecordVerdict::kDamaged);
  }
  EXPECT_EQ(Read(written->bytes.substr(0, kPageBytes + kPayload), written->expected),
            RecordVerdict::kGenuine);
}

// Moved as it is it does not say that it lies there; rewritten so that it does, its tag does not.
TEST_P(Sealed, ARecordOfAnotherPlaceIsNotGenuineWhateverItSays) {
  const auto here = Write(kPlace);
  for (const PublishedPlace& place :
       {PublishedPlace{kPool, 99, 7, 13}, PublishedPlace{kPool, 99, 8, 12},
        PublishedPlace{kPool, 98, 7, 12}, PublishedPlace{{0x1111, 0x2223}, 99, 7, 12}}) {
    const auto there = Write(place);
    ExpectedRecord expected = there->expected;
    expected.place = kPlace;
    EXPECT_EQ(Read(there->bytes, expected), RecordVerdict::kDamaged);
    std::string moved = there->bytes;
    std::copy_n(here->bytes.begin() + 16, 24, moved.begin() + 16);  // pool and life
    std::copy_n(here->bytes.begin() + 48, 8, moved.begin() + 48);   // segment and page
    Recompute(&moved, kPayload);
    EXPECT_EQ(Read(moved, expected), RecordVerdict::kForged);
  }
}

TEST_P(Sealed, ARecordIsGenuineForItsIdentityAlone) {
  const auto written = Write(kPlace);
  const BlockIdentity own = written->expected.identity;
  for (const BlockIdentity& identity :
       {BlockIdentity{{77, 79}, own.generation, own.salt, own.key},
        BlockIdentity{own.namespace_digest, own.generation + 1, own.salt, own.key},
        BlockIdentity{own.namespace_digest, own.generation, "another salt", own.key},
        BlockIdentity{own.namespace_digest, own.generation, own.salt, "another key of 16"},
        BlockIdentity{own.namespace_digest, own.generation, "salt of a tenantthe",
                      " key of a block, of 32 bytes."}}) {
    ExpectedRecord expected = written->expected;
    expected.identity = identity;
    // Also for who gives it that fingerprint.
    EXPECT_EQ(Read(written->bytes, expected), RecordVerdict::kForged);
    expected.fingerprint = protection_->Fingerprint(identity);
    EXPECT_EQ(Read(written->bytes, expected), RecordVerdict::kDamaged);
    std::string bytes = written->bytes;
    FieldWriter writer(absl::MakeSpan(bytes).subspan(80, 16));
    writer.Digest(expected.fingerprint);
    Recompute(&bytes, kPayload);
    EXPECT_EQ(Read(bytes, expected), RecordVerdict::kForged);
  }
}

TEST_P(Sealed, WhatASealOfAnotherSecretPoolOrAuthMadeIsAForgery) {
  const auto written = Write(kPlace);
  const PoolAuth other_auth = GetParam() == PoolAuth::kMac ? PoolAuth::kEncrypt : PoolAuth::kMac;
  std::vector<std::unique_ptr<PoolProtection>> others;
  others.push_back(SecretOf(GetParam(), 't')->ProtectionOf(kPool));
  others.push_back(secret_->ProtectionOf({0x1111, 0x2223}));
  others.push_back(SecretOf(other_auth, 's')->ProtectionOf(kPool));
  for (const std::unique_ptr<PoolProtection>& other : others) {
    std::string payload(kPayload, '?');
    EXPECT_EQ(other->ReadRecord(written->expected, written->bytes, absl::MakeSpan(payload)),
              RecordVerdict::kForged);
    EXPECT_NE(other->Fingerprint(written->expected.identity),
              protection_->Fingerprint(written->expected.identity));
    EXPECT_TRUE(absl::IsDataLoss(
        other->OpenReport(protection_->SealReport(std::string(200, 'r'))).status()));
    EXPECT_NE(other->ListedChecksum({1, 2}, {3, 4}), protection_->ListedChecksum({1, 2}, {3, 4}));
  }
}

TEST_P(Sealed, APlainRecordIsNone) {
  const auto written = Write(kPlace);
  PublishedRecord record;
  record.place = kPlace;
  record.identity = written->expected.identity;
  record.payload = written->payload;
  record.checksum = written->expected.checksum;
  std::string plain(2 * uint64_t{kPageBytes}, '\0');
  ASSERT_TRUE(MakePlainProtection(kPool)->WriteRecord(
      record, [] {}, absl::MakeSpan(plain)));
  EXPECT_EQ(Read(plain, written->expected), RecordVerdict::kDamaged);
}

TEST_P(Sealed, TheFileTellsNothingButWhatItMay) {
  const std::string metadata(kMaxMetadataBytes, 'm');
  for (const std::string& tokens : {std::string("metadata of a block"), metadata}) {
    const auto written = Write(kPlace, tokens);
    const auto holds = [&written](absl::string_view text) {
      return written->bytes.find(std::string(text)) != std::string::npos;
    };
    EXPECT_FALSE(holds(written->key) || holds(written->salt) || holds("the key of the parent"));
    EXPECT_FALSE(holds(tokens.substr(0, 16)));
    std::string digests(32, '\0');
    FieldWriter writer(absl::MakeSpan(digests));
    writer.Digest(written->expected.identity.namespace_digest);
    writer.Digest(IdentityFingerprint({77, 78}, 3, written->salt, written->key, kPool.lo));
    EXPECT_FALSE(holds(digests.substr(0, 16)) || holds(digests.substr(16)));
    EXPECT_EQ(holds(written->payload), GetParam() == PoolAuth::kMac);
    if (GetParam() == PoolAuth::kEncrypt) {
      FieldWriter(absl::MakeSpan(digests)).Digest(written->expected.checksum);
      EXPECT_FALSE(holds(digests.substr(0, 16)));
    }
  }
}

// By another way than the one under test, from what sealed_protection.h says of keys and nonces: so
// that what one build seals another opens.
TEST_P(Sealed, WhatIsSealedOpensWithTheKeysThatAreDocumented) {
  const std::string metadata = doubles::Seeded(9).Bytes(kMaxMetadataBytes - 5);
  const auto written = Write(kPlace, metadata);
  SealedHeader header;
  ASSERT_EQ(DecodeSealedHeader({written->bytes.data(), kPageBytes}, &header), HeaderFault::kNone);
  BriefKey pool_key;
  BriefKey records;
  BriefKey of_namespace;
  BriefKey key;
  HkdfExtract(kPool.ToBytes(), std::string(kMinSecretBytes, 's'), pool_key.span());
  HkdfExpand(pool_key.view(), "terrace pool 1 " + std::string(AuthText(GetParam())) + " records",
             records.span());
  HmacSha256(records.view(), Digest128{77, 78}.ToBytes(), of_namespace.span());
  HkdfExpand(of_namespace.view(), header.salt, key.span());

  const absl::Span<const char> bytes(written->bytes.data(), written->bytes.size());
  const absl::Span<const char> stored = bytes.subspan(kPageBytes, kPayload);
  std::string identity(28, '\0');
  FieldWriter writer(absl::MakeSpan(identity));
  writer.Digest({77, 78});
  writer.U64(3);
  writer.U16(static_cast<uint16_t>(written->salt.size()));
  writer.U16(static_cast<uint16_t>(written->key.size()));
  identity += written->salt + written->key;
  std::string text(kSealedTextBytes, '\0');
  std::string payload(stored.begin(), stored.end());
  GcmMessage record(GcmMessage::Way::kOpen, key.view(), {});
  record.Cover(CoveredHeader(header));
  record.Cover(identity);
  if (GetParam() == PoolAuth::kMac) {
    record.Cover(stored);
  }
  record.Convert(bytes.subspan(kSealedTextAt, kSealedTextBytes), absl::MakeSpan(text));
  if (GetParam() == PoolAuth::kEncrypt) {
    record.Convert(stored, absl::MakeSpan(payload));
  }
  ASSERT_TRUE(record.IsGenuine(header.tag));
  EXPECT_EQ(payload, written->payload);
  EXPECT_EQ(text.substr(0, 16), std::string("\x67\x12\0\0\0\0\0\0\x10\0\0\0\x15\0\0\0", 16));
  EXPECT_EQ(text.substr(16, 21), "the key of the parent");

  GcmMessage::Tag tag{};
  std::copy_n(text.begin() + 80, tag.size(), tag.begin());
  std::string pages(3 * uint64_t{kPageBytes}, '\0');
  GcmMessage extra(GcmMessage::Way::kOpen, key.view(), {1});
  extra.Convert(bytes.subspan(2 * uint64_t{kPageBytes}), absl::MakeSpan(pages));
  ASSERT_TRUE(extra.IsGenuine(tag));
  EXPECT_EQ(pages, metadata + std::string(5, '\0'));
}

TEST_P(Sealed, OneRecordSealedTwiceHasNothingInCommonButItsPlaceAndNames) {
  const auto one = Write(kPlace);
  const auto two = Write(kPlace);
  uint32_t same = 0;
  for (size_t at = 112; at < kPageBytes; ++at) {
    same += one->bytes[at] == two->bytes[at] ? 1 : 0;
  }
  EXPECT_LT(same, 80U);  // 16 are to be expected
  EXPECT_EQ(one->bytes.substr(0, 12), two->bytes.substr(0, 12));
}

TEST_P(Sealed, EqualContentsOfDifferentBlocksAreNotSeenToBeEqual) {
  const Digest128 checksum{5, 6};
  const Digest128 one = protection_->ListedChecksum(checksum, {1, 1});
  const Digest128 two = protection_->ListedChecksum(checksum, {1, 2});
  EXPECT_NE(one, two);
  EXPECT_EQ(protection_->ChecksumOfListed(one, {1, 1}), checksum);
  EXPECT_EQ(protection_->ChecksumOfListed(two, {1, 2}), checksum);
}

TEST_P(Sealed, AReportIsReadBackAndNothingOfItWithoutTheKey) {
  const std::string report = doubles::Seeded(3).Bytes(500);
  const std::string sealed = protection_->SealReport(report);
  EXPECT_EQ(sealed.find(report.substr(0, 16)), std::string::npos);
  ASSERT_TRUE(protection_->SealedReportBytes(sealed).ok());
  EXPECT_EQ(*protection_->SealedReportBytes(sealed), sealed.size());
  const absl::StatusOr<std::string> opened = protection_->OpenReport(sealed);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(*opened, report);
  EXPECT_NE(protection_->SealReport(report), sealed);
}

TEST_P(Sealed, AForgedReportIsNoneWhateverItsChecksum) {
  const std::string sealed = protection_->SealReport(std::string(300, 'r'));
  for (size_t at = 0; at < sealed.size(); ++at) {
    std::string bytes = sealed;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    EXPECT_TRUE(absl::IsDataLoss(protection_->OpenReport(bytes).status())) << at;
    FinishSealedReport(absl::MakeSpan(bytes));
    if (bytes != sealed) {
      EXPECT_TRUE(absl::IsDataLoss(protection_->OpenReport(bytes).status())) << at;
    }
  }
  for (size_t length = 0; length < sealed.size(); ++length) {
    EXPECT_FALSE(protection_->OpenReport(sealed.substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(protection_->SealedReportBytes(std::string(128, 'x')).ok());
  EXPECT_FALSE(protection_->OpenReport(std::string(300, 'r')).ok());
}

TEST_P(Sealed, TheProofIsOfThePoolTheAuthAndTheSecret) {
  const PoolSecret::Proof proof = secret_->ProofOf(kPool);
  EXPECT_EQ(proof, secret_->ProofOf(kPool));
  EXPECT_NE(proof, secret_->ProofOf({0x1111, 0x2223}));
  EXPECT_NE(proof, SecretOf(GetParam(), 't')->ProofOf(kPool));
  EXPECT_NE(proof, SecretOf(GetParam() == PoolAuth::kMac ? PoolAuth::kEncrypt : PoolAuth::kMac, 's')
                       ->ProofOf(kPool));
}

TEST(PoolSecret, AShortKeyIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      MakePoolSecret(PoolAuth::kMac, SecretBytes(kMinSecretBytes - 1)).status()));
}

}  // namespace
}  // namespace terrace
