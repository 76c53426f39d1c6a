// LMCache's native_plugin over the contract: one event descriptor, batches submitted, completions
// drained.
//
// LMCache hands over plain buffers and keys of any length. Buffers have no descriptor, so the
// plug-in copies through staging memory that it registered; keys are hashed to 32 bytes, and what
// LMCache puts into the key beside the hash (model, world size, worker) goes into the namespace's
// record instead.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <span>

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include "tests/contract/engines/contract_kit.h"
#include "tiers/os/descriptor.h"

namespace terrace::contract {
namespace {

struct Completion {
  uint64_t id = 0;
  bool ok = false;            // the batch as a whole was answered
  std::vector<bool> per_key;  // got, stored, exists or deleted
};

class NativePlugin {
 public:
  static constexpr uint64_t kChunkBytes = 4096;

  NativePlugin(EngineProcess process, const v1::NamespaceRecord& record, uint32_t staging_chunks)
      : process_(std::move(process)),
        digest_(process_.Open(record)),
        event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        staging_(std::make_shared<std::vector<char>>(staging_chunks * kChunkBytes)) {
    process_.RegisterArray(1, staging_, kChunkBytes);
    for (uint32_t i = 0; i < staging_chunks; ++i) {
      free_.push_back(i);
    }
  }

  [[nodiscard]] int event_fd() const { return event_.get(); }

  uint64_t SubmitBatchGet(const std::vector<std::string>& keys,
                          const std::vector<std::span<char>>& buffers) {
    const uint64_t id = next_id_++;
    const std::vector<uint32_t> slots = TakeStaging(keys.size());
    if (slots.size() != keys.size()) {
      Complete({.id = id, .ok = false, .per_key = std::vector<bool>(keys.size(), false)});
      return id;
    }
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest_, Hashed(keys), v1::RULE_INDEPENDENT);
    request.set_delivery(v1::DELIVERY_REGION);
    request.set_wait_pending(1);
    FillRegion(slots, request.add_regions());
    process_.service.SubmitGet(
        Call(id), request,
        [this, id, slots, buffers](const absl::Status& status, const v1::GetReply& reply) {
          Completion completion{.id = id, .ok = status.ok(), .per_key = {}};
          for (size_t i = 0; i < slots.size(); ++i) {
            const bool got = status.ok() &&
                             AnswerAt<v1::GetOutcome>(reply.outcomes(), i) == v1::GET_OUTCOME_OK &&
                             reply.payload_bytes(static_cast<int>(i)) <= buffers[i].size();
            if (got) {
              const char* from = staging_->data() + slots[i] * kChunkBytes;
              std::copy(from, from + reply.payload_bytes(static_cast<int>(i)), buffers[i].begin());
            }
            completion.per_key.push_back(got);
          }
          GiveBack(slots);
          Complete(completion);
        });
    return id;
  }

  uint64_t SubmitBatchSet(const std::vector<std::string>& keys,
                          const std::vector<std::span<const char>>& buffers) {
    const uint64_t id = next_id_++;
    const std::vector<uint32_t> slots = TakeStaging(keys.size());
    if (slots.size() != keys.size()) {
      Complete({.id = id, .ok = false, .per_key = std::vector<bool>(keys.size(), false)});
      return id;
    }
    v1::PutRequest request;
    *request.mutable_part() = PartOf(digest_, Hashed(keys), v1::RULE_INDEPENDENT);
    for (size_t i = 0; i < slots.size(); ++i) {
      std::copy(buffers[i].begin(), buffers[i].end(),
                staging_->begin() + static_cast<std::ptrdiff_t>(slots[i] * kChunkBytes));
      request.add_payload_bytes(static_cast<uint32_t>(buffers[i].size()));
    }
    FillRegion(slots, request.mutable_region());
    process_.service.SubmitPut(
        Call(id), request,
        [this, id, slots](const absl::Status& status, const v1::PutReply& reply) {
          Completion completion{.id = id, .ok = status.ok(), .per_key = {}};
          for (size_t i = 0; i < slots.size(); ++i) {
            const auto outcome = status.ok() ? AnswerAt<v1::PutOutcome>(reply.outcomes(), i)
                                             : v1::PUT_OUTCOME_FAILED;
            completion.per_key.push_back(outcome == v1::PUT_OUTCOME_STORED ||
                                         outcome == v1::PUT_OUTCOME_DUPLICATE);
          }
          GiveBack(slots);
          Complete(completion);
        });
    return id;
  }

