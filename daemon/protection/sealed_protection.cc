#include "daemon/protection/sealed_protection.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

#include "daemon/protection/ciphers.h"
#include "tiers/os/descriptor.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/sealed_record_format.h"
#include "tiers/shared/pool_format.h"
#include "tiers/vocab/check.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr GcmMessage::Nonce kWhole = {};
constexpr GcmMessage::Nonce kMetadataPages = {1};

// Of one pool and one auth.
SecretBytes KeyFor(std::string_view purpose, PoolAuth auth, absl::Span<const char> pool_key) {
  const std::string info =
      absl::StrCat("terrace pool 1 ", std::string(AuthText(auth)), " ", std::string(purpose));
  SecretBytes key(kKeyBytes);
  HkdfExpand(pool_key, info, key.span());
  return key;
}

SecretBytes PoolKeyOf(const SecretBytes& secret, const Digest128& pool) {
  SecretBytes key(kKeyBytes);
  HkdfExtract(pool.ToBytes(), secret.view(), key.span());
  return key;
}

// What of an identity a tag covers.
class CoveredIdentity {
 public:
  explicit CoveredIdentity(const BlockIdentity& identity) : writer_(absl::MakeSpan(bytes_)) {
    writer_.Digest(identity.namespace_digest);
    writer_.U64(identity.generation);
    writer_.U16(static_cast<uint16_t>(identity.salt.size()));
    writer_.U16(static_cast<uint16_t>(identity.key.size()));
    writer_.Bytes(identity.salt);
    writer_.Bytes(identity.key);
  }
  [[nodiscard]] absl::Span<const char> view() const { return {bytes_.data(), writer_.position()}; }

 private:
  std::array<char, 28 + kMaxSaltBytes + kMaxKeyBytes> bytes_{};
  FieldWriter writer_;
};

bool LiesThere(const SealedHeader& header, const ExpectedRecord& expected, size_t payload_bytes) {
  const PublishedPlace& place = expected.place;
  return header.tier_uuid == place.pool && header.segment_epoch == place.life_id &&
         header.segment == place.segment && header.page == place.page &&
         header.payload_bytes == payload_bytes && header.fingerprint == expected.fingerprint;
}

class SealedProtection final : public PoolProtection {
 public:
  SealedProtection(PoolAuth auth, const Digest128& pool, const SecretBytes& pool_key)
      : auth_(auth),
        pool_(pool),
        fingerprints_(KeyFor("fingerprints", auth, pool_key.view()).view()),
        checksums_(KeyFor("checksums", auth, pool_key.view()).view()),
        records_(KeyFor("records", auth, pool_key.view())),
        reports_(KeyFor("reports", auth, pool_key.view())) {}

  [[nodiscard]] PoolAuth auth() const override { return auth_; }

  [[nodiscard]] Digest128 Fingerprint(const BlockIdentity& identity) const override {
    return fingerprints_.Hide(IdentityFingerprint(identity.namespace_digest, identity.generation,
                                                  identity.salt, identity.key, pool_.lo));
  }
  [[nodiscard]] Digest128 ListedChecksum(const Digest128& checksum,
                                         const Digest128& fingerprint) const override {
    return checksums_.Hide({checksum.hi ^ fingerprint.hi, checksum.lo ^ fingerprint.lo});
  }
  [[nodiscard]] Digest128 ChecksumOfListed(const Digest128& listed,
                                           const Digest128& fingerprint) const override {
    const Digest128 sum = checksums_.Reveal(listed);
    return {sum.hi ^ fingerprint.hi, sum.lo ^ fingerprint.lo};
  }

  [[nodiscard]] bool WriteRecord(const PublishedRecord& record,
                                 const std::function<void()>& copied,
                                 absl::Span<char> out) const override;
  [[nodiscard]] RecordVerdict ReadRecord(const ExpectedRecord& expected,
                                         absl::Span<const char> bytes,
                                         absl::Span<char> payload) const override;

  [[nodiscard]] std::string SealReport(std::string report) const override;
  [[nodiscard]] absl::StatusOr<uint64_t> SealedReportBytes(
      absl::Span<const char> header) const override {
    uint64_t bytes = 0;
    if (terrace::SealedReportBytes(header, &bytes) != HeaderFault::kNone) {
      return absl::DataLossError("pool: no sealed report");
    }
    return bytes;
  }
  [[nodiscard]] absl::StatusOr<std::string> OpenReport(std::string sealed) const override;

 private:
  void RecordKey(const Digest128& namespace_digest,
                 absl::Span<const char> salt,
                 BriefKey* out) const;
  void ReportKey(absl::Span<const char> salt, BriefKey* out) const {
    HkdfExpand(reports_.view(), salt, out->span());
  }

