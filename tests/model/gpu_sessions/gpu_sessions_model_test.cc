// Random saves, loads, deletes, cancellations and deaths of two engines that share a daemon, over
// the stand-in driver, against what every block of their memory and every key may hold.
//
// TERRACE_MODEL_SEED and TERRACE_MODEL_OPERATIONS choose another run.
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/cuda/gpu_room.h"
#include "tests/doubles/eventually.h"
#include "tests/doubles/from_environment.h"
#include "tests/doubles/seeded.h"
#include "tiers/gpu/kernel_image.h"

namespace terrace::doubles {
namespace {

constexpr uint64_t kKeys = 100;
constexpr size_t kMostTogether = 6;

// A payload is known by the seed that it is made from.
using PayloadSeed = uint64_t;

struct Engine {
  std::unique_ptr<FrameClient> client;
  cuda::DevicePointer memory = 0;
  std::vector<std::optional<PayloadSeed>> blocks;  // nullopt: nobody knows what is there
  std::vector<std::string> history;                // of each block, for whoever looks for a fault
};

// Keys, and the blocks that they are saved from or loaded into.
struct Pairs {
  std::vector<uint64_t> keys;
  std::vector<uint64_t> blocks;
};
// A call that has been sent.
struct Sent {
  Engine* engine = nullptr;
  bool load = false;
  uint64_t id = 0;
  Pairs pairs;
  std::vector<PayloadSeed> payloads;  // of a save
};

class GpuSessionsModelTest : public GpuRoomTest {
 protected:
  // `script`: as STAND_IN_CUDA has it, for workers.
  void Run(const std::string& script, uint64_t seed, uint64_t operations) {
    random_ = Seeded(seed);
    ASSERT_NO_FATAL_FAILURE(Open(script));
    for (Engine& engine : engines_) {
      engine.memory = Allocate();
      engine.blocks.resize(kBlocks);
      engine.history.resize(kBlocks);
      ASSERT_NO_FATAL_FAILURE(OpenSession(engine));
    }
    for (uint64_t i = 0; i < operations && !HasFailure(); ++i) {
      step_ = i;
      Step();
      if (i % 64 == 0) {
        CompareMemory();
      }
    }
    if (gathers_) {
      ExpectThatPiecesAreGathered();
    }
    CompareMemory();
    ASSERT_NO_FATAL_FAILURE(ExpectNothingIsLeft());
    std::cout << "seed " << seed << ": " << operations << " operations, " << stored_
              << " blocks saved, " << loaded_ << " loaded, " << failed_ << " failed, " << deaths_
              << " engines and " << workers_killed_ << " workers killed\n";
  }

  void ExpectThatItHasBeenBusy(uint64_t operations) const {
    EXPECT_GT(stored_, operations / 10);
    EXPECT_GT(loaded_, operations / 4);
    EXPECT_GT(failed_, 0U) << "no cancellation, deadline or death met a copy";
    EXPECT_GT(deaths_, operations / 1000);
    EXPECT_GT(workers_killed_, operations / 2000);
  }

  bool gathers_ = false;  // to be seen at the end

 private:
  // A worker says what it has gathered once a second, and many do not live for so long.
  void ExpectThatPiecesAreGathered() {
    EXPECT_TRUE(Eventually([this] {
      Engine& engine = Any();
      Settle(SendSave(engine, AnyPairs()));
      Settle(SendLoad(engine, AnyPairs()));
      return DeviceFigures().worker.bytes_gathered > 0 || HasFailure();
    }));
  }
  void Step() {
    Engine& engine = Any();
    const uint64_t dice = random_.Below(1000);
    if (dice < 350) {
      Settle(SendSave(engine, AnyPairs()));
    } else if (dice < 750) {
      Settle(SendLoad(engine, AnyPairs()));
    } else if (dice < 840) {
      SideBySide();
    } else if (dice < 890) {
      GetByMessage(random_.Below(kKeys));
    } else if (dice < 920) {
      PutByMessage(random_.Below(kKeys));
    } else if (dice < 950) {
      Delete(AnyPairs().keys);
    } else if (dice < 975) {
      CancelOne(engine);
    } else if (dice < 985) {
      deadline_ms_ = 1;
      Settle(SendAny(engine, AnyPairs()));
      deadline_ms_ = 0;
    } else if (dice < 990) {
      room_->EvictAll();
    } else if (dice < 993) {
      ASSERT_NO_FATAL_FAILURE(RegisterAgain(engine));
    } else if (dice < 997) {
      ASSERT_NO_FATAL_FAILURE(KillEngine(engine));
    } else {
      KillWorker();
    }
  }

  // ---- engines

