// What each call costs in calls of the kernel, and what it was for.
#include "tools/sim/simulated_pool_files.h"

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"

#include "tiers/shared/pool_format.h"

namespace terrace::sim {
namespace {

constexpr Digest128 kSelf{1, 1};
constexpr NodeLife kOwn{kSelf, 1};
constexpr NodeLife kOther{{2, 2}, 1};

class SimulatedPoolFilesTest : public testing::Test {
 protected:
  SimulatedPoolFilesTest() {
    for (const std::string& folder :
         {std::string(kMembersName), std::string(kNodesName), NodePath(kOwn.node), LifePath(kOwn),
          NodePath(kOther.node), LifePath(kOther)}) {
      EXPECT_TRUE(mount_.MakeFolder(folder).ok());
    }
  }

  PoolReply Call(PoolOp op,
                 const std::string& path,
                 uint64_t length = 0,
                 ReadHow how = ReadHow::kKept) {
    PoolCall call;
    call.op = op;
    call.path = path;
    call.length = length;
    call.how = how;
    call.buffer = files_.TakeBuffer(length);
    return files_.Call(std::move(call));
  }
  // Of what was made since the last time.
  uint64_t Took(CallPurpose purpose) {
    const uint64_t all = files_.counts().Of(purpose);
    return all - std::exchange(before_[static_cast<size_t>(purpose)], all);
  }

  SimulatedMount mount_;
  BufferShelf shelf_;
  SimulatedPoolFiles files_{kSelf, mount_, shelf_};
  uint64_t before_[kCallPurposes] = {};
};

TEST_F(SimulatedPoolFilesTest, AFileThatStaysOpenIsOpenedOnce) {
  const std::string path = LifePath(kOwn) + "/s00000001";
  ASSERT_TRUE(Call(PoolOp::kMake, path, 8192).status.ok());
  EXPECT_EQ(Took(CallPurpose::kWriting), 4U);  // folder, file, its space, sync
  ASSERT_TRUE(Call(PoolOp::kWrite, path, 4096).status.ok());
  EXPECT_EQ(Took(CallPurpose::kWriting), 1U);
  ASSERT_TRUE(Call(PoolOp::kWrite, path, 4096).status.ok());
  ASSERT_TRUE(Call(PoolOp::kSync, path).status.ok());
  EXPECT_EQ(Took(CallPurpose::kWriting), 2U);
  ASSERT_TRUE(Call(PoolOp::kRemove, path).status.ok());
  EXPECT_EQ(Took(CallPurpose::kUpkeep), 2U);  // and the close of what was open
  EXPECT_TRUE(absl::IsNotFound(Call(PoolOp::kSync, path).status));
}

TEST_F(SimulatedPoolFilesTest, AReportOfAnotherIsOpenedEveryTime) {
  ASSERT_TRUE(
      mount_.Put(HeadPath(kOther), std::string(500, 'x'), SimulatedMount::Existing::kKeep).ok());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Call(PoolOp::kRead, HeadPath(kOther), 4096, ReadHow::kFresh).bytes, 500U);
    EXPECT_GE(Took(CallPurpose::kFollowing), 4U);  // open, stat, read, close
    EXPECT_EQ(Call(PoolOp::kRead, HeadPath(kOther), 4096, ReadHow::kGlance).bytes, 500U);
    EXPECT_EQ(Took(CallPurpose::kFollowing), 3U);  // open, read, close
  }
  EXPECT_EQ(files_.counts().report_bytes, 2000U);
  EXPECT_EQ(files_.counts().Of(FileCall::kOpen), 4U);
  EXPECT_EQ(files_.counts().Of(FileCall::kClose), 4U);
  EXPECT_TRUE(
      absl::IsNotFound(Call(PoolOp::kRead, HeadPath(kOther) + "s", 4096, ReadHow::kFresh).status));
  EXPECT_EQ(Took(CallPurpose::kFollowing), 1U);
}

TEST_F(SimulatedPoolFilesTest, CallsAreForSomething) {
  ASSERT_TRUE(Call(PoolOp::kReplace, HeadPath(kOwn), 100).status.ok());
  // Folder, file, write, sync, name, close, sync of the folder, which stays open.
  EXPECT_EQ(Took(CallPurpose::kWriting), 7U);
  ASSERT_TRUE(Call(PoolOp::kReplace, HeadPath(kOwn), 100).status.ok());
  EXPECT_EQ(Took(CallPurpose::kWriting), 6U);
  EXPECT_TRUE(absl::IsAlreadyExists(Call(PoolOp::kCreate, HeadPath(kOwn), 100).status));
  ASSERT_TRUE(Call(PoolOp::kMakeFolder, LifePath(kOwn) + "/00000000").status.ok());
  ASSERT_TRUE(Call(PoolOp::kMakeFolder, LifePath(kOwn) + "/00000000").status.ok());
  ASSERT_TRUE(Call(PoolOp::kRemoveFolder, LifePath(kOwn) + "/00000000").status.ok());
  EXPECT_EQ(Took(CallPurpose::kUpkeep), 0U);
  EXPECT_EQ(Call(PoolOp::kList, std::string(kNodesName)).entries.size(), 2U);
  EXPECT_EQ(Took(CallPurpose::kFollowing), 4U);  // open, twice a part of the list, close
  ASSERT_TRUE(Call(PoolOp::kSpace, "").status.ok());
  ASSERT_TRUE(Call(PoolOp::kCheckRoot, "").status.ok());
  EXPECT_EQ(Took(CallPurpose::kUpkeep), 4U);  // space, two stats, the close of the folder
  files_.ReadsBlocks(true);
  ASSERT_TRUE(Call(PoolOp::kRead, HeadPath(kOwn), 100).status.ok());
  EXPECT_EQ(Took(CallPurpose::kReading), 3U);
  uint64_t sum = 0;
  for (size_t i = 0; i < kFileCalls; ++i) {
    sum += files_.counts().Of(static_cast<FileCall>(i));
  }
  EXPECT_EQ(sum, files_.counts().All());
}

TEST_F(SimulatedPoolFilesTest, RefusesWhatNoWorkerWouldDo) {
  EXPECT_TRUE(absl::IsInvalidArgument(Call(PoolOp::kSync, "../x").status));
  EXPECT_TRUE(absl::IsNotFound(Call(PoolOp::kList, "absent").status));
  EXPECT_EQ(files_.TakeBuffer(SimulatedPoolFiles::kMaxBufferBytes + 1), nullptr);
  files_.Stop();
  EXPECT_TRUE(absl::IsCancelled(Call(PoolOp::kSpace, "").status));
}

}  // namespace
}  // namespace terrace::sim
