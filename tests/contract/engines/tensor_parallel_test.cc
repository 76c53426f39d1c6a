// Tensor-parallel ranks over the contract: one prompt, the same keys, a shard of the bytes each.
#include <gtest/gtest.h>

#include "tests/contract/engines/contract_kit.h"

namespace terrace::contract {
namespace {

class TensorParallel : public testing::Test {
 protected:
  static constexpr uint32_t kRanks = 4;
  static constexpr uint64_t kShardBytes = 2048;

  TensorParallel() {
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      ranks_.push_back(EngineProcess::Start(service_, "engine"));
      digests_.push_back(ranks_.back().Open(ShardRecord(rank)));
    }
  }

  static v1::NamespaceRecord ShardRecord(uint32_t rank) {
    v1::NamespaceRecord record = PlainRecord();
    record.set_shard_count(kRanks);
    record.set_shard_rank(rank);
    record.set_block_bytes(kShardBytes);
    return record;
  }

  // One probe for the whole request, a part for each rank.
  [[nodiscard]] v1::ProbeReply ProbeAll(const std::vector<std::string>& keys,
                                        uint32_t hold_ms = 0) {
    v1::ProbeRequest request;
    for (const std::string& digest : digests_) {
      *request.add_parts() = PartOf(digest, keys);
    }
    request.set_hold_ms(hold_ms);
    v1::ProbeReply reply;
    EXPECT_TRUE(service_.Probe(ranks_[0].caller, request, &reply).ok());
    return reply;
  }

  std::string GetInline(const EngineProcess& rank,
                        const std::string& digest,
                        const std::string& key) {
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest, {key});
    v1::GetReply reply;
    EXPECT_TRUE(service_.Get(rank.caller, request, &reply).ok());
    return reply.payload();
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{clock_, {.dram_bytes = uint64_t{40} * 8192}};
  std::vector<EngineProcess> ranks_;
  std::vector<std::string> digests_;
};

TEST_F(TensorParallel, RanksAreNamespacesOfOneFamily) {
  v1::OpenNamespaceRequest request;
  std::set<std::string> digests;
  std::set<std::string> families;
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    *request.mutable_record() = ShardRecord(rank);
    v1::OpenNamespaceReply reply;
    ASSERT_TRUE(service_.OpenNamespace(ranks_[rank].caller, request, &reply).ok());
    digests.insert(reply.namespace_digest());
    families.insert(reply.family_digest());
  }
  EXPECT_EQ(digests.size(), kRanks);
  EXPECT_EQ(families.size(), 1U);
}

TEST_F(TensorParallel, ARankBehindTheOthersLimitsTheBoundary) {
  const std::vector<std::string> keys = Chain("prompt", 4);
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    const uint32_t stored = rank == 2 ? 2 : 4;
    ASSERT_TRUE(
        ranks_[rank].PutChain(digests_[rank], {keys.begin(), keys.begin() + stored}, kShardBytes));
  }
  const v1::ProbeReply reply = ProbeAll(keys);
  EXPECT_EQ(reply.boundary_tokens(), 2U * 16);
  EXPECT_EQ(reply.part_hits(1), 4U);
  EXPECT_EQ(reply.part_hits(2), 2U);
  EXPECT_EQ(reply.part_boundary_keys(1), 2U);
}

TEST_F(TensorParallel, TheSameKeyHasAnotherShardOnEachRank) {
  const std::string key = KeyOf("prompt", 0);
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    ASSERT_TRUE(ranks_[rank].PutChain(digests_[rank], {key}, kShardBytes));
  }
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(GetInline(ranks_[rank], digests_[rank], key),
              PayloadOf(digests_[rank], key, kShardBytes));
  }
}

TEST_F(TensorParallel, AHoldOfOneProcessServesTheGetsOfAllRanks) {
  const std::vector<std::string> keys = Chain("prompt", 2);
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    ASSERT_TRUE(ranks_[rank].PutChain(digests_[rank], keys, kShardBytes));
  }
  const v1::ProbeReply probe = ProbeAll(keys, 1000);
  const std::string other = ranks_[0].Open(PlainRecord());
  for (int i = 0; i < 12; ++i) {
    ranks_[0].PutChain(other, Chain("flood" + std::to_string(i), 4), 4096);
  }
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    v1::GetRequest request;
    *request.add_parts() = PartOf(digests_[rank], keys);
    request.set_hold_id(probe.hold_id());
    v1::GetReply reply;
    ASSERT_TRUE(service_.Get(ranks_[rank].caller, request, &reply).ok());
    EXPECT_EQ(reply.outcomes(), std::string(2, static_cast<char>(v1::GET_OUTCOME_OK)))
        << "rank " << rank;
  }
}

