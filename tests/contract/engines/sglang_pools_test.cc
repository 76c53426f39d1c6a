// SGLang's multi-pool HiCache storage interface over the contract: batch_exists_v2, batch_get_v2,
// batch_set_v2.
//
// Each host pool (kv, swa, mamba, ...) is a namespace of its own group; a page is a block. A pool's
// hit policy is a rule: ALL_PAGES a PREFIX, TRAILING_PAGES a WINDOW over the trailing pages.
// Nothing here may fail loudly: an exception in SGLang's backup or prefetch thread silently ends
// its L3.
#include <map>

#include <gtest/gtest.h>

#include "tests/contract/engines/contract_kit.h"

namespace terrace::contract {
namespace {

enum class PoolHitPolicy { kAllPages, kTrailingPages };

struct PoolTransfer {
  std::string name;
  std::vector<std::string> keys;
  std::vector<uint32_t> host_pages;  // get and set: one a key
  PoolHitPolicy hit_policy = PoolHitPolicy::kAllPages;
  uint32_t trailing_pages = 1;  // exists, TRAILING_PAGES
};

struct PoolTransferResult {
  uint32_t kv_hit_pages = 0;
  std::map<std::string, uint32_t> extra_pool_hit_pages;
};

class TerraceHiCache {
 public:
  static constexpr uint32_t kPageTokens = 64;

  explicit TerraceHiCache(EngineProcess process, bool writes = true)
      : process_(std::move(process)), writes_(writes) {}

  void RegisterMemHostPoolV2(const std::string& name,
                             const v1::NamespaceRecord& record,
                             const doubles::SharedBytes& memory) {
    Pool& pool = pools_[name];
    pool.digest = process_.Open(record);
    pool.region_id = static_cast<uint32_t>(pools_.size());
    process_.RegisterArray(pool.region_id, memory, record.block_bytes());
  }

  PoolTransferResult BatchExistsV2(const std::vector<std::string>& keys,
                                   const std::vector<PoolTransfer>& transfers) {
    v1::ProbeRequest request;
    *request.add_parts() = PartOf(pools_.at("kv").digest, keys);
    for (const PoolTransfer& transfer : transfers) {
      const auto pool = pools_.find(transfer.name);
      if (pool == pools_.end()) {
        return {};  // a sidecar pool that cannot be served makes the prefix unusable
      }
      v1::Part* part = request.add_parts();
      const bool all = transfer.hit_policy == PoolHitPolicy::kAllPages;
      *part = PartOf(pool->second.digest, keys, all ? v1::RULE_PREFIX : v1::RULE_WINDOW);
      part->set_window_tokens(all ? 0 : std::max(1U, transfer.trailing_pages) * kPageTokens);
    }
    request.set_hold_ms(10'000);
    v1::ProbeReply reply;
    if (!process_.service.Probe(process_.caller, request, &reply).ok()) {
      return {};
    }
    hold_id_ = reply.hold_id();
    PoolTransferResult result;
    result.kv_hit_pages = static_cast<uint32_t>(reply.boundary_tokens()) / kPageTokens;
    for (size_t i = 0; i < transfers.size(); ++i) {
      const bool all = transfers[i].hit_policy == PoolHitPolicy::kAllPages;
      const uint32_t wanted = all ? result.kv_hit_pages : transfers[i].trailing_pages;
      result.extra_pool_hit_pages[transfers[i].name] = std::min(wanted, result.kv_hit_pages);
    }
    return result;
  }

  std::map<std::string, std::vector<bool>> BatchGetV2(const std::vector<PoolTransfer>& transfers) {
    v1::GetRequest request;
    request.set_delivery(v1::DELIVERY_REGION);
    request.set_hold_id(hold_id_);
    for (const PoolTransfer& transfer : transfers) {
      *request.add_parts() =
          PartOf(pools_.at(transfer.name).digest, transfer.keys, v1::RULE_INDEPENDENT);
      FillRegion(transfer, request.add_regions());
    }
    v1::GetReply reply;
    const bool answered = process_.service.Get(process_.caller, request, &reply).ok();
    std::map<std::string, std::vector<bool>> results;
    size_t at = 0;
    for (const PoolTransfer& transfer : transfers) {
      for (size_t i = 0; i < transfer.keys.size(); ++i, ++at) {
        const bool ok =
            answered && AnswerAt<v1::GetOutcome>(reply.outcomes(), at) == v1::GET_OUTCOME_OK;
        results[transfer.name].push_back(ok);
      }
    }
    return results;
  }

  std::map<std::string, std::vector<bool>> BatchSetV2(const std::vector<PoolTransfer>& transfers) {
    std::map<std::string, std::vector<bool>> results;
    for (const PoolTransfer& transfer : transfers) {
      if (!writes_) {
        results[transfer.name].assign(transfer.keys.size(),
                                      true);  // another rank writes the same bytes
        continue;
      }
      v1::PutRequest request;
      *request.mutable_part() =
          PartOf(pools_.at(transfer.name).digest, transfer.keys, v1::RULE_INDEPENDENT);
      FillRegion(transfer, request.mutable_region());
      v1::PutReply reply;
      const bool answered = process_.service.Put(process_.caller, request, &reply).ok();
      for (size_t i = 0; i < transfer.keys.size(); ++i) {
        const auto outcome =
            answered ? AnswerAt<v1::PutOutcome>(reply.outcomes(), i) : v1::PUT_OUTCOME_FAILED;
        results[transfer.name].push_back(outcome == v1::PUT_OUTCOME_STORED ||
                                         outcome == v1::PUT_OUTCOME_DUPLICATE);
      }
    }
    return results;
  }

  [[nodiscard]] const std::string& digest(const std::string& pool) const {
    return pools_.at(pool).digest;
  }

 private:
  struct Pool {
    std::string digest;
    uint32_t region_id = 0;
  };

  void FillRegion(const PoolTransfer& transfer, v1::RegionBlocks* region) const {
    region->set_region_id(pools_.at(transfer.name).region_id);
    region->mutable_block_indexes()->Add(transfer.host_pages.begin(), transfer.host_pages.end());
  }

  EngineProcess process_;
  bool writes_;
  std::map<std::string, Pool> pools_;
  std::string hold_id_;
};

class SglangPools : public testing::Test {
 protected:
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr uint32_t kPages = 8;

