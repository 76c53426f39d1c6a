#include "client/src/watched_record.h"

#include <cstdint>

#include "client/src/field_reader.h"
#include "client/src/wire_fields.h"

namespace terrace::client {

using protozero::pbf_reader;

const char* WatchedRecord::Keep(std::string_view text) {
  return texts_.emplace_back(text).c_str();
}

bool WatchedRecord::DecodeLabel(std::string_view message) {
  std::string_view key;
  std::string_view value;
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::map_entry::kKey:
        return TakeBytes(reader, &key);
      case wire::map_entry::kValue:
        return TakeBytes(reader, &value);
      default:
        return Skip(reader);
    }
  });
  if (read) {
    labels_.push_back({Keep(key), Keep(value)});
  }
  return read;
}

const char** WatchedRecord::TextOf(uint32_t number) {
  namespace field = wire::namespace_record;
  switch (number) {
    case field::kModel:
      return &record_.model;
    case field::kWeightsRevision:
      return &record_.weights_revision;
    case field::kKvDtype:
      return &record_.kv_dtype;
    case field::kQuantization:
      return &record_.quantization;
    case field::kLayout:
      return &record_.layout;
    case field::kEngineFormat:
      return &record_.engine_format;
    case field::kHashAlgorithm:
      return &record_.hash_algorithm;
    case field::kHashSeed:
      return &record_.hash_seed;
    case field::kGroupKind:
      return &record_.group_kind;
    case field::kParallel:
      return &record_.parallel;
    default:
      return nullptr;
  }
}

bool WatchedRecord::Decode(std::string_view message) {
  namespace field = wire::namespace_record;
  record_ = {};
  record_.struct_bytes = sizeof(record_);
  for (uint32_t number = 1; number <= field::kLabels; ++number) {
    if (const char** text = TextOf(number)) {
      *text = "";
    }
  }
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    std::string_view bytes;
    if (const char** text = TextOf(reader.tag())) {
      const bool taken = TakeBytes(reader, &bytes);
      *text = Keep(bytes);
      return taken;
    }
    switch (reader.tag()) {
      case field::kBlockTokens:
        return TakeNumber(reader, &record_.block_tokens);
      case field::kBlockBytes:
        return TakeNumber(reader, &record_.block_bytes);
      case field::kGroup:
        return TakeNumber(reader, &record_.group);
      case field::kShardCount:
        return TakeNumber(reader, &record_.shard_count);
      case field::kShardRank:
        return TakeNumber(reader, &record_.shard_rank);
      case field::kSharding:
        return TakeNumber(reader, &record_.sharding);
      case field::kKeySuffix:
        if (!TakeBytes(reader, &bytes)) {
          return false;
        }
        record_.key_suffix = reinterpret_cast<const uint8_t*>(Keep(bytes));
        record_.key_suffix_bytes = static_cast<uint32_t>(bytes.size());
        return true;
      case field::kLabels:
        return TakeBytes(reader, &bytes) && DecodeLabel(bytes);
      default:
        return Skip(reader);
    }
  });
  record_.labels = labels_.empty() ? nullptr : labels_.data();
  record_.label_count = static_cast<uint32_t>(labels_.size());
  return read;
}

}  // namespace terrace::client
