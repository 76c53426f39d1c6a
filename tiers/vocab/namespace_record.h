// What must be equal for bytes to be exchangeable: the full record of a namespace, its digests, and
// the check that two records are the same. Pure; the canonical encoding below is what is hashed,
// kept beside data and compared on open.
//
// Canonical encoding (version 1), little-endian: u8 version; then every field in the order of the
// struct, strings and bytes as u32 length + bytes, integers as u64, labels as u32 count + (key,
// value) sorted by key; the tenant's alias comes first. The digest is XXH3-128 of that (seed 0).
// The family digest is the same with the fields that may differ within a family left out (see
// FamilyDigestOf).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

enum class Sharding : uint8_t { kSharded = 1, kCanonical = 2, kReplicated = 3 };

// Fields, units and ranges as in proto/terrace/v1/cache.proto, message NamespaceRecord.
struct NamespaceRecord {
  std::string model;
  std::string weights_revision;
  std::string kv_dtype;
  std::string quantization;
  std::string layout;
  std::string engine_format;
  std::string hash_algorithm;
  std::string hash_seed;
  uint32_t block_tokens = 0;
  uint64_t block_bytes = 0;
  uint32_t group = 0;
  std::string group_kind;
  uint32_t shard_count = 1;
  uint32_t shard_rank = 0;
  Sharding sharding = Sharding::kSharded;
  std::string parallel;
  std::string key_suffix;
  std::map<std::string, std::string> labels;  // kPrivateLabel among them: see IsPrivate

  friend bool operator==(const NamespaceRecord&, const NamespaceRecord&) = default;
};

// Whether it is of the processes that opened it alone, and forgotten with the last of them: a label
// of this name, whatever its value, which those who open it choose so that nobody else does.
inline constexpr std::string_view kPrivateLabel = "private";
bool IsPrivate(const NamespaceRecord& record);

// OK, or INVALID_ARGUMENT naming the field and its limit.
absl::Status ValidateRecord(const NamespaceRecord& record);

// The canonical encoding under `tenant` (the alias of the owner).
std::string EncodeRecord(const NamespaceRecord& record, std::string_view tenant);

struct OwnedRecord {
  std::string tenant;
  NamespaceRecord record;
};
// Of any bytes. INVALID_ARGUMENT: not what EncodeRecord gives for a record that ValidateRecord
// accepts.
absl::StatusOr<OwnedRecord> DecodeRecord(std::string_view encoded);

Digest128 DigestOf(const NamespaceRecord& record, std::string_view tenant);

// Equal for records that differ only in shard_rank, group, group_kind, layout, block_tokens,
// block_bytes, key_suffix.
Digest128 FamilyDigestOf(const NamespaceRecord& record, std::string_view tenant);

// Name of the first field in which they differ; "" when equal.
std::string_view FirstDifference(const NamespaceRecord& a, const NamespaceRecord& b);

}  // namespace terrace
