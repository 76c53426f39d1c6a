// A shared tier as the daemon holds it, over a folder whose calls threads make.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include <gtest/gtest.h>

#include "daemon/identity_files.h"
#include "daemon/shared_tier.h"
#include "daemon/thread_executor.h"
#include "tests/doubles/private_folder.h"
#include "tiers/os/rooted_files.h"
#include "tiers/shared/pool_format.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;

class LogOfEvents final : public Log {
 public:
  void Write(LogLevel /*level*/,
             std::string_view event,
             std::initializer_list<LogField> fields) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string line(event);
    for (const LogField& field : fields) {
      line.append(" ").append(field.value);
    }
    lines_.push_back(line);
  }
  void SetLevel(LogLevel /*level*/) override {}
  [[nodiscard]] uint64_t dropped() const override { return 0; }
  [[nodiscard]] uint64_t suppressed() const override { return 0; }

  bool Has(const std::string& part) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const std::string& line : lines_) {
      if (line.find(part) != std::string::npos) {
        return true;
      }
    }
    return false;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

// Threaded files and the kernel's files that they call.
class OwningFiles final : public PoolFiles {
 public:
  OwningFiles(std::unique_ptr<RootedFiles> files, const PoolHost::FilesOptions& options)
      : files_(std::move(files)),
        threads_(MakeThreadedPoolFiles(
            {.threads = 2, .buffer_bytes = options.buffer_bytes}, *files_, *options.clock)) {}
  std::shared_ptr<PoolBuffer> TakeBuffer(uint64_t bytes) override {
    return threads_->TakeBuffer(bytes);
  }
  [[nodiscard]] uint64_t max_buffer_bytes() const override { return threads_->max_buffer_bytes(); }
  void Submit(PoolCall call, std::function<void(PoolReply)> done) override {
    threads_->Submit(std::move(call), std::move(done));
  }
  void Stop() override { threads_->Stop(); }
  [[nodiscard]] PoolFilesFigures figures() const override { return threads_->figures(); }

 private:
  const std::unique_ptr<RootedFiles> files_;
  const std::unique_ptr<PoolFiles> threads_;
};

class PoolHostTest : public testing::Test {
 protected:
  PoolHostTest() {
    for (const char* name : {"/data", "/pool", "/other"}) {
      fs::create_directory(folder_.path() + name);
    }
    options_.tier.name = "g4";
    options_.tier.kind = kSharedKind;
    options_.tier.path = folder_.path() + "/pool";
    options_.tier.capacity_bytes = uint64_t{1} << 30;
    options_.tier.segment_bytes = uint64_t{32} << 20;
    options_.tier.free_reserve_bytes = 0;
    options_.data_dir = folder_.path() + "/data";
    options_.node = {1, 2};
    options_.max_payload_bytes = uint64_t{1} << 20;
    parts_.clock = &BootClock();
    parts_.hashing = executor_.get();
    parts_.log = &log_;
    parts_.make_files =
        [](const PoolHost::FilesOptions& options) -> absl::StatusOr<std::unique_ptr<PoolFiles>> {
      absl::StatusOr<std::unique_ptr<RootedFiles>> files = OpenRootedFiles(options.root);
      if (!files.ok()) {
        return files.status();
      }
      return std::make_unique<OwningFiles>(*std::move(files), options);
    };
  }

  absl::StatusOr<std::unique_ptr<PoolHost>> Open() { return PoolHost::Open(options_, parts_); }
  // Polled for, with time passing for the tier.
  static bool Becomes(PoolHost& host, PoolState state) {
    const absl::Time until = absl::Now() + absl::Seconds(30);
    while (host.tier().figures().state != state) {
      if (absl::Now() > until) {
        return false;
      }
      host.tier().Tick();
      absl::SleepFor(absl::Milliseconds(5));
    }
    host.LogChanges();
    return true;
  }

  const doubles::PrivateFolder folder_;
  const std::unique_ptr<Executor> executor_ = *MakeThreadExecutor({.threads = 1});
  LogOfEvents log_;
  PoolHost::Options options_;
  PoolHost::Parts parts_;
};

TEST_F(PoolHostTest, RemembersItsPoolAndTakesNoOther) {
  Digest128 pool;
  {
    absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
    ASSERT_TRUE(host.ok()) << host.status();
    ASSERT_TRUE(Becomes(**host, PoolState::kOnline)) << (*host)->tier().figures().last_fault;
    pool = (*host)->tier().figures().pool_uuid;
    EXPECT_EQ(*RememberedPool(options_.data_dir, "g4"), pool);
    EXPECT_TRUE(fs::exists(options_.data_dir + "/pool-index-g4"));
    EXPECT_TRUE(log_.Has("shared tier found its pool g4 " + pool.ToHex()));
    EXPECT_TRUE(log_.Has("shared tier g4 online"));
    EXPECT_TRUE((*host)->Close(absl::Seconds(30)).ok());
  }
  options_.tier.path = folder_.path() + "/other";
  absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_TRUE(Becomes(**host, PoolState::kForeign));
  EXPECT_TRUE(log_.Has("a shared tier is away"));
  EXPECT_TRUE(fs::is_empty(options_.tier.path)) << "nothing is made there";
  EXPECT_EQ(*RememberedPool(options_.data_dir, "g4"), pool);
}

