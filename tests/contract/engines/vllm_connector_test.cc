// A vLLM scheduler with two tensor-parallel workers over the contract; the second worker's HBM has
// the other layout.
#include "tests/contract/engines/vllm_connector.h"

#include <numeric>

#include <gtest/gtest.h>

namespace terrace::contract {
namespace {

class VllmConnector : public testing::Test {
 protected:
  VllmConnector() {
    for (uint32_t rank = 0; rank < 2; ++rank) {
      EngineProcess process = EngineProcess::Start(service_, "vllm");
      v1::NamespaceRecord record = PlainRecord();
      record.set_shard_count(2);
      record.set_shard_rank(rank);
      record.set_block_bytes(4096);
      const std::string digest = process.Open(record);
      const HbmLayout layout = rank == 0 ? HbmLayout::kKeysThenValues : HbmLayout::kBlocksFirst;
      workers_.emplace_back(std::move(process), digest, VllmWorker::Shape{.layout = layout});
    }
    for (VllmWorker& worker : workers_) {
      worker.RegisterKvCaches();
    }
    const std::vector<std::string> digests = {workers_[0].digest(), workers_[1].digest()};
    scheduler_.emplace(EngineProcess::Start(service_, "vllm"), digests);
  }

  void RunAll() {
    while (service_.Step()) {
    }
  }

  // What prefill leaves behind: the blocks of a prompt computed in HBM, saved by both workers.
  void ComputeAndSave(const VllmRequest& request, uint32_t blocks) {
    std::vector<uint32_t> ids(blocks);
    std::iota(ids.begin(), ids.end(), 1U);  // block 0 is vLLM's null block
    const std::vector<std::string> keys(request.block_hashes.begin(),
                                        request.block_hashes.begin() + blocks);
    for (VllmWorker& worker : workers_) {
      for (uint32_t i = 0; i < blocks; ++i) {
        worker.WriteBlock(ids[i], worker.ExpectedPayload(keys[i]));
      }
      worker.SaveBlocks(request.id, keys, ids);
    }
    RunAll();
  }

  static VllmRequest Prompt(const std::string& id, uint32_t blocks, uint32_t extra_tokens = 5) {
    return {.id = id,
            .block_hashes = Chain("prompt", blocks),
            .prompt_tokens = blocks * kBlockTokens + extra_tokens};
  }

  void LoadEverywhere() {
    const std::vector<LoadPlan> plans = scheduler_->BuildConnectorMeta();
    for (VllmWorker& worker : workers_) {
      worker.StartLoadKv(plans);
    }
    RunAll();
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{clock_,
                                  {.dram_bytes = uint64_t{1} << 20,
                                   .local_tier = true,
                                   .lower_read_time = absl::Milliseconds(3)}};
  std::vector<VllmWorker> workers_;
  std::optional<VllmScheduler> scheduler_;
};

TEST_F(VllmConnector, NothingIsMatchedBeforeAnythingIsStored) {
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("a", 4), 0).tokens, 0U);
  EXPECT_EQ(service_.hold_count(), 0U);
}

TEST_F(VllmConnector, BothWorkersLoadWhatWasComputedBefore) {
  ComputeAndSave(Prompt("first", 4), 4);
  const VllmRequest request = Prompt("second", 6);
  const VllmScheduler::Matched matched = scheduler_->GetNumNewMatchedTokens(request, 0);
  ASSERT_EQ(matched.tokens, 4 * kBlockTokens);
  EXPECT_TRUE(matched.load_is_async);
  const std::vector<uint32_t> ids = {9, 10, 11, 12, 13, 14};
  scheduler_->UpdateStateAfterAlloc(request, ids, *matched.tokens);
  LoadEverywhere();
  for (VllmWorker& worker : workers_) {
    EXPECT_EQ(worker.GetFinished(), std::set<std::string>{"second"});
    EXPECT_TRUE(worker.GetBlockIdsWithLoadErrors().empty());
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(worker.ReadBlock(ids[i]), worker.ExpectedPayload(request.block_hashes[i]))
          << "block " << i;
    }
  }
}

