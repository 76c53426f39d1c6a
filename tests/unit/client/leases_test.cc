// Leases and the slabs they lie in: mapped once, kept as long as they are read, given back in every
// case.
#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>
#include <fstream>
#include <utility>
#include <vector>

#include "tests/doubles/in_child.h"
#include "tests/doubles/scripted_store.h"
#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

class Leases : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    OpenConnected();
    ns_ = OpenNamespace();
    ASSERT_EQ(Put(ns_, keys_, payload_)->status, TERRACE_OK);
  }
  void ExpectPayload(const terrace_completion& get) {
    ASSERT_EQ(get.status, TERRACE_OK) << get.error;
    ASSERT_EQ(get.outcomes[0], TERRACE_GET_OK);
    EXPECT_EQ(std::memcmp(get.data[0], payload_.data(), kBlockBytes), 0);
  }
  // Whether the page can be read: the kernel answers for us.
  static bool Mapped(const void* address) {
    const auto page = reinterpret_cast<uintptr_t>(address) & ~uintptr_t{4095};
    unsigned char resident = 0;
    return ::mincore(reinterpret_cast<void*>(page), 1, &resident) == 0;
  }
  // Where those mappings begin that only a client has: slabs for reading, and staging.
  static std::vector<uint64_t> ClientMappings() {
    std::ifstream maps("/proc/self/maps");
    std::vector<uint64_t> begins;
    for (std::string line; std::getline(maps, line);) {
      const bool slab = line.find("memfd:scripted-slab") != std::string::npos &&
                        line.find(" r--s ") != std::string::npos;
      if (slab || line.find("memfd:terrace-staging") != std::string::npos) {
        begins.push_back(std::stoull(line, nullptr, 16));
      }
    }
    return begins;
  }
  // A get reply for one key with a lease that this script makes up.
  static v1::GetReply Forged(uint32_t slab_id, uint64_t offset, uint32_t bytes) {
    v1::GetReply reply;
    reply.set_outcomes(std::string(1, static_cast<char>(v1::GET_OUTCOME_OK)));
    reply.add_payload_bytes(bytes);
    reply.set_lease_id("forged-lease-id.");
    reply.add_slab_ids(slab_id);
    reply.add_slab_offsets(offset);
    return reply;
  }

  const std::string keys_ = Keys("k", 1);
  const std::string payload_ = std::string(kBlockBytes, 'P');
  terrace_namespace ns_ = 0;
};

TEST_F(Leases, ASlabIsAskedForOnceAndStaysMapped) {
  for (int i = 0; i < 3; ++i) {
    const Completed get = LeaseGet(ns_, keys_);
    ExpectPayload(*get);
    ASSERT_EQ(Release(get->lease), TERRACE_OK);
  }
  EXPECT_EQ(server_->Seen(v1::METHOD_MAP_SLAB), 1U);
  EXPECT_EQ(State().mapped_bytes, ScriptedStore::kSlabBytes);
  EXPECT_EQ(State().leased_bytes, 0U);
  EXPECT_TRUE(ScriptedServer::Eventually([&] { return server_->live_leases() == 0; }));
}

TEST_F(Leases, TheMappingIsReadOnly) {
  const Completed get = LeaseGet(ns_, keys_);
  ExpectPayload(*get);
  const auto page = reinterpret_cast<uintptr_t>(get->data[0]) & ~uintptr_t{4095};
  EXPECT_NE(::mprotect(reinterpret_cast<void*>(page), 4096, PROT_READ | PROT_WRITE), 0);
  Release(get->lease);
}

// Elsewhere a slab's huge pages would be mapped page by page, and reads take up to 2.8 times as
// long.
TEST_F(Leases, ASlabIsMappedWhereHugePagesCanBe) {
  const Completed get = LeaseGet(ns_, keys_);
  ExpectPayload(*get);
  const std::vector<uint64_t> begins = ClientMappings();
  ASSERT_EQ(begins.size(), 1U);
  EXPECT_EQ(begins[0] % (uint64_t{2} << 20), 0U);
  Release(get->lease);
}

