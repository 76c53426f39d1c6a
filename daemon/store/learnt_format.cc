#include "daemon/store/learnt_format.h"

#include <string_view>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr std::string_view kMagic = "TRLEARNT";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeadBytes = 16;
constexpr size_t kSumBytes = 8;
constexpr size_t kEntryHeadBytes = 14;
constexpr size_t kMaxAlias = 0xFFFF;

uint64_t SumOf(absl::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

LearntPolicy ReadPolicy(FieldReader& in) {
  LearntPolicy policy;
  policy.tenant = std::string(in.Bytes(in.U16()));
  policy.slot_bytes = in.U64();
  policy.bytes = std::string(in.Bytes(in.U32()));
  return policy;
}

}  // namespace

std::string EncodeLearnt(absl::Span<const LearntPolicy> policies) {
  uint64_t bytes = kHeadBytes + kSumBytes;
  uint32_t count = 0;
  for (const LearntPolicy& policy : policies) {
    const uint64_t with = bytes + kEntryHeadBytes + policy.tenant.size() + policy.bytes.size();
    if (count == kMaxLearntPolicies || policy.tenant.size() > kMaxAlias || with > kMaxLearntBytes) {
      break;
    }
    bytes = with;
    ++count;
  }
  std::string text(bytes, '\0');
  FieldWriter out(absl::MakeSpan(text.data(), text.size()));
  out.Bytes(kMagic);
  out.U32(kVersion);
  out.U32(count);
  for (const LearntPolicy& policy : policies.first(count)) {
    out.U16(static_cast<uint16_t>(policy.tenant.size()));
    out.Bytes(policy.tenant);
    out.U64(policy.slot_bytes);
    out.U32(static_cast<uint32_t>(policy.bytes.size()));
    out.Bytes(policy.bytes);
  }
  out.U64(SumOf({text.data(), bytes - kSumBytes}));
  return text;
}

absl::StatusOr<std::vector<LearntPolicy>> DecodeLearnt(absl::string_view bytes) {
  if (bytes.size() < kHeadBytes + kSumBytes || bytes.size() > kMaxLearntBytes) {
    return absl::DataLossError("is no such file");
  }
  const absl::string_view summed = bytes.substr(0, bytes.size() - kSumBytes);
  FieldReader in(absl::MakeConstSpan(summed.data(), summed.size()));
  FieldReader sum(absl::MakeConstSpan(bytes.data() + summed.size(), kSumBytes));
  if (in.Bytes(kMagic.size()) != kMagic) {
    return absl::DataLossError("is no such file");
  }
  if (in.U32() != kVersion) {
    return absl::FailedPreconditionError("is of another version");
  }
  if (sum.U64() != SumOf(summed)) {
    return absl::DataLossError("is damaged");
  }
  const uint32_t count = in.U32();
  if (count > kMaxLearntPolicies) {
    return absl::DataLossError("names too many policies");
  }
  std::vector<LearntPolicy> policies;
  for (uint32_t i = 0; i < count; ++i) {
    policies.push_back(ReadPolicy(in));
  }
  if (!in.ok()) {
    return absl::DataLossError("is too short for its entries");
  }
  if (in.position() != summed.size()) {
    return absl::DataLossError("is too long for its entries");
  }
  return policies;
}

}  // namespace terrace
