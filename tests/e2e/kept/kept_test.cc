// A daemon whose DRAM outlives it: real processes under a service manager that the test plays.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/from_environment.h"
#include "tests/e2e/clients_die/engine.h"
#include "tests/e2e/kept/kept_daemon.h"
#include "tiers/vocab/outcome.h"

namespace terrace {
namespace {

using doubles::FromEnvironment;

class KeptDramTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kDeadlineMs = 60'000;
  static constexpr uint32_t kBlocks = 160;  // 40 MiB

  void Start(const std::string& capacity = "192MiB", const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"--set", "dram.capacity=" + capacity,
                                          "--set", "local.capacity=0B",
                                          "--set", "metrics.listen=off"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    ASSERT_TRUE(daemon_.Start(arguments)) << daemon_.Log();
  }
  std::unique_ptr<Engine> Open(const std::string& name = "kept") {
    auto engine = Engine::Open(daemon_.runtime(), name, kDeadlineMs);
    EXPECT_TRUE(engine->WaitConnected(kDeadlineMs));
    return engine;
  }
  static void Put(Engine& engine, uint32_t begin, uint32_t end) {
    for (uint32_t id = begin; id < end; ++id) {
      static_cast<void>(engine.Put({id}));
    }
  }
  // How many are there; each is right.
  static uint32_t RightOnes(Engine& engine, uint32_t begin, uint32_t end) {
    uint32_t right = 0;
    for (uint32_t id = begin; id < end; ++id) {
      const Engine::Reply reply = engine.Lease({id});
      if (reply.status != TERRACE_OK || reply.outcomes.empty() || reply.payload[0] == nullptr) {
        continue;
      }
      EXPECT_TRUE(IsPayload(id, reply.payload[0], reply.payload_bytes[0])) << id;
      static_cast<void>(engine.Release({reply.lease}, {}));
      ++right;
    }
    return right;
  }
  // What is put from now on is lost with a kill until the slabs are stored.
  void WaitForSlabs(size_t slabs) {
    EXPECT_TRUE(daemon_.Eventually([slabs](const auto& stored) {
      return static_cast<size_t>(std::count_if(stored.begin(), stored.end(), [](const auto& kept) {
               return kept.first.front() == 's';
             })) >= slabs;
    }));
  }

  KeptDaemon daemon_;
};

TEST_F(KeptDramTest, BlocksOutliveAKillAndAStop) {
  Start();
  Put(*Open(), 0, kBlocks);
  WaitForSlabs(2);  // two sizes of blocks
  EXPECT_EQ(daemon_.End(SIGKILL), 128 + SIGKILL);
  Start();
  EXPECT_EQ(RightOnes(*Open(), 0, kBlocks), kBlocks);
  EXPECT_EQ(daemon_.End(SIGTERM), 0);
  Start();
  EXPECT_EQ(RightOnes(*Open(), 0, kBlocks), kBlocks);
  EXPECT_TRUE(daemon_.Eventually([](const auto& stored) {
    return std::count_if(stored.begin(), stored.end(),
                         [](const auto& kept) { return kept.first.front() == 'd'; }) == 1;
  })) << "directories of earlier lives are still stored";
}

TEST_F(KeptDramTest, OneClientOutlivesManyDaemons) {
  Start();
  const auto engine = Open();
  Put(*engine, 0, kBlocks);
  WaitForSlabs(2);
  for (int life = 0; life < 3; ++life) {
    daemon_.End(SIGKILL);
    Start();
    ASSERT_TRUE(engine->WaitConnected(kDeadlineMs));
    EXPECT_EQ(RightOnes(*engine, 0, kBlocks), kBlocks);
  }
}

TEST_F(KeptDramTest, LeasesAreRightWhateverTheNextDaemonDoes) {
  Start("128MiB");
  const auto engine = Open();
  Put(*engine, 0, 16);
  WaitForSlabs(2);
  std::vector<Engine::Reply> held;
  for (uint32_t id = 0; id < 16; ++id) {
    held.push_back(engine->Lease({id}));
    ASSERT_EQ(held.back().status, TERRACE_OK);
    ASSERT_NE(held.back().payload[0], nullptr);
  }
  daemon_.End(SIGKILL);
  Start("128MiB");
  const auto other = Open("other");
  Put(*other, 1000, 1800);  // beyond what there is room for
  for (uint32_t id = 0; id < 16; ++id) {
    EXPECT_TRUE(IsPayload(id, held[id].payload[0], held[id].payload_bytes[0])) << id;
  }
}

TEST_F(KeptDramTest, OffKeepsNothingAndTakesBackWhatWasKept) {
  Start();
  Put(*Open(), 0, 32);
  WaitForSlabs(2);
  daemon_.End(SIGKILL);
  Start("192MiB", {"--set", "dram.keep=off"});
  EXPECT_EQ(RightOnes(*Open(), 0, 32), 0U);
  EXPECT_TRUE(daemon_.Eventually([](const auto& stored) { return stored.empty(); }));
  daemon_.End(SIGKILL);
  Start();
  EXPECT_EQ(RightOnes(*Open(), 0, 32), 0U);
}

TEST_F(KeptDramTest, LessRoomAndOtherTenantsDropBlocks) {
  Start();
  Put(*Open(), 0, kBlocks);
  WaitForSlabs(2);
  daemon_.End(SIGKILL);
  Start("64MiB");  // one slab of the two
  const uint32_t right = RightOnes(*Open(), 0, kBlocks);
  EXPECT_GT(right, 0U);
  EXPECT_LT(right, kBlocks);
  daemon_.End(SIGKILL);
  Start("192MiB", {"--set", "sockets.unlisted=deny"});
  EXPECT_TRUE(daemon_.Eventually([](const auto& stored) {
    return std::none_of(stored.begin(), stored.end(),
                        [](const auto& kept) { return kept.first.front() == 's'; });
  }));
}

// They are copied out of their slabs, because nothing may be stored around them there.
TEST_F(KeptDramTest, KeptBlocksGoDownToTheLocalTier) {
  const std::vector<std::string> local = {"--set", "local.capacity=2GiB"};
  Start("192MiB", local);
  Put(*Open(), 0, 32);
  WaitForSlabs(2);
  daemon_.End(SIGKILL);
  Start("192MiB", local);
  EXPECT_EQ(RightOnes(*Open(), 0, 8), 8U);                // some verified, some not
  EXPECT_EQ(daemon_.End(SIGTERM), 0) << daemon_.Log();    // what only DRAM holds is written down
  static_cast<void>(daemon_.store().TakeAll());
  Start("192MiB", local);
  const auto engine = Open();
  for (uint32_t id = 0; id < 32; ++id) {
    const Engine::Reply reply = engine->Probe({id}, 0);
    ASSERT_EQ(reply.states.size(), 1U);
    EXPECT_EQ(reply.states[0] & 0xfU, static_cast<uint8_t>(KeyState::kLower)) << id;
  }
}

// Of what a daemon is handed at its start.
TEST_F(KeptDramTest, ForeignDescriptorsAreLeftAlone) {
  Start();
  Put(*Open(), 0, 64);
  WaitForSlabs(2);
  daemon_.End(SIGKILL);
  bench::DescriptorStore::Stored stored = daemon_.store().TakeAll();
  for (auto& [name, fd] : stored) {
    if (name.front() == 's') {  // the same name, other memory
      const Descriptor unsealed(memfd_create("foreign", MFD_CLOEXEC));
      ASSERT_EQ(ftruncate(unsealed.get(), 64 << 20), 0);
      daemon_.store().Put(name, *unsealed.Duplicate());
      daemon_.store().Put(name, Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC)));
    } else {
      const Descriptor truncated(memfd_create("foreign", MFD_CLOEXEC));
      daemon_.store().Put(name, *truncated.Duplicate());
      daemon_.store().Put("d999", *truncated.Duplicate());
      daemon_.store().Put(name, std::move(fd));
    }
  }
  daemon_.store().Put("what", Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC)));
  Start();
  EXPECT_EQ(RightOnes(*Open(), 0, 64), 0U);
  EXPECT_TRUE(daemon_.Eventually([](const auto& kept) { return kept.count("what") == 0; }));
  Put(*Open(), 0, 64);
  EXPECT_EQ(RightOnes(*Open(), 0, 64), 64U);
}