TEST_F(Leases, ARetiredSlabGoesWithItsLastLease) {
  const Completed first = LeaseGet(ns_, keys_);
  const Completed second = LeaseGet(ns_, keys_);
  ExpectPayload(*second);
  v1::SlabRetiredNotice notice;
  notice.set_slab_id(ScriptedStore::kSlabId);
  server_->PushAll(v1::METHOD_SLAB_RETIRED_NOTICE, notice);
  ASSERT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);  // the notice came before this answer
  ASSERT_EQ(Release(first->lease), TERRACE_OK);
  ExpectPayload(*second);
  ASSERT_TRUE(Mapped(second->data[0]));
  ASSERT_EQ(Release(second->lease), TERRACE_OK);
  EXPECT_EQ(ClientMappings().size(), 0U);
  EXPECT_EQ(State().mapped_bytes, 0U);
}

TEST_F(Leases, LeasedBytesOutliveTheDaemon) {
  const Completed get = LeaseGet(ns_, keys_);
  ExpectPayload(*get);
  server_->Stop();
  ASSERT_TRUE(Advance([&] { return State().connection == TERRACE_CONNECTION_DOWN; }));
  ExpectPayload(*get);
  server_->Start();
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  ExpectPayload(*get);
  ASSERT_EQ(Release(get->lease), TERRACE_OK);
  EXPECT_EQ(ClientMappings().size(), 0U) << "of an earlier boot: nothing keeps the slab";
  ASSERT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  EXPECT_EQ(server_->Seen(v1::METHOD_RELEASE), 0U) << "the new daemon knows nothing of it";
}

TEST_F(Leases, ALeaseOfAnEarlierSessionOfTheSameBootIsReleasedThere) {
  const Completed get = LeaseGet(ns_, keys_);
  ExpectPayload(*get);
  server_->DropConnections();
  ASSERT_TRUE(Advance([&] { return State().connection == TERRACE_CONNECTION_DOWN; }));
  ASSERT_EQ(Release(get->lease), TERRACE_OK);
  ASSERT_TRUE(Advance([&] { return server_->Seen(v1::METHOD_RELEASE) == 1; }));
}

TEST_F(Leases, AnIdIsReleasedOnce) {
  const Completed get = LeaseGet(ns_, keys_);
  ASSERT_EQ(Release(get->lease), TERRACE_OK);
  ASSERT_EQ(terrace_submit_release(client_, &get->lease, 1, nullptr, 0, 9, nullptr), TERRACE_OK);
  const Completed again = Next();
  EXPECT_EQ(again->status, TERRACE_OK);
  EXPECT_EQ(again->count, 0U);
  const terrace_id128 foreign{{1, 2, 3}};
  ASSERT_EQ(Release(foreign), TERRACE_OK);
  ASSERT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  EXPECT_EQ(server_->Seen(v1::METHOD_RELEASE), 1U);
}

TEST_F(Leases, ALeaseInALateReplyIsGivenBack) {
  std::vector<ScriptedServer::Exchange> kept;
  std::atomic<int> arrived{0};
  server_->On(v1::METHOD_GET, [&](const ScriptedServer::Exchange& exchange) {
    kept.push_back(exchange);
    ++arrived;
  });
  SubmitLeaseGet(ns_, keys_, 20);
  EXPECT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return arrived == 1; }));
  server_->Answer(kept[0]);
  EXPECT_EQ(server_->live_leases(), 1U);
  EXPECT_TRUE(Advance([&] { return server_->live_leases() == 0; }));
  EXPECT_EQ(State().leased_bytes, 0U);
}

TEST_F(Leases, ALeaseWhoseSlabNeverComesIsGivenBackAtTheDeadline) {
  server_->On(v1::METHOD_MAP_SLAB, [](const ScriptedServer::Exchange&) {});
  SubmitLeaseGet(ns_, keys_, 50);
  const Completed get = Next();
  EXPECT_EQ(get->status, TERRACE_DEADLINE_EXCEEDED);
  EXPECT_EQ(get->outcomes[0], TERRACE_GET_MISS);
  EXPECT_TRUE(Advance([&] { return server_->live_leases() == 0; }));
}

TEST_F(Leases, ASlabThatIsRefusedIsAMissAndTheLeaseIsGivenBack) {
  server_->On(v1::METHOD_MAP_SLAB, [](const ScriptedServer::Exchange& exchange) {
    exchange.Refuse(5, "slab_id: not yours");
  });
  const Completed get = LeaseGet(ns_, keys_);
  EXPECT_EQ(get->status, TERRACE_OK);
  EXPECT_EQ(get->outcomes[0], TERRACE_GET_MISS);
  EXPECT_EQ(get->data[0], nullptr);
  EXPECT_TRUE(Advance([&] { return server_->live_leases() == 0; }));
  server_->On(v1::METHOD_MAP_SLAB, nullptr);
  const Completed again = LeaseGet(ns_, keys_);
  ExpectPayload(*again);
  Release(again->lease);
}

