// vLLM's SecondaryTierManager over the contract: jobs between the primary CPU region and Terrace.
//
// The primary region is one descriptor with rows of row_stride bytes, a chunk id each; vLLM runs
// all of this on one thread that must never wait, so every call is submitted and its end is polled
// for.
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "tests/contract/engines/contract_kit.h"

namespace terrace::contract {
namespace {

enum class LookupResult { kMiss, kHit, kHitPending };

struct TransferJob {
  uint64_t job_id = 0;
  std::vector<std::string> keys;
  std::vector<uint32_t> chunk_ids;
};

struct JobResult {
  uint64_t job_id = 0;
  bool success = false;
  std::vector<std::string> successful_keys;
};

class SecondaryTier {
 public:
  static constexpr uint32_t kHoldMs = 30'000;

  SecondaryTier(EngineProcess process,
                std::string digest,
                doubles::SharedBytes primary,
                uint64_t row_stride)
      : process_(std::move(process)), digest_(std::move(digest)) {
    process_.RegisterArray(1, primary, row_stride);
  }

  // One key a call, in any order: vLLM walks the chain itself.
  LookupResult Lookup(const std::string& key) {
    v1::ProbeRequest request;
    *request.add_parts() = PartOf(digest_, {key}, v1::RULE_INDEPENDENT);
    request.set_hold_ms(kHoldMs);
    request.set_prefetch(true);
    v1::ProbeReply reply;
    if (!process_.service.Probe(process_.caller, request, &reply).ok()) {
      return LookupResult::kMiss;
    }
    if (!reply.hold_id().empty()) {
      ReleaseHold(key);
      holds_[key] = reply.hold_id();
    }
    switch (StateAt(reply, 0)) {
      case v1::KEY_STATE_READY:
        return LookupResult::kHit;
      case v1::KEY_STATE_PENDING:
      case v1::KEY_STATE_LOWER:
        return LookupResult::kHitPending;
      default:
        return LookupResult::kMiss;
    }
  }

  void SubmitStore(const TransferJob& job) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(digest_, job.keys, v1::RULE_INDEPENDENT);
    FillRegion(job, request.mutable_region());
    process_.service.SubmitPut(
        NextCall(), request, [this, job](const absl::Status& status, const v1::PutReply& reply) {
          JobResult result{.job_id = job.job_id, .success = status.ok(), .successful_keys = {}};
          for (size_t i = 0; status.ok() && i < job.keys.size(); ++i) {
            const auto outcome = AnswerAt<v1::PutOutcome>(reply.outcomes(), i);
            if (outcome == v1::PUT_OUTCOME_STORED || outcome == v1::PUT_OUTCOME_DUPLICATE) {
              result.successful_keys.push_back(job.keys[i]);
            }
            // Declined is "accepted, not kept": only a fault fails the job.
            result.success = result.success && outcome != v1::PUT_OUTCOME_FAILED;
          }
          finished_.push_back(result);
        });
  }

  void SubmitLoad(const TransferJob& job) {
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest_, job.keys, v1::RULE_INDEPENDENT);
    request.set_delivery(v1::DELIVERY_REGION);
    request.set_wait_pending(1);
    FillRegion(job, request.add_regions());
    process_.service.SubmitGet(
        NextCall(), request, [this, job](const absl::Status& status, const v1::GetReply& reply) {
          JobResult result{.job_id = job.job_id, .success = status.ok(), .successful_keys = {}};
          for (size_t i = 0; i < job.keys.size(); ++i) {
            const bool ok =
                status.ok() && AnswerAt<v1::GetOutcome>(reply.outcomes(), i) == v1::GET_OUTCOME_OK;
            if (ok) {
              result.successful_keys.push_back(job.keys[i]);
            }
            result.success = result.success && ok;
            ReleaseHold(job.keys[i]);
          }
          finished_.push_back(result);
        });
  }

  std::vector<JobResult> GetFinishedJobs() { return std::exchange(finished_, {}); }

  void OnRequestFinished() {
    while (!holds_.empty()) {
      ReleaseHold(std::string(holds_.begin()->first));
    }
  }

