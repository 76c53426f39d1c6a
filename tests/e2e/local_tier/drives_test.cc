// A real daemon whose drives come and go: folders that are renamed, swapped, missing or full. After
// each of these faults it is back to normal by itself.
#include <fcntl.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/e2e/daemon/started_daemon.h"
#include "tools/bench/block_set.h"
#include "tools/ctl/host_facts.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;
using bench::BlockSet;
using bench::ClientSession;
using bench::Completion;

constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
constexpr uint32_t kBlocks = 40;
// A drive looks where its path leads every 5 s, and one that is away is tried as often.
constexpr absl::Duration kPatience = absl::Minutes(2);

bool Eventually(const std::function<bool()>& holds) {
  const absl::Time until = absl::Now() + kPatience;
  while (!holds()) {
    if (absl::Now() > until) {
      return false;
    }
    absl::SleepFor(absl::Milliseconds(50));
  }
  return true;
}

std::string DriveText(const std::string& path) {
  return absl::StrCat("[[tier]]\nkind = \"local\"\npath = \"", path,
                      "\"\ncapacity = \"1300MiB\"\n");
}

std::string LocalText(const std::string& path, uint64_t reserve_bytes) {
  return absl::StrCat("[local]\ncapacity = \"1300MiB\"\ndir = \"", path,
                      "\"\nfree_reserve = ", reserve_bytes, "\n");
}

constexpr char kNoReserve[] = "[local]\nfree_reserve = 0\n";

// A daemon, a session with it, and sets of blocks.
class Room {
 public:
  explicit Room(const std::string& config) {
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon =
        StartedDaemon::Start({.more_config = config});
    EXPECT_TRUE(daemon.ok()) << daemon.status();
    if (daemon.ok()) {
      daemon_ = *std::move(daemon);
      Connect();
    }
  }

  StartedDaemon& daemon() { return *daemon_; }
  // After the daemon was started again.
  void Connect() {
    sets_.clear();
    session_.reset();
    absl::StatusOr<std::unique_ptr<ClientSession>> session =
        ClientSession::Connect(daemon_->runtime_dir());
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
  }
  // kBlocks of them, others for each `first`.
  BlockSet& Set(uint64_t first) {
    std::unique_ptr<BlockSet>& set = sets_[first];
    if (set == nullptr) {
      auto made = BlockSet::Create(*session_, {"drives", 1, first, kBlocks, kBlockBytes});
      EXPECT_TRUE(made.ok()) << made.status();
      set = *std::move(made);
    }
    return *set;
  }
  // Whether all of a set were stored and have reached the drive.
  absl::Status Put(uint64_t first) {
    return Set(first).Put(0, kBlocks, TERRACE_LEVEL_LOCAL_SYNCED);
  }
  // Blocks of a set that are delivered, each of them right in every byte.
  uint32_t Hits(uint64_t first) {
    BlockSet& set = Set(first);
    uint32_t hits = 0;
    for (uint32_t i = 0; i < kBlocks; ++i) {
      absl::StatusOr<Completion> got =
          session_->GetLease(set.Chain(i, 1), {}, ClientSession::Pending::kWait);
      EXPECT_TRUE(got.ok()) << got.status();
      if (!got.ok() || (*got)->outcomes[0] != TERRACE_GET_OK) {
        continue;
      }
      const absl::Span<const char> payload(static_cast<const char*>((*got)->data[0]),
                                           (*got)->payload_bytes[0]);
      EXPECT_EQ(payload.size(), kBlockBytes);
      EXPECT_EQ(set.WrongBytes(i, payload), 0U) << "block " << i;
      EXPECT_TRUE(session_->Release((*got)->lease, {}).ok());
      ++hits;
    }
    return hits;
  }
  void EmptyDram() {
    EXPECT_TRUE(Eventually([this] {
      v1::EvictReply reply;
      grpc::ClientContext context;
      const grpc::Status status =
          v1::Admin::NewStub(daemon_->AdminChannel())->Evict(&context, {}, &reply);
      EXPECT_TRUE(status.ok()) << status.error_message();
      return reply.used_bytes() == 0;
    }));
  }
  v1::TierStatus Local() {
    v1::TiersReply reply;
    grpc::ClientContext context;
    const grpc::Status status =
        v1::Admin::NewStub(daemon_->AdminChannel())->Tiers(&context, {}, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.tiers_size() == 2 ? reply.tiers(1) : v1::TierStatus();
  }
  v1::DriveStatus Drive(int number) {
    const v1::TierStatus local = Local();
    return number < local.drives_size() ? local.drives(number) : v1::DriveStatus();
  }
  bool BecomesReady(int number) {
    return Eventually([&] { return Drive(number).state() == "ready"; });
  }
  bool GoesAway(int number, const std::string& because) {
    return Eventually([&] {
      const v1::DriveStatus drive = Drive(number);
      return drive.state() == "away" && drive.problem().find(because) != std::string::npos;
    });
  }

 private:
  std::unique_ptr<StartedDaemon> daemon_;
  std::unique_ptr<ClientSession> session_;
  std::map<uint64_t, std::unique_ptr<BlockSet>> sets_;  // by their first block
};

class Drives : public testing::Test {
 protected:
  [[nodiscard]] std::string Path(const std::string& name) const {
    return folder_.path() + "/" + name;
  }
  [[nodiscard]] std::string TwoDrives() const {
    return kNoReserve + DriveText(Path("a")) + DriveText(Path("b"));
  }
  void Move(const std::string& from, const std::string& to) const {
    std::error_code error;
    fs::rename(Path(from), Path(to), error);
    ASSERT_FALSE(error) << error.message();
  }
  // A directory of another tier, with blocks.
  void MakeForeign(const std::string& name) const {
    Room other(LocalText(Path(name), 0));
    ASSERT_TRUE(other.Put(5000).ok());
    ASSERT_EQ(other.daemon().Stop(), 0);
  }
  // What lies in a directory: names, sizes and times of change.
  [[nodiscard]] std::map<std::string, std::string> Contents(const std::string& name) const {
    std::map<std::string, std::string> contents;
    for (const fs::directory_entry& entry : fs::directory_iterator(Path(name))) {
      contents[entry.path().filename().string()] =
          absl::StrCat(entry.file_size(), " ", entry.last_write_time().time_since_epoch().count());
    }
    return contents;
  }