TEST_F(TensorParallel, ShardsOfOneKeyAreEvictedTogether) {
  const std::vector<std::string> keys = Chain("old", 2);
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    ASSERT_TRUE(ranks_[rank].PutChain(digests_[rank], keys, kShardBytes));
  }
  const std::string other = ranks_[0].Open(PlainRecord());
  const uint32_t room = 40 - kRanks * 2;
  ASSERT_TRUE(ranks_[0].PutChain(other, Chain("flood", room), 4096));
  ASSERT_EQ(service_.block_count(), 40U) << "full, nothing evicted yet";
  ASSERT_TRUE(ranks_[0].PutChain(other, {KeyOf("one more", 0)}, 4096));
  EXPECT_EQ(service_.block_count(), 40U - kRanks + 1);
  const v1::ProbeReply reply = ProbeAll(keys);
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(reply.part_hits(static_cast<int>(rank)), 1U)
        << "the end of the chain went, on every rank";
  }
}

TEST_F(TensorParallel, ReplicatedBytesAreStoredOnceForAllRanks) {
  v1::NamespaceRecord record = PlainRecord();
  record.set_sharding(v1::SHARDING_REPLICATED);
  record.set_shard_count(kRanks);
  std::vector<std::string> digests;
  for (const EngineProcess& rank : ranks_) {
    digests.push_back(rank.Open(record));
  }
  const std::string key = KeyOf("mla", 0);
  const size_t before = service_.block_count();
  for (const EngineProcess& rank : ranks_) {
    EXPECT_TRUE(rank.PutChain(digests[0], {key}, 8192))
        << "stored by the first, a duplicate for the rest";
  }
  EXPECT_EQ(service_.block_count(), before + 1);
  for (size_t rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(GetInline(ranks_[rank], digests[rank], key), PayloadOf(digests[0], key, 8192));
  }
}

TEST_F(TensorParallel, AReplicatedNamespaceHasNoRank) {
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = ShardRecord(1);
  request.mutable_record()->set_sharding(v1::SHARDING_REPLICATED);
  v1::OpenNamespaceReply reply;
  EXPECT_EQ(service_.OpenNamespace(ranks_[0].caller, request, &reply).code(),
            absl::StatusCode::kInvalidArgument);
}

// A probe over all ranks costs ranks x keys of the call's 16,384: what a wide engine has to split.
TEST_F(TensorParallel, AProbeOverAllRanksIsLimitedByItsKeys) {
  v1::ProbeRequest request;
  for (const std::string& digest : digests_) {
    *request.add_parts() = PartOf(digest, Chain("long", 4097));
  }
  v1::ProbeReply reply;
  EXPECT_EQ(service_.Probe(ranks_[0].caller, request, &reply).code(),
            absl::StatusCode::kInvalidArgument);
  for (v1::Part& part : *request.mutable_parts()) {
    part.mutable_keys()->resize(size_t{4096} * 32);
  }
  EXPECT_TRUE(service_.Probe(ranks_[0].caller, request, &reply).ok());
}

TEST_F(TensorParallel, ALongChainIsProbedInPieces) {
  const std::vector<std::string> keys = Chain("prompt", 6);
  ASSERT_TRUE(ranks_[0].PutChain(digests_[0], {keys.begin(), keys.begin() + 5}, kShardBytes));
  v1::ProbeRequest request;
  *request.add_parts() = PartOf(digests_[0], {keys.begin(), keys.begin() + 3});
  v1::ProbeReply first;
  ASSERT_TRUE(service_.Probe(ranks_[0].caller, request, &first).ok());
  ASSERT_EQ(first.boundary_tokens(), 48U);
  *request.mutable_parts(0) = PartOf(digests_[0], {keys.begin() + 3, keys.end()});
  request.mutable_parts(0)->set_first_token(first.boundary_tokens());
  v1::ProbeReply second;
  ASSERT_TRUE(service_.Probe(ranks_[0].caller, request, &second).ok());
  EXPECT_EQ(second.boundary_tokens(), 80U);
}

}  // namespace
}  // namespace terrace::contract