 private:
  static void FillRegion(const TransferJob& job, v1::RegionBlocks* region) {
    region->set_region_id(1);
    region->mutable_block_indexes()->Add(job.chunk_ids.begin(), job.chunk_ids.end());
  }
  doubles::Caller NextCall() {
    doubles::Caller caller = process_.caller;
    caller.call_id = next_call_id_++;
    return caller;
  }
  void ReleaseHold(const std::string& key) {
    const auto it = holds_.find(key);
    if (it == holds_.end()) {
      return;
    }
    v1::ReleaseRequest request;
    request.add_hold_ids(it->second);
    v1::ReleaseReply reply;
    EXPECT_TRUE(process_.service.Release(process_.caller, request, &reply).ok());
    holds_.erase(it);
  }

  EngineProcess process_;
  std::string digest_;
  std::map<std::string, std::string> holds_;  // key -> hold
  std::vector<JobResult> finished_;
  uint64_t next_call_id_ = 1;
};

class VllmSecondaryTier : public testing::Test {
 protected:
  static constexpr uint64_t kRowStride = 8192;  // both workers' rows and padding
  static constexpr uint32_t kChunks = 16;

  VllmSecondaryTier() {
    EngineProcess process = EngineProcess::Start(service_, "vllm");
    v1::NamespaceRecord record = PlainRecord();
    record.set_sharding(v1::SHARDING_CANONICAL);
    record.set_block_bytes(kRowStride);
    digest_ = process.Open(record);
    tier_.emplace(std::move(process), digest_, primary_, kRowStride);
  }

  void FillRow(uint32_t chunk, const std::string& key) {
    const std::string payload = PayloadOf(digest_, key, kRowStride);
    std::copy(payload.begin(), payload.end(),
              primary_->begin() + static_cast<std::ptrdiff_t>(chunk * kRowStride));
  }
  [[nodiscard]] std::string Row(uint32_t chunk) const {
    return {primary_->data() + chunk * kRowStride, kRowStride};
  }

  JobResult RunOne() {
    while (service_.Step()) {
    }
    const std::vector<JobResult> finished = tier_->GetFinishedJobs();
    EXPECT_EQ(finished.size(), 1U);
    return finished.empty() ? JobResult{} : finished.front();
  }

  void Store(const std::vector<std::string>& keys, const std::vector<uint32_t>& chunks) {
    for (size_t i = 0; i < keys.size(); ++i) {
      FillRow(chunks[i], keys[i]);
    }
    tier_->SubmitStore({.job_id = 1, .keys = keys, .chunk_ids = chunks});
    ASSERT_EQ(RunOne().successful_keys, keys);
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{clock_,
                                  {.dram_bytes = uint64_t{1} << 20,
                                   .local_tier = true,
                                   .lower_read_time = absl::Milliseconds(2)}};
  doubles::SharedBytes primary_ = std::make_shared<std::vector<char>>(kChunks * kRowStride);
  std::string digest_;
  std::optional<SecondaryTier> tier_;
};

TEST_F(VllmSecondaryTier, AStoredChunkIsLoadedIntoAnotherRow) {
  const std::vector<std::string> keys = Chain("doc", 3);
  Store(keys, {4, 0, 9});
  EXPECT_EQ(tier_->Lookup(keys[1]), LookupResult::kHit);
  tier_->SubmitLoad({.job_id = 7, .keys = keys, .chunk_ids = {1, 2, 3}});
  const JobResult result = RunOne();
  EXPECT_TRUE(result.success);
  EXPECT_EQ(result.job_id, 7U);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(Row(1 + i), PayloadOf(digest_, keys[i], kRowStride));
  }
}

TEST_F(VllmSecondaryTier, AKeyBeingStoredIsAHitPending) {
  const std::vector<std::string> keys = Chain("doc", 1);
  FillRow(0, keys[0]);
  tier_->SubmitStore({.job_id = 1, .keys = keys, .chunk_ids = {0}});
  EXPECT_EQ(tier_->Lookup(keys[0]), LookupResult::kHitPending);
  EXPECT_TRUE(RunOne().success);
  EXPECT_EQ(tier_->Lookup(keys[0]), LookupResult::kHit);
}

