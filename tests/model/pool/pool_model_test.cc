// Random calls on a fleet over one pool, with kills, restarts, adoption, mounts that fail and lie,
// beside a plain map of what was published.
//
// At any time: what is read is right, what was deleted is not found where that was said, nothing is
// found that nobody published. In the end, when all is well again: what was published and not
// deleted is found on every node.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/protection/sealed_protection.h"
#include "tests/doubles/pool_fleet.h"
#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

using doubles::FleetBlock;
using doubles::PoolFleet;
using doubles::Seeded;

constexpr size_t kNodes = 3;
constexpr uint64_t kBlocks = 60;
constexpr int kSteps = 250;

uint64_t Seeds() {
  const char* wanted = std::getenv("TERRACE_MODEL_SEEDS");
  return wanted == nullptr ? 12 : std::strtoull(wanted, nullptr, 10);
}

class PoolModel {
 public:
  // `secret`: nullptr: the pool is not protected.
  PoolModel(uint64_t seed, const PoolSecret* secret) : random_(seed), fleet_(kNodes) {
    fleet_.secret = secret;
    fleet_.options.dead_after = absl::Minutes(2);
    fleet_.options.grace = absl::Seconds(20);
    if (seed % 2 == 0) {
      fleet_.options.bulletins_from = 1;  // nodes tell of each other
    }
    fleet_.StartAll();
  }

  void Run() {
    for (int step = 0; step < kSteps && !testing::Test::HasFailure(); ++step) {
      SCOPED_TRACE(step);
      Step();
    }
    Mend();
    for (const auto& [n, state] : states_) {
      for (size_t i = 0; i < kNodes; ++i) {
        const std::optional<ReadOutcome> outcome = fleet_.Read(i, FleetBlock(n));
        if (state == State::kPublished) {
          EXPECT_EQ(outcome, ReadOutcome::kVerified) << n << " on " << i;
        } else if (state == State::kDeleted) {
          EXPECT_FALSE(outcome.has_value()) << n << " on " << i;
        }
      }
    }
  }

 private:
  enum class State : uint8_t { kUnknown, kPublished, kDeleted };

  void Step() {
    const size_t i = random_.Below(kNodes);
    const uint64_t n = random_.Below(kBlocks);
    const uint64_t choice = random_.Below(100);
    if (!up_[i]) {
      if (choice < 40) {
        fleet_.node(i).with_index = !random_.OneIn(3);
        fleet_.Start(i);
        up_[i] = true;
      }
      fleet_.Pass(absl::Milliseconds(500));
    } else if (choice < 40) {
      Publish(i, n);
    } else if (choice < 70) {
      Look(i, n);
    } else if (choice < 76) {
      Delete(i, n);
    } else if (choice < 80) {
      random_.OneIn(2) ? fleet_.Kill(i) : fleet_.Stop(i);
      up_[i] = false;
    } else if (choice < 88) {
      Disturb(i);
    } else if (choice < 92) {
      fleet_.node(i).view.Heal();
      fleet_.node(i).view.ThawNames();
    } else {
      fleet_.Pass(choice == 99 ? absl::Minutes(3) : absl::Seconds(2));
    }
  }

  void Publish(size_t i, uint64_t n) {
    const WriteOutcome outcome = fleet_.Publish(i, FleetBlock(n));
    deleted_[n].erase(i);
    bool doubtful = false;
    for (const auto& [node, until] : deleted_[n]) {
      doubtful = doubtful || fleet_.clock.Now() < until;
    }
    if (outcome == WriteOutcome::kWritten) {
      states_[n] = doubtful ? State::kUnknown : State::kPublished;
    } else if (states_[n] == State::kDeleted) {
      states_[n] = State::kUnknown;  // it may be there all the same
    }
  }
  void Look(size_t i, uint64_t n) {
    const bool never = !states_.contains(n);
    const std::optional<ReadOutcome> outcome = fleet_.Read(i, FleetBlock(n));
    EXPECT_FALSE(never && outcome.has_value()) << n;
  }
  void Delete(size_t i, uint64_t n) {
    const WriteOutcome outcome = fleet_.Delete(i, FleetBlock(n));
    // What others publish within a minute it takes for what they published before they heard of it.
    deleted_[n][i] = fleet_.clock.Now() + absl::Seconds(62);
    if (!states_.contains(n)) {
      return;
    }
    // A block that this node has not heard of it cannot delete for good: when it hears of it within
    // a minute it does, but not after its death.
    states_[n] = State::kUnknown;
    if (outcome == WriteOutcome::kWritten) {
      EXPECT_FALSE(fleet_.Finds(i, FleetBlock(n)));
    }
  }
  void Disturb(size_t i) {
    doubles::MemoryRootedFiles& view = fleet_.node(i).view;
    const auto op = static_cast<PoolOp>(1 + random_.Below(kPoolOps));
    const absl::Status faults[] = {absl::InternalError("EIO"), absl::UnavailableError("ESTALE"),
                                   absl::ResourceExhaustedError("ENOSPC"),
                                   absl::PermissionDeniedError("EROFS"),
                                   absl::DeadlineExceededError("it hangs")};
    switch (random_.Below(4)) {
      case 0:
        view.FreezeNames();
        break;
      case 1:
        view.KeepWhatIsOpened(random_.OneIn(2));
        break;
      default:
        view.Fail(op, 1 + random_.Below(3), faults[random_.Below(5)], 1 + random_.Below(5));
    }
  }
  // Everything is well again, and everybody has heard of everything; what names that were old hid
  // from a node is found by its next life.
  void Mend() {
    for (size_t i = 0; i < kNodes; ++i) {
      doubles::MemoryRootedFiles& view = fleet_.node(i).view;
      view.Heal();
      view.ThawNames();
      view.KeepWhatIsOpened(false);
      if (!up_[i]) {
        fleet_.Start(i);
        up_[i] = true;
      }
    }
    fleet_.Pass(absl::Seconds(40));
    for (size_t i = 0; i < kNodes; ++i) {
      fleet_.Kill(i);
      fleet_.node(i).with_index = false;
      fleet_.Start(i);
    }
    fleet_.Pass(absl::Seconds(40));
    for (size_t i = 0; i < kNodes; ++i) {
      EXPECT_EQ(fleet_.tier(i).figures().state, PoolState::kOnline)
          << fleet_.tier(i).figures().last_fault;
    }
  }

  Seeded random_;
  PoolFleet fleet_;
  bool up_[kNodes] = {true, true, true};
  std::map<uint64_t, State> states_;
  std::map<uint64_t, std::map<size_t, absl::Duration>> deleted_;  // by which node, and until when
};

std::unique_ptr<PoolSecret> SecretOf(PoolAuth auth) {
  SecretBytes bytes(kMinSecretBytes);
  std::fill(bytes.span().begin(), bytes.span().end(), 's');
  return *MakePoolSecret(auth, std::move(bytes));
}

TEST(PoolModel, RandomHistoriesKeepTheirPromises) {
  for (uint64_t seed = 1; seed <= Seeds() && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    PoolModel(seed, nullptr).Run();
  }
}

TEST(PoolModel, RandomHistoriesOfProtectedPoolsKeepTheirPromisesToo) {
  for (uint64_t seed = 1; seed <= Seeds() / 2 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const auto secret = SecretOf(seed % 2 == 0 ? PoolAuth::kMac : PoolAuth::kEncrypt);
    PoolModel(seed, secret.get()).Run();
  }
}

}  // namespace
}  // namespace terrace
