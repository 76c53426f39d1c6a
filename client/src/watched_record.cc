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

bool WatchedRecord::Decode(std::string_view message) {
  namespace field = wire::namespace_record;
  record_ = {};
  record_.struct_bytes = sizeof(record_);
  for (const char** text :
       {&record_.model, &record_.weights_revision, &record_.kv_dtype, &record_.quantization,
        &record_.layout, &record_.engine_format, &record_.hash_algorithm, &record_.hash_seed,
        &record_.group_kind, &record_.parallel}) {
    *text = "";
  }
  const auto take_text = [this](pbf_reader& reader, const char** out) {
    std::string_view text;
    if (!TakeBytes(reader, &text)) {
      return false;
    }
    *out = Keep(text);
    return true;
  };
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case field::kModel:
        return take_text(reader, &record_.model);
      case field::kWeightsRevision:
        return take_text(reader, &record_.weights_revision);
      case field::kKvDtype:
        return take_text(reader, &record_.kv_dtype);
      case field::kQuantization:
        return take_text(reader, &record_.quantization);
      case field::kLayout:
        return take_text(reader, &record_.layout);
      case field::kEngineFormat:
        return take_text(reader, &record_.engine_format);
      case field::kHashAlgorithm:
        return take_text(reader, &record_.hash_algorithm);
      case field::kHashSeed:
        return take_text(reader, &record_.hash_seed);
      case field::kGroupKind:
        return take_text(reader, &record_.group_kind);
      case field::kParallel:
        return take_text(reader, &record_.parallel);
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
      case field::kKeySuffix: {
        std::string_view suffix;
        if (!TakeBytes(reader, &suffix)) {
          return false;
        }
        record_.key_suffix = reinterpret_cast<const uint8_t*>(Keep(suffix));
        record_.key_suffix_bytes = static_cast<uint32_t>(suffix.size());
        return true;
      }
      case field::kLabels: {
        std::string_view label;
        return TakeBytes(reader, &label) && DecodeLabel(label);
      }
      default:
        return Skip(reader);
    }
  });
  record_.labels = labels_.empty() ? nullptr : labels_.data();
  record_.label_count = static_cast<uint32_t>(labels_.size());
  return read;
}

}  // namespace terrace::client