  Engine& Any() { return engines_[random_.Below(engines_.size())]; }

  void OpenSession(Engine& engine) {
    engine.client = NewSession();
    ASSERT_EQ(OpenNamespace(*engine.client), digest_);
    ASSERT_NO_FATAL_FAILURE(RegisterRegion(engine));
  }

  // The handle is free as soon as the session before has been taken leave of.
  void RegisterRegion(Engine& engine) {
    absl::Status status;
    ASSERT_TRUE(Eventually([&] {
      status = Register(*engine.client, RegionOf(engine.memory)).status();
      return !absl::IsAlreadyExists(status) && !absl::IsUnavailable(status);
    })) << status;
    ASSERT_TRUE(status.ok()) << status;
  }

  void RegisterAgain(Engine& engine) {
    v1::UnregisterRegionRequest request;
    request.set_region_id(1);
    ASSERT_TRUE(
        engine.client->Call<v1::UnregisterRegionReply>(v1::METHOD_UNREGISTER_REGION, request).ok());
    CompareMemory();  // whatever is still written would be seen at the next comparison
    ASSERT_NO_FATAL_FAILURE(RegisterRegion(engine));
  }

  void KillEngine(Engine& engine) {
    const Sent sent = SendAny(engine, AnyPairs());
    Forget(sent);
    engine.client.reset();
    ++deaths_;
    ASSERT_NO_FATAL_FAILURE(OpenSession(engine));
  }

  void KillWorker() {
    const Sent sent = SendAny(Any(), AnyPairs());
    const int pid = DeviceFigures().worker_pid;
    if (pid != 0) {
      kill(pid, SIGKILL);
      ++workers_killed_;
    }
    Settle(sent);
  }

  // ---- calls

  std::vector<uint64_t> AnyOf(uint64_t limit, size_t count) {
    std::vector<uint64_t> all(limit);
    std::iota(all.begin(), all.end(), uint64_t{0});
    for (size_t i = 0; i < count; ++i) {
      std::swap(all[i], all[i + random_.Below(limit - i)]);
    }
    all.resize(count);
    return all;
  }
  Pairs AnyPairs() {
    const size_t count = 1 + random_.Below(kMostTogether);
    return {AnyOf(kKeys, count), AnyOf(kBlocks, count)};
  }

  Sent SendAny(Engine& engine, Pairs pairs) {
    return random_.OneIn(2) ? SendSave(engine, std::move(pairs))
                            : SendLoad(engine, std::move(pairs));
  }

  Sent SendSave(Engine& engine, Pairs pairs) {
    Sent sent{&engine, false, 0, std::move(pairs), {}};
    for (const uint64_t block : sent.pairs.blocks) {
      std::optional<PayloadSeed>& content = engine.blocks[block];
      if (!content.has_value() || random_.OneIn(2)) {
        content = ++last_payload_;
        Note(engine, block, "written " + std::to_string(*content));
        WriteBlock(engine.memory, static_cast<uint32_t>(block), PayloadOf(*content));
      }
      sent.payloads.push_back(*content);
    }
    v1::PutRequest request = PutOf(sent.pairs.keys, sent.pairs.blocks);
    request.mutable_part()->set_rule(v1::RULE_INDEPENDENT);
    sent.id = engine.client->Send(v1::METHOD_PUT, request, {}, deadline_ms_);
    return sent;
  }

  Sent SendLoad(Engine& engine, Pairs pairs) {
    Sent sent{&engine, true, 0, std::move(pairs), {}};
    v1::GetRequest request = GetOf(sent.pairs.keys, sent.pairs.blocks);
    if (random_.OneIn(2)) {
      request.mutable_parts(0)->set_rule(v1::RULE_INDEPENDENT);
    }
    if (random_.OneIn(3)) {
      request.mutable_regions(0)->set_progress_slot(1 + static_cast<uint32_t>(random_.Below(64)));
    }
    sent.id = engine.client->Send(v1::METHOD_GET, request, {}, deadline_ms_);
    return sent;
  }

  // Several calls of both engines at a time; no two have a key or a block in common.
  void SideBySide() {
    const size_t calls = 2 + random_.Below(7);
    const size_t keys_a_call = 1 + random_.Below(3);
    const std::vector<uint64_t> keys = AnyOf(kKeys, calls * keys_a_call);
    const std::vector<uint64_t> blocks = AnyOf(kBlocks, calls * keys_a_call);
    std::vector<Sent> sent;
    for (size_t begin = 0; begin < keys.size(); begin += keys_a_call) {
      const auto at = static_cast<ptrdiff_t>(begin);
      const auto end = static_cast<ptrdiff_t>(begin + keys_a_call);
      sent.push_back(SendAny(Any(), {{keys.begin() + at, keys.begin() + end},
                                     {blocks.begin() + at, blocks.begin() + end}}));
    }
    for (const uint64_t next : AnyOf(sent.size(), sent.size())) {
      Settle(sent[next]);
    }
  }

