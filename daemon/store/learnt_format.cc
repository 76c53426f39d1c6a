#include "daemon/store/learnt_format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace terrace {
namespace {

constexpr absl::string_view kMagic = "TRLEARNT";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeadBytes = 16;
constexpr size_t kSumBytes = 8;
constexpr size_t kEntryHeadBytes = 14;
constexpr size_t kMaxAlias = 0xFFFF;

template <typename Word>
void Put(Word word, std::string* out) {
  for (size_t i = 0; i < sizeof(Word); ++i) {
    out->push_back(static_cast<char>(static_cast<unsigned char>(word >> (8 * i))));
  }
}

// Takes from the front of a text; false: it is too short.
class In {
 public:
  explicit In(absl::string_view text) : text_(text) {}
  template <typename Word>
  bool Get(Word* out) {
    absl::string_view bytes;
    if (!Get(sizeof(Word), &bytes)) {
      return false;
    }
    uint64_t word = 0;
    for (size_t i = 0; i < sizeof(Word); ++i) {
      word |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    }
    *out = static_cast<Word>(word);
    return true;
  }
  bool Get(size_t bytes, absl::string_view* out) {
    if (text_.size() < bytes) {
      return false;
    }
    *out = text_.substr(0, bytes);
    text_.remove_prefix(bytes);
    return true;
  }
  [[nodiscard]] bool done() const { return text_.empty(); }

 private:
  absl::string_view text_;
};

uint64_t SumOf(absl::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

bool GetPolicy(In& in, LearntPolicy* out) {
  uint16_t alias_bytes = 0;
  uint32_t bytes = 0;
  absl::string_view alias;
  absl::string_view learnt;
  if (!in.Get(&alias_bytes) || !in.Get(alias_bytes, &alias) || !in.Get(&out->slot_bytes) ||
      !in.Get(&bytes) || !in.Get(bytes, &learnt)) {
    return false;
  }
  out->tenant = std::string(alias);
  out->bytes = std::string(learnt);
  return true;
}

}  // namespace

std::string EncodeLearnt(absl::Span<const LearntPolicy> policies) {
  std::string entries;
  uint32_t count = 0;
  for (const LearntPolicy& policy : policies) {
    const uint64_t bytes = kEntryHeadBytes + policy.tenant.size() + policy.bytes.size();
    if (count == kMaxLearntPolicies || policy.tenant.size() > kMaxAlias ||
        kHeadBytes + entries.size() + bytes + kSumBytes > kMaxLearntBytes) {
      break;
    }
    Put(static_cast<uint16_t>(policy.tenant.size()), &entries);
    entries += policy.tenant;
    Put(policy.slot_bytes, &entries);
    Put(static_cast<uint32_t>(policy.bytes.size()), &entries);
    entries += policy.bytes;
    ++count;
  }
  std::string out(kMagic);
  Put(kVersion, &out);
  Put(count, &out);
  out += entries;
  Put(SumOf(out), &out);
  return out;
}

absl::StatusOr<std::vector<LearntPolicy>> DecodeLearnt(absl::string_view bytes) {
  if (bytes.size() < kHeadBytes + kSumBytes || bytes.size() > kMaxLearntBytes ||
      bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError("is no such file");
  }
  In head(bytes.substr(kMagic.size()));
  uint32_t version = 0;
  uint32_t count = 0;
  if (!head.Get(&version) || version != kVersion) {
    return absl::FailedPreconditionError("is of another version");
  }
  uint64_t sum = 0;
  const absl::string_view summed = bytes.substr(0, bytes.size() - kSumBytes);
  if (!In(bytes.substr(summed.size())).Get(&sum) || sum != SumOf(summed)) {
    return absl::DataLossError("is damaged");
  }
  In in(summed.substr(kMagic.size() + sizeof(version)));
  if (!in.Get(&count) || count > kMaxLearntPolicies) {
    return absl::DataLossError("names too many policies");
  }
  std::vector<LearntPolicy> policies(count);
  for (LearntPolicy& policy : policies) {
    if (!GetPolicy(in, &policy)) {
      return absl::DataLossError("is too short for its entries");
    }
  }
  if (!in.done()) {
    return absl::DataLossError("is too long for its entries");
  }
  return policies;
}

}  // namespace terrace
