// Records and reports as they lie in a pool that is not protected: against media, caches and
// mistakes, and not against a foreign hand that knows the format.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/copy/one_pass.h"
#include "tiers/copy/piece.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/shared/pool_format.h"
#include "tiers/shared/pool_protection.h"

namespace terrace {
namespace {

class PlainProtection final : public PoolProtection {
 public:
  explicit PlainProtection(const Digest128& pool) : pool_(pool) {}

  [[nodiscard]] PoolAuth auth() const override { return PoolAuth::kNone; }

  [[nodiscard]] Digest128 Fingerprint(const BlockIdentity& identity) const override {
    return IdentityFingerprint(identity.namespace_digest, identity.generation, identity.salt,
                               identity.key, pool_.lo);
  }
  [[nodiscard]] Digest128 ListedChecksum(const Digest128& checksum,
                                         const Digest128&) const override {
    return checksum;
  }
  [[nodiscard]] Digest128 ChecksumOfListed(const Digest128& listed,
                                           const Digest128&) const override {
    return listed;
  }

  [[nodiscard]] bool WriteRecord(const PublishedRecord& record,
                                 const std::function<void()>& copied,
                                 absl::Span<char> out) const override {
    const absl::Span<char> payload = out.subspan(kPageBytes, record.payload.size());
    const ConstPiece source = {record.payload.data(), payload.size()};
    const bool sound = CopyAndHash({&source, 1}, payload.data()) == record.checksum;
    copied();
    const absl::Span<char> rest = out.subspan(kPageBytes + payload.size());
    std::fill(rest.begin(), rest.end(), '\0');
    RecordHeader header;
    header.kind = RecordKind::kBlock;
    header.tier_uuid = record.place.pool;
    header.segment_epoch = record.place.life_id;
    header.sequence = record.sequence;
    header.segment = record.place.segment;
    header.page = record.place.page;
    header.payload_bytes = static_cast<uint32_t>(payload.size());
    header.checksum = record.checksum;
    header.metadata_bytes = static_cast<uint32_t>(record.metadata.size());
    if (!record.metadata.empty()) {
      header.metadata_checksum = PayloadChecksum({record.metadata.data(), record.metadata.size()});
    }
    if (ExtraPages(header.metadata_bytes) == 0) {
      header.metadata = record.metadata;
    } else {
      std::memcpy(out.data() + (1 + uint64_t{PagesOf(payload.size())}) * kPageBytes,
                  record.metadata.data(), record.metadata.size());
    }
    header.namespace_digest = record.identity.namespace_digest;
    header.generation = record.identity.generation;
    header.salt = record.identity.salt;
    header.key = record.identity.key;
    header.parent = record.parent;
    header.first_token = record.first_token;
    header.tokens = record.tokens;
    EncodeRecordHeader(header, out.first(kPageBytes));
    return sound;
  }

  // Another process can see the bytes: the header is checked as a copy, and the payload is hashed
  // as it is copied.
  [[nodiscard]] RecordVerdict ReadRecord(const ExpectedRecord& expected,
                                         absl::Span<const char> bytes,
                                         absl::Span<char> payload) const override {
    if (bytes.size() < kPageBytes + payload.size()) {
      return RecordVerdict::kDamaged;
    }
    const std::vector<char> page(bytes.begin(), bytes.begin() + kPageBytes);
    RecordHeader header;
    const PublishedPlace& place = expected.place;
    if (DecodeRecordHeader(page, &header) != HeaderFault::kNone ||
        header.kind != RecordKind::kBlock || !(header.tier_uuid == place.pool) ||
        header.segment_epoch != place.life_id || header.segment != place.segment ||
        header.page != place.page || header.payload_bytes != payload.size() ||
        !(header.checksum == expected.checksum)) {
      return RecordVerdict::kDamaged;
    }
    if (!(header.namespace_digest == expected.identity.namespace_digest) ||
        header.generation != expected.identity.generation ||
        header.salt != expected.identity.salt || header.key != expected.identity.key) {
      return RecordVerdict::kAnother;  // with this fingerprint
    }
    const ConstPiece source = {bytes.data() + kPageBytes, payload.size()};
    return CopyAndHash({&source, 1}, payload.data()) == header.checksum ? RecordVerdict::kGenuine
                                                                        : RecordVerdict::kDamaged;
  }

  [[nodiscard]] std::string SealReport(std::string report) const override { return report; }
  [[nodiscard]] absl::StatusOr<uint64_t> SealedReportBytes(
      absl::Span<const char> header) const override {
    uint64_t bytes = 0;
    if (ReportBytes(header, &bytes) != HeaderFault::kNone) {
      return absl::DataLossError("pool: no report");
    }
    return bytes;
  }
  [[nodiscard]] absl::StatusOr<std::string> OpenReport(std::string sealed) const override {
    return sealed;
  }

 private:
  const Digest128 pool_;
};

}  // namespace

std::unique_ptr<PoolProtection> MakePlainProtection(const Digest128& pool) {
  return std::make_unique<PlainProtection>(pool);
}

}  // namespace terrace