TEST_F(VllmConnector, ALookupBehindLocallyComputedTokensCountsOnlyTheRest) {
  ComputeAndSave(Prompt("first", 4), 4);
  const VllmRequest request = Prompt("second", 6);
  const VllmScheduler::Matched matched =
      scheduler_->GetNumNewMatchedTokens(request, 2 * kBlockTokens);
  ASSERT_EQ(matched.tokens, 2 * kBlockTokens);
  scheduler_->UpdateStateAfterAlloc(request, {1, 2, 13, 14, 15, 3}, *matched.tokens);
  LoadEverywhere();
  EXPECT_EQ(workers_[0].ReadBlock(13), workers_[0].ExpectedPayload(request.block_hashes[2]));
  EXPECT_EQ(workers_[1].ReadBlock(14), workers_[1].ExpectedPayload(request.block_hashes[3]));
}

TEST_F(VllmConnector, AFullHitLeavesTheLastTokenToCompute) {
  ComputeAndSave(Prompt("first", 4), 4);
  const VllmRequest whole_blocks = Prompt("second", 4, /*extra_tokens=*/0);
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(whole_blocks, 0).tokens, 3 * kBlockTokens);
}

TEST_F(VllmConnector, WhatOneRankLacksIsNoHitForTheOther) {
  ComputeAndSave(Prompt("first", 4), 4);
  ASSERT_TRUE(service_.Evict(service_.NameOf(workers_[1].digest(), "", KeyOf("prompt", 2))));
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("second", 4), 0).tokens, std::nullopt)
      << "it is one tier down: asked again when it has come up";
  v1::DeleteRequest request;
  *request.mutable_part() = PartOf(workers_[1].digest(), {KeyOf("prompt", 2)});
  v1::DeleteReply reply;
  ASSERT_TRUE(service_.Delete(service_.OverGrpc("vllm"), request, &reply).ok());
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("third", 4), 0).tokens, 2 * kBlockTokens);
}

TEST_F(VllmConnector, RepeatedLookupsOfARequestHoldOnce) {
  ComputeAndSave(Prompt("first", 4), 4);
  const uint64_t counted = service_.probed_keys();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("second", 4), 0).tokens, 4 * kBlockTokens);
  }
  EXPECT_EQ(service_.hold_count(), 1U);
  EXPECT_EQ(service_.probed_keys() - counted, 2 * 4U) << "repeats of a request id count once";
  scheduler_->RequestFinished("second");
  EXPECT_EQ(service_.hold_count(), 0U);
}

TEST_F(VllmConnector, NothingHeldIsEvictedBetweenLookupAndLoad) {
  ComputeAndSave(Prompt("first", 4), 4);
  const VllmRequest request = Prompt("second", 4);
  const VllmScheduler::Matched matched = scheduler_->GetNumNewMatchedTokens(request, 0);
  const EngineProcess flood = EngineProcess::Start(service_, "vllm");
  const std::string other = flood.Open(PlainRecord());
  for (int i = 0; i < 20; ++i) {
    flood.PutChain(other, Chain("flood" + std::to_string(i), 8), 8192);
  }
  scheduler_->UpdateStateAfterAlloc(request, {5, 6, 7, 8}, *matched.tokens);
  LoadEverywhere();
  EXPECT_TRUE(workers_[0].GetBlockIdsWithLoadErrors().empty());
  EXPECT_EQ(workers_[1].ReadBlock(8), workers_[1].ExpectedPayload(request.block_hashes[3]));
}