TEST_F(Leases, ASlabThatCouldShrinkIsNotMapped) {
  const int fd = ::memfd_create("unsealed", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
  server_->On(v1::METHOD_MAP_SLAB, [fd](const ScriptedServer::Exchange& exchange) {
    v1::MapSlabReply reply;
    reply.set_slab_bytes(1 << 20);
    exchange.Reply(reply, fd);
  });
  const Completed get = LeaseGet(ns_, keys_);
  EXPECT_EQ(get->outcomes[0], TERRACE_GET_MISS);
  EXPECT_EQ(State().mapped_bytes, 0U);
  ::close(fd);
}

TEST_F(Leases, ASlabShorterThanItsWordIsNotMapped) {
  const int fd = ::memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  ASSERT_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  server_->On(v1::METHOD_MAP_SLAB, [fd](const ScriptedServer::Exchange& exchange) {
    v1::MapSlabReply reply;
    reply.set_slab_bytes(1 << 20);
    exchange.Reply(reply, fd);
  });
  EXPECT_EQ(LeaseGet(ns_, keys_)->outcomes[0], TERRACE_GET_MISS);
  ::close(fd);
}

TEST_F(Leases, APayloadOutsideTheSlabIsAMiss) {
  server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange& exchange) {
    exchange.Reply(Forged(ScriptedStore::kSlabId, ScriptedStore::kSlabBytes - 1, 2));
  });
  EXPECT_EQ(LeaseGet(ns_, keys_)->outcomes[0], TERRACE_GET_MISS);
  server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange& exchange) {
    exchange.Reply(Forged(ScriptedStore::kSlabId, UINT64_MAX, 2));
  });
  EXPECT_EQ(LeaseGet(ns_, keys_)->outcomes[0], TERRACE_GET_MISS);
  EXPECT_TRUE(Advance([&] { return server_->Seen(v1::METHOD_RELEASE) == 2; }));
}

TEST_F(Leases, ManySlabsAreAllThereBeforeTheCompletion) {
  // The answers to MapSlab come late and in the opposite order.
  std::vector<ScriptedServer::Exchange> kept;
  server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange& exchange) {
    v1::GetReply reply;
    reply.set_outcomes(std::string(3, static_cast<char>(v1::GET_OUTCOME_OK)));
    reply.set_lease_id("forged-lease-id.");
    for (uint32_t i = 0; i < 3; ++i) {
      reply.add_payload_bytes(kBlockBytes);
      reply.add_slab_ids(30 - i);
      reply.add_slab_offsets(0);
    }
    exchange.Reply(reply);
  });
  server_->On(v1::METHOD_MAP_SLAB, [&](const ScriptedServer::Exchange& exchange) {
    kept.push_back(exchange);
    if (kept.size() == 3) {
      server_->Answer(kept[2]);
      server_->Answer(kept[1]);
      server_->Answer(kept[0]);
    }
  });
  const Completed get = LeaseGet(ns_, Keys("k", 3));
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(get->outcomes[i], TERRACE_GET_OK);
    EXPECT_EQ(std::memcmp(get->data[i], payload_.data(), kBlockBytes), 0);
  }
  EXPECT_NE(get->data[0], get->data[1]);
  EXPECT_EQ(State().mapped_bytes, 3 * ScriptedStore::kSlabBytes);
  Release(get->lease);
}

TEST_F(Leases, AReleaseThatTheDaemonRefusesForNowIsSaidAgain) {
  std::atomic<int> seen{0};
  server_->On(v1::METHOD_RELEASE, [&](const ScriptedServer::Exchange& exchange) {
    if (++seen < 3) {
      exchange.Refuse(8, "calls in flight", 1);
    } else {
      server_->Answer(exchange);
    }
  });
  const Completed get = LeaseGet(ns_, keys_);
  ASSERT_EQ(Release(get->lease), TERRACE_OK);
  EXPECT_TRUE(Advance([&] { return server_->live_leases() == 0; }));
  EXPECT_EQ(seen, 3);
}

