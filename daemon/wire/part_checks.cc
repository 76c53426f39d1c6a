#include "daemon/wire/part_checks.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/wire/call_status.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

absl::Status CheckEndTokens(const v1::Part& part, uint32_t keys, const FieldPath& path) {
  if (part.end_tokens_size() == 0) {
    return absl::OkStatus();
  }
  if (part.end_tokens_size() != static_cast<int>(keys)) {
    return InvalidField(path.Text("end_tokens"), "none, or one a key");
  }
  uint64_t before = part.first_token();
  for (const uint32_t end : part.end_tokens()) {
    if (end <= before) {
      return InvalidField(path.Text("end_tokens"), "must rise, from first_token on");
    }
    before = end;
  }
  return absl::OkStatus();
}

absl::Status CheckRule(const v1::Part& part, const FieldPath& path) {
  if (!v1::Rule_IsValid(part.rule())) {
    return InvalidField(path.Text("rule"), "unknown value");
  }
  if (part.rule() == v1::RULE_WINDOW && part.window_tokens() == 0) {
    return InvalidField(path.Text("window_tokens"), "from 1 with RULE_WINDOW");
  }
  if (part.rule() != v1::RULE_WINDOW && part.window_tokens() != 0) {
    return InvalidField(path.Text("window_tokens"), "0 without RULE_WINDOW");
  }
  return absl::OkStatus();
}

uint32_t KeyBytesOf(const v1::Part& part) {
  return part.key_bytes() == 0 ? kDefaultKeyBytes : part.key_bytes();
}

}  // namespace

std::string FieldPath::Text(absl::string_view inner) const {
  std::string text(name);
  if (index >= 0) {
    absl::StrAppend(&text, "[", index, "]");
  }
  if (!inner.empty()) {
    absl::StrAppend(&text, text.empty() ? "" : ".", inner);
  }
  return text;
}

absl::Status CheckPart(const v1::Part& part, const FieldPath& path) {
  if (part.namespace_digest().size() != kDigestBytes) {
    return InvalidField(path.Text("namespace_digest"), "16 bytes");
  }
  if (part.salt().size() > kMaxSaltBytes) {
    return InvalidField(path.Text("salt"), "at most 256 bytes");
  }
  const uint32_t key_bytes = KeyBytesOf(part);
  if (key_bytes < kMinKeyBytes || key_bytes > kMaxKeyBytes) {
    return InvalidField(path.Text("key_bytes"), "16 to 64, or 0 for 32");
  }
  if (part.keys().size() % key_bytes != 0) {
    return InvalidField(path.Text("keys"), "size must be a multiple of key_bytes");
  }
  const size_t keys = part.keys().size() / key_bytes;
  if (keys > kMaxKeysPerCall) {
    return InvalidField(path.Text("keys"), "at most 16384 keys a call");
  }
  if (absl::Status status = CheckRule(part, path); !status.ok()) {
    return status;
  }
  return CheckEndTokens(part, static_cast<uint32_t>(keys), path);
}

absl::Status CheckParts(const google::protobuf::RepeatedPtrField<v1::Part>& parts, uint32_t* keys) {
  if (parts.empty() || parts.size() > static_cast<int>(kMaxPartsPerCall)) {
    return InvalidField("parts", "1 to 64 parts");
  }
  uint32_t total = 0;
  for (int i = 0; i < parts.size(); ++i) {
    if (absl::Status status = CheckPart(parts[i], {"parts", i}); !status.ok()) {
      return status;
    }
    total += KeyCountOf(parts[i]);  // 64 x 16,384 at most: no overflow
  }
  if (total > kMaxKeysPerCall) {
    return InvalidField("parts", "at most 16384 keys a call");
  }
  *keys = total;
  return absl::OkStatus();
}

absl::Status CheckOnlyPart(bool present, const v1::Part& part, uint32_t* keys) {
  if (!present) {
    return InvalidField("part", "required");
  }
  if (absl::Status status = CheckPart(part, {"part"}); !status.ok()) {
    return status;
  }
  *keys = KeyCountOf(part);
  return absl::OkStatus();
}

uint32_t KeyCountOf(const v1::Part& part) {
  return static_cast<uint32_t>(part.keys().size() / KeyBytesOf(part));
}

StorePart TakePart(v1::Part& part) {
  StorePart out;
  TERRACE_CHECK(Digest128::FromBytes(part.namespace_digest(), &out.namespace_digest));
  out.salt = std::move(*part.mutable_salt());
  out.rule = part.rule() == v1::RULE_UNSPECIFIED ? Rule::kPrefix : static_cast<Rule>(part.rule());
  out.key_bytes = KeyBytesOf(part);
  out.keys = std::move(*part.mutable_keys());
  out.first_token = part.first_token();
  out.end_tokens.assign(part.end_tokens().begin(), part.end_tokens().end());
  out.window_tokens = part.window_tokens();
  return out;
}

std::vector<StorePart> TakeParts(google::protobuf::RepeatedPtrField<v1::Part>& parts) {
  std::vector<StorePart> out;
  out.reserve(static_cast<size_t>(parts.size()));
  for (v1::Part& part : parts) {
    out.push_back(TakePart(part));
  }
  return out;
}

absl::Status CheckRegionBlocks(const v1::RegionBlocks& region,
                               uint32_t keys,
                               const FieldPath& path) {
  if (region.region_id() == 0) {
    return InvalidField(path.Text("region_id"), "from 1");
  }
  if (region.block_indexes_size() != static_cast<int>(keys)) {
    return InvalidField(path.Text("block_indexes"), "one a key");
  }
  return absl::OkStatus();
}

RegionBlocks TakeRegionBlocks(const v1::RegionBlocks& region) {
  return {region.region_id(), {region.block_indexes().begin(), region.block_indexes().end()}};
}

absl::Status CheckRequestId(absl::string_view request_id) {
  if (request_id.size() > kMaxRequestIdBytes) {
    return InvalidField("request_id", "at most 64 bytes");
  }
  return absl::OkStatus();
}

absl::Status CheckDigest(absl::string_view bytes, absl::string_view field) {
  return bytes.size() == kDigestBytes ? absl::OkStatus() : InvalidField(field, "16 bytes");
}

Digest128 DigestFrom(const std::string& bytes) {
  Digest128 digest;
  Digest128::FromBytes(bytes, &digest);
  return digest;
}

absl::Status CheckPriority(v1::Priority priority, absl::string_view field) {
  return v1::Priority_IsValid(priority) ? absl::OkStatus() : InvalidField(field, "unknown value");
}

Priority PriorityFrom(v1::Priority priority) {
  return priority == v1::PRIORITY_UNSPECIFIED ? Priority::kNormal : static_cast<Priority>(priority);
}

absl::Status CheckLevel(v1::Level level, Level highest, absl::string_view field) {
  if (!v1::Level_IsValid(level)) {
    return InvalidField(field, "unknown value");
  }
  if (LevelFrom(level) > highest) {
    return NotImplemented(absl::StrCat(
        field, " beyond ", v1::Level_Name(static_cast<v1::Level>(highest)), ", the highest here,"));
  }
  return absl::OkStatus();
}

Level LevelFrom(v1::Level level) {
  return level == v1::LEVEL_UNSPECIFIED ? Level::kDram : static_cast<Level>(level);
}

absl::Duration HoldFrom(uint32_t hold_ms) {
  return std::min(absl::Milliseconds(hold_ms), kMaxHold);
}

}  // namespace terrace