  static v1::NamespaceRecord PoolRecord(uint32_t group, const std::string& kind) {
    v1::NamespaceRecord record = PlainRecord();
    record.set_block_tokens(TerraceHiCache::kPageTokens);
    record.set_block_bytes(kPageBytes);
    record.set_group(group);
    record.set_group_kind(kind);
    record.set_engine_format("sglang-0.5/1");
    return record;
  }

  SglangPools() {
    cache_.RegisterMemHostPoolV2("kv", PoolRecord(0, "full"), kv_);
    cache_.RegisterMemHostPoolV2("swa", PoolRecord(1, "sliding_window"), swa_);
  }

  void Back(const std::string& pool,
            const doubles::SharedBytes& memory,
            const std::vector<std::string>& keys) {
    PoolTransfer transfer{.name = pool, .keys = keys, .host_pages = {}};
    for (uint32_t i = 0; i < keys.size(); ++i) {
      const std::string page = PayloadOf(cache_.digest(pool), keys[i], kPageBytes);
      std::copy(page.begin(), page.end(),
                memory->begin() + static_cast<std::ptrdiff_t>(i * kPageBytes));
      transfer.host_pages.push_back(i);
    }
    ASSERT_EQ(cache_.BatchSetV2({transfer})[pool], std::vector<bool>(keys.size(), true));
  }