  uint64_t SubmitBatchExists(const std::vector<std::string>& keys) {
    const uint64_t id = next_id_++;
    v1::ProbeRequest request;
    *request.add_parts() = PartOf(digest_, Hashed(keys), v1::RULE_INDEPENDENT);
    v1::ProbeReply reply;
    Completion completion{.id = id,
                          .ok = process_.service.Probe(process_.caller, request, &reply).ok(),
                          .per_key = {}};
    for (size_t i = 0; i < keys.size(); ++i) {
      completion.per_key.push_back(completion.ok && StateAt(reply, i) != v1::KEY_STATE_MISS);
    }
    Complete(completion);
    return id;
  }

  uint64_t SubmitBatchDelete(const std::vector<std::string>& keys) {
    const uint64_t id = next_id_++;
    v1::DeleteRequest request;
    *request.mutable_part() = PartOf(digest_, Hashed(keys), v1::RULE_INDEPENDENT);
    v1::DeleteReply reply;
    const bool ok = process_.service.Delete(process_.caller, request, &reply).ok();
    Complete({.id = id, .ok = ok, .per_key = std::vector<bool>(keys.size(), ok)});
    return id;
  }

  std::vector<Completion> DrainCompletions() {
    uint64_t count = 0;
    // Nothing to read is no error: somebody drained before.
    if (read(event_.get(), &count, sizeof(count)) < 0) {
      EXPECT_EQ(errno, EAGAIN);
    }
    return std::exchange(done_, {});
  }

  void Close() { process_.service.ProcessGone(process_.caller); }
  [[nodiscard]] size_t free_staging() const { return free_.size(); }