// A bit of the directory is flipped between two lives, TERRACE_KEEP_FLIPS times.
TEST_F(KeptDramTest, AFlippedDirectoryIsNeverAWrongByte) {
  Dice dice(FromEnvironment("TERRACE_KEEP_SEED", 3));
  const uint64_t flips = FromEnvironment("TERRACE_KEEP_FLIPS", 4);
  for (uint64_t round = 0; round < flips; ++round) {
    Start();
    Put(*Open(), 0, 32);
    WaitForSlabs(2);
    daemon_.End(SIGKILL);
    bench::DescriptorStore::Stored stored = daemon_.store().TakeAll();
    for (auto& [name, fd] : stored) {
      if (name.front() == 'd') {
        auto mapping = Mapping::Map(fd.get(), 0, 4096, MapAccess::kReadWrite);
        ASSERT_TRUE(mapping.ok());
        const uint32_t at = dice.Below(96);
        mapping->data()[at] = static_cast<char>(mapping->data()[at] ^ (1U << dice.Below(8)));
      }
      daemon_.store().Put(name, std::move(fd));
    }
    Start();
    static_cast<void>(RightOnes(*Open(), 0, 32));
    daemon_.End(SIGKILL);
  }
}

// Kills at any moment of a load; TERRACE_KEEP_KILLS times.
TEST_F(KeptDramTest, KillsAtAnyMomentLoseBlocksAndNeverMakeWrongOnes) {
  Dice dice(FromEnvironment("TERRACE_KEEP_SEED", 5));
  const uint64_t kills = FromEnvironment("TERRACE_KEEP_KILLS", 6);
  Start("128MiB");
  for (uint64_t round = 0; round < kills; ++round) {
    const auto engine = Open();
    const auto calls = static_cast<int>(dice.Below(60));
    for (int call = 0; call < calls; ++call) {
      const uint32_t id = dice.Below(900);
      static_cast<void>(engine->Put({id, id + 1, id + 2, id + 3}));
      static_cast<void>(RightOnes(*engine, id, id + 2));
    }
    const pid_t child = fork();  // a load that the kill cuts off somewhere
    if (child == 0) {
      const auto doomed = Engine::Open(daemon_.runtime(), "kept", kDeadlineMs);
      doomed->WaitConnected(kDeadlineMs);
      for (uint32_t id = 0;; id = (id + 4) % 900) {
        static_cast<void>(doomed->Put({id, id + 1, id + 2, id + 3}));
      }
    }
    usleep(dice.Below(300'000));
    daemon_.End(SIGKILL);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    Start("128MiB");
    static_cast<void>(RightOnes(*Open(), 0, 900));
  }
}

}  // namespace
}  // namespace terrace
