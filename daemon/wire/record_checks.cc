// The namespace record's way in and out; see part_checks.h.
#include <array>

#include "absl/strings/str_cat.h"
#include "daemon/wire/call_status.h"
#include "daemon/wire/part_checks.h"

namespace terrace {
namespace {

constexpr size_t kMaxTextBytes = 256;
constexpr size_t kMaxKeySuffixBytes = 16;
constexpr size_t kMaxLabels = 16;

}  // namespace

absl::Status CheckRecord(const v1::NamespaceRecord& record) {
  struct Text {
    absl::string_view name;
    const std::string& value;
  };
  const std::array<Text, 10> texts{{{"model", record.model()},
                                    {"weights_revision", record.weights_revision()},
                                    {"kv_dtype", record.kv_dtype()},
                                    {"quantization", record.quantization()},
                                    {"layout", record.layout()},
                                    {"engine_format", record.engine_format()},
                                    {"hash_algorithm", record.hash_algorithm()},
                                    {"hash_seed", record.hash_seed()},
                                    {"group_kind", record.group_kind()},
                                    {"parallel", record.parallel()}}};
  for (const Text& text : texts) {
    if (text.value.size() > kMaxTextBytes) {
      return InvalidField(absl::StrCat("record.", text.name), "at most 256 bytes");
    }
  }
  if (record.key_suffix().size() > kMaxKeySuffixBytes) {
    return InvalidField("record.key_suffix", "at most 16 bytes");
  }
  if (record.labels().size() > kMaxLabels) {
    return InvalidField("record.labels", "at most 16 entries");
  }
  for (const auto& [key, value] : record.labels()) {
    if (key.size() > kMaxTextBytes || value.size() > kMaxTextBytes) {
      return InvalidField("record.labels", "at most 256 bytes each");
    }
  }
  if (!v1::Sharding_IsValid(record.sharding())) {
    return InvalidField("record.sharding", "unknown value");
  }
  return absl::OkStatus();
}

NamespaceRecord RecordFrom(const v1::NamespaceRecord& record) {
  NamespaceRecord out;
  out.model = record.model();
  out.weights_revision = record.weights_revision();
  out.kv_dtype = record.kv_dtype();
  out.quantization = record.quantization();
  out.layout = record.layout();
  out.engine_format = record.engine_format();
  out.hash_algorithm = record.hash_algorithm();
  out.hash_seed = record.hash_seed();
  out.block_tokens = record.block_tokens();
  out.block_bytes = record.block_bytes();
  out.group = record.group();
  out.group_kind = record.group_kind();
  out.shard_count = record.shard_count() == 0 ? 1 : record.shard_count();
  out.shard_rank = record.shard_rank();
  out.sharding = record.sharding() == v1::SHARDING_UNSPECIFIED
                     ? Sharding::kSharded
                     : static_cast<Sharding>(record.sharding());
  out.parallel = record.parallel();
  out.key_suffix = record.key_suffix();
  out.labels.insert(record.labels().begin(), record.labels().end());
  return out;
}

void FillRecord(const NamespaceRecord& record, v1::NamespaceRecord* out) {
  out->set_model(record.model);
  out->set_weights_revision(record.weights_revision);
  out->set_kv_dtype(record.kv_dtype);
  out->set_quantization(record.quantization);
  out->set_layout(record.layout);
  out->set_engine_format(record.engine_format);
  out->set_hash_algorithm(record.hash_algorithm);
  out->set_hash_seed(record.hash_seed);
  out->set_block_tokens(record.block_tokens);
  out->set_block_bytes(record.block_bytes);
  out->set_group(record.group);
  out->set_group_kind(record.group_kind);
  out->set_shard_count(record.shard_count);
  out->set_shard_rank(record.shard_rank);
  out->set_sharding(static_cast<v1::Sharding>(record.sharding));
  out->set_parallel(record.parallel);
  out->set_key_suffix(record.key_suffix);
  out->mutable_labels()->insert(record.labels.begin(), record.labels.end());
}

}  // namespace terrace