TEST_F(Leases, ClosingReleasesAll) {
  const Completed first = LeaseGet(ns_, keys_);
  const Completed second = LeaseGet(ns_, keys_);
  ASSERT_EQ(server_->live_leases(), 2U);
  std::atomic<int> leases{0};
  server_->On(v1::METHOD_RELEASE, [&](const ScriptedServer::Exchange& exchange) {
    leases = exchange.As<v1::ReleaseRequest>().leases_size();
    server_->Answer(exchange);
  });
  terrace_close(client_);
  client_ = nullptr;
  EXPECT_TRUE(
      ScriptedServer::Eventually([&] { return leases == 2 && server_->live_leases() == 0; }));
}

TEST_F(Leases, DescriptorsAndMappingsGoWithTheClient) {
  terrace_close(client_);
  client_ = nullptr;
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return server_->connections_open() == 0; }));
  const size_t before = OpenDescriptors();
  OpenConnected();
  ns_ = OpenNamespace();
  const Completed get = LeaseGet(ns_, keys_);
  ExpectPayload(*get);
  EXPECT_EQ(ClientMappings().size(), 1U);
  terrace_region region = 0;
  void* memory = nullptr;
  uint64_t stride = 0;
  ASSERT_EQ(terrace_staging_create(client_, kBlockBytes, 1, &region, &memory, &stride), TERRACE_OK);
  SubmitProbe(ns_, keys_);
  terrace_close(client_);
  client_ = nullptr;
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return server_->connections_open() == 0; }));
  EXPECT_EQ(ClientMappings().size(), 0U);
  EXPECT_EQ(OpenDescriptors(), before);
}

// An engine that registers leased memory with its device's driver.
class WatchedSlabs : public Leases {
 protected:
  WatchedSlabs() {
    slabs_.mapped = [](void* context, const void* memory, uint64_t bytes) {
      static_cast<WatchedSlabs*>(context)->told_.push_back({true, memory, bytes});
    };
    slabs_.unmapping = [](void* context, const void* memory, uint64_t bytes) {
      EXPECT_TRUE(Mapped(memory));
      static_cast<WatchedSlabs*>(context)->told_.push_back({false, memory, bytes});
    };
    slabs_.context = this;
  }
  struct Told {
    bool mapped;
    const void* memory;
    uint64_t bytes;
  };
  std::vector<Told> told_;
};

TEST_F(WatchedSlabs, AreToldOfBeforeTheirDataAndBeforeTheyGo) {
  EXPECT_TRUE(told_.empty());
  const Completed first = LeaseGet(ns_, keys_);
  ExpectPayload(*first);
  ASSERT_EQ(told_.size(), 1U);
  EXPECT_TRUE(told_[0].mapped);
  const auto* const begin = static_cast<const char*>(told_[0].memory);
  EXPECT_GE(static_cast<const char*>(first->data[0]), begin);
  EXPECT_LE(static_cast<const char*>(first->data[0]) + kBlockBytes, begin + told_[0].bytes);
  ASSERT_EQ(Release(first->lease), TERRACE_OK);
  const Completed second = LeaseGet(ns_, keys_);
  EXPECT_EQ(told_.size(), 1U) << "it is mapped already";
  v1::SlabRetiredNotice notice;
  notice.set_slab_id(ScriptedStore::kSlabId);
  server_->PushAll(v1::METHOD_SLAB_RETIRED_NOTICE, notice);
  ASSERT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);  // the notice came before this answer
  EXPECT_EQ(told_.size(), 1U) << "a lease needs it";
  ASSERT_EQ(Release(second->lease), TERRACE_OK);
  ASSERT_EQ(told_.size(), 2U);
  EXPECT_FALSE(told_[1].mapped);
  EXPECT_EQ(told_[1].memory, told_[0].memory);
  EXPECT_EQ(told_[1].bytes, told_[0].bytes);
}

TEST_F(WatchedSlabs, GoWithTheClientButNotWithAChildsCopyOfIt) {
  const Completed get = LeaseGet(ns_, keys_);
  ExpectPayload(*get);
  ASSERT_EQ(told_.size(), 1U);
  const auto told_in_child = [this] {
    terrace_close(client_);
    return static_cast<int>(told_.size());
  };
  EXPECT_EQ(InChild(told_in_child), 1) << "what is registered is the parent's";
  terrace_close(std::exchange(client_, nullptr));
  ASSERT_EQ(told_.size(), 2U);
  EXPECT_FALSE(told_[1].mapped);
}

}  // namespace
}  // namespace terrace::testing
