// Peers of another uid: what they cannot open, see or map. Needs root, to become somebody else.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "tests/doubles/carrier_client.h"
#include "tests/doubles/front_room.h"

namespace terrace::doubles {
namespace {

constexpr uid_t kOther = 65534;
constexpr uint32_t kBlockBytes = 4096;

// Runs `body` in a child of another uid; its result is the exit status, 0 for "as it should be".
int AsOther(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (setgid(kOther) != 0 || setuid(kOther) != 0) {
      _exit(100);
    }
    _exit(body());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

class PeersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) {
      GTEST_SKIP() << "needs root to become another uid";
    }
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
    ASSERT_TRUE(client.ok());
    client_ = *std::move(client);
    digest_ = Open(*client_);
    v1::PutRequest put;
    *put.mutable_part() = TheBlock(digest_);
    put.set_payload(TestPayload(1, kBlockBytes));
    ASSERT_TRUE(client_->Call<v1::PutReply>(v1::METHOD_PUT, put).ok());
  }
  // As an operator who lets everybody in would do: the sockets themselves are never open to others.
  void LetEverybodyIn() const {
    for (const char* name : {"session.sock", "terrace.sock"}) {
      ASSERT_EQ(chmod(room_->path(name).c_str(), 0666), 0);
    }
  }
  static std::string Open(FrameClient& client) {
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(kBlockBytes);
    const auto reply = client.Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, request);
    return reply.ok() ? reply->namespace_digest() : "";
  }
  static v1::Part TheBlock(const std::string& digest) {
    v1::Part part;
    part.set_namespace_digest(digest);
    part.set_keys(TestKey(1));
    return part;
  }

  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> client_;
  std::string digest_;
};

TEST_F(PeersTest, NobodyElseCanConnectAtAll) {
  for (const char* name : {"session.sock", "terrace.sock", "admin.sock"}) {
    const std::string path = room_->path(name);
    EXPECT_EQ(AsOther([&path] { return FrameClient::Connect(path).ok() ? 1 : 0; }), 0) << name;
  }
}

TEST_F(PeersTest, AdminClosesAPeerOfAnotherUidWhateverItsMode) {
  const std::string path = room_->path("admin.sock");
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  EXPECT_EQ(AsOther([&path] {
              absl::StatusOr<std::unique_ptr<FrameClient>> client = FrameClient::Connect(path);
              return client.ok() && (*client)->SeesEnd() ? 0 : 1;
            }),
            0);
  EXPECT_EQ(room_->observer().Connections(Carrier::kGrpc, "refused_identity"), 1);
}

TEST_F(PeersTest, AnotherTenantSeesNothingAndMapsNothing) {
  LetEverybodyIn();
  v1::GetRequest get;
  *get.add_parts() = TheBlock(digest_);
  get.set_delivery(v1::DELIVERY_LEASE);
  const auto lease = client_->Call<v1::GetReply>(v1::METHOD_GET, get);
  ASSERT_TRUE(lease.ok());
  ASSERT_EQ(lease->slab_ids_size(), 1);
  const std::string foreign = digest_;
  const int result = AsOther([&] {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
    if (!client.ok()) {
      return 1;
    }
    // The same record is another namespace for another tenant, and the foreign digest is unknown.
    const std::string own = Open(**client);
    if (own.empty() || own == foreign) {
      return 2;
    }
    for (const std::string& digest : {own, foreign}) {
      v1::ProbeRequest probe;
      *probe.add_parts() = TheBlock(digest);
      const auto reply = (*client)->Call<v1::ProbeReply>(v1::METHOD_PROBE, probe);
      if (!reply.ok() || reply->states() != std::string(1, '\0')) {
        return 3;
      }
    }
    v1::MapSlabRequest map;
    map.set_slab_id(lease->slab_ids(0));
    if (!absl::IsNotFound((*client)->Call<v1::MapSlabReply>(v1::METHOD_MAP_SLAB, map).status())) {
      return 4;
    }
    v1::ReleaseRequest release;
    release.add_leases()->set_lease_id(lease->lease_id());
    const auto released = (*client)->Call<v1::ReleaseReply>(v1::METHOD_RELEASE, release);
    if (!released.ok() || released->released() != 0) {
      return 5;
    }
    v1::ClearNamespaceRequest clear;
    clear.set_namespace_digest(foreign);
    if (!absl::IsNotFound(
            (*client)->Call<v1::ClearNamespaceReply>(v1::METHOD_CLEAR_NAMESPACE, clear).status())) {
      return 6;
    }
    return 0;
  });
  EXPECT_EQ(result, 0);
  EXPECT_EQ(room_->store().Usage().leased_blocks, 1U);
}

}  // namespace
}  // namespace terrace::doubles