  const PoolAuth auth_;
  const Digest128 pool_;
  const NameCipher fingerprints_;
  const NameCipher checksums_;
  const SecretBytes records_;
  const SecretBytes reports_;
};

void SealedProtection::RecordKey(const Digest128& namespace_digest,
                                 absl::Span<const char> salt,
                                 BriefKey* out) const {
  BriefKey of_namespace;
  HmacSha256(records_.view(), namespace_digest.ToBytes(), of_namespace.span());
  HkdfExpand(of_namespace.view(), salt, out->span());
}

// Returns the tag of what it writes.
GcmMessage::Tag WriteMetadataPages(const BriefKey& key,
                                   std::string_view metadata,
                                   absl::Span<char> pages) {
  std::string padded(metadata);
  padded.resize(pages.size());
  GcmMessage message(GcmMessage::Way::kSeal, key.view(), kMetadataPages);
  message.Convert(padded, pages);
  return message.Finish();
}

// Nothing lies in `out` as plain text at any time, because another process sees it.
bool SealedProtection::WriteRecord(const PublishedRecord& record,
                                   const std::function<void()>& copied,
                                   absl::Span<char> out) const {
  SealedHeader header;
  header.tier_uuid = record.place.pool;
  header.segment_epoch = record.place.life_id;
  header.sequence = record.sequence;
  header.segment = record.place.segment;
  header.page = record.place.page;
  header.payload_bytes = static_cast<uint32_t>(record.payload.size());
  header.metadata_bytes = static_cast<uint32_t>(record.metadata.size());
  header.fingerprint = record.fingerprint;
  header.listed_checksum = ListedChecksum(record.checksum, record.fingerprint);
  FillRandom(absl::MakeSpan(header.salt));
  BriefKey key;
  RecordKey(record.identity.namespace_digest, header.salt, &key);

  SealedText text;
  text.first_token = record.first_token;
  text.tokens = record.tokens;
  text.parent = record.parent;
  const size_t payload_end = (1 + uint64_t{PagesOf(record.payload.size())}) * kPageBytes;
  if (ExtraPages(header.metadata_bytes) == 0) {
    text.metadata = record.metadata;
  } else {
    text.metadata_tag = WriteMetadataPages(key, record.metadata, out.subspan(payload_end));
  }
  std::array<char, kSealedTextBytes> plain_text;
  EncodeSealedText(text, absl::MakeSpan(plain_text));

  const absl::Span<char> stored = out.subspan(kPageBytes, record.payload.size());
  GcmMessage message(GcmMessage::Way::kSeal, key.view(), kWhole);
  message.Cover(CoveredHeader(header));
  message.Cover(CoveredIdentity(record.identity).view());
  bool sound = false;
  if (auth_ == PoolAuth::kMac) {
    std::memcpy(stored.data(), record.payload.data(), stored.size());
    copied();
    message.Cover(stored);
    header.stored_checksum = PayloadChecksum(stored);
    sound = header.stored_checksum == record.checksum;
  } else {
    sound = PayloadChecksum(record.payload) == record.checksum;
  }
  message.Convert(plain_text, out.subspan(kSealedTextAt, kSealedTextBytes));
  if (auth_ == PoolAuth::kEncrypt) {
    message.Convert(record.payload, stored);
    copied();
    header.stored_checksum = PayloadChecksum(stored);
  }
  const absl::Span<char> padding =
      out.subspan(kPageBytes + stored.size(), payload_end - kPageBytes - stored.size());
  std::fill(padding.begin(), padding.end(), '\0');
  header.tag = message.Finish();
  EncodeSealedHeader(header, out.first(kPageBytes));
  return sound;
}