 private:
  static std::vector<std::string> Hashed(const std::vector<std::string>& keys) {
    std::vector<std::string> hashed;
    for (const std::string& key : keys) {
      std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
      SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
      hashed.emplace_back(digest.begin(), digest.end());
    }
    return hashed;
  }
  static void FillRegion(const std::vector<uint32_t>& slots, v1::RegionBlocks* region) {
    region->set_region_id(1);
    region->mutable_block_indexes()->Add(slots.begin(), slots.end());
  }
  doubles::Caller Call(uint64_t id) const {
    doubles::Caller caller = process_.caller;
    caller.call_id = id;
    return caller;
  }
  std::vector<uint32_t> TakeStaging(size_t count) {
    std::vector<uint32_t> slots;
    while (slots.size() < count && free_.size() >= count - slots.size()) {
      slots.push_back(free_.front());
      free_.pop_front();
    }
    return slots;
  }
  void GiveBack(const std::vector<uint32_t>& slots) {
    free_.insert(free_.end(), slots.begin(), slots.end());
  }
  void Complete(Completion completion) {
    done_.push_back(std::move(completion));
    const uint64_t one = 1;
    EXPECT_EQ(write(event_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  }

  EngineProcess process_;
  std::string digest_;
  Descriptor event_;
  doubles::SharedBytes staging_;
  std::deque<uint32_t> free_;
  std::vector<Completion> done_;
  uint64_t next_id_ = 1;
};

class LmcacheNative : public testing::Test {
 protected:
  static v1::NamespaceRecord ChunkRecord() {
    v1::NamespaceRecord record = PlainRecord();
    record.set_block_tokens(0);  // LMCache's chunks are not looked up by token position
    record.set_block_bytes(NativePlugin::kChunkBytes);
    record.set_engine_format("lmcache-0.4/1");
    return record;
  }

  static std::string KeyText(int chunk) {
    return "vllm@meta-llama/Llama-3.1-8B-Instruct@1@0@" + std::to_string(0x5f3a9c11 + chunk) +
           "@bfloat16";
  }

  [[nodiscard]] bool Readable() const {
    pollfd waiting{.fd = plugin_.event_fd(), .events = POLLIN, .revents = 0};
    return poll(&waiting, 1, 0) == 1;
  }

  void RunAll() {
    while (service_.Step()) {
    }
  }

  Completion Only() {
    const std::vector<Completion> done = plugin_.DrainCompletions();
    EXPECT_EQ(done.size(), 1U);
    return done.empty() ? Completion{} : done.front();
  }

  void Set(const std::vector<std::string>& keys, const std::vector<std::string>& payloads) {
    plugin_.SubmitBatchSet(keys, {payloads.begin(), payloads.end()});
    RunAll();
    ASSERT_EQ(Only().per_key, std::vector<bool>(keys.size(), true));
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{clock_, {.dram_bytes = uint64_t{1} << 20}};
  NativePlugin plugin_{EngineProcess::Start(service_, "lmcache"), ChunkRecord(), 4};
};

TEST_F(LmcacheNative, WhatIsSetIsGotIntoPlainBuffers) {
  const std::string payload(4096, 'a');
  const std::string shorter(1000, 'b');
  Set({KeyText(1), KeyText(2)}, {payload, shorter});
  std::string first(4096, '\0');
  std::string second(4096, '\0');
  plugin_.SubmitBatchGet({KeyText(1), KeyText(2)}, {first, second});
  RunAll();
  EXPECT_EQ(Only().per_key, (std::vector<bool>{true, true}));
  EXPECT_EQ(first, payload);
  EXPECT_EQ(second.substr(0, 1000), shorter);
  EXPECT_EQ(second.substr(1000), std::string(3096, '\0'))
      << "nothing behind the payload is written";
}

TEST_F(LmcacheNative, TheEventDescriptorIsReadableExactlyWhileThereAreCompletions) {
  EXPECT_FALSE(Readable());
  const std::string payload(4096, 'a');
  const uint64_t id = plugin_.SubmitBatchSet({KeyText(1)}, {payload});
  EXPECT_FALSE(Readable()) << "submitted, not done";
  RunAll();
  EXPECT_TRUE(Readable());
  EXPECT_EQ(Only().id, id);
  EXPECT_FALSE(Readable());
  EXPECT_TRUE(plugin_.DrainCompletions().empty());
}

TEST_F(LmcacheNative, ExistsAnswersKeyByKey) {
  Set({KeyText(1), KeyText(3)}, {std::string(10, 'a'), std::string(10, 'c')});
  plugin_.SubmitBatchExists({KeyText(1), KeyText(2), KeyText(3)});
  EXPECT_EQ(Only().per_key, (std::vector<bool>{true, false, true}));
}

TEST_F(LmcacheNative, AMissLeavesTheBufferAsItWas) {
  std::string buffer(4096, '?');
  plugin_.SubmitBatchGet({KeyText(9)}, {buffer});
  RunAll();
  EXPECT_EQ(Only().per_key, std::vector<bool>{false});
  EXPECT_EQ(buffer, std::string(4096, '?'));
}

TEST_F(LmcacheNative, ADeletedChunkIsAMiss) {
  Set({KeyText(1)}, {std::string(10, 'a')});
  plugin_.SubmitBatchDelete({KeyText(1)});
  EXPECT_TRUE(Only().ok);
  plugin_.SubmitBatchExists({KeyText(1)});
  EXPECT_EQ(Only().per_key, std::vector<bool>{false});
}

TEST_F(LmcacheNative, ABatchBeyondTheStagingMemoryFailsAndLeaksNone) {
  const std::string payload(100, 'a');
  std::vector<std::string> keys;
  for (int i = 0; i < 5; ++i) {
    keys.push_back(KeyText(i));
  }
  plugin_.SubmitBatchSet(keys, std::vector<std::span<const char>>(5, payload));
  EXPECT_FALSE(Only().ok);
  EXPECT_EQ(plugin_.free_staging(), 4U);
  keys.pop_back();
  plugin_.SubmitBatchSet(keys, std::vector<std::span<const char>>(4, payload));
  EXPECT_EQ(plugin_.free_staging(), 0U);
  RunAll();
  EXPECT_TRUE(Only().ok);
  EXPECT_EQ(plugin_.free_staging(), 4U);
}

TEST_F(LmcacheNative, SeveralBatchesCompleteInOneDrain) {
  const std::string payload(100, 'a');
  const uint64_t first = plugin_.SubmitBatchSet({KeyText(1)}, {payload});
  const uint64_t second = plugin_.SubmitBatchSet({KeyText(2)}, {payload});
  RunAll();
  const std::vector<Completion> done = plugin_.DrainCompletions();
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(done[0].id, first);
  EXPECT_EQ(done[1].id, second);
}

TEST_F(LmcacheNative, ClosingEndsWhatIsInFlight) {
  const std::string payload(100, 'a');
  plugin_.SubmitBatchSet({KeyText(1)}, {payload});
  plugin_.Close();
  EXPECT_FALSE(service_.Step()) << "nothing of it is left to run";
  EXPECT_FALSE(Only().ok);
  EXPECT_EQ(service_.block_count(), 0U);
}

}  // namespace
}  // namespace terrace::contract