  void CancelOne(Engine& engine) {
    const Sent sent = SendAny(engine, AnyPairs());
    v1::CancelRequest request;
    request.set_call_id(sent.id);
    const auto reply = engine.client->Call<v1::CancelReply>(v1::METHOD_CANCEL, request);
    EXPECT_TRUE(reply.ok()) << reply.status();
    Settle(sent);
  }

  void Note(Engine& engine, uint64_t block, const std::string& what) {
    std::string& history = engine.history[block];
    history += std::to_string(step_) + " " + what + "; ";
    if (history.size() > 1000) {
      history.erase(0, 500);
    }
  }

  void Settle(const Sent& sent) {
    if (sent.load) {
      SettleLoad(sent);
    } else {
      SettleSave(sent);
    }
  }

  void SettleSave(const Sent& sent) {
    const auto reply =
        sent.engine->client->Result<v1::PutReply>(sent.engine->client->ReceiveReply(sent.id));
    if (!reply.ok()) {
      EXPECT_TRUE(MayFail(reply.status())) << reply.status();
      Forget(sent);
      return;
    }
    ASSERT_EQ(reply->outcomes().size(), sent.pairs.keys.size());
    for (size_t i = 0; i < sent.pairs.keys.size(); ++i) {
      TakePut(sent.pairs.keys[i], sent.payloads[i], reply->outcomes()[i]);
    }
  }

  void TakePut(uint64_t key, PayloadSeed payload, int outcome) {
    if (outcome == v1::PUT_OUTCOME_STORED) {
      kept_[key] = {payload};
      ++stored_;
    } else if (outcome == v1::PUT_OUTCOME_DUPLICATE) {
      EXPECT_FALSE(kept_[key].empty()) << "key " << key << " was never put, or deleted";
    } else {
      ++failed_;
    }
  }

  void SettleLoad(const Sent& sent) {
    const auto reply =
        sent.engine->client->Result<v1::GetReply>(sent.engine->client->ReceiveReply(sent.id));
    if (!reply.ok()) {
      EXPECT_TRUE(MayFail(reply.status())) << reply.status();
      Forget(sent);
      return;
    }
    ASSERT_EQ(reply->outcomes().size(), sent.pairs.keys.size());
    for (size_t i = 0; i < sent.pairs.keys.size(); ++i) {
      std::optional<PayloadSeed>& content = sent.engine->blocks[sent.pairs.blocks[i]];
      Note(*sent.engine, sent.pairs.blocks[i],
           "load of key " + std::to_string(sent.pairs.keys[i]) + ": outcome " +
               std::to_string(reply->outcomes()[i]));
      switch (reply->outcomes()[i]) {
        case v1::GET_OUTCOME_OK:
          content = TakeDelivered(
              sent.pairs.keys[i],
              ReadBlock(sent.engine->memory, static_cast<uint32_t>(sent.pairs.blocks[i])));
          break;
        case v1::GET_OUTCOME_MISS:
        case v1::GET_OUTCOME_BUSY:
          break;  // the block is as it was; the next comparison looks
        case v1::GET_OUTCOME_DEADLINE:
        case v1::GET_OUTCOME_REGION_FAILED:
        case v1::GET_OUTCOME_CANCELLED:
          content.reset();
          ++failed_;
          break;
        default:
          ADD_FAILURE() << "outcome " << static_cast<int>(reply->outcomes()[i]);
      }
    }
  }

  // Which of the payloads that the key may have it is.
  std::optional<PayloadSeed> TakeDelivered(uint64_t key, const std::string& bytes) {
    for (const PayloadSeed may_be : kept_[key]) {
      if (bytes == PayloadOf(may_be)) {
        const PayloadSeed is = may_be;
        kept_[key] = {is};
        ++loaded_;
        return is;
      }
    }
    ADD_FAILURE() << "wrong bytes for key " << key << ", which may have " << kept_[key].size()
                  << " payloads";
    return std::nullopt;
  }

  // Nobody will hear how the call ended.
  void Forget(const Sent& sent) {
    for (size_t i = 0; i < sent.pairs.keys.size(); ++i) {
      if (sent.load) {
        Note(*sent.engine, sent.pairs.blocks[i], "load whose end is not known");
        sent.engine->blocks[sent.pairs.blocks[i]].reset();
      } else {
        kept_[sent.pairs.keys[i]].push_back(sent.payloads[i]);
      }
    }
    ++failed_;
  }

