#include "tests/contract/engines/vllm_connector.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace terrace::contract {
namespace {

constexpr uint32_t kHoldMs = 60'000;
constexpr uint32_t kRegion = 1;

}  // namespace

// ---------------------------------------------------------------- scheduler

VllmScheduler::VllmScheduler(EngineProcess process, std::vector<std::string> rank_namespaces)
    : process_(std::move(process)), namespaces_(std::move(rank_namespaces)) {}

VllmScheduler::Matched VllmScheduler::GetNumNewMatchedTokens(const VllmRequest& request,
                                                             uint32_t num_computed_tokens) {
  // A full hit still leaves the last token to compute, which needs its block.
  const uint32_t usable_blocks = (request.prompt_tokens - 1) / kBlockTokens;
  const uint32_t first = num_computed_tokens / kBlockTokens;
  if (usable_blocks <= first) {
    return {.tokens = 0};
  }
  const std::vector<std::string> keys(request.block_hashes.begin() + first,
                                      request.block_hashes.begin() + usable_blocks);
  v1::ProbeRequest probe;
  for (const std::string& digest : namespaces_) {
    v1::Part* part = probe.add_parts();
    *part = PartOf(digest, keys);
    part->set_first_token(num_computed_tokens);
  }
  probe.set_request_id(request.id);
  probe.set_hold_ms(kHoldMs);
  probe.set_prefetch(true);
  v1::ProbeReply reply;
  const absl::Status status = process_.service.Probe(process_.caller, probe, &reply);
  RequestFinished(request.id);  // a repeat replaces the hold of the lookup before it
  if (!status.ok() || reply.boundary_tokens() == 0) {
    return {.tokens = 0};
  }
  lookups_[request.id] = {.hold_id = reply.hold_id(), .first_key = first};
  const uint32_t under = reply.part_boundary_keys(0);
  for (size_t part = 0; part < namespaces_.size(); ++part) {
    for (uint32_t i = 0; i < under; ++i) {
      if (StateAt(reply, part * keys.size() + i) != v1::KEY_STATE_READY) {
        return {.tokens = std::nullopt};  // being read up; the prefetch runs
      }
    }
  }
  return {.tokens = static_cast<uint32_t>(reply.boundary_tokens()) - num_computed_tokens,
          .load_is_async = true};
}

void VllmScheduler::UpdateStateAfterAlloc(const VllmRequest& request,
                                          const std::vector<uint32_t>& block_ids,
                                          uint32_t num_external_tokens) {
  const auto it = lookups_.find(request.id);
  if (it == lookups_.end() || num_external_tokens == 0) {
    return;
  }
  const auto first = request.block_hashes.begin() + it->second.first_key;
  const auto count = static_cast<std::ptrdiff_t>(num_external_tokens / kBlockTokens);
  const auto first_block = block_ids.begin() + it->second.first_key;
  plans_.push_back({.request_id = request.id,
                    .keys = {first, first + count},
                    .block_ids = {first_block, first_block + count},
                    .hold_id = it->second.hold_id});
}

void VllmScheduler::RequestFinished(const std::string& request_id) {
  const auto it = lookups_.find(request_id);
  if (it == lookups_.end()) {
    return;
  }
  v1::ReleaseRequest release;
  release.add_hold_ids(it->second.hold_id);
  v1::ReleaseReply reply;
  EXPECT_TRUE(process_.service.Release(process_.caller, release, &reply).ok());
  lookups_.erase(it);
}

uint32_t VllmScheduler::TokensToKeep(const std::vector<uint32_t>& block_ids,
                                     const std::set<uint32_t>& bad_block_ids) {
  const auto bad = std::find_if(block_ids.begin(), block_ids.end(),
                                [&](uint32_t id) { return bad_block_ids.contains(id); });
  return static_cast<uint32_t>(bad - block_ids.begin()) * kBlockTokens;
}

// ---------------------------------------------------------------- worker

VllmWorker::VllmWorker(EngineProcess process, std::string digest, Shape shape)
    : process_(std::move(process)),
      digest_(std::move(digest)),
      shape_(shape),
      hbm_(
          std::make_shared<std::vector<char>>(shape.layers * shape.blocks * 2 * shape.page_bytes)) {
}

uint64_t VllmWorker::PageOffset(uint32_t layer, uint32_t block, uint32_t kv) const {
  const uint64_t page = shape_.layout == HbmLayout::kKeysThenValues
                            ? uint64_t{kv} * shape_.blocks + block
                            : uint64_t{block} * 2 + kv;
  return (uint64_t{layer} * shape_.blocks * 2 + page) * shape_.page_bytes;
}

