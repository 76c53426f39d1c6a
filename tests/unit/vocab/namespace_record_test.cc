#include "tiers/vocab/namespace_record.h"

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

namespace terrace {
namespace {

using testing::HasSubstr;

NamespaceRecord Llama() {
  NamespaceRecord record;
  record.model = "llama";
  record.weights_revision = "r1";
  record.kv_dtype = "bf16";
  record.layout = "blocks/1";
  record.hash_algorithm = "sha256";
  record.block_tokens = 16;
  record.block_bytes = 65536;
  return record;
}

struct Change {
  std::string_view field;
  bool in_family;  // whether the family digest sees the field
  std::function<void(NamespaceRecord&)> apply;
};

// One change a field, in the order of the struct.
const std::vector<Change>& Changes() {
  static const std::vector<Change>* const kChanges = new std::vector<Change>{
      {"model", true, [](NamespaceRecord& r) { r.model = "x"; }},
      {"weights_revision", true, [](NamespaceRecord& r) { r.weights_revision = "x"; }},
      {"kv_dtype", true, [](NamespaceRecord& r) { r.kv_dtype = "x"; }},
      {"quantization", true, [](NamespaceRecord& r) { r.quantization = "x"; }},
      {"layout", false, [](NamespaceRecord& r) { r.layout = "x"; }},
      {"engine_format", true, [](NamespaceRecord& r) { r.engine_format = "x"; }},
      {"hash_algorithm", true, [](NamespaceRecord& r) { r.hash_algorithm = "x"; }},
      {"hash_seed", true, [](NamespaceRecord& r) { r.hash_seed = "x"; }},
      {"block_tokens", false, [](NamespaceRecord& r) { r.block_tokens = 32; }},
      {"block_bytes", false, [](NamespaceRecord& r) { r.block_bytes = 4096; }},
      {"group", false, [](NamespaceRecord& r) { r.group = 1; }},
      {"group_kind", false, [](NamespaceRecord& r) { r.group_kind = "x"; }},
      {"shard_count", true, [](NamespaceRecord& r) { r.shard_count = 2; }},
      {"shard_rank", false, [](NamespaceRecord& r) { r.shard_rank = 1; }},
      {"sharding", true, [](NamespaceRecord& r) { r.sharding = Sharding::kReplicated; }},
      {"parallel", true, [](NamespaceRecord& r) { r.parallel = "x"; }},
      {"key_suffix", false, [](NamespaceRecord& r) { r.key_suffix = "x"; }},
      {"labels", true, [](NamespaceRecord& r) { r.labels["x"] = "y"; }},
  };
  return *kChanges;
}

NamespaceRecord Changed(const Change& change) {
  NamespaceRecord record = Llama();
  change.apply(record);
  return record;
}

// The golden bytes of version 1: whoever changes them orphans everything that is stored.
TEST(NamespaceRecord, EncodesAsItsHeaderSays) {
  NamespaceRecord record = Llama();
  record.key_suffix = std::string("\0\1", 2);
  record.labels = {{"b", "2"}, {"a", "1"}};
  const std::string expected =
      "01"
      "02000000"
      "7431"  // tenant "t1"
      "05000000"
      "6c6c616d61"  // model
      "02000000"
      "7231"  // weights_revision
      "04000000"
      "62663136"  // kv_dtype
      "00000000"  // quantization
      "08000000"
      "626c6f636b732f31"  // layout
      "00000000"          // engine_format
      "06000000"
      "736861323536"      // hash_algorithm
      "00000000"          // hash_seed
      "1000000000000000"  // block_tokens
      "0000010000000000"  // block_bytes
      "0000000000000000"  // group
      "00000000"          // group_kind
      "0100000000000000"  // shard_count
      "0000000000000000"  // shard_rank
      "0100000000000000"  // sharding
      "00000000"          // parallel
      "02000000"
      "0001"      // key_suffix
      "02000000"  // labels
      "01000000"
      "61"
      "01000000"
      "31"
      "01000000"
      "62"
      "01000000"
      "32";
  EXPECT_EQ(absl::BytesToHexString(EncodeRecord(record, "t1")), expected);
}

TEST(NamespaceRecord, DigestIsTheXxh3OfTheEncoding) {
  const std::string bytes = EncodeRecord(Llama(), "t1");
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  EXPECT_EQ(DigestOf(Llama(), "t1"), (Digest128{hash.high64, hash.low64}));
}

TEST(NamespaceRecord, DigestsStayWhatTheyAreOnDisk) {
  EXPECT_EQ(DigestOf(Llama(), "t1").ToHex(), "33b99b80d13bebc3e55a95be9ab24388");
  EXPECT_EQ(FamilyDigestOf(Llama(), "t1").ToHex(), "d48688de926d318c7231722e5c93e9ee");
}

TEST(NamespaceRecord, EveryFieldAndTheTenantChangeTheDigest) {
  std::set<Digest128> digests = {DigestOf(Llama(), "t1"), DigestOf(Llama(), "t2")};
  for (const Change& change : Changes()) {
    EXPECT_TRUE(digests.insert(DigestOf(Changed(change), "t1")).second) << change.field;
  }
  EXPECT_EQ(digests.size(), 2 + Changes().size());
}

TEST(NamespaceRecord, BytesCannotMoveFromOneFieldToTheNext) {
  NamespaceRecord a = Llama();
  NamespaceRecord b = Llama();
  a.model = "ab";
  a.weights_revision = "c";
  b.model = "a";
  b.weights_revision = "bc";
  EXPECT_NE(DigestOf(a, "t1"), DigestOf(b, "t1"));
  EXPECT_NE(DigestOf(a, "t"), DigestOf(a, "ta"));
}

TEST(NamespaceRecord, FamilyDigestSeesExactlyWhatMembersShare) {
  for (const Change& change : Changes()) {
    const bool differs = FamilyDigestOf(Changed(change), "t1") != FamilyDigestOf(Llama(), "t1");
    EXPECT_EQ(differs, change.in_family) << change.field;
  }
  EXPECT_NE(FamilyDigestOf(Llama(), "t2"), FamilyDigestOf(Llama(), "t1"));
}

TEST(NamespaceRecord, FirstDifferenceNamesTheField) {
  EXPECT_EQ(FirstDifference(Llama(), Llama()), "");
  for (const Change& change : Changes()) {
    EXPECT_EQ(FirstDifference(Llama(), Changed(change)), change.field);
    EXPECT_EQ(FirstDifference(Changed(change), Llama()), change.field);
  }
}

TEST(NamespaceRecord, FirstDifferenceNamesTheFirstOfSeveral) {
  NamespaceRecord other = Llama();
  other.labels["a"] = "b";
  other.layout = "other/1";
  EXPECT_EQ(FirstDifference(Llama(), other), "layout");
}

TEST(ValidateRecord, TakesAnOrdinaryRecord) {
  EXPECT_TRUE(ValidateRecord(Llama()).ok());
}

TEST(ValidateRecord, TakesEveryFieldAtItsLimit) {
  NamespaceRecord record = Llama();
  for (std::string* text :
       {&record.model, &record.weights_revision, &record.kv_dtype, &record.quantization,
        &record.layout, &record.engine_format, &record.hash_algorithm, &record.hash_seed,
        &record.group_kind, &record.parallel}) {
    *text = std::string(256, 'x');
  }
  record.block_tokens = 65536;
  record.block_bytes = uint64_t{64} << 20;
  record.group = 255;
  record.shard_count = 4096;
  record.shard_rank = 4095;
  record.key_suffix = std::string(16, '\xff');
  for (int i = 0; i < 16; ++i) {
    record.labels[std::string(255, 'k') + static_cast<char>('a' + i)] = std::string(256, 'v');
  }
  EXPECT_EQ(ValidateRecord(record), absl::OkStatus());
  record.block_tokens = 0;  // not token-aligned
  record.block_bytes = 1;
  EXPECT_EQ(ValidateRecord(record), absl::OkStatus());
}

struct Refusal {
  std::string_view name;
  std::string_view field;
  std::string_view limit;
  std::function<void(NamespaceRecord&)> apply;
};

const std::vector<Refusal>& Refusals() {
  const auto too_long = [](std::string NamespaceRecord::*text) {
    return [text](NamespaceRecord& r) { r.*text = std::string(257, 'x'); };
  };
  const auto empty = [](std::string NamespaceRecord::*text) {
    return [text](NamespaceRecord& r) { (r.*text).clear(); };
  };
  static const std::vector<Refusal>* const kRefusals = new std::vector<Refusal>{
      {"ModelMissing", "model", "required", empty(&NamespaceRecord::model)},
      {"WeightsRevisionMissing", "weights_revision", "required",
       empty(&NamespaceRecord::weights_revision)},
      {"KvDtypeMissing", "kv_dtype", "required", empty(&NamespaceRecord::kv_dtype)},
      {"LayoutMissing", "layout", "required", empty(&NamespaceRecord::layout)},
      {"HashAlgorithmMissing", "hash_algorithm", "required",
       empty(&NamespaceRecord::hash_algorithm)},
      {"ModelTooLong", "model", "256", too_long(&NamespaceRecord::model)},
      {"WeightsRevisionTooLong", "weights_revision", "256",
       too_long(&NamespaceRecord::weights_revision)},
      {"KvDtypeTooLong", "kv_dtype", "256", too_long(&NamespaceRecord::kv_dtype)},
      {"QuantizationTooLong", "quantization", "256", too_long(&NamespaceRecord::quantization)},
      {"LayoutTooLong", "layout", "256", too_long(&NamespaceRecord::layout)},
      {"EngineFormatTooLong", "engine_format", "256", too_long(&NamespaceRecord::engine_format)},
      {"HashAlgorithmTooLong", "hash_algorithm", "256", too_long(&NamespaceRecord::hash_algorithm)},
      {"HashSeedTooLong", "hash_seed", "256", too_long(&NamespaceRecord::hash_seed)},
      {"GroupKindTooLong", "group_kind", "256", too_long(&NamespaceRecord::group_kind)},
      {"ParallelTooLong", "parallel", "256", too_long(&NamespaceRecord::parallel)},
      {"KeySuffixTooLong", "key_suffix", "16",
       [](NamespaceRecord& r) { r.key_suffix = std::string(17, 'x'); }},
      {"BlockTokensTooMany", "block_tokens", "65536",
       [](NamespaceRecord& r) { r.block_tokens = 65537; }},
      {"BlockBytesZero", "block_bytes", "1 to 67108864",
       [](NamespaceRecord& r) { r.block_bytes = 0; }},
      {"BlockBytesTooMany", "block_bytes", "67108864",
       [](NamespaceRecord& r) { r.block_bytes = (64 << 20) + 1; }},
      {"GroupTooLarge", "group", "255", [](NamespaceRecord& r) { r.group = 256; }},
      {"ShardCountZero", "shard_count", "1 to 4096", [](NamespaceRecord& r) { r.shard_count = 0; }},
      {"ShardCountTooLarge", "shard_count", "4096",
       [](NamespaceRecord& r) { r.shard_count = 4097; }},
      {"ShardRankBeyondCount", "shard_rank", "shard_count - 1",
       [](NamespaceRecord& r) { r.shard_rank = 1; }},
      {"CanonicalWithRank", "shard_rank", "0 when",
       [](NamespaceRecord& r) {
         r.sharding = Sharding::kCanonical;
         r.shard_count = 4;
         r.shard_rank = 1;
       }},
      {"ReplicatedWithRank", "shard_rank", "0 when",
       [](NamespaceRecord& r) {
         r.sharding = Sharding::kReplicated;
         r.shard_count = 4;
         r.shard_rank = 1;
       }},
      {"ShardingUnknown", "sharding", "sharded, canonical or replicated",
       [](NamespaceRecord& r) { r.sharding = static_cast<Sharding>(9); }},
      {"LabelsTooMany", "labels", "16",
       [](NamespaceRecord& r) {
         for (char c = 'a'; c < 'a' + 17; ++c) {
           r.labels[std::string(1, c)] = "";
         }
       }},
      {"LabelKeyEmpty", "labels", "1 to 256", [](NamespaceRecord& r) { r.labels[""] = "v"; }},
      {"LabelKeyTooLong", "labels", "256",
       [](NamespaceRecord& r) { r.labels[std::string(257, 'k')] = "v"; }},
      {"LabelValueTooLong", "labels", "256",
       [](NamespaceRecord& r) { r.labels["k"] = std::string(257, 'v'); }},
      {"LabelNotUtf8", "labels", "UTF-8", [](NamespaceRecord& r) { r.labels["k"] = "\xff"; }},
  };
  return *kRefusals;
}

class RefusedRecord : public testing::TestWithParam<size_t> {};

TEST_P(RefusedRecord, IsInvalidArgumentNamingFieldAndLimit) {
  const Refusal& refusal = Refusals()[GetParam()];
  NamespaceRecord record = Llama();
  refusal.apply(record);
  const absl::Status status = ValidateRecord(record);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_EQ(message.rfind(std::string(refusal.field) + ":", 0), 0U) << message;
  EXPECT_THAT(message, HasSubstr(std::string(refusal.limit)));
}

INSTANTIATE_TEST_SUITE_P(All,
                         RefusedRecord,
                         testing::Range(size_t{0}, Refusals().size()),
                         [](const auto& instance) {
                           return std::string(Refusals()[instance.param].name);
                         });

}  // namespace
}  // namespace terrace