TEST_F(VllmConnector, ALookupIsDeferredWhileBlocksComeUpFromALowerTier) {
  ComputeAndSave(Prompt("first", 4), 4);
  for (const VllmWorker& worker : workers_) {
    for (uint32_t i = 0; i < 4; ++i) {
      ASSERT_TRUE(service_.MoveLower(service_.NameOf(worker.digest(), "", KeyOf("prompt", i))));
    }
  }
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("second", 4), 0).tokens, std::nullopt);
  clock_.Advance(absl::Milliseconds(3));
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("second", 4), 0).tokens, 4 * kBlockTokens);
}

TEST_F(VllmConnector, AFailedBlockIsReportedByIdAndComputedFromThere) {
  ComputeAndSave(Prompt("first", 4), 4);
  const VllmRequest request = Prompt("second", 4);
  const VllmScheduler::Matched matched = scheduler_->GetNumNewMatchedTokens(request, 0);
  ASSERT_TRUE(service_.Corrupt(service_.NameOf(workers_[1].digest(), "", KeyOf("prompt", 2))));
  const std::vector<uint32_t> ids = {5, 6, 7, 8};
  scheduler_->UpdateStateAfterAlloc(request, ids, *matched.tokens);
  LoadEverywhere();
  EXPECT_TRUE(workers_[0].GetBlockIdsWithLoadErrors().empty());
  const std::set<uint32_t> bad = workers_[1].GetBlockIdsWithLoadErrors();
  EXPECT_EQ(bad, std::set<uint32_t>{7});
  EXPECT_EQ(workers_[1].GetFinished(), std::set<std::string>{"second"})
      << "in the same pass as the errors";
  const uint32_t keep = VllmScheduler::TokensToKeep(ids, bad);
  EXPECT_EQ(keep, 2 * kBlockTokens);
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(request, keep).tokens, 0U)
      << "the corrupt block is gone";
}

TEST_F(VllmConnector, APutOfAPreemptedRequestNeverReadsReusedBlocks) {
  const VllmRequest request = Prompt("victim", 2);
  workers_[0].WriteBlock(1, workers_[0].ExpectedPayload(request.block_hashes[0]));
  workers_[0].SaveBlocks("victim", {request.block_hashes[0]}, {1});
  workers_[0].HandlePreemptions({"victim"});
  ASSERT_EQ(workers_[0].saves().size(), 1U)
      << "cancel answers when nothing reads the block any more";
  EXPECT_EQ(AnswerAt<v1::PutOutcome>(workers_[0].saves()[0].outcomes(), 0), v1::PUT_OUTCOME_FAILED);
  EXPECT_EQ(AnswerAt<v1::Reason>(workers_[0].saves()[0].reasons(), 0), v1::REASON_CANCELLED);
  workers_[0].WriteBlock(1, std::string(4096, 'x'));
  RunAll();
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(request, 0).tokens, 0U);
}

TEST_F(VllmConnector, APreemptedRequestComesBackWithAnotherSlice) {
  ComputeAndSave(Prompt("first", 4), 4);
  ASSERT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("second", 6), 3 * kBlockTokens).tokens,
            kBlockTokens);
  scheduler_->RequestFinished("second");  // preempted: its computed tokens are forgotten
  EXPECT_EQ(service_.hold_count(), 0U);
  EXPECT_EQ(scheduler_->GetNumNewMatchedTokens(Prompt("second", 6), 0).tokens, 4 * kBlockTokens);
  EXPECT_EQ(service_.hold_count(), 1U);
}

TEST_F(VllmConnector, TheDeathOfTheSchedulerEndsItsHolds) {
  ComputeAndSave(Prompt("first", 4), 4);
  EngineProcess process = EngineProcess::Start(service_, "vllm");
  VllmScheduler mortal(process, {workers_[0].digest(), workers_[1].digest()});
  ASSERT_EQ(mortal.GetNumNewMatchedTokens(Prompt("second", 4), 0).tokens, 4 * kBlockTokens);
  EXPECT_EQ(service_.hold_count(), 1U);
  service_.ProcessGone(process.caller);
  EXPECT_EQ(service_.hold_count(), 0U);
}

}  // namespace
}  // namespace terrace::contract
