// How what a node publishes lies in the files of a pool: plain, or sealed with a secret that the
// nodes of the pool share.
//
// Whoever can read and write the files of a sealed pool, and has no secret, cannot make a node
// deliver a byte that no node of the pool published under that identity, whatever checksums he
// computes: a record opens only where it was written, in this pool, and for the identity that it
// was published under. He learns sizes, times, counts, and which records are of one identity; with
// kMac he reads payloads too. Keys, salts, namespaces, tenants, tokens and other metadata, and what
// nodes report, he never reads.
//
// What it does not promise: he may cause misses; bring back what was deleted or cleared, on a node
// that never heard of it; and take nodes for dead. A node that has the secret is trusted.
//
// Implemented by plain_protection.cc, and over OpenSSL by the daemon (daemon/protection), because
// tiers/ knows of no ciphers. Threads: immutable, so any. Nothing blocks.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace {

enum class PoolAuth : uint8_t {
  kNone = 0,     // checksums, against media alone
  kMac = 1,      // sealed, but that payloads can be read
  kEncrypt = 2,  // sealed
};

// Where a record lies. No two records of a pool have one place, but a replayed one.
struct PublishedPlace {
  Digest128 pool;
  uint64_t life_id = 0;  // pool_format.h
  uint32_t segment = 0;
  uint32_t page = 0;
};

// What a record says; borrowed.
struct PublishedRecord {
  PublishedPlace place;
  uint64_t sequence = 0;
  BlockIdentity identity;
  Digest128 fingerprint;  // as of PoolProtection::Fingerprint
  absl::Span<const char> payload;
  Digest128 checksum;  // XXH3-128 of the payload
  std::string_view parent;
  uint64_t first_token = 0;
  uint32_t tokens = 0;
  std::string_view metadata;
};

struct ExpectedRecord {
  PublishedPlace place;
  BlockIdentity identity;
  Digest128 fingerprint;
  Digest128 checksum;  // of the payload
};

enum class RecordVerdict : uint8_t {
  kGenuine = 1,
  kDamaged = 2,  // what lies there is not what its own checksums say, or is no record
  kForged = 3,   // it is sound, and was sealed elsewhere, for another identity, or by nobody
  kAnother = 4,  // a sound record of another identity
};

// Of one pool.
class PoolProtection {
 public:
  virtual ~PoolProtection() = default;

  [[nodiscard]] virtual PoolAuth auth() const = 0;

  // Under which lookups, footers, reports and indexes know a block. Not a proof.
  [[nodiscard]] virtual Digest128 Fingerprint(const BlockIdentity& identity) const = 0;
  // The checksum of a payload as footers, reports and indexes list it, and back.
  [[nodiscard]] virtual Digest128 ListedChecksum(const Digest128& checksum,
                                                 const Digest128& fingerprint) const = 0;
  [[nodiscard]] virtual Digest128 ChecksumOfListed(const Digest128& listed,
                                                   const Digest128& fingerprint) const = 0;

  // Makes all of a record.
  //   out     RecordPages of it, 4096-aligned; apart from the payload
  //   copied  runs once, as soon as the payload is not needed any more
  // False: the payload is not what its checksum says, and the record is good for nothing.
  [[nodiscard]] virtual bool WriteRecord(const PublishedRecord& record,
                                         const std::function<void()>& copied,
                                         absl::Span<char> out) const = 0;
  // Checks a record and delivers its payload.
  //   bytes    as read, from its header on; kDamaged where they do not hold all of the payload
  //   payload  its length is the record's; undefined but with kGenuine
  // `bytes` may change meanwhile: what is delivered is what was checked.
  [[nodiscard]] virtual RecordVerdict ReadRecord(const ExpectedRecord& expected,
                                                 absl::Span<const char> bytes,
                                                 absl::Span<char> payload) const = 0;

  // What nodes tell each other, as it lies in a file.
  [[nodiscard]] virtual std::string SealReport(std::string report) const = 0;
  // Bytes of the whole file, from its first kReportHeaderBytes. DATA_LOSS: no report.
  [[nodiscard]] virtual absl::StatusOr<uint64_t> SealedReportBytes(
      absl::Span<const char> header) const = 0;
  // DATA_LOSS: it was not sealed so, or is cut off. Plain: whether it is sound is for its reader.
  [[nodiscard]] virtual absl::StatusOr<std::string> OpenReport(std::string sealed) const = 0;
};

// Of a pool whose auth is kNone.
std::unique_ptr<PoolProtection> MakePlainProtection(const Digest128& pool);

// What an operator gave to all nodes of a pool. Immutable.
class PoolSecret {
 public:
  virtual ~PoolSecret() = default;

  // kMac or kEncrypt.
  [[nodiscard]] virtual PoolAuth auth() const = 0;
  // Proves to who has the secret, and to nobody else, that the pool was made with it and with this
  // auth.
  using Proof = std::array<char, 32>;
  [[nodiscard]] virtual Proof ProofOf(const Digest128& pool) const = 0;
  [[nodiscard]] virtual std::unique_ptr<PoolProtection> ProtectionOf(
      const Digest128& pool) const = 0;
};

// As it is configured.
inline std::string_view AuthText(PoolAuth auth) {
  constexpr std::array<std::string_view, 3> kTexts = {"none", "mac", "encrypt"};
  return kTexts[static_cast<size_t>(auth)];
}

}  // namespace terrace
