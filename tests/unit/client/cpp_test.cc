// terrace.hpp: what its objects hold they give back, and waiting calls get their own completion.
#include <atomic>
#include <numeric>
#include <thread>
#include <type_traits>

#include "terrace/terrace.hpp"

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

static_assert(std::is_nothrow_move_constructible_v<Lease> && !std::is_copy_constructible_v<Lease>);
static_assert(std::is_nothrow_move_constructible_v<Client> &&
              !std::is_copy_constructible_v<Client>);
static_assert(std::is_move_constructible_v<Staging> && !std::is_copy_constructible_v<Staging>);
static_assert(std::is_move_assignable_v<Completion> && !std::is_copy_constructible_v<Completion>);

class Cpp : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    Options options;
    options.runtime_dir = folder_.path();
    options.deadline = Milliseconds(kPatienceMs);
    options.reconnect = Milliseconds(20);
    cpp_ = std::make_unique<Client>(Client::Open(options));
    ASSERT_TRUE(*cpp_);
    ASSERT_TRUE(cpp_->WaitConnected(Milliseconds(kPatienceMs)));
    ns_ = cpp_->OpenNamespace(Record());
    ASSERT_TRUE(ns_) << ns_.error();
  }
  std::unique_ptr<Client> cpp_;
  Namespace ns_;
  const std::string keys_ = Keys("k", 2);
  const std::string payload_ = std::string(kBlockBytes, 'A') + std::string(kBlockBytes, 'B');
};

TEST_F(Cpp, PutProbeGetInFewLines) {
  const Completion put = cpp_->Put(Part(ns_, keys_), payload_);
  ASSERT_TRUE(put.ok()) << put.error();
  EXPECT_TRUE(put.stored(0));
  EXPECT_TRUE(put.stored(1));
  EXPECT_FALSE(put.stored(2)) << "there is no third key";
  const Completion probe = cpp_->Probe(Part(ns_, keys_));
  EXPECT_EQ(probe.state(1), TERRACE_KEY_READY);
  EXPECT_EQ(probe->part_boundary_keys[0], 2U);
  const Completion get = cpp_->Get(Part(ns_, keys_));
  EXPECT_EQ(get.delivered_prefix(), 2U);
  EXPECT_EQ(get.payload(0), payload_.substr(0, kBlockBytes));
  EXPECT_EQ(get.payload(1), payload_.substr(kBlockBytes));
  EXPECT_EQ(get.payload(2), "");
  EXPECT_TRUE(cpp_->Delete(Part(ns_, keys_)).ok());
  EXPECT_EQ(cpp_->Get(Part(ns_, keys_)).delivered_prefix(), 0U);
}

TEST_F(Cpp, ALeaseEndsWithItsCompletionOrWithWhoTookIt) {
  ASSERT_TRUE(cpp_->Put(Part(ns_, keys_), payload_).ok());
  { const Completion dropped = cpp_->Get(Part(ns_, keys_)); }
  ASSERT_TRUE(cpp_->Probe(Part(ns_, keys_)).ok());
  EXPECT_EQ(server_->live_leases(), 0U);
  Lease kept;
  EXPECT_FALSE(kept);
  {
    Completion get = cpp_->Get(Part(ns_, keys_));
    kept = get.TakeLease();
  }
  EXPECT_TRUE(kept);
  ASSERT_TRUE(cpp_->Probe(Part(ns_, keys_)).ok());
  EXPECT_EQ(server_->live_leases(), 1U);
  Lease moved = std::move(kept);
  moved.Release();
  moved.Release();
  ASSERT_TRUE(cpp_->Probe(Part(ns_, keys_)).ok());
  EXPECT_EQ(server_->live_leases(), 0U);
  EXPECT_EQ(server_->Seen(v1::METHOD_RELEASE), 2U);
}

