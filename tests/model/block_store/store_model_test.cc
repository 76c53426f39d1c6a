// Random operations from several threads on a small store over sealed memory. Every byte that is
// read must be the one that the key and its version were made from: blocks are evicted, deleted,
// cleared and stored anew all the time.
//
// TERRACE_MODEL_STEPS sets the steps of each thread, TERRACE_MODEL_SEED the seed.
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

#include "daemon/block_store.h"
#include "daemon/thread_executor.h"
#include "tests/doubles/from_environment.h"
#include "tests/doubles/shared_pool_double.h"
#include "tiers/dram/arena.h"
#include "tiers/vocab/clock.h"

namespace terrace {
namespace {

constexpr uint32_t kKeys = 400;
constexpr uint32_t kKeyBytes = 32;
constexpr uint32_t kMaxPayload = 1 << 20;

std::string KeyOf(uint32_t n) {
  std::string key(kKeyBytes, '\1');
  std::memcpy(key.data(), &n, sizeof(n));
  return key;
}

// Sizes differ by key, so that slot classes compete for the few slabs.
uint32_t BytesOf(uint32_t n) {
  constexpr uint32_t kSizes[] = {4096, 60000, 200000, 1 << 20};
  return kSizes[n % 4] - n % 7;
}

void Fill(uint32_t n, char* out) {
  const uint32_t bytes = BytesOf(n);
  uint64_t state = n * 0x9e3779b97f4a7c15ULL + 1;
  for (uint32_t i = 0; i < bytes; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    out[i] = static_cast<char>(state >> 56U);
  }
}

bool IsRight(uint32_t n, const char* payload, uint32_t bytes) {
  static const auto& expected = *[] {
    auto* all = new std::vector<std::string>();
    for (uint32_t i = 0; i < kKeys; ++i) {
      all->emplace_back(BytesOf(i), '\0');
      Fill(i, all->back().data());
    }
    return all;
  }();
  return bytes == expected[n].size() && std::memcmp(payload, expected[n].data(), bytes) == 0;
}

// One client: a session, a region, and the slabs that it mapped.
class Client {
 public:
  Client(BlockStore& store, TenantId tenant, Digest128 ns, uint64_t seed)
      : store_(store), ns_(ns), random_(seed) {
    caller_ = {tenant, store.OpenSession(tenant, BlockStore::LeaseRight::kProvenByPidfd)};
    fd_ = memfd_create("model", MFD_CLOEXEC);
    EXPECT_EQ(ftruncate(fd_, kBlocks * kMaxPayload), 0);
    region_ = static_cast<char*>(
        mmap(nullptr, kBlocks * kMaxPayload, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    auto memory = GuardedRegion::Map(fd_, 0, kBlocks * kMaxPayload, MapAccess::kReadWrite);
    RegionGeometry geometry{kBlocks,
                            {RegionPlane{0, kMaxPayload, {RegionSegment{0, kMaxPayload}}}}};
    EXPECT_TRUE(
        store.RegisterRegion(caller_.session, {1, std::move(*memory), std::move(geometry), false})
            .ok());
  }
  ~Client() {
    store_.ProcessGone(caller_.session);
    munmap(region_, kBlocks * kMaxPayload);
    close(fd_);
    for (const auto& [slab, mapping] : slabs_) {
      munmap(mapping.first, mapping.second);
    }
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Step() {
    switch (random_() % 16) {
      case 0:
        store_.Delete(caller_, Part(Some()), [](const auto&) {});
        break;
      case 1:
        if (random_() % 8 == 0) {
          store_.ClearNamespace(caller_.tenant, ns_, [](const auto&) {});
        }
        break;
      case 2:
        static_cast<void>(
            store_.Pin(caller_, Part(Some()), absl::Milliseconds(random_() % 20 + 1)));
        break;
      case 3:
      case 4:
        HoldAndRelease();
        break;
      case 5:
      case 6:
      case 7:
      case 8:
        Put(Some());
        break;
      case 9:
      case 10:
      case 11:
        GetIntoRegion(Some());
        break;
      default:
        GetByLease(Some());
        break;
    }
  }
  [[nodiscard]] uint64_t verified() const { return verified_; }
  [[nodiscard]] uint64_t wrong() const { return wrong_; }

 private:
  static constexpr uint32_t kBlocks = 6;

  std::vector<uint32_t> Some() {
    std::vector<uint32_t> keys(random_() % kBlocks + 1);
    for (uint32_t& key : keys) {
      key = static_cast<uint32_t>(random_() % kKeys);
    }
    return keys;
  }
  StorePart Part(const std::vector<uint32_t>& keys) {
    StorePart part;
    part.namespace_digest = ns_;
    part.rule = random_() % 2 == 0 ? Rule::kPrefix : Rule::kIndependent;
    for (const uint32_t key : keys) {
      part.keys += KeyOf(key);
    }
    return part;
  }
  RegionBlocks Blocks(size_t count) {
    RegionBlocks blocks{1, {}};
    for (uint32_t i = 0; i < count; ++i) {
      blocks.block_indexes.push_back(i);
    }
    return blocks;
  }
  void Put(const std::vector<uint32_t>& keys) {
    PutCall call;
    call.part = Part(keys);
    for (size_t i = 0; i < keys.size(); ++i) {
      Fill(keys[i], region_ + i * kMaxPayload);
      call.payload_bytes.push_back(BytesOf(keys[i]));
    }
    call.region = Blocks(keys.size());
    call.wait_for = random_() % 4 == 0 ? Level::kPool : Level::kDram;
    call.deadline = BootClock().Now() + absl::Seconds(20);
    call.alone = random_() % 2 == 0;
    call.call_id = ++call_id_;
    absl::Notification done;
    store_.Put(caller_, std::move(call), [&](const absl::StatusOr<PutResult>& result) {
      wrong_ += result.ok() ? 0 : 1;
      done.Notify();
    });
    if (random_() % 8 == 0) {
      store_.CancelCall(caller_, call_id_, [](bool) {});
    }
    done.WaitForNotification();
  }
  GetResult Get(const std::vector<uint32_t>& keys, Delivery delivery) {
    GetCall call;
    call.parts.push_back(Part(keys));
    call.delivery = delivery;
    if (delivery == Delivery::kRegion) {
      call.regions.push_back(Blocks(keys.size()));
    }
    call.wait_pending = random_() % 2 == 0;
    call.deadline = BootClock().Now() + absl::Seconds(20);
    call.alone = random_() % 2 == 0;
    GetResult result;
    absl::Notification done;
    store_.Get(caller_, std::move(call), [&](absl::StatusOr<GetResult> reply) {
      if (reply.ok()) {
        result = std::move(*reply);
      } else {
        ++wrong_;
      }
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }
  void Check(uint32_t key, const char* payload, uint32_t bytes) {
    ++verified_;
    wrong_ += IsRight(key, payload, bytes) ? 0 : 1;
  }
  void GetIntoRegion(const std::vector<uint32_t>& keys) {
    const GetResult result = Get(keys, Delivery::kRegion);
    for (size_t i = 0; i < result.outcomes.size(); ++i) {
      if (static_cast<GetOutcome>(result.outcomes[i]) == GetOutcome::kOk) {
        Check(keys[i], region_ + i * kMaxPayload, result.payload_bytes[i]);
      }
    }
  }
  void GetByLease(const std::vector<uint32_t>& keys) {
    const GetResult result = Get(keys, Delivery::kLease);
    for (size_t i = 0; i < result.outcomes.size(); ++i) {
      if (static_cast<GetOutcome>(result.outcomes[i]) == GetOutcome::kOk) {
        const char* slab = Slab(SlabId{result.slab_ids[i]});
        Check(keys[i], slab + result.slab_offsets[i], result.payload_bytes[i]);
      }
    }
    if (!result.lease_id.IsZero()) {
      const ReleaseResult released = store_.Release(caller_, {{result.lease_id, {}}}, {});
      wrong_ += released.released == 1 ? 0 : 1;
    }
  }
  const char* Slab(SlabId id) {
    auto found = slabs_.find(id);
    if (found == slabs_.end()) {
      auto grant = store_.MapSlab(caller_.session, id);
      EXPECT_TRUE(grant.ok()) << grant.status();
      void* memory = mmap(nullptr, grant->bytes, PROT_READ, MAP_SHARED, grant->descriptor.get(), 0);
      EXPECT_NE(memory, MAP_FAILED);
      found = slabs_.emplace(id, std::make_pair(memory, grant->bytes)).first;
    }
    return static_cast<const char*>(found->second.first);
  }
  void HoldAndRelease() {
    ProbeCall call;
    call.parts.push_back(Part(Some()));
    call.hold = absl::Milliseconds(random_() % 30 + 1);
    ProbeResult result;
    store_.Probe(caller_, std::move(call), [&](ProbeResult probe) { result = std::move(probe); });
    if (!result.hold_id.IsZero() && random_() % 2 == 0) {
      store_.Release(caller_, {}, {result.hold_id});
    }
  }

  BlockStore& store_;
  Digest128 ns_;
  Caller caller_;
  std::mt19937_64 random_;
  int fd_ = -1;
  char* region_ = nullptr;
  std::map<SlabId, std::pair<void*, uint64_t>> slabs_;
  uint64_t call_id_ = 0;
  std::atomic<uint64_t> verified_{0};
  std::atomic<uint64_t> wrong_{0};
};

NamespaceRecord Record() {
  NamespaceRecord record;
  record.model = "model";
  record.weights_revision = "1";
  record.kv_dtype = "bf16";
  record.layout = "l";
  record.hash_algorithm = "sha256";
  record.block_tokens = 16;
  record.block_bytes = kMaxPayload;
  return record;
}

// The client's steps, beside the turns of the thread that makes time pass: on a machine with other
// work that one thread would fall behind.
void Work(Client& client, uint64_t steps, const std::atomic<uint64_t>& turns) {
  constexpr uint64_t kTurnsAStep = 16;
  for (uint64_t i = 0; i < steps; ++i) {
    while (turns < i * kTurnsAStep) {
      std::this_thread::yield();
    }
    client.Step();
  }
}

// `meanwhile` runs again and again on the thread that makes time pass, `last` when all is done.
void RunModel(BlockStoreOptions options,
              const std::vector<SharedTier*>& shared,
              const std::function<void(std::mt19937_64& random)>& meanwhile,
              const std::function<void()>& last) {
  const uint64_t seed = doubles::FromEnvironment("TERRACE_MODEL_SEED", std::random_device{}());
  const uint64_t steps = doubles::FromEnvironment("TERRACE_MODEL_STEPS", 600);
  std::printf("seed %llu, %llu steps a thread\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(steps));
  const std::unique_ptr<SlabSource> slabs = MakeSealedSlabSource(false, 1);
  const std::unique_ptr<Executor> executor = *MakeThreadExecutor({.threads = 2});
  options.dram_bytes = uint64_t{512} << 20;
  options.verify_one_in = 2;
  BlockStore::Parts parts;
  parts.shared = shared;
  parts.clock = &BootClock();
  parts.executor = executor.get();
  parts.slabs = slabs.get();
  auto created = BlockStore::Create(options, parts);
  ASSERT_TRUE(created.ok()) << created.status();
  BlockStore& store = **created;

  // Guaranteed halves: within each, four slot sizes compete for four slabs.
  for (const char* alias : {"a", "b"}) {
    ASSERT_TRUE(store.SetQuota(*store.OpenTenant(alias), options.dram_bytes / 2, 0).ok());
  }
  std::vector<std::unique_ptr<Client>> clients;
  for (uint64_t i = 0; i < 4; ++i) {
    const TenantId tenant = *store.OpenTenant(i % 2 == 0 ? "a" : "b");
    clients.push_back(std::make_unique<Client>(
        store, tenant, store.OpenNamespace(tenant, Record())->digest, seed + i));
  }
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> turns{0};
  std::thread ticker([&] {
    std::mt19937_64 random(seed);
    while (!stop) {
      store.Tick();
      meanwhile(random);
      ++turns;
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  for (const std::unique_ptr<Client>& client : clients) {
    threads.emplace_back([&client, &turns, steps] { Work(*client, steps, turns); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  stop = true;
  ticker.join();
  last();
  uint64_t verified = 0;
  for (const std::unique_ptr<Client>& client : clients) {
    EXPECT_EQ(client->wrong(), 0U) << "seed " << seed;
    verified += client->verified();
  }
  EXPECT_GT(verified, steps / 10) << "the run must have read something";
  clients.clear();
  const StoreUsage usage = store.Usage();
  EXPECT_EQ(usage.leased_blocks, 0U);
  EXPECT_EQ(usage.holds, 0U);
  EXPECT_EQ(usage.regions, 0U);
  EXPECT_EQ(usage.sessions, 0U);
  EXPECT_EQ(usage.counters.corrupt, 0U);
}

TEST(StoreModel, RandomOperationsOfTwoTenantsNeverReadAWrongByteAndLeaveNothingBehind) {
  RunModel(
      {}, {}, [](std::mt19937_64&) {}, [] {});
}

// One that takes what is committed, and one that takes what is evicted; both are slow, refuse and
// go away as they please.
TEST(StoreModel, TheSameHoldsOverPoolsThatAreSick) {
  std::vector<std::unique_ptr<doubles::SharedPoolDouble>> pools;
  std::vector<std::unique_ptr<SharedTier>> tiers;
  std::vector<SharedTier*> shared;
  BlockStoreOptions options;
  for (const PublishWhen publish : {PublishWhen::kOnCommit, PublishWhen::kOnEviction}) {
    pools.push_back(std::make_unique<doubles::SharedPoolDouble>());
    tiers.push_back(pools.back()->Join(absl::StrCat("g", 4 + tiers.size())));
    shared.push_back(tiers.back().get());
    options.shared.emplace_back().publish = publish;
  }
  const auto misbehave = [&pools](std::mt19937_64& random) {
    doubles::SharedPoolDouble& pool = *pools[random() % pools.size()];
    pool.ReleaseOne();
    pool.EndOne(random() % 512 == 0 ? WriteOutcome::kFault : WriteOutcome::kWritten);
    pool.EndOneRead(random() % 4 == 0 ? ReadOutcome::kFault : ReadOutcome::kVerified);
    if (pools[0]->published() == 0) {
      return;  // or bad luck keeps it away until the end, and nothing was tried
    }
    switch (random() % 256) {
      case 0:
        pool.HoldPublishes(random() % 2 == 0);
        break;
      case 1:
        pool.HoldReads(random() % 2 == 0);
        break;
      case 2:
        pool.SetState(random() % 2 == 0 ? PoolState::kOnline : PoolState::kSuspended);
        break;
      case 3:
        pool.FailRecords(random() % 2 == 0);
        break;
      case 4:
        pool.FailPublishes(random() % 2 == 0 ? std::nullopt
                                             : std::optional<WriteOutcome>(WriteOutcome::kBusy));
        break;
      default:
        break;
    }
  };
  RunModel(
      options, shared,
      [&](std::mt19937_64& random) {
        misbehave(random);
        if (random() % 64 == 0) {
          pools[0]->Forget();
        }
      },
      [&pools] {
        for (const std::unique_ptr<doubles::SharedPoolDouble>& pool : pools) {
          pool->HoldPublishes(false);
          pool->HoldReads(false);
          while (pool->EndOne() || pool->EndOneRead()) {
          }
        }
      });
  EXPECT_GT(pools[0]->published(), 0U);
  EXPECT_GT(pools[0]->offered() + pools[1]->offered(), 20U);
}

}  // namespace
}  // namespace terrace