  static std::string PageOf(const doubles::SharedBytes& memory, uint32_t page) {
    return {memory->data() + page * kPageBytes, kPageBytes};
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{clock_, {.dram_bytes = uint64_t{1} << 20}};
  TerraceHiCache cache_{EngineProcess::Start(service_, "sglang")};
  doubles::SharedBytes kv_ = std::make_shared<std::vector<char>>(kPages * kPageBytes);
  doubles::SharedBytes swa_ = std::make_shared<std::vector<char>>(kPages * kPageBytes);
  std::vector<std::string> keys_ = Chain("chat", 6);

  [[nodiscard]] std::vector<std::string> Keys(uint32_t from, uint32_t to) const {
    return {keys_.begin() + from, keys_.begin() + to};
  }
  static PoolTransfer Swa(PoolHitPolicy policy, uint32_t trailing = 1) {
    return {.name = "swa",
            .keys = {},
            .host_pages = {},
            .hit_policy = policy,
            .trailing_pages = trailing};
  }
};

TEST_F(SglangPools, WithoutSidecarsTheKvPrefixCounts) {
  Back("kv", kv_, Keys(0, 4));
  EXPECT_EQ(cache_.BatchExistsV2(keys_, {}).kv_hit_pages, 4U);
}

TEST_F(SglangPools, APoolUnderAllPagesCutsThePrefix) {
  Back("kv", kv_, Keys(0, 5));
  Back("swa", swa_, Keys(0, 3));
  const PoolTransferResult result = cache_.BatchExistsV2(keys_, {Swa(PoolHitPolicy::kAllPages)});
  EXPECT_EQ(result.kv_hit_pages, 3U);
  EXPECT_EQ(result.extra_pool_hit_pages.at("swa"), 3U);
}

TEST_F(SglangPools, APoolUnderTrailingPagesNeedsOnlyTheEndOfThePrefix) {
  Back("kv", kv_, Keys(0, 5));
  Back("swa", swa_, Keys(3, 5));
  const PoolTransferResult result =
      cache_.BatchExistsV2(keys_, {Swa(PoolHitPolicy::kTrailingPages, 2)});
  EXPECT_EQ(result.kv_hit_pages, 5U);
  EXPECT_EQ(result.extra_pool_hit_pages.at("swa"), 2U);
}

TEST_F(SglangPools, TheBoundaryMovesBackToWhereTheTrailingPagesLie) {
  Back("kv", kv_, Keys(0, 5));
  Back("swa", swa_, Keys(1, 3));
  EXPECT_EQ(cache_.BatchExistsV2(keys_, {Swa(PoolHitPolicy::kTrailingPages, 2)}).kv_hit_pages, 3U);
  EXPECT_EQ(cache_.BatchExistsV2(keys_, {Swa(PoolHitPolicy::kTrailingPages, 3)}).kv_hit_pages, 0U)
      << "no three pages follow each other";
}

TEST_F(SglangPools, AWindowThatReachesBehindThePromptsStartNeedsWhatThereIs) {
  Back("kv", kv_, Keys(0, 2));
  Back("swa", swa_, Keys(0, 2));
  EXPECT_EQ(cache_.BatchExistsV2(keys_, {Swa(PoolHitPolicy::kTrailingPages, 4)}).kv_hit_pages, 2U);
}

TEST_F(SglangPools, PagesOfSeveralPoolsComeInOneCall) {
  Back("kv", kv_, Keys(0, 3));
  Back("swa", swa_, Keys(1, 3));
  ASSERT_EQ(cache_.BatchExistsV2(keys_, {Swa(PoolHitPolicy::kTrailingPages, 2)}).kv_hit_pages, 3U);
  const auto results =
      cache_.BatchGetV2({{.name = "kv", .keys = Keys(0, 3), .host_pages = {5, 6, 7}},
                         {.name = "swa", .keys = Keys(1, 3), .host_pages = {7, 6}}});
  EXPECT_EQ(results.at("kv"), std::vector<bool>(3, true));
  EXPECT_EQ(results.at("swa"), std::vector<bool>(2, true));
  EXPECT_EQ(PageOf(kv_, 7), PayloadOf(cache_.digest("kv"), keys_[2], kPageBytes));
  EXPECT_EQ(PageOf(swa_, 6), PayloadOf(cache_.digest("swa"), keys_[2], kPageBytes))
      << "never the other pool's bytes";
}

TEST_F(SglangPools, AMissingPageIsFalseAndItsNeighboursAreTrue) {
  Back("kv", kv_, Keys(0, 3));
  v1::DeleteRequest request;
  *request.mutable_part() = PartOf(cache_.digest("kv"), {keys_[1]});
  v1::DeleteReply reply;
  ASSERT_TRUE(service_.Delete(doubles::ServiceDouble::OverGrpc("sglang"), request, &reply).ok());
  const auto results =
      cache_.BatchGetV2({{.name = "kv", .keys = Keys(0, 3), .host_pages = {5, 6, 7}}});
  EXPECT_EQ(results.at("kv"), (std::vector<bool>{true, false, true}));
}

TEST_F(SglangPools, AnAbsentDaemonIsFalseEverywhereAndNothingIsThrown) {
  Back("kv", kv_, Keys(0, 3));
  service_.Restart(doubles::ServiceDouble::Survives::kSynced);
  EXPECT_EQ(cache_.BatchExistsV2(keys_, {}).kv_hit_pages, 0U);
  EXPECT_EQ(cache_.BatchGetV2({{.name = "kv", .keys = Keys(0, 1), .host_pages = {0}}}).at("kv"),
            std::vector<bool>{false});
  EXPECT_EQ(cache_.BatchSetV2({{.name = "kv", .keys = Keys(0, 1), .host_pages = {0}}}).at("kv"),
            std::vector<bool>{false});
}

TEST_F(SglangPools, OfAnMlaModelOneRankWritesAndAllRead) {
  v1::NamespaceRecord record = PoolRecord(0, "full");
  record.set_sharding(v1::SHARDING_REPLICATED);
  record.set_shard_count(2);
  const auto memory = std::make_shared<std::vector<char>>(kPages * kPageBytes);
  TerraceHiCache writer(EngineProcess::Start(service_, "sglang"));
  TerraceHiCache reader(EngineProcess::Start(service_, "sglang"), /*writes=*/false);
  writer.RegisterMemHostPoolV2("kv", record, memory);
  const auto other = std::make_shared<std::vector<char>>(kPages * kPageBytes);
  reader.RegisterMemHostPoolV2("kv", record, other);
  ASSERT_EQ(writer.digest("kv"), reader.digest("kv")) << "every rank names the same namespace";
  const std::string page = PayloadOf(writer.digest("kv"), keys_[0], kPageBytes);
  std::copy(page.begin(), page.end(), memory->begin());
  const PoolTransfer first{.name = "kv", .keys = Keys(0, 1), .host_pages = {0}};
  EXPECT_TRUE(reader.BatchSetV2({first}).at("kv")[0]);
  EXPECT_EQ(reader.BatchExistsV2(keys_, {}).kv_hit_pages, 0U) << "a reader stores nothing";
  EXPECT_TRUE(writer.BatchSetV2({first}).at("kv")[0]);
  EXPECT_EQ(reader.BatchExistsV2(keys_, {}).kv_hit_pages, 1U);
  EXPECT_TRUE(reader.BatchGetV2({first}).at("kv")[0]);
  EXPECT_EQ(PageOf(other, 0), page);
}

}  // namespace
}  // namespace terrace::contract
