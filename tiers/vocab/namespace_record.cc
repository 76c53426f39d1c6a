// Canonical encoding, digests and limits of a namespace record.
#include "tiers/vocab/namespace_record.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <xxhash.h>

#include "tiers/vocab/utf8.h"

namespace terrace {
namespace {

constexpr char kEncodingVersion = 1;
constexpr size_t kMaxStringBytes = 256;
constexpr size_t kMaxLabels = 16;
constexpr size_t kMaxKeySuffixBytes = 16;
constexpr uint32_t kMaxBlockTokens = 65536;
constexpr uint32_t kMaxGroup = 255;
constexpr uint32_t kMaxShards = 4096;

// Which fields an encoding has.
enum class Scope : uint8_t { kNamespace, kFamily };

class Encoder {
 public:
  Encoder() { out_.push_back(kEncodingVersion); }

  void Integer(uint64_t value) { LittleEndian(value, sizeof(uint64_t)); }
  void Bytes(std::string_view bytes) {
    LittleEndian(bytes.size(), sizeof(uint32_t));
    out_.append(bytes);
  }
  void Count(size_t count) { LittleEndian(count, sizeof(uint32_t)); }
  [[nodiscard]] std::string Take() { return std::move(out_); }

 private:
  void LittleEndian(uint64_t value, size_t width) {
    for (size_t i = 0; i < width; ++i) {
      out_.push_back(static_cast<char>(value >> (8 * i)));
    }
  }

  std::string out_;
};

std::string Encode(const NamespaceRecord& record, std::string_view tenant, Scope scope) {
  const bool all = scope == Scope::kNamespace;
  Encoder encoder;
  encoder.Bytes(tenant);
  encoder.Bytes(record.model);
  encoder.Bytes(record.weights_revision);
  encoder.Bytes(record.kv_dtype);
  encoder.Bytes(record.quantization);
  if (all) {
    encoder.Bytes(record.layout);
  }
  encoder.Bytes(record.engine_format);
  encoder.Bytes(record.hash_algorithm);
  encoder.Bytes(record.hash_seed);
  if (all) {
    encoder.Integer(record.block_tokens);
    encoder.Integer(record.block_bytes);
    encoder.Integer(record.group);
    encoder.Bytes(record.group_kind);
  }
  encoder.Integer(record.shard_count);
  if (all) {
    encoder.Integer(record.shard_rank);
  }
  encoder.Integer(static_cast<uint64_t>(record.sharding));
  encoder.Bytes(record.parallel);
  if (all) {
    encoder.Bytes(record.key_suffix);
  }
  encoder.Count(record.labels.size());
  for (const auto& [key, value] : record.labels) {
    encoder.Bytes(key);
    encoder.Bytes(value);
  }
  return encoder.Take();
}

// What an Encoder wrote. Behind the end everything is empty, and not ok.
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : bytes_(bytes) {
    ok_ = !bytes_.empty() && bytes_.front() == kEncodingVersion;
    at_ = 1;
  }

  uint64_t Integer() { return LittleEndian(sizeof(uint64_t)); }
  uint32_t Count() { return static_cast<uint32_t>(LittleEndian(sizeof(uint32_t))); }
  std::string Bytes() {
    const uint32_t size = Count();
    ok_ = ok_ && size <= bytes_.size() - at_;
    if (!ok_) {
      return "";
    }
    at_ += size;
    return std::string(bytes_.substr(at_ - size, size));
  }
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  uint64_t LittleEndian(size_t width) {
    ok_ = ok_ && width <= bytes_.size() - at_;
    uint64_t value = 0;
    for (size_t i = 0; ok_ && i < width; ++i) {
      value |= uint64_t{static_cast<unsigned char>(bytes_[at_++])} << (8 * i);
    }
    return value;
  }

  const std::string_view bytes_;
  size_t at_ = 0;
  bool ok_ = false;
};

Digest128 Hash(std::string_view bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

absl::Status Refuse(std::string_view field, std::string_view limit) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(field), ": ", std::string(limit)));
}

absl::Status CheckText(std::string_view field, std::string_view value) {
  if (value.size() > kMaxStringBytes) {
    return Refuse(field, absl::StrCat("at most ", kMaxStringBytes, " bytes"));
  }
  if (!IsUtf8(value)) {
    return Refuse(field, "must be UTF-8");
  }
  return absl::OkStatus();
}

enum class Presence : uint8_t { kOptional, kRequired };

struct TextField {
  std::string_view name;
  std::string_view value;
  Presence presence;
};

