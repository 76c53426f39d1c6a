#include "tests/doubles/request_limits.h"

#include <numeric>

#include "absl/strings/str_cat.h"

namespace terrace::doubles {
namespace {

constexpr size_t kStringBytes = 256;
constexpr size_t kRequestIdBytes = 64;
constexpr size_t kSuffixBytes = 16;
constexpr int kLabels = 16;
constexpr size_t kDigestBytes = 16;

absl::Status CheckText(std::string_view field, const std::string& text) {
  return text.size() > kStringBytes ? Invalid(field, "at most 256 bytes") : absl::OkStatus();
}

absl::Status CheckRequired(std::string_view field, const std::string& text) {
  return text.empty() ? Invalid(field, "required") : CheckText(field, text);
}

absl::Status FirstError(std::initializer_list<absl::Status> checks) {
  for (const absl::Status& status : checks) {
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckShards(const v1::NamespaceRecord& record) {
  const uint32_t shards = record.shard_count() == 0 ? 1 : record.shard_count();
  if (!v1::Sharding_IsValid(record.sharding())) {
    return Invalid("record.sharding", "a known value");
  }
  if (shards > 4096) {
    return Invalid("record.shard_count", "at most 4096");
  }
  if (record.shard_rank() >= shards) {
    return Invalid("record.shard_rank", "below shard_count");
  }
  const bool same_for_all_ranks =
      record.sharding() == v1::SHARDING_CANONICAL || record.sharding() == v1::SHARDING_REPLICATED;
  if (same_for_all_ranks && record.shard_rank() != 0) {
    return Invalid("record.shard_rank", "0 unless sharded");
  }
  return absl::OkStatus();
}

absl::Status CheckEnds(const v1::Part& part, std::string_view field, size_t keys) {
  const auto& ends = part.end_tokens();
  if (ends.empty()) {
    return absl::OkStatus();
  }
  if (static_cast<size_t>(ends.size()) != keys) {
    return Invalid(absl::StrCat(std::string(field), ".end_tokens"), "none or one a key");
  }
  uint64_t before = part.first_token();
  for (const uint32_t end : ends) {
    if (end <= before) {
      return Invalid(absl::StrCat(std::string(field), ".end_tokens"), "rising from first_token");
    }
    before = end;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Invalid(std::string_view field, std::string_view limit) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(field), ": ", std::string(limit)));
}

uint32_t KeyBytes(const v1::Part& part) {
  return part.key_bytes() == 0 ? 32 : part.key_bytes();
}

std::vector<std::string> SplitKeys(const v1::Part& part) {
  std::vector<std::string> keys;
  for (size_t at = 0; at < part.keys().size(); at += KeyBytes(part)) {
    keys.push_back(part.keys().substr(at, KeyBytes(part)));
  }
  return keys;
}

size_t KeyCount(const google::protobuf::RepeatedPtrField<v1::Part>& parts) {
  size_t keys = 0;
  for (const v1::Part& part : parts) {
    keys += part.keys().size() / KeyBytes(part);
  }
  return keys;
}

absl::Status CheckRecord(const v1::NamespaceRecord& record) {
  if (record.block_tokens() > 65536) {
    return Invalid("record.block_tokens", "at most 65536");
  }
  if (record.block_bytes() < 1 || record.block_bytes() > kPayloadBytes) {
    return Invalid("record.block_bytes", "1 to 67108864");
  }
  if (record.group() > 255) {
    return Invalid("record.group", "at most 255");
  }
  if (record.key_suffix().size() > kSuffixBytes) {
    return Invalid("record.key_suffix", "at most 16 bytes");
  }
  if (record.labels_size() > kLabels) {
    return Invalid("record.labels", "at most 16 entries");
  }
  for (const auto& [key, value] : record.labels()) {
    if (key.size() > kStringBytes || value.size() > kStringBytes) {
      return Invalid("record.labels", "at most 256 bytes each");
    }
  }
  return FirstError({CheckRequired("record.model", record.model()),
                     CheckRequired("record.weights_revision", record.weights_revision()),
                     CheckRequired("record.kv_dtype", record.kv_dtype()),
                     CheckText("record.quantization", record.quantization()),
                     CheckRequired("record.layout", record.layout()),
                     CheckText("record.engine_format", record.engine_format()),
                     CheckRequired("record.hash_algorithm", record.hash_algorithm()),
                     CheckText("record.hash_seed", record.hash_seed()),
                     CheckText("record.group_kind", record.group_kind()),
                     CheckText("record.parallel", record.parallel()), CheckShards(record)});
}

absl::Status CheckPart(const v1::Part& part, std::string_view field) {
  if (part.namespace_digest().size() != kDigestBytes) {
    return Invalid(absl::StrCat(std::string(field), ".namespace_digest"), "16 bytes");
  }
  if (part.salt().size() > kStringBytes) {
    return Invalid(absl::StrCat(std::string(field), ".salt"), "at most 256 bytes");
  }
  if (!v1::Rule_IsValid(part.rule())) {
    return Invalid(absl::StrCat(std::string(field), ".rule"), "a known value");
  }
  if (KeyBytes(part) < 16 || KeyBytes(part) > 64) {
    return Invalid(absl::StrCat(std::string(field), ".key_bytes"), "16 to 64");
  }
  if (part.keys().size() % KeyBytes(part) != 0) {
    return Invalid(absl::StrCat(std::string(field), ".keys"), "a multiple of key_bytes");
  }
  if ((part.rule() == v1::RULE_WINDOW) != (part.window_tokens() != 0)) {
    return Invalid(absl::StrCat(std::string(field), ".window_tokens"),
                   "required with RULE_WINDOW, else 0");
  }
  return CheckEnds(part, field, part.keys().size() / KeyBytes(part));
}

absl::Status CheckParts(const google::protobuf::RepeatedPtrField<v1::Part>& parts) {
  if (parts.empty() || parts.size() > kPartsPerCall) {
    return Invalid("parts", "1 to 64");
  }
  for (int i = 0; i < parts.size(); ++i) {
    if (absl::Status status = CheckPart(parts[i], absl::StrCat("parts[", i, "]")); !status.ok()) {
      return status;
    }
  }
  return KeyCount(parts) > kKeysPerCall ? Invalid("parts.keys", "at most 16384 keys a call")
                                        : absl::OkStatus();
}

absl::Status CheckProbe(const v1::ProbeRequest& request) {
  if (request.request_id().size() > kRequestIdBytes) {
    return Invalid("request_id", "at most 64 bytes");
  }
  if (!v1::Priority_IsValid(request.prefetch_priority())) {
    return Invalid("prefetch_priority", "a known value");
  }
  return CheckParts(request.parts());
}

absl::Status CheckGet(const v1::GetRequest& request) {
  if (!v1::Delivery_IsValid(request.delivery())) {
    return Invalid("delivery", "a known value");
  }
  if (!request.hold_id().empty() && request.hold_id().size() != kDigestBytes) {
    return Invalid("hold_id", "16 bytes");
  }
  if (absl::Status status = CheckParts(request.parts()); !status.ok()) {
    return status;
  }
  if (request.delivery() != v1::DELIVERY_REGION) {
    return absl::OkStatus();
  }
  if (request.regions_size() != request.parts_size()) {
    return Invalid("regions", "one a part");
  }
  for (int i = 0; i < request.parts_size(); ++i) {
    const size_t keys = request.parts(i).keys().size() / KeyBytes(request.parts(i));
    if (static_cast<size_t>(request.regions(i).block_indexes_size()) != keys) {
      return Invalid(absl::StrCat("regions[", i, "].block_indexes"), "one a key");
    }
  }
  return absl::OkStatus();
}

std::vector<uint64_t> PayloadSizes(const v1::PutRequest& request, uint64_t block_bytes) {
  const size_t keys = request.part().keys().size() / KeyBytes(request.part());
  const auto& given = request.payload_bytes();
  if (given.empty()) {
    return std::vector<uint64_t>(keys, block_bytes);
  }
  if (given.size() == 1) {
    return std::vector<uint64_t>(keys, given[0]);
  }
  return {given.begin(), given.end()};
}

absl::Status CheckPut(const v1::PutRequest& request, uint64_t block_bytes) {
  if (absl::Status status = CheckPart(request.part(), "part"); !status.ok()) {
    return status;
  }
  const size_t keys = request.part().keys().size() / KeyBytes(request.part());
  if (keys > kKeysPerCall) {
    return Invalid("part.keys", "at most 16384 keys a call");
  }
  if (!request.parent().empty() && request.parent().size() != KeyBytes(request.part())) {
    return Invalid("parent", "key_bytes long");
  }
  if (!v1::Level_IsValid(request.wait_for())) {
    return Invalid("wait_for", "a known value");
  }
  if (request.payload_bytes_size() > 1 &&
      static_cast<size_t>(request.payload_bytes_size()) != keys) {
    return Invalid("payload_bytes", "none, one, or one a key");
  }
  if (request.metadata_size() != 0 && static_cast<size_t>(request.metadata_size()) != keys) {
    return Invalid("metadata", "none or one a key");
  }
  for (const v1::BlockMetadata& metadata : request.metadata()) {
    if (metadata.ByteSizeLong() > kMetadataBytes) {
      return Invalid("metadata", "at most 12288 bytes a block");
    }
  }
  if (request.has_region()) {
    if (!request.payload().empty()) {
      return Invalid("payload", "empty when a region is given");
    }
    const auto indexes = static_cast<size_t>(request.region().block_indexes_size());
    return indexes == keys ? absl::OkStatus() : Invalid("region.block_indexes", "one a key");
  }
  const std::vector<uint64_t> sizes = PayloadSizes(request, block_bytes);
  const uint64_t total = std::accumulate(sizes.begin(), sizes.end(), uint64_t{0});
  return total == request.payload().size() ? absl::OkStatus()
                                           : Invalid("payload", "the sum of payload_bytes");
}

}  // namespace terrace::doubles