TEST_F(Cpp, StagingIsARegionWithMemory) {
  const uint32_t blocks[] = {1, 0};
  {
    Staging staging = cpp_->CreateStaging(kBlockBytes, 2);
    ASSERT_TRUE(staging);
    std::memcpy(staging.block(1), payload_.data(), kBlockBytes);
    std::memcpy(staging.block(0), payload_.data() + kBlockBytes, kBlockBytes);
    ASSERT_TRUE(cpp_->Put(Part(ns_, keys_).In(staging, blocks)).stored(1));
    std::memset(staging.block(0), 0, 2 * staging.stride());
    EXPECT_EQ(cpp_->Get(Part(ns_, keys_).In(staging, blocks)).delivered_prefix(), 2U);
    EXPECT_EQ(std::memcmp(staging.block(1), payload_.data(), kBlockBytes), 0);
    const Staging moved = std::move(staging);
    EXPECT_FALSE(staging);  // NOLINT(bugprone-use-after-move): it says so
    EXPECT_EQ(server_->live_regions(), 1U);
  }
  EXPECT_EQ(server_->live_regions(), 0U);
}

TEST_F(Cpp, AFailureIsAMissWithAReason) {
  Namespace none = cpp_->OpenNamespace({});
  EXPECT_FALSE(none);
  EXPECT_EQ(none.status(), TERRACE_INVALID_ARGUMENT);
  EXPECT_STREQ(none.error(), "model: required");
  const Completion get = cpp_->Get(Part(none, keys_));
  EXPECT_EQ(get.status(), TERRACE_INVALID_ARGUMENT);
  EXPECT_EQ(get.key_count(), 0U);
  EXPECT_FALSE(get.hit(0));
  EXPECT_EQ(get.get(), nullptr);
  EXPECT_STRNE(get.error(), "");
  Options options;
  options.client_name = "no spaces, please";
  const Client closed = Client::Open(options);
  EXPECT_FALSE(closed);
  EXPECT_FALSE(closed.Probe(Part(ns_, keys_)).ok());
  Completion nothing;
  EXPECT_FALSE(closed.Drain(&nothing, Milliseconds(0)));
  EXPECT_FALSE(closed.CreateStaging(1, 1));
  server_->Stop();
  const Completion probe = cpp_->Probe(Part(ns_, keys_));
  EXPECT_EQ(probe.status(), TERRACE_UNAVAILABLE);
  EXPECT_EQ(probe.state(0), TERRACE_KEY_MISS);
}

TEST_F(Cpp, WaitingCallsOfManyThreadsGetTheirOwnCompletions) {
  ASSERT_TRUE(cpp_->Put(Part(ns_, keys_), payload_).ok());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::string keys = t % 2 == 0 ? keys_ : keys_.substr(0, 32);
      for (int i = 0; i < 300; ++i) {
        const Completion get = cpp_->Get(Part(ns_, keys));
        wrong +=
            get.ok() && get.key_count() == keys.size() / 32 && get.payload(0)[0] == 'A' ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(Cpp, DrainGetsWhatWasSubmittedThroughTheAbiBesideWaitingCalls) {
  constexpr int kCalls = 200;
  std::thread waiting([&] {
    for (int i = 0; i < kCalls; ++i) {
      EXPECT_TRUE(cpp_->Probe(Part(ns_, keys_)).ok());
    }
  });
  const Part owned(ns_, keys_);
  int drained = 0;
  for (int i = 1; i <= kCalls; ++i) {
    terrace_call call{};
    call.struct_bytes = sizeof(call);
    call.tag = static_cast<uint64_t>(i);
    call.parts = &owned.get();
    call.part_count = 1;
    ASSERT_EQ(terrace_submit_probe(cpp_->get(), &call, 0, 0, nullptr), TERRACE_OK);
    Completion completion;
    ASSERT_TRUE(cpp_->Drain(&completion, Milliseconds(kPatienceMs)));
    EXPECT_EQ(completion->tag, static_cast<uint64_t>(i));
    ++drained;
  }
  waiting.join();
  EXPECT_EQ(drained, kCalls);
  Completion none;
  EXPECT_FALSE(cpp_->Drain(&none, Milliseconds(0)));
}

TEST_F(Cpp, AMovedClientGoesOn) {
  Client moved = std::move(*cpp_);
  EXPECT_TRUE(moved.Probe(Part(ns_, keys_)).ok());
  *cpp_ = std::move(moved);
  EXPECT_TRUE(cpp_->Probe(Part(ns_, keys_)).ok());
  EXPECT_EQ(cpp_->State().connection, TERRACE_CONNECTION_UP);
}

}  // namespace
}  // namespace terrace::testing
