// A fleet on one pool: what one node publishes every node finds, and what happens to nodes and
// files costs hits and never bytes.
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/pool_fleet.h"
#include "tiers/shared/pool_format.h"

namespace terrace {
namespace {

using doubles::FleetBlock;
using doubles::PoolFleet;

std::vector<std::string> SegmentsOf(const PoolFleet& fleet) {
  std::vector<std::string> segments;
  for (const std::string& path : fleet.mount.Paths()) {
    if (path.rfind("nodes/", 0) == 0 && path.find("/s") != std::string::npos) {
      segments.push_back(path);
    }
  }
  return segments;
}

TEST(Fleet, WhatOneNodePublishedEveryNodeFindsWithinTwoSeconds) {
  PoolFleet fleet(4);
  fleet.StartAll();
  for (uint64_t n = 0; n < 50; ++n) {
    ASSERT_EQ(fleet.Publish(n % 4, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(2));
  for (uint64_t n = 0; n < 50; ++n) {
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(fleet.Read(i, FleetBlock(n)), ReadOutcome::kVerified) << n << " on " << i;
    }
  }
  EXPECT_FALSE(fleet.Finds(0, FleetBlock(999)));
  EXPECT_EQ(fleet.tier(0).figures().nodes, 4U);
  EXPECT_EQ(fleet.tier(0).figures().state, PoolState::kOnline);
}

// Else the mount has nothing to do while records are checked.
TEST(Fleet, CallsFollowEachOtherBeforeTheirRecordsAreChecked) {
  constexpr uint64_t kBlocks = 40;
  PoolFleet fleet(2);
  fleet.options.merge_read_bytes = 4096;  // a call for each
  fleet.StartAll();
  for (uint64_t n = 0; n < kBlocks; ++n) {
    ASSERT_EQ(fleet.Publish(0, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(2));
  const auto calls = [&fleet] {
    return fleet.node(1).files->figures().calls[static_cast<size_t>(PoolOp::kRead)];
  };
  const uint64_t before = calls();
  std::vector<std::unique_ptr<AlignedBuffer>> slots;
  uint64_t verified = 0;
  for (uint64_t n = 0; n < kBlocks; ++n) {
    const FleetBlock block(n);
    LowerTier::ReadRequest request;
    request.identity = block.identity();
    ASSERT_TRUE(fleet.tier(1).Lookup(request.identity, &request.block));
    slots.push_back(std::make_unique<AlignedBuffer>(uint64_t{128} << 10));
    request.destination = slots.back()->span();
    request.deadline = fleet.clock.Now() + absl::Seconds(5);
    fleet.tier(1).Read(request, [&verified](ReadOutcome outcome) {
      verified += outcome == ReadOutcome::kVerified ? 1 : 0;
    });
  }
  EXPECT_EQ(calls() - before, kBlocks);
  EXPECT_EQ(verified, 0U);
  fleet.node(1).executor.RunAll();
  EXPECT_EQ(verified, kBlocks);
}

TEST(Fleet, WhatTheHeadsSayNeedsNoLookAtTheSegments) {
  PoolFleet fleet(2);
  fleet.StartAll();
  for (uint64_t n = 0; n < 200; ++n) {  // several segments
    ASSERT_EQ(fleet.Publish(0, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(2));
  EXPECT_TRUE(fleet.Finds(1, FleetBlock(0)));
  EXPECT_TRUE(fleet.Finds(1, FleetBlock(199)));
  EXPECT_EQ(fleet.tier(1).figures().footers_read, 0U);
  EXPECT_EQ(fleet.tier(1).figures().segments_scanned, 0U);
}

TEST(Fleet, ABlockThatSomebodyPublishedIsNotWrittenAgain) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(2));
  EXPECT_TRUE(fleet.tier(1).Holds(FleetBlock(1).identity()));
  EXPECT_EQ(fleet.Publish(1, FleetBlock(1)), WriteOutcome::kHeld);
}

TEST(Fleet, OneBlockPublishedByAllAtOnceIsFoundWhole) {
  PoolFleet fleet(4);
  fleet.StartAll();
  std::vector<PoolFleet::Answer> answers;
  for (size_t i = 0; i < 4; ++i) {
    answers.push_back(fleet.StartPublish(i, FleetBlock(1)));
  }
  fleet.Pass(absl::Seconds(3));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(answers[i]->has_value());
    EXPECT_EQ(fleet.Read(i, FleetBlock(1)), ReadOutcome::kVerified);
  }
}

// ---------------------------------------------------------------- restarts and deaths

TEST(Fleet, ARestartFindsEverythingWithoutReadingThePoolAgain) {
  PoolFleet fleet(2);
  fleet.StartAll();
  for (uint64_t n = 0; n < 100; ++n) {
    ASSERT_EQ(fleet.Publish(n % 2, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(3));
  fleet.Stop(1);
  fleet.Start(1);
  fleet.Pass(absl::Seconds(8));
  for (uint64_t n = 0; n < 100; ++n) {
    EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n;
  }
  EXPECT_EQ(fleet.tier(1).figures().footers_read, 0U);
  EXPECT_EQ(fleet.tier(1).figures().segments_scanned, 0U);
}

TEST(Fleet, ANodeThatLostItsCatalogueReadsFootersAndHeaders) {
  PoolFleet fleet(2);
  fleet.StartAll();
  for (uint64_t n = 0; n < 100; ++n) {
    ASSERT_EQ(fleet.Publish(n % 2, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(3));
  fleet.Kill(0);
  fleet.Kill(1);
  fleet.node(1).with_index = false;
  fleet.Start(1);
  fleet.Pass(absl::Seconds(10));
  for (uint64_t n = 0; n < 100; ++n) {
    EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n;
  }
  EXPECT_GT(fleet.tier(1).figures().footers_read + fleet.tier(1).figures().segments_scanned, 0U);
}

TEST(Fleet, WhatWasPublishedOutlivesItsWriter) {
  PoolFleet fleet(2);
  fleet.StartAll();
  for (uint64_t n = 0; n < 30; ++n) {
    ASSERT_EQ(fleet.Publish(0, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Kill(0);
  fleet.Pass(absl::Seconds(3));
  for (uint64_t n = 0; n < 30; ++n) {
    EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n;
  }
  fleet.Start(0);
  fleet.Pass(absl::Seconds(8));
  for (uint64_t n = 0; n < 30; ++n) {
    EXPECT_EQ(fleet.Read(0, FleetBlock(n)), ReadOutcome::kVerified) << n;
    EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n;
  }
  ASSERT_EQ(fleet.Publish(0, FleetBlock(31)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(7));  // the new life is found with the members
  EXPECT_EQ(fleet.Read(1, FleetBlock(31)), ReadOutcome::kVerified);
}

TEST(Fleet, ADeadNodeIsAdoptedAndItsBlocksStay) {
  PoolFleet fleet(3);
  fleet.options.dead_after = absl::Minutes(2);
  fleet.StartAll();
  for (uint64_t n = 0; n < 60; ++n) {
    ASSERT_EQ(fleet.Publish(0, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(2));
  fleet.Kill(0);
  fleet.Pass(absl::Minutes(5));
  EXPECT_EQ(fleet.tier(1).figures().adopted_nodes + fleet.tier(2).figures().adopted_nodes, 1U);
  for (uint64_t n = 0; n < 60; ++n) {
    EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n;
    EXPECT_EQ(fleet.Read(2, FleetBlock(n)), ReadOutcome::kVerified) << n;
  }
  EXPECT_EQ(fleet.tier(1).figures().nodes, 2U);
  fleet.Start(0);
  fleet.Pass(absl::Seconds(10));
  EXPECT_EQ(fleet.tier(0).figures().own_bytes, 0U);
  EXPECT_EQ(fleet.Read(0, FleetBlock(5)), ReadOutcome::kVerified);
}

TEST(Fleet, ANodeThatWasOnlySilentBeginsAnewWhenItHasBeenAdopted) {
  PoolFleet fleet(2);
  fleet.options.dead_after = absl::Minutes(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(2));
  fleet.node(0).files->Answer(absl::UnavailableError("the mount of this node is gone"));
  fleet.Pass(absl::Minutes(4));
  EXPECT_EQ(fleet.tier(0).figures().state, PoolState::kSuspended);
  EXPECT_FALSE(fleet.Finds(0, FleetBlock(1)));
  EXPECT_EQ(fleet.Publish(0, FleetBlock(2)), WriteOutcome::kFault);
  EXPECT_EQ(fleet.tier(1).figures().adopted_nodes, 1U);
  fleet.node(0).files->Answer(absl::OkStatus());
  fleet.Pass(absl::Seconds(20));
  EXPECT_EQ(fleet.tier(0).figures().state, PoolState::kOnline);
  EXPECT_EQ(fleet.Read(0, FleetBlock(1)), ReadOutcome::kVerified);
  EXPECT_EQ(fleet.Publish(0, FleetBlock(2)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(10));
  EXPECT_EQ(fleet.Read(1, FleetBlock(2)), ReadOutcome::kVerified);
}

TEST(Fleet, TwoDaemonsOfOneNameDoNotShareAFolder) {
  PoolFleet fleet(1);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  // Another daemon with a copy of the folder that has the name.
  doubles::MemoryRootedFiles view(fleet.mount);
  doubles::DirectPoolFiles files(view);
  doubles::StepExecutor executor(2);
  SharedTierOptions options = fleet.options;
  options.node = PoolFleet::NameOf(0);
  SharedTierParts parts;
  parts.files = &files;
  parts.clock = &fleet.clock;
  parts.hashing = &executor;
  parts.maintenance = &executor;
  absl::StatusOr<std::unique_ptr<SharedTier>> second = OpenSharedTier(options, parts);
  ASSERT_TRUE(second.ok());
  for (int i = 0; i < 40; ++i) {
    (*second)->Tick();
    executor.RunAll();
    fleet.Pass(absl::Milliseconds(250));
  }
  // The first has noticed, and begun again behind the second; nobody writes into another's folder.
  EXPECT_NE(fleet.tier(0).figures().last_fault.find("uses the name"), std::string::npos);
  EXPECT_EQ(fleet.Read(0, FleetBlock(1)), ReadOutcome::kVerified);
}

TEST(Fleet, WhatEarlierLivesLeftLyingAboutIsCollected) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(1));
  const std::string first = SegmentsOf(fleet).front();
  const std::string folder = first.substr(0, first.rfind('/'));
  const std::string life = folder.substr(0, folder.rfind('/'));
  fleet.mount.Plant(folder + "/s00000fff", "made, and never listed");
  fleet.mount.Plant(life + "/tmp-0123456789abcdef", "half a head");
  fleet.mount.Plant(life + "/notes", "not ours");
  fleet.Kill(0);
  fleet.Start(0);
  fleet.Pass(absl::Minutes(3));
  EXPECT_FALSE(fleet.mount.Exists(folder + "/s00000fff"));
  EXPECT_FALSE(fleet.mount.Exists(life + "/tmp-0123456789abcdef"));
  EXPECT_TRUE(fleet.mount.Exists(life + "/notes"));
  EXPECT_TRUE(fleet.mount.Exists(first));
  EXPECT_EQ(fleet.tier(0).figures().orphans_removed, 1U);
  EXPECT_EQ(fleet.Read(1, FleetBlock(1)), ReadOutcome::kVerified);
}

// ---------------------------------------------------------------- deletions and generations

TEST(Fleet, ADeletedBlockIsAMissEverywhereAndStaysOne) {
  PoolFleet fleet(3);
  fleet.StartAll();
  for (uint64_t n = 0; n < 10; ++n) {
    ASSERT_EQ(fleet.Publish(n % 3, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(2));
  for (uint64_t n = 0; n < 10; n += 2) {
    EXPECT_EQ(fleet.Delete(0, FleetBlock(n)), WriteOutcome::kWritten);
    EXPECT_FALSE(fleet.Finds(0, FleetBlock(n)));
  }
  fleet.Pass(absl::Seconds(2));
  for (int restarts = 0; restarts < 3; ++restarts) {
    for (uint64_t n = 0; n < 10; ++n) {
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(fleet.Finds(i, FleetBlock(n)), n % 2 == 1) << n << " on " << i;
      }
    }
    for (size_t i = 0; i < 3; ++i) {
      restarts == 0 ? fleet.Kill(i) : fleet.Stop(i);
      fleet.node(i).with_index = restarts == 0;
      fleet.Start(i);
    }
    fleet.Pass(absl::Seconds(12));
  }
}

TEST(Fleet, ABlockMayBePublishedAgainAfterItWasDeleted) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  ASSERT_EQ(fleet.Delete(0, FleetBlock(1)), WriteOutcome::kWritten);
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(5));
  EXPECT_EQ(fleet.Read(0, FleetBlock(1)), ReadOutcome::kVerified);
  EXPECT_EQ(fleet.Read(1, FleetBlock(1)), ReadOutcome::kVerified);
}

TEST(Fleet, WhatAnotherPublishedBeforeItHeardOfADeletionGoesToo) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  const PoolFleet::Answer other = fleet.StartPublish(1, FleetBlock(1));  // it has not heard of it
  ASSERT_EQ(fleet.Delete(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(5));
  ASSERT_TRUE(other->has_value());
  EXPECT_FALSE(fleet.Finds(0, FleetBlock(1)));
  EXPECT_FALSE(fleet.Finds(1, FleetBlock(1)));
}

TEST(Fleet, ARaisedGenerationIsLearnedByAllAndOutlivesWhoRaisedIt) {
  PoolFleet fleet(3);
  fleet.StartAll();
  const RaisedGeneration raised{{5, 6}, 2};
  EXPECT_TRUE(fleet.Raise(0, raised).ok());
  EXPECT_FALSE(fleet.tier(0).SeenByAll(raised));
  fleet.Pass(absl::Seconds(4));
  EXPECT_TRUE(fleet.tier(0).SeenByAll(raised));
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_EQ(fleet.node(i).learned, std::vector<RaisedGeneration>({raised})) << i;
  }
  fleet.Kill(0);
  fleet.Kill(1);
  fleet.node(1).learned.clear();
  fleet.node(1).with_index = false;
  fleet.Start(1);
  LowerBlock none;
  // What is known is told before anything is found.
  for (int i = 0; i < 100 && fleet.tier(1).figures().state != PoolState::kOnline; ++i) {
    EXPECT_FALSE(fleet.tier(1).Lookup(FleetBlock(1).identity(), &none));
    fleet.Pass(absl::Milliseconds(50));
  }
  EXPECT_NE(std::find(fleet.node(1).learned.begin(), fleet.node(1).learned.end(), raised),
            fleet.node(1).learned.end());
}

// ---------------------------------------------------------------- space

TEST(Fleet, ThePoolNeverHoldsMoreThanItsCapacity) {
  PoolFleet fleet(2);
  fleet.options.capacity_bytes = 24 * PoolFleet::kSegment;
  fleet.options.grace = absl::Seconds(2);
  fleet.StartAll();
  uint64_t written = 0;
  for (uint64_t n = 0; written < 10 * fleet.options.capacity_bytes / 4; ++n) {
    const FleetBlock block(n);
    const WriteOutcome outcome = fleet.Publish(n % 2, block);
    ASSERT_TRUE(outcome == WriteOutcome::kWritten || outcome == WriteOutcome::kNoSpace)
        << static_cast<int>(outcome);
    ASSERT_LT(n, 10000U) << written << " " << fleet.tier(0).figures().last_fault;
    written += outcome == WriteOutcome::kWritten ? block.payload.size() : 0;
    ASSERT_LE(SegmentsOf(fleet).size() * PoolFleet::kSegment, fleet.options.capacity_bytes);
  }
  fleet.Pass(absl::Seconds(5));
  EXPECT_GT(fleet.tier(0).figures().reclaimed_segments, 0U);
  EXPECT_GT(SegmentsOf(fleet).size(), 8U);
}

TEST(Fleet, WhatNodesReadStaysWhenSpaceIsNeeded) {
  PoolFleet fleet(2);
  fleet.options.capacity_bytes = 32 * PoolFleet::kSegment;
  fleet.options.grace = absl::Seconds(2);
  fleet.StartAll();
  for (uint64_t n = 0; n < 25; ++n) {
    ASSERT_EQ(fleet.Publish(0, FleetBlock(n)), WriteOutcome::kWritten);
  }
  fleet.Pass(absl::Seconds(2));
  const auto read_all = [&fleet](uint64_t n) {
    for (uint64_t hot = 0; hot < 20; ++hot) {
      EXPECT_EQ(fleet.Read(1, FleetBlock(hot)), ReadOutcome::kVerified) << hot << " at " << n;
    }
  };
  for (int second = 0; second < 45; ++second) {  // what heartbeats tell of
    read_all(0);
    fleet.Pass(absl::Seconds(1));
  }
  for (uint64_t n = 1000; n < 2000; ++n) {
    fleet.Publish(0, FleetBlock(n));
    if (n % 10 == 0) {
      read_all(n);
    }
  }
  EXPECT_FALSE(fleet.Finds(0, FleetBlock(1100)));
  EXPECT_TRUE(fleet.Finds(0, FleetBlock(3)));
}

TEST(Fleet, ARetiredSegmentIsAMissAtOnceAndIsRemovedAfterTheGracePeriod) {
  PoolFleet fleet(2);
  fleet.options.capacity_bytes = 16 * PoolFleet::kSegment;
  fleet.options.grace = absl::Seconds(30);
  fleet.StartAll();
  for (uint64_t n = 0; n < 200; ++n) {
    fleet.Publish(0, FleetBlock(n));
  }
  fleet.Pass(absl::Seconds(3));
  ASSERT_GT(fleet.tier(0).figures().reclaimed_segments, 0U);
  const size_t before = SegmentsOf(fleet).size();
  EXPECT_FALSE(fleet.Finds(0, FleetBlock(0)));
  EXPECT_FALSE(fleet.Finds(1, FleetBlock(0)));
  fleet.Pass(absl::Seconds(40));
  EXPECT_LT(SegmentsOf(fleet).size(), before);
}

// ---------------------------------------------------------------- what lies there is suspect

TEST(Fleet, AFlippedBitInARecordIsAMiss) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(2));
  const std::string segment = SegmentsOf(fleet).front();
  const uint64_t header_fields = 4096 + 528;
  for (uint64_t at = 4096; at < header_fields; at += 1) {
    fleet.mount.FlipBit(segment, at, static_cast<int>(at % 8));
    const std::optional<ReadOutcome> outcome = fleet.Read(1, FleetBlock(1));
    EXPECT_TRUE(outcome == ReadOutcome::kCorrupt || outcome == ReadOutcome::kGone) << at;
    EXPECT_FALSE(fleet.Finds(1, FleetBlock(1)));  // not asked for again
    fleet.mount.FlipBit(segment, at, static_cast<int>(at % 8));
    fleet.Kill(1);
    fleet.Start(1);
    fleet.Pass(absl::Seconds(1));
  }
  fleet.Pass(absl::Seconds(5));
  EXPECT_EQ(fleet.Read(1, FleetBlock(1)), ReadOutcome::kVerified);
}

TEST(Fleet, SegmentsThatAreSwappedCutOffOrReplayedAreMisses) {
  PoolFleet fleet(3);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  ASSERT_EQ(fleet.Publish(1, FleetBlock(2)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(2));
  std::vector<std::string> segments = SegmentsOf(fleet);
  ASSERT_GE(segments.size(), 2U);
  fleet.mount.Rename(segments[0], "aside");
  fleet.mount.Rename(segments[1], segments[0]);
  fleet.mount.Rename("aside", segments[1]);
  for (uint64_t n = 1; n <= 2; ++n) {
    const std::optional<ReadOutcome> outcome = fleet.Read(2, FleetBlock(n));
    EXPECT_TRUE(outcome == ReadOutcome::kCorrupt || outcome == ReadOutcome::kGone);
  }
  fleet.mount.Truncate(segments[0], 5000);
  fleet.mount.Truncate(segments[1], 0);
  fleet.Kill(2);
  fleet.Start(2);
  fleet.Pass(absl::Seconds(6));
  for (uint64_t n = 1; n <= 2; ++n) {
    EXPECT_NE(fleet.Read(2, FleetBlock(n)), ReadOutcome::kVerified);
  }
}

TEST(Fleet, DamagedReportsCostNothingButTime) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(2));
  for (const std::string& path : fleet.mount.Paths()) {
    if (path.find("/head") != std::string::npos || path.find("/m0") != std::string::npos) {
      fleet.mount.FlipBit(path, 60, 3);
    }
  }
  fleet.Pass(absl::Seconds(3));
  EXPECT_EQ(fleet.Read(1, FleetBlock(1)), ReadOutcome::kVerified);     // what is known stays known
  ASSERT_EQ(fleet.Publish(0, FleetBlock(2)), WriteOutcome::kWritten);  // with a head that is sound
  fleet.Pass(absl::Seconds(3));
  EXPECT_EQ(fleet.Read(1, FleetBlock(2)), ReadOutcome::kVerified);
}

// ---------------------------------------------------------------- mounts that lie or fail

TEST(Fleet, AMountWithTheSemanticsOfNfsCostsTimeAndNoBytes) {
  PoolFleet fleet(2);
  fleet.StartAll();
  fleet.node(1).view.KeepWhatIsOpened(true);
  fleet.node(0).view.HoldWritesUntilSync(true);
  for (uint64_t n = 0; n < 40; ++n) {
    ASSERT_EQ(fleet.Publish(0, FleetBlock(n)), WriteOutcome::kWritten);
    if (n % 8 == 0) {
      fleet.node(1).view.FreezeNames();
    }
    if (n % 8 == 4) {
      fleet.node(1).view.ThawNames();
    }
    fleet.Pass(absl::Milliseconds(700));
    for (uint64_t before = 0; before <= n; ++before) {
      const std::optional<ReadOutcome> outcome = fleet.Read(1, FleetBlock(before));
      EXPECT_NE(outcome, ReadOutcome::kCorrupt) << before;
    }
  }
  fleet.node(1).view.ThawNames();
  fleet.Pass(absl::Seconds(3));
  // Segments that it took for absent while names were old are not looked for again in this life.
  uint64_t found = 0;
  for (uint64_t n = 0; n < 40; ++n) {
    found += fleet.Read(1, FleetBlock(n)) == ReadOutcome::kVerified ? 1 : 0;
  }
  EXPECT_GT(found, 20U);
}

TEST(Fleet, AMountThatFailsAtAnyCallIsAMissAndComesBack) {
  for (int op = 1; op <= static_cast<int>(kPoolOps); ++op) {
    for (const absl::Status& fault :
         {absl::InternalError("EIO"), absl::ResourceExhaustedError("ENOSPC"),
          absl::PermissionDeniedError("EROFS"), absl::UnavailableError("ESTALE")}) {
      PoolFleet fleet(2);
      fleet.StartAll();
      ASSERT_EQ(fleet.Publish(0, FleetBlock(0)), WriteOutcome::kWritten);
      std::set<uint64_t> published = {0};
      fleet.node(0).view.Fail(static_cast<PoolOp>(op), 1, fault, 3);
      for (uint64_t n = 1; n < 60; ++n) {
        if (fleet.Publish(0, FleetBlock(n)) == WriteOutcome::kWritten) {
          published.insert(n);
        }
      }
      fleet.node(0).view.Heal();
      fleet.Pass(absl::Seconds(10));
      EXPECT_EQ(fleet.Publish(0, FleetBlock(100)), WriteOutcome::kWritten) << op << fault;
      published.insert(100);
      fleet.Pass(absl::Seconds(3));
      for (const uint64_t n : published) {
        EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n << op << fault;
      }
      EXPECT_EQ(fleet.tier(0).figures().state, PoolState::kOnline) << op << fault;
    }
  }
}

TEST(Fleet, AnEmptyFolderInThePlaceOfThePoolIsLeftAlone) {
  PoolFleet fleet(1);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Kill(0);
  for (const std::string& path : fleet.mount.Paths()) {
    fleet.mount.Erase(path);
  }
  fleet.Start(0);
  fleet.Pass(absl::Seconds(20));
  EXPECT_EQ(fleet.tier(0).figures().state, PoolState::kForeign);
  EXPECT_EQ(fleet.Publish(0, FleetBlock(2)), WriteOutcome::kFault);
  EXPECT_TRUE(fleet.mount.Paths().empty());
}

TEST(Fleet, AFolderWithSomethingElseInItIsLeftAlone) {
  PoolFleet fleet(1);
  fleet.mount.Plant("somebody/thesis", "years of work");
  fleet.Start(0);
  fleet.Pass(absl::Seconds(20));
  EXPECT_EQ(fleet.tier(0).figures().state, PoolState::kForeign);
  EXPECT_EQ(fleet.mount.Paths(), std::vector<std::string>({"somebody/thesis"}));
}

TEST(Fleet, AnotherPoolThanTheRememberedOneIsLeftAlone) {
  PoolFleet fleet(2);
  fleet.StartAll();
  fleet.Kill(0);
  fleet.node(0).pool = {1, 2};
  const std::vector<std::string> before = fleet.mount.Paths();
  fleet.Start(0);
  fleet.Kill(1);
  fleet.Pass(absl::Seconds(20));
  EXPECT_EQ(fleet.tier(0).figures().state, PoolState::kForeign);
  EXPECT_EQ(fleet.mount.Paths(), before);
}

}  // namespace
}  // namespace terrace