absl::Status CheckTexts(const NamespaceRecord& record) {
  const TextField fields[] = {
      {"model", record.model, Presence::kRequired},
      {"weights_revision", record.weights_revision, Presence::kRequired},
      {"kv_dtype", record.kv_dtype, Presence::kRequired},
      {"quantization", record.quantization, Presence::kOptional},
      {"layout", record.layout, Presence::kRequired},
      {"engine_format", record.engine_format, Presence::kOptional},
      {"hash_algorithm", record.hash_algorithm, Presence::kRequired},
      {"hash_seed", record.hash_seed, Presence::kOptional},
      {"group_kind", record.group_kind, Presence::kOptional},
      {"parallel", record.parallel, Presence::kOptional},
  };
  for (const TextField& field : fields) {
    if (field.presence == Presence::kRequired && field.value.empty()) {
      return Refuse(field.name, "required, 1 to 256 bytes");
    }
    if (absl::Status status = CheckText(field.name, field.value); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLabels(const NamespaceRecord& record) {
  if (record.labels.size() > kMaxLabels) {
    return Refuse("labels", absl::StrCat("at most ", kMaxLabels, " entries"));
  }
  for (const auto& [key, value] : record.labels) {
    if (key.empty()) {
      return Refuse("labels", "a label's key has 1 to 256 bytes");
    }
    for (const std::string_view text : {std::string_view(key), std::string_view(value)}) {
      if (absl::Status status = CheckText("labels", text); !status.ok()) {
        return status;
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSharding(const NamespaceRecord& record) {
  if (record.shard_count < 1 || record.shard_count > kMaxShards) {
    return Refuse("shard_count", absl::StrCat("1 to ", kMaxShards));
  }
  switch (record.sharding) {
    case Sharding::kSharded:
      if (record.shard_rank >= record.shard_count) {
        return Refuse("shard_rank", "0 to shard_count - 1");
      }
      return absl::OkStatus();
    case Sharding::kCanonical:
    case Sharding::kReplicated:
      if (record.shard_rank != 0) {
        return Refuse("shard_rank", "0 when sharding is canonical or replicated");
      }
      return absl::OkStatus();
  }
  return Refuse("sharding", "sharded, canonical or replicated");
}

}  // namespace

absl::Status ValidateRecord(const NamespaceRecord& record) {
  if (absl::Status status = CheckTexts(record); !status.ok()) {
    return status;
  }
  if (record.block_tokens > kMaxBlockTokens) {
    return Refuse("block_tokens", absl::StrCat("0 to ", kMaxBlockTokens));
  }
  if (record.block_bytes < 1 || record.block_bytes > kMaxPayloadBytes) {
    return Refuse("block_bytes", absl::StrCat("1 to ", kMaxPayloadBytes));
  }
  if (record.group > kMaxGroup) {
    return Refuse("group", absl::StrCat("0 to ", kMaxGroup));
  }
  if (absl::Status status = CheckSharding(record); !status.ok()) {
    return status;
  }
  if (record.key_suffix.size() > kMaxKeySuffixBytes) {
    return Refuse("key_suffix", absl::StrCat("at most ", kMaxKeySuffixBytes, " bytes"));
  }
  return CheckLabels(record);
}

bool IsPrivate(const NamespaceRecord& record) {
  return record.labels.contains(std::string(kPrivateLabel));
}

std::string EncodeRecord(const NamespaceRecord& record, std::string_view tenant) {
  return Encode(record, tenant, Scope::kNamespace);
}

Digest128 DigestOf(const NamespaceRecord& record, std::string_view tenant) {
  return Hash(EncodeRecord(record, tenant));
}

Digest128 FamilyDigestOf(const NamespaceRecord& record, std::string_view tenant) {
  return Hash(Encode(record, tenant, Scope::kFamily));
}

std::string_view FirstDifference(const NamespaceRecord& a, const NamespaceRecord& b) {
  struct Comparison {
    std::string_view name;
    bool equal;
  };
  const Comparison comparisons[] = {
      {"model", a.model == b.model},
      {"weights_revision", a.weights_revision == b.weights_revision},
      {"kv_dtype", a.kv_dtype == b.kv_dtype},
      {"quantization", a.quantization == b.quantization},
      {"layout", a.layout == b.layout},
      {"engine_format", a.engine_format == b.engine_format},
      {"hash_algorithm", a.hash_algorithm == b.hash_algorithm},
      {"hash_seed", a.hash_seed == b.hash_seed},
      {"block_tokens", a.block_tokens == b.block_tokens},
      {"block_bytes", a.block_bytes == b.block_bytes},
      {"group", a.group == b.group},
      {"group_kind", a.group_kind == b.group_kind},
      {"shard_count", a.shard_count == b.shard_count},
      {"shard_rank", a.shard_rank == b.shard_rank},
      {"sharding", a.sharding == b.sharding},
      {"parallel", a.parallel == b.parallel},
      {"key_suffix", a.key_suffix == b.key_suffix},
      {"labels", a.labels == b.labels},
  };
  for (const Comparison& comparison : comparisons) {
    if (!comparison.equal) {
      return comparison.name;
    }
  }
  return "";
}

absl::StatusOr<OwnedRecord> DecodeRecord(std::string_view encoded) {
  Decoder decoder(encoded);
  OwnedRecord out;
  out.tenant = decoder.Bytes();
  NamespaceRecord& record = out.record;
  for (std::string* text :
       {&record.model, &record.weights_revision, &record.kv_dtype, &record.quantization,
        &record.layout, &record.engine_format, &record.hash_algorithm, &record.hash_seed}) {
    *text = decoder.Bytes();
  }
  record.block_tokens = static_cast<uint32_t>(decoder.Integer());
  record.block_bytes = decoder.Integer();
  record.group = static_cast<uint32_t>(decoder.Integer());
  record.group_kind = decoder.Bytes();
  record.shard_count = static_cast<uint32_t>(decoder.Integer());
  record.shard_rank = static_cast<uint32_t>(decoder.Integer());
  record.sharding = static_cast<Sharding>(decoder.Integer());
  record.parallel = decoder.Bytes();
  record.key_suffix = decoder.Bytes();
  const uint32_t labels = decoder.Count();
  for (uint32_t i = 0; i < labels && decoder.ok(); ++i) {
    std::string key = decoder.Bytes();
    record.labels[std::move(key)] = decoder.Bytes();
  }
  // Whatever was cut short, too long or out of range above does not come out the same again.
  if (!decoder.ok() || !ValidateRecord(record).ok() ||
      EncodeRecord(record, out.tenant) != encoded) {
    return absl::InvalidArgumentError("not the canonical encoding of a namespace");
  }
  return out;
}

}  // namespace terrace
