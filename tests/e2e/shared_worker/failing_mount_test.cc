// A mount that fails, and one that is gone.
#include <errno.h>

#include "absl/strings/match.h"

#include "tests/e2e/shared_worker/sick_pool.h"

namespace terrace {
namespace {

using FailingMount = SickPool;

TEST_F(FailingMount, ItsErrorsComeBackAsTheirKinds) {
  struct Row {
    int error;
    absl::StatusCode code;
  };
  for (const Row& row :
       {Row{EIO, absl::StatusCode::kInternal}, Row{ESTALE, absl::StatusCode::kUnavailable},
        Row{ENOSPC, absl::StatusCode::kResourceExhausted},
        Row{EDQUOT, absl::StatusCode::kResourceExhausted},
        Row{EROFS, absl::StatusCode::kPermissionDenied}}) {
    SCOPED_TRACE(std::strerror(row.error));
    const auto code_of = [&](SickOp sick, PoolOp op, const std::string& path) {
      mount_->Fail(sick, row.error);
      const absl::StatusCode code = Call(op, path, absl::Seconds(60)).code();
      mount_->Heal();
      // Not so many in a row that the worker loses its place.
      EXPECT_TRUE(Call(PoolOp::kList, "", absl::Seconds(60)).ok());
      return code;
    };
    EXPECT_EQ(code_of(SickOp::kRead, PoolOp::kRead, "file"), row.code);
    EXPECT_EQ(code_of(SickOp::kOpen, PoolOp::kRead, "file"), row.code);
    EXPECT_EQ(code_of(SickOp::kWrite, PoolOp::kWrite, "file"), row.code);
    EXPECT_EQ(code_of(SickOp::kFsync, PoolOp::kSync, "file"), row.code);
    EXPECT_EQ(code_of(SickOp::kCreate, PoolOp::kMake, "new"), row.code);
    EXPECT_EQ(code_of(SickOp::kRename, PoolOp::kReplace, "file"), row.code);
    EXPECT_EQ(code_of(SickOp::kUnlink, PoolOp::kRemove, "file"), row.code);
    EXPECT_EQ(code_of(SickOp::kMkdir, PoolOp::kMakeFolder, "folder"), row.code);
    EXPECT_EQ(code_of(SickOp::kReaddir, PoolOp::kList, ""), row.code);
    EXPECT_EQ(code_of(SickOp::kStatfs, PoolOp::kSpace, ""), row.code);
  }
  EXPECT_EQ(files_->figures().starts, 1U);
}

TEST_F(FailingMount, ThatFailsAgainAndAgainIsGivenUpUntilItsProbeSucceeds) {
  mount_->Fail(SickOp::kRead, EIO);
  mount_->Fail(SickOp::kStatfs, EIO);
  for (uint32_t i = 0; i < Options().faults_in_a_row; ++i) {
    EXPECT_TRUE(absl::IsInternal(Call(PoolOp::kRead, "file", absl::Seconds(60))));
  }
  EXPECT_TRUE(Eventually([this] { return files_->figures().suspended; }));
  EXPECT_TRUE(absl::IsUnavailable(Call(PoolOp::kList, "")));
  EXPECT_TRUE(Eventually([this] { return files_->figures().starts >= 3; }));
  EXPECT_FALSE(files_->figures().serving);
  mount_->Heal();
  EXPECT_TRUE(Serves());
  EXPECT_FALSE(files_->figures().suspended);
}

TEST_F(FailingMount, ADiskThatIsFullDoesNotCostTheWorkerItsPlace) {
  mount_->Fail(SickOp::kWrite, ENOSPC);
  for (uint32_t i = 0; i < 3 * Options().faults_in_a_row; ++i) {
    EXPECT_TRUE(absl::IsResourceExhausted(Call(PoolOp::kWrite, "file", absl::Seconds(60))));
  }
  EXPECT_EQ(files_->figures().starts, 1U);
  EXPECT_EQ(files_->figures().faults, 0U);
}

TEST_F(FailingMount, ThatIsGoneIsUnavailableAndTheFolderInItsPlaceIsLeftEmpty) {
  mount_->Unmount();
  const auto attempt = [this] {
    for (const auto& [op, path] :
         {std::pair(PoolOp::kMakeFolder, "folder"), std::pair(PoolOp::kMake, "made"),
          std::pair(PoolOp::kCreate, "created"), std::pair(PoolOp::kReplace, "replaced"),
          std::pair(PoolOp::kWrite, "file"), std::pair(PoolOp::kCheckRoot, "")}) {
      const absl::Status status = Call(op, path, absl::Seconds(60));
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    }
  };
  attempt();
  // A fresh worker finds the empty folder, and does not take it for the pool.
  EXPECT_TRUE(Eventually([this] {
    return absl::StrContains(files_->figures().last_fault, "another folder than the one");
  })) << files_->figures().last_fault;
  attempt();
  EXPECT_TRUE(std::filesystem::is_empty(mount_->path()));
  ASSERT_TRUE(mount_->Remount().ok());
  EXPECT_TRUE(Serves());
  EXPECT_TRUE(Call(PoolOp::kMake, "made", absl::Seconds(60)).ok());
}

}  // namespace
}  // namespace terrace