void VllmWorker::RegisterKvCaches() {
  v1::RegisterRegionRequest request;
  request.set_region_id(kRegion);
  request.set_bytes(hbm_->size());
  v1::Geometry* geometry = request.mutable_geometry();
  geometry->set_block_count(shape_.blocks);
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (uint32_t kv = 0; kv < 2; ++kv) {
      v1::Plane* plane = geometry->add_planes();
      plane->set_offset(PageOffset(layer, 0, kv));
      plane->set_block_stride(PageOffset(layer, 1, kv) - PageOffset(layer, 0, kv));
      plane->add_segments()->set_bytes(shape_.page_bytes);
    }
  }
  v1::RegisterRegionReply reply;
  const absl::Status status =
      process_.service.RegisterRegion(process_.caller, request, hbm_, &reply);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(reply.payload_bytes(), block_bytes());
}

void VllmWorker::LoadOne(const LoadPlan& plan) {
  v1::GetRequest request;
  *request.add_parts() = PartOf(digest_, plan.keys);
  request.set_delivery(v1::DELIVERY_REGION);
  v1::RegionBlocks* region = request.add_regions();
  region->set_region_id(kRegion);
  region->mutable_block_indexes()->Add(plan.block_ids.begin(), plan.block_ids.end());
  request.set_hold_id(plan.hold_id);
  request.set_request_id(plan.request_id);
  request.set_wait_pending(1);
  doubles::Caller caller = process_.caller;
  caller.call_id = next_call_id_++;
  process_.service.SubmitGet(
      caller, request, [this, plan](const absl::Status& status, const v1::GetReply& reply) {
        for (size_t i = 0; i < plan.keys.size(); ++i) {
          if (!status.ok() || AnswerAt<v1::GetOutcome>(reply.outcomes(), i) != v1::GET_OUTCOME_OK) {
            load_errors_.insert(plan.block_ids[i]);
          }
        }
        received_.insert(plan.request_id);
      });
}

void VllmWorker::StartLoadKv(const std::vector<LoadPlan>& plans) {
  for (const LoadPlan& plan : plans) {
    LoadOne(plan);
  }
}

void VllmWorker::SaveBlocks(const std::string& request_id,
                            const std::vector<std::string>& keys,
                            const std::vector<uint32_t>& block_ids) {
  v1::PutRequest request;
  *request.mutable_part() = PartOf(digest_, keys);
  request.mutable_region()->set_region_id(kRegion);
  request.mutable_region()->mutable_block_indexes()->Add(block_ids.begin(), block_ids.end());
  request.set_wait_for(v1::LEVEL_SOURCE_FREE);
  request.set_request_id(request_id);
  doubles::Caller caller = process_.caller;
  caller.call_id = next_call_id_++;
  saving_[request_id].push_back(caller.call_id);
  process_.service.SubmitPut(caller, request,
                             [this, request_id, call_id = caller.call_id](
                                 const absl::Status& status, const v1::PutReply& reply) {
                               EXPECT_TRUE(status.ok()) << status;
                               std::erase(saving_[request_id], call_id);
                               saves_.push_back(reply);
                             });
}

void VllmWorker::HandlePreemptions(const std::set<std::string>& request_ids) {
  for (const std::string& id : request_ids) {
    const std::vector<uint64_t> calls = saving_[id];
    for (const uint64_t call_id : calls) {
      v1::CancelRequest request;
      request.set_call_id(call_id);
      v1::CancelReply reply;
      EXPECT_TRUE(process_.service.Cancel(process_.caller, request, &reply).ok());
    }
  }
}

void VllmWorker::WriteBlock(uint32_t block_id, std::string_view payload) {
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (uint32_t kv = 0; kv < 2; ++kv) {
      const std::string_view page =
          payload.substr((layer * 2 + kv) * shape_.page_bytes, shape_.page_bytes);
      std::copy(page.begin(), page.end(),
                hbm_->begin() + static_cast<std::ptrdiff_t>(PageOffset(layer, block_id, kv)));
    }
  }
}

std::string VllmWorker::ReadBlock(uint32_t block_id) const {
  std::string payload;
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (uint32_t kv = 0; kv < 2; ++kv) {
      payload.append(hbm_->data() + PageOffset(layer, block_id, kv), shape_.page_bytes);
    }
  }
  return payload;
}

}  // namespace terrace::contract