  static bool MayFail(const absl::Status& status) {
    return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
           absl::IsCancelled(status);
  }

  // ---- by message, which passes the same blocks through no GPU

  void GetByMessage(uint64_t key) {
    v1::GetRequest request;
    *request.add_parts() = PartOf({key});
    const auto reply = Get(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    if (reply->outcomes()[0] == v1::GET_OUTCOME_OK) {
      TakeDelivered(key, reply->payload());
    }
  }

  void PutByMessage(uint64_t key) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf({key});
    const PayloadSeed payload = ++last_payload_;
    request.set_payload(PayloadOf(payload));
    request.add_payload_bytes(kBlockBytes);
    const auto reply = Put(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    TakePut(key, payload, reply->outcomes()[0]);
  }

  // A put whose engine died may still be under way, and what it stores comes after the delete.
  void Delete(const std::vector<uint64_t>& keys) {
    ASSERT_TRUE(Eventually([this] { return Figures().calls_in_flight == 0; }));
    v1::DeleteRequest request;
    *request.mutable_part() = PartOf(keys);
    const auto reply = client_->Call<v1::DeleteReply>(v1::METHOD_DELETE, request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->deleted() + reply->not_found(), keys.size());
    for (const uint64_t key : keys) {
      kept_[key].clear();
    }
  }

  // ---- what must hold

  void CompareMemory() {
    for (Engine& engine : engines_) {
      for (uint32_t block = 0; block < kBlocks; ++block) {
        const std::optional<PayloadSeed>& content = engine.blocks[block];
        const std::string is = ReadBlock(engine.memory, block);
        EXPECT_TRUE(!content.has_value() || is == PayloadOf(*content))
            << "block " << block << " was written to by nobody's order, with " << NameOf(is) << ": "
            << engine.history[block];
      }
    }
  }

  void ExpectNothingIsLeft() {
    for (Engine& engine : engines_) {
      engine.client.reset();
    }
    EXPECT_TRUE(Eventually([this] {
      room_->EvictAll();
      const GpuFigures figures = Figures();
      const StoreUsage usage = room_->store().Usage();
      return figures.regions == 0 && figures.calls_in_flight == 0 && DeviceFigures().regions == 0 &&
             DeviceFigures().copies_in_flight == 0 && DeviceFigures().staging_bytes_used == 0 &&
             usage.sessions == 1 && usage.used_slot_bytes == 0;
    }));
  }

  [[nodiscard]] std::string NameOf(const std::string& payload) const {
    for (PayloadSeed seed = last_payload_; seed > 0; --seed) {
      if (payload == PayloadOf(seed)) {
        return "payload " + std::to_string(seed);
      }
    }
    return "no payload of the test's";
  }
  static std::string PayloadOf(PayloadSeed seed) { return Seeded(seed).Bytes(kBlockBytes); }

  Seeded random_{0};
  std::array<Engine, 2> engines_;
  std::vector<std::vector<PayloadSeed>> kept_{
      kKeys};  // by key: what a get may deliver; empty: nothing
  PayloadSeed last_payload_ = 0;
  uint32_t deadline_ms_ = 0;
  uint64_t step_ = 0;
  uint64_t stored_ = 0;
  uint64_t loaded_ = 0;
  uint64_t failed_ = 0;
  uint64_t deaths_ = 0;
  uint64_t workers_killed_ = 0;
};

TEST_F(GpuSessionsModelTest, RandomOperationsOfTwoEnginesNeverMoveAWrongByteAndLeaveNothingBehind) {
  const uint64_t operations = doubles::FromEnvironment("TERRACE_MODEL_OPERATIONS", 10'000);
  ASSERT_NO_FATAL_FAILURE(
      Run("delay=20", doubles::FromEnvironment("TERRACE_MODEL_SEED", 1), operations));
  if (operations >= 2000) {
    ExpectThatItHasBeenBusy(operations);
  }
}

TEST_F(GpuSessionsModelTest, GatheredPiecesOfTwoEnginesNeverMoveAWrongByteEither) {
  if (KernelImage().empty()) {
    GTEST_SKIP() << "built without nvcc";
  }
  setenv("TERRACE_GATHER_PIECE_BYTES", "65536", 1);
  gathers_ = true;
  const uint64_t operations = doubles::FromEnvironment("TERRACE_MODEL_OPERATIONS", 2'000);
  ASSERT_NO_FATAL_FAILURE(
      Run("kernels;delay=1", doubles::FromEnvironment("TERRACE_MODEL_SEED", 2), operations));
}

}  // namespace
}  // namespace terrace::doubles