// The tag is of what the cipher saw of `bytes`, which another process can change meanwhile; the
// checksum is of what is delivered.
RecordVerdict SealedProtection::ReadRecord(const ExpectedRecord& expected,
                                           absl::Span<const char> bytes,
                                           absl::Span<char> payload) const {
  if (bytes.size() < kPageBytes + payload.size()) {
    return RecordVerdict::kDamaged;
  }
  std::array<char, kPageBytes> page;
  std::copy_n(bytes.begin(), page.size(), page.begin());
  SealedHeader header;
  if (DecodeSealedHeader(page, &header) != HeaderFault::kNone ||
      !LiesThere(header, expected, payload.size())) {
    return RecordVerdict::kDamaged;
  }
  BriefKey key;
  RecordKey(expected.identity.namespace_digest, header.salt, &key);
  GcmMessage message(GcmMessage::Way::kOpen, key.view(), kWhole);
  message.Cover(CoveredHeader(header));
  message.Cover(CoveredIdentity(expected.identity).view());
  const absl::Span<const char> stored = bytes.subspan(kPageBytes, payload.size());
  if (auth_ == PoolAuth::kMac) {
    std::memcpy(payload.data(), stored.data(), payload.size());
    message.Cover(payload);
  }
  std::array<char, kSealedTextBytes> text;
  message.Convert(absl::MakeConstSpan(page).subspan(kSealedTextAt), absl::MakeSpan(text));
  if (auth_ == PoolAuth::kEncrypt) {
    message.Convert(stored, payload);
  }
  if (!message.IsGenuine(header.tag)) {
    // Only now, so that what is sound is not read twice.
    return PayloadChecksum(stored) == header.stored_checksum ? RecordVerdict::kForged
                                                             : RecordVerdict::kDamaged;
  }
  return PayloadChecksum(payload) == expected.checksum ? RecordVerdict::kGenuine
                                                       : RecordVerdict::kDamaged;
}

std::string SealedProtection::SealReport(std::string report) const {
  std::string whole(kSealedReportHeaderBytes + report.size() + kSealedReportTagBytes, '\0');
  const absl::Span<char> span = absl::MakeSpan(whole);
  BeginSealedReport(span.size(), span);
  const absl::Span<char> salt = span.subspan(kSealedReportSaltAt, kSealedReportSaltBytes);
  FillRandom(salt);
  BriefKey key;
  ReportKey(salt, &key);
  GcmMessage message(GcmMessage::Way::kSeal, key.view(), kWhole);
  message.Cover(span.first(kSealedReportHeaderBytes));  // its CRC still is zero
  message.Convert(report, span.subspan(kSealedReportHeaderBytes, report.size()));
  const GcmMessage::Tag tag = message.Finish();
  std::copy(tag.begin(), tag.end(), span.end() - kSealedReportTagBytes);
  FinishSealedReport(span);
  return whole;
}

absl::StatusOr<std::string> SealedProtection::OpenReport(std::string sealed) const {
  if (!IsWholeSealedReport(sealed)) {
    return absl::DataLossError("pool: the report is damaged");
  }
  std::array<char, kSealedReportHeaderBytes> header{};
  const absl::Span<const char> whole(sealed.data(), sealed.size());
  const absl::Span<const char> salt = whole.subspan(kSealedReportSaltAt, kSealedReportSaltBytes);
  BeginSealedReport(whole.size(), absl::MakeSpan(header));
  std::copy(salt.begin(), salt.end(), header.begin() + kSealedReportSaltAt);
  BriefKey key;
  ReportKey(salt, &key);
  GcmMessage message(GcmMessage::Way::kOpen, key.view(), kWhole);
  message.Cover(header);
  std::string report(whole.size() - kSealedReportHeaderBytes - kSealedReportTagBytes, '\0');
  message.Convert(whole.subspan(kSealedReportHeaderBytes, report.size()), absl::MakeSpan(report));
  GcmMessage::Tag tag{};
  std::copy(whole.end() - kSealedReportTagBytes, whole.end(), tag.begin());
  if (!message.IsGenuine(tag)) {
    return absl::DataLossError("pool: the report was not sealed by a node of this pool");
  }
  return report;
}

class KeptSecret final : public PoolSecret {
 public:
  KeptSecret(PoolAuth auth, SecretBytes secret) : auth_(auth), secret_(std::move(secret)) {}

  [[nodiscard]] PoolAuth auth() const override { return auth_; }

  [[nodiscard]] Proof ProofOf(const Digest128& pool) const override {
    const SecretBytes key = KeyFor("proof", auth_, PoolKeyOf(secret_, pool).view());
    Proof proof{};
    std::copy(key.view().begin(), key.view().end(), proof.begin());
    return proof;
  }
  [[nodiscard]] std::unique_ptr<PoolProtection> ProtectionOf(const Digest128& pool) const override {
    return std::make_unique<SealedProtection>(auth_, pool, PoolKeyOf(secret_, pool));
  }

 private:
  const PoolAuth auth_;
  const SecretBytes secret_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PoolSecret>> MakePoolSecret(PoolAuth auth, SecretBytes secret) {
  TERRACE_CHECK(auth == PoolAuth::kMac || auth == PoolAuth::kEncrypt);
  if (secret.view().size() < kMinSecretBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a key must have at least ", kMinSecretBytes, " bytes"));
  }
  if (absl::Status status = CheckCiphers(); !status.ok()) {
    return status;
  }
  return std::make_unique<KeptSecret>(auth, std::move(secret));
}

}  // namespace terrace