  const doubles::PrivateFolder folder_;
};

TEST_F(Drives, BlocksLieOnAllDrivesAndARestartFindsThem) {
  Room room(TwoDrives());
  ASSERT_TRUE(room.Put(0).ok());
  EXPECT_GT(room.Drive(0).blocks(), 5U);
  EXPECT_GT(room.Drive(1).blocks(), 5U);
  EXPECT_EQ(room.Drive(0).blocks() + room.Drive(1).blocks(), kBlocks);
  EXPECT_EQ(room.Drive(1).path(), Path("b"));
  ASSERT_EQ(room.daemon().Stop(), 0);
  ASSERT_TRUE(room.daemon().StartAgain().ok());
  room.Connect();
  EXPECT_TRUE(room.BecomesReady(0) && room.BecomesReady(1));
  EXPECT_EQ(room.Hits(0), kBlocks);
  room.daemon().Kill();
  ASSERT_TRUE(room.daemon().StartAgain().ok());
  room.Connect();
  EXPECT_TRUE(room.BecomesReady(0) && room.BecomesReady(1));
  EXPECT_EQ(room.Hits(0), kBlocks);
}

TEST_F(Drives, ADriveThatDisappearsTakesItsOwnBlocksAlongAndBringsThemBack) {
  Room room(TwoDrives());
  ASSERT_TRUE(room.Put(0).ok());
  room.EmptyDram();
  const uint64_t on_the_other = room.Drive(1).blocks();
  Move("a", "away");
  ASSERT_TRUE(room.GoesAway(0, "")) << room.daemon().Log();
  EXPECT_EQ(room.Hits(0), on_the_other);
  EXPECT_EQ(room.Local().state(), "ready");
  EXPECT_TRUE(room.Put(1000).ok()) << "the other takes what is new";
  Move("away", "a");
  ASSERT_TRUE(room.BecomesReady(0)) << room.daemon().Log();
  room.EmptyDram();
  EXPECT_EQ(room.Hits(0), kBlocks);
  EXPECT_EQ(room.Hits(1000), kBlocks);
}

TEST_F(Drives, AnotherTiersDirectoryUnderADrivesPathIsLeftAsItIs) {
  MakeForeign("foreign");
  const std::map<std::string, std::string> before = Contents("foreign");
  ASSERT_GT(before.size(), 1U);
  Room room(TwoDrives());
  ASSERT_TRUE(room.Put(0).ok());
  room.EmptyDram();
  const uint64_t on_the_other = room.Drive(1).blocks();
  Move("a", "own");
  Move("foreign", "a");
  ASSERT_TRUE(room.GoesAway(0, "is expected")) << room.daemon().Log();
  EXPECT_EQ(room.Hits(0), on_the_other);
  EXPECT_EQ(room.Hits(5000), 0U) << "what the other tier holds";
  EXPECT_TRUE(room.Put(1000).ok());
  Move("a", "foreign");
  EXPECT_EQ(Contents("foreign"), before);
  Move("own", "a");
  ASSERT_TRUE(room.BecomesReady(0)) << room.daemon().Log();
  EXPECT_EQ(room.Hits(0), kBlocks);
}

TEST_F(Drives, StartsWithOneDriveMissingAndTakesItWhenItComes) {
  fs::create_directory(Path("mount"));
  Room room(kNoReserve + DriveText(Path("mount/a")) + DriveText(Path("b")));
  ASSERT_TRUE(room.Put(0).ok());
  const uint64_t on_the_other = room.Drive(1).blocks();
  ASSERT_EQ(room.daemon().Stop(), 0);
  Move("mount", "away");
  ASSERT_TRUE(room.daemon().StartAgain().ok());
  room.Connect();
  ASSERT_TRUE(room.BecomesReady(1));
  EXPECT_EQ(room.Drive(0).state(), "away");
  EXPECT_EQ(room.Hits(0), on_the_other);
  Move("away", "mount");
  ASSERT_TRUE(room.BecomesReady(0)) << room.daemon().Log();
  EXPECT_EQ(room.Hits(0), kBlocks);
}

TEST_F(Drives, TheOnlyDriveMayBeSwappedForAnotherAndBack) {
  MakeForeign("foreign");
  const std::map<std::string, std::string> before = Contents("foreign");
  Room room(LocalText(Path("a"), 0));
  ASSERT_TRUE(room.Put(0).ok());
  room.EmptyDram();
  Move("a", "own");
  Move("foreign", "a");
  ASSERT_TRUE(room.GoesAway(0, "is expected")) << room.daemon().Log();
  EXPECT_EQ(room.Hits(0), 0U);
  EXPECT_EQ(room.Hits(5000), 0U);
  EXPECT_TRUE(room.Set(1000).Put(0, kBlocks).ok()) << "into DRAM";
  Move("a", "foreign");
  EXPECT_EQ(Contents("foreign"), before);
  Move("own", "a");
  ASSERT_TRUE(room.BecomesReady(0)) << room.daemon().Log();
  EXPECT_EQ(room.Hits(0), kBlocks);
  EXPECT_TRUE(room.Put(2000).ok());
}

TEST_F(Drives, StartsWithoutItsOnlyDriveAndSaysSo) {
  Room room(LocalText(Path("mount/a"), 0));
  EXPECT_EQ(room.Drive(0).state(), "away");
  EXPECT_NE(room.daemon().Log().find("a local drive is not there"), std::string::npos)
      << room.daemon().Log();
  EXPECT_TRUE(room.Set(0).Put(0, kBlocks).ok()) << "into DRAM";
  EXPECT_EQ(room.Hits(0), kBlocks);
  fs::create_directory(Path("mount"));
  ASSERT_TRUE(room.BecomesReady(0)) << room.daemon().Log();
  EXPECT_TRUE(room.Put(1000).ok());
}

TEST_F(Drives, AFolderOfSomebodyElsesIsARefusalToStart) {
  fs::create_directory(Path("a"));
  std::ofstream(Path("a") + "/thesis.txt") << "precious";
  const auto daemon = StartedDaemon::Start({.more_config = LocalText(Path("a"), 0)});
  ASSERT_FALSE(daemon.ok());
  EXPECT_NE(daemon.status().message().find("it is not a tier's"), std::string::npos)
      << daemon.status();
  EXPECT_EQ(Contents("a").size(), 1U);
}

TEST_F(Drives, AFullFileSystemCostsWhatWouldBeWrittenUntilThereIsRoom) {
  struct statvfs room_there = {};
  ASSERT_EQ(statvfs(folder_.path().c_str(), &room_there), 0);
  const uint64_t available = uint64_t{room_there.f_bavail} * room_there.f_frsize;
  // Others write here, too: far enough from both sides.
  const uint64_t margin = std::min(uint64_t{2} << 30, available / 4);
  const std::string ballast = Path("ballast");
  {
    const Descriptor file(open(ballast.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_EQ(posix_fallocate(file.get(), 0, static_cast<off_t>(2 * margin)), 0);
  }
  Room room(LocalText(Path("a"), available - margin));
  EXPECT_FALSE(room.Put(0).ok()) << "there was room";
  EXPECT_EQ(room.Hits(0), kBlocks) << "DRAM has them";
  EXPECT_EQ(room.Drive(0).blocks(), 0U);
  fs::remove(ballast);
  uint64_t first = 1000;
  EXPECT_TRUE(Eventually([&] { return room.Put(first += 1000).ok(); })) << room.daemon().Log();
  room.EmptyDram();
  EXPECT_EQ(room.Hits(first), kBlocks);
}

// About 800 MiB of it.
TEST(DriveInMemory, WorksAndSaysWhetherItBypassesThePageCache) {
  const doubles::PrivateFolder folder("/dev/shm");
  const ctl::DirectIoFact fact = ctl::TryDirectIo(folder.path());
  Room room(LocalText(folder.path() + "/a", 0));
  ASSERT_TRUE(room.Put(0).ok()) << room.daemon().Log();
  const v1::DriveStatus drive = room.Drive(0);
  // Kernels from 6.6 on let tmpfs be asked for O_DIRECT.
  EXPECT_EQ(drive.direct(), fact.result == ctl::DirectIoFact::Result::kWorks);
  EXPECT_EQ(drive.direct(), drive.not_direct_because().empty());
  room.EmptyDram();
  EXPECT_EQ(room.Hits(0), kBlocks);
}

}  // namespace
}  // namespace terrace