TEST_F(VllmSecondaryTier, ALookupBringsALowerChunkUp) {
  const std::vector<std::string> keys = Chain("doc", 1);
  Store(keys, {0});
  ASSERT_TRUE(service_.MoveLower(service_.NameOf(digest_, "", keys[0])));
  EXPECT_EQ(tier_->Lookup(keys[0]), LookupResult::kHitPending);
  clock_.Advance(absl::Milliseconds(2));
  EXPECT_EQ(tier_->Lookup(keys[0]), LookupResult::kHit);
}

TEST_F(VllmSecondaryTier, WhatALookupPromisedSurvivesUntilItsLoad) {
  const std::vector<std::string> keys = Chain("doc", 2);
  Store(keys, {0, 1});
  ASSERT_EQ(tier_->Lookup(keys[0]), LookupResult::kHit);
  EXPECT_FALSE(service_.Evict(service_.NameOf(digest_, "", keys[0]))) << "held";
  EXPECT_TRUE(service_.Evict(service_.NameOf(digest_, "", keys[1])));
  tier_->SubmitLoad({.job_id = 2, .keys = {keys[0]}, .chunk_ids = {5}});
  EXPECT_TRUE(RunOne().success);
  EXPECT_EQ(service_.hold_count(), 0U) << "a load ends the hold of its keys";
}

TEST_F(VllmSecondaryTier, ADeclinedStoreIsNoFailure) {
  const std::vector<std::string> keys = Chain("doc", 2);
  FillRow(0, keys[0]);
  FillRow(1, keys[1]);
  service_.DeclineNextPut(service_.NameOf(digest_, "", keys[0]), v1::REASON_ADMISSION);
  tier_->SubmitStore({.job_id = 3, .keys = keys, .chunk_ids = {0, 1}});
  const JobResult result = RunOne();
  EXPECT_TRUE(result.success);
  EXPECT_EQ(result.successful_keys, std::vector<std::string>{keys[1]});
}

TEST_F(VllmSecondaryTier, ALoadThatMissesNamesTheKeysThatCame) {
  const std::vector<std::string> keys = Chain("doc", 3);
  Store({keys[0], keys[2]}, {0, 1});
  tier_->SubmitLoad({.job_id = 4, .keys = keys, .chunk_ids = {3, 4, 5}});
  const JobResult result = RunOne();
  EXPECT_FALSE(result.success);
  EXPECT_EQ(result.successful_keys, (std::vector<std::string>{keys[0], keys[2]}));
}

TEST_F(VllmSecondaryTier, ATruncatedPrimaryRegionFailsTheJobAlone) {
  const std::vector<std::string> keys = Chain("doc", 2);
  Store(keys, {0, 1});
  primary_->resize(kRowStride);
  tier_->SubmitLoad({.job_id = 5, .keys = keys, .chunk_ids = {0, 1}});
  const JobResult result = RunOne();
  EXPECT_FALSE(result.success);
  EXPECT_EQ(result.successful_keys, std::vector<std::string>{keys[0]});
  EXPECT_EQ(tier_->Lookup(keys[1]), LookupResult::kHit) << "the stored block is unharmed";
}

TEST_F(VllmSecondaryTier, AFinishedRequestLeavesNoHold) {
  Store(Chain("doc", 2), {0, 1});
  tier_->Lookup(KeyOf("doc", 0));
  tier_->Lookup(KeyOf("doc", 1));
  EXPECT_EQ(service_.hold_count(), 2U);
  tier_->OnRequestFinished();
  EXPECT_EQ(service_.hold_count(), 0U);
}

TEST_F(VllmSecondaryTier, ADaemonThatRestartedIsAMiss) {
  const std::vector<std::string> keys = Chain("doc", 1);
  Store(keys, {0});
  service_.Restart(doubles::ServiceDouble::Survives::kWritten);
  EXPECT_EQ(tier_->Lookup(keys[0]), LookupResult::kMiss);
  tier_->SubmitLoad({.job_id = 6, .keys = keys, .chunk_ids = {0}});
  EXPECT_FALSE(RunOne().success);
}

}  // namespace
}  // namespace terrace::contract