TEST_F(PoolHostTest, SaysWhichTierCannotBeOpenedAndWhy) {
  options_.tier.capacity_bytes = 1;
  const absl::Status small = Open().status();
  EXPECT_EQ(small.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(small.message().find("the shared tier g4: capacity_bytes"), std::string::npos) << small;
  options_.tier.capacity_bytes = uint64_t{1} << 30;
  options_.tier.path = folder_.path() + "/missing";
  const absl::Status missing = Open().status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.message().find("the shared tier g4: "), 0U) << missing;
  options_.tier.path = folder_.path() + "/pool";
  std::filesystem::create_directory(options_.data_dir + "/pool-g4");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kInternal);
}

TEST_F(PoolHostTest, ProtectsItsPoolWithTheKeyOfAFileOrACredential) {
  const std::string key = folder_.path() + "/key";
  std::ofstream(key) << std::string(32, 'k');
  fs::permissions(key, fs::perms::owner_read);
  options_.tier.auth = PoolAuth::kEncrypt;
  options_.tier.key_file = key;
  {
    absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
    ASSERT_TRUE(host.ok()) << host.status();
    ASSERT_TRUE(Becomes(**host, PoolState::kOnline)) << (*host)->tier().figures().last_fault;
    EXPECT_EQ((*host)->tier().figures().auth, PoolAuth::kEncrypt);
    EXPECT_TRUE((*host)->Close(absl::Seconds(30)).ok());
  }
  options_.tier.key_file.clear();
  options_.tier.key_credential = "key";
  options_.credentials_dir = folder_.path();
  {
    absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
    ASSERT_TRUE(host.ok()) << host.status();
    EXPECT_TRUE(Becomes(**host, PoolState::kOnline)) << "the same key: the same pool";
  }
  options_.tier.auth = PoolAuth::kMac;
  absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_TRUE(Becomes(**host, PoolState::kForeign));
  EXPECT_TRUE(log_.Has("auth = encrypt"));
  EXPECT_FALSE(log_.Has(std::string(8, 'k')));
}

// By somebody who can write below the mount: in the place of members, heads, segments, and of this
// node's own folder.
TEST_F(PoolHostTest, LinksPipesAndDevicesInThePoolAreSkippedAndNothingBehindThemIsTouched) {
  {
    absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
    ASSERT_TRUE(host.ok()) << host.status();
    ASSERT_TRUE(Becomes(**host, PoolState::kOnline)) << (*host)->tier().figures().last_fault;
    EXPECT_TRUE((*host)->Close(absl::Seconds(30)).ok());
  }
  const fs::path pool = options_.tier.path;
  const fs::path outside = folder_.path() + "/outside";
  fs::create_directory(outside);
  std::ofstream(outside / "secret") << "not the pool's";
  // Lives of nodes whose member file, or whose head, is none.
  const auto plant = [](const fs::path& path, uint64_t how) {
    if (how == 0) {
      ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    } else if (how == 1) {
      fs::create_symlink("../../../../outside/secret", path);
    } else if (mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 5)) != 0) {  // /dev/zero
      fs::create_directory(path);
    }
  };
  for (uint64_t how = 0; how < 3; ++how) {
    const NodeLife member{{100 + how, 1}, 1};
    plant(pool / MemberPath(member), how);
    const NodeLife life{{200 + how, 1}, 1};
    std::ofstream(pool / MemberPath(life)) << "";
    fs::create_directories(pool / LifePath(life));
    plant(pool / HeadPath(life), how);
    plant(pool / ManifestPath(life, 1), how);
    plant(pool / ("planted-" + std::to_string(how)), how);
  }
  fs::create_directory_symlink(outside, pool / NodePath({300, 1}));
  options_.node = {300, 1};  // whose folder it is
  {
    absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
    ASSERT_TRUE(host.ok()) << host.status();
    const absl::Time until = absl::Now() + absl::Seconds(30);
    while ((*host)->tier().figures().last_fault.empty() && absl::Now() < until) {
      (*host)->tier().Tick();
      absl::SleepFor(absl::Milliseconds(5));
    }
    EXPECT_NE((*host)->tier().figures().last_fault, "") << "its folder is not its own";
  }
  options_.node = {301, 1};
  absl::StatusOr<std::unique_ptr<PoolHost>> host = Open();
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_TRUE(Becomes(**host, PoolState::kOnline)) << (*host)->tier().figures().last_fault;
  for (const PoolNodeView& node : (*host)->tier().Nodes()) {
    EXPECT_TRUE(node.node.hi < 100 || node.node.hi >= 200) << "of a member file that is none";
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(outside), fs::directory_iterator()), 1);
  std::string content;
  std::getline(std::ifstream(outside / "secret"), content);
  EXPECT_EQ(content, "not the pool's");
}

TEST_F(PoolHostTest, DoesNotOpenWithoutItsKey) {
  options_.tier.auth = PoolAuth::kMac;
  options_.tier.key_file = folder_.path() + "/key";
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
  std::ofstream(options_.tier.key_file) << std::string(16, 'k');
  fs::permissions(options_.tier.key_file, fs::perms::owner_read);
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message().find("the shared tier g4: " + options_.tier.key_file), 0U) << status;
  EXPECT_TRUE(fs::is_empty(options_.tier.path)) << "nothing is made there";
}

}  // namespace
}  // namespace terrace
