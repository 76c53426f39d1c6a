// The session protocol on the real socket: Hello, the rules of frames, descriptors, the process behind.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "tests/doubles/front_room.h"
#include "tests/doubles/in_child.h"

namespace terrace::doubles {
namespace {

class SessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
  }
  std::unique_ptr<FrameClient> NewConnection() {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->Connect();
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }
  std::unique_ptr<FrameClient> NewSession() {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }
  static v1::HelloRequest GoodHello() {
    v1::HelloRequest hello;
    hello.set_protocol_major(1);
    hello.set_client_name("test");
    return hello;
  }

  std::unique_ptr<FrontRoom> room_;
};

TEST_F(SessionTest, HelloTellsLimitsFeaturesAndTenant) {
  const std::unique_ptr<FrameClient> client = NewConnection();
  const absl::StatusOr<v1::HelloReply> hello = client->Hello();
  ASSERT_TRUE(hello.ok()) << hello.status();
  EXPECT_EQ(hello->boot_id(), room_->front().boot_id());
  EXPECT_EQ(hello->protocol_major(), 1U);
  EXPECT_TRUE(hello->leases());
  EXPECT_GT(hello->lease_limit_bytes(), 0U);
  EXPECT_EQ(hello->max_keys(), 16384U);
  EXPECT_EQ(hello->max_message_bytes(), 4U << 20);
  EXPECT_EQ(hello->max_calls_in_flight(), 256U);
  EXPECT_EQ(hello->tenant(), "uid-" + std::to_string(getuid()));
  EXPECT_NE(hello->session_id(), 0U);
  for (const v1::Feature served : {v1::FEATURE_STREAMS, v1::FEATURE_WATCH}) {
    EXPECT_EQ(std::count(hello->features().begin(), hello->features().end(), served), 1) << served;
  }
  for (const int feature : hello->features()) {
    EXPECT_NE(feature, v1::FEATURE_GPU_REGIONS);
    EXPECT_NE(feature, v1::FEATURE_LOCAL_LEVELS) << "there is no local tier here";
  }
}

TEST_F(SessionTest, AnotherMajorVersionIsRefusedWithTheRange) {
  const std::unique_ptr<FrameClient> client = NewConnection();
  v1::HelloRequest hello = GoodHello();
  hello.set_protocol_major(2);
  const auto reply = client->Call<v1::HelloReply>(v1::METHOD_HELLO, hello);
  EXPECT_TRUE(absl::IsFailedPrecondition(reply.status()));
  EXPECT_NE(reply.status().message().find("1 to 1"), absl::string_view::npos);
}

TEST_F(SessionTest, NewerMinorVersionsAndUnknownFeaturesAreAccepted) {
  const std::unique_ptr<FrameClient> client = NewConnection();
  v1::HelloRequest hello = GoodHello();
  hello.set_protocol_minor(77);
  hello.add_features(static_cast<v1::Feature>(4711));
  EXPECT_TRUE(client->Call<v1::HelloReply>(v1::METHOD_HELLO, hello).ok());
}

TEST_F(SessionTest, NamesThatBreakTheRuleAreRefused) {
  for (const std::string& name : {std::string(65, 'a'), std::string("a b"), std::string("a/b"), std::string("\n")}) {
    const std::unique_ptr<FrameClient> client = NewConnection();
    v1::HelloRequest hello = GoodHello();
    hello.set_client_name(name);
    EXPECT_TRUE(absl::IsInvalidArgument(client->Call<v1::HelloReply>(v1::METHOD_HELLO, hello).status()));
    EXPECT_EQ(client->error().field(), "client_name");
  }
}

TEST_F(SessionTest, HelloMayBeRepeatedButNotChanged) {
  const std::unique_ptr<FrameClient> client = NewConnection();
  const auto first = client->Call<v1::HelloReply>(v1::METHOD_HELLO, GoodHello());
  const auto second = client->Call<v1::HelloReply>(v1::METHOD_HELLO, GoodHello());
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first->session_id(), second->session_id());
  v1::HelloRequest other = GoodHello();
  other.set_client_name("other");
  EXPECT_TRUE(absl::IsAlreadyExists(client->Call<v1::HelloReply>(v1::METHOD_HELLO, other).status()));
  EXPECT_TRUE(client->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
}

TEST_F(SessionTest, AnythingBeforeHelloEndsTheConnection) {
  const std::unique_ptr<FrameClient> client = NewConnection();
  EXPECT_FALSE(client->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
  EXPECT_TRUE(client->SeesEnd());
  EXPECT_EQ(room_->store().Usage().sessions, 0U);
}

TEST_F(SessionTest, FramesThatBreakARuleEndTheConnectionAndNobodyElses) {
  const std::unique_ptr<FrameClient> bystander = NewSession();
  ClientFrame good;
  good.method = v1::METHOD_PING;
  good.call_id = 99;
  const std::vector<std::function<void(ClientFrame&)>> spoils = {
      [](ClientFrame& f) { f.kind = 2; },
      [](ClientFrame& f) { f.kind = 3; },
      [](ClientFrame& f) { f.kind = 0; },
      [](ClientFrame& f) { f.call_id = 0; },
      [](ClientFrame& f) { f.status = 1; },
      [](ClientFrame& f) { f.payload_bytes = (4U << 20) + 1; },
      [](ClientFrame& f) { f.descriptor_count = 1; },
      [](ClientFrame& f) { f.descriptor_count = 255; },
  };
  for (size_t i = 0; i < spoils.size(); ++i) {
    SCOPED_TRACE(i);
    const std::unique_ptr<FrameClient> client = NewSession();
    ClientFrame frame;
    frame.method = good.method;
    frame.call_id = good.call_id;
    spoils[i](frame);
    client->SendBytes(frame.Header());
    EXPECT_TRUE(client->SeesEnd());
  }
  EXPECT_TRUE(bystander->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
  EXPECT_TRUE(Eventually([&] { return room_->store().Usage().sessions == 1; }));
}

TEST_F(SessionTest, TheLastReplyNamesTheRuleThatWasBroken) {
  const std::unique_ptr<FrameClient> client = NewSession();
  ClientFrame frame;
  frame.method = v1::METHOD_PING;
  frame.call_id = 99;
  frame.payload_bytes = (4U << 20) + 1;
  client->SendBytes(frame.Header());
  const auto reply = client->Result<v1::PingReply>(client->ReceiveReply(99));
  EXPECT_TRUE(absl::IsInvalidArgument(reply.status())) << reply.status();
  EXPECT_EQ(client->error().field(), "payload_bytes");
  EXPECT_TRUE(client->SeesEnd());
}

TEST_F(SessionTest, UnknownMethodsAreUnimplementedAndHarmless) {
  const std::unique_ptr<FrameClient> client = NewSession();
  for (const int method : {0, 20, int{v1::METHOD_DRAIN_NOTICE}, 65535}) {
    const auto reply = client->Call<v1::PingReply>(static_cast<v1::Method>(method), v1::PingRequest());
    EXPECT_TRUE(absl::IsUnimplemented(reply.status())) << method;
  }
  EXPECT_TRUE(client->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
}

TEST_F(SessionTest, RepliesComeForEveryPipelinedRequest) {
  const std::unique_ptr<FrameClient> client = NewSession();
  std::string bytes;
  constexpr uint64_t kCalls = 1000;
  for (uint64_t i = 0; i < kCalls; ++i) {
    ClientFrame frame;
    frame.method = v1::METHOD_PING;
    frame.call_id = 1000 + i;
    bytes += frame.Header();
  }
  ASSERT_TRUE(client->SendBytes(bytes));
  for (uint64_t i = 0; i < kCalls; ++i) {
    const std::optional<ClientFrame> reply = client->Receive();
    ASSERT_TRUE(reply.has_value()) << i;
    EXPECT_EQ(reply->call_id, 1000 + i);
    EXPECT_EQ(reply->status, 0U);
  }
}

// ---- descriptors

size_t OpenDescriptors() {
  size_t count = 0;
  for (int fd = 0; fd < 4096; ++fd) {
    count += fcntl(fd, F_GETFD) != -1 ? 1 : 0;
  }
  return count;
}

TEST_F(SessionTest, DescriptorsWithACallThatTakesNoneEndTheConnectionAndAreClosed) {
  const Descriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  // This process lives on, so each I/O thread keeps one pidfd of it from its first session.
  for (int i = 0; i < 4; ++i) {
    NewSession();
  }
  ASSERT_TRUE(Eventually([&] { return room_->store().Usage().sessions == 0; }));
  const size_t before = OpenDescriptors();
  for (const size_t count : {1U, 8U, 9U, 30U}) {
    SCOPED_TRACE(count);
    const std::unique_ptr<FrameClient> client = NewSession();
    client->Send(v1::METHOD_PING, v1::PingRequest(), std::vector<int>(count, null.get()));
    EXPECT_TRUE(client->SeesEnd());
  }
  EXPECT_TRUE(Eventually([&] { return OpenDescriptors() <= before; }));
}

TEST_F(SessionTest, HelloMustBringExactlyTheDescriptorThatItAnnounces) {
  const absl::StatusOr<PidDescriptor> self = PidDescriptor::Open(getpid());
  ASSERT_TRUE(self.ok());
  v1::HelloRequest with = GoodHello();
  with.set_pidfd(true);
  for (const auto& [request, descriptors] : std::vector<std::pair<v1::HelloRequest, std::vector<int>>>{
           {with, {}}, {with, {self->get(), self->get()}}, {GoodHello(), {self->get()}}}) {
    const std::unique_ptr<FrameClient> client = NewConnection();
    client->Send(v1::METHOD_HELLO, request, descriptors);
    EXPECT_TRUE(client->SeesEnd());
  }
  EXPECT_EQ(room_->store().Usage().sessions, 0U);
}

TEST_F(SessionTest, APidfdThatIsNoneEndsTheConnection) {
  const Descriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::unique_ptr<FrameClient> client = NewConnection();
  v1::HelloRequest hello = GoodHello();
  hello.set_pidfd(true);
  client->Send(v1::METHOD_HELLO, hello, {null.get()});
  EXPECT_TRUE(client->SeesEnd());
}

// A child that runs `body` and exits with its result.
pid_t Fork(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    _exit(body());
  }
  return pid;
}

// A child that stays until it is killed.
class Sleeper {
 public:
  Sleeper()
      : pid_(Fork([] {
          while (true) {
            pause();
          }
          return 0;
        })) {}
  ~Sleeper() { Kill(); }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  void Kill() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
      pid_ = -1;
    }
  }

 private:
  pid_t pid_;
};

TEST_F(SessionTest, ThePidfdOfAnotherProcessGivesNoLeases) {
  const Sleeper other;
  const absl::StatusOr<PidDescriptor> pidfd = PidDescriptor::Open(other.pid());
  ASSERT_TRUE(pidfd.ok());
  const std::unique_ptr<FrameClient> client = NewConnection();
  v1::HelloRequest hello = GoodHello();
  hello.set_pidfd(true);
  const auto reply = client->Call<v1::HelloReply>(v1::METHOD_HELLO, hello, {pidfd->get()});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_FALSE(reply->leases());
  EXPECT_EQ(reply->lease_limit_bytes(), 0U);
  v1::GetRequest get;
  get.add_parts()->set_namespace_digest(std::string(16, 'n'));
  get.mutable_parts(0)->set_keys(TestKey(1));
  get.set_delivery(v1::DELIVERY_LEASE);
  EXPECT_TRUE(absl::IsFailedPrecondition(client->Call<v1::GetReply>(v1::METHOD_GET, get).status()));
}

TEST_F(SessionTest, TheEndOfTheSocketEndsTheSession) {
  std::unique_ptr<FrameClient> client = NewSession();
  EXPECT_EQ(room_->store().Usage().sessions, 1U);
  client.reset();
  EXPECT_TRUE(Eventually([&] { return room_->store().Usage().sessions == 0; }));
  EXPECT_TRUE(Eventually([&] { return room_->observer().Connections(Carrier::kSession, "closed") == 1; }));
}

// As engines do that are started over and over and do not tell their weights' revision: more of
// them than a tenant has places.
TEST_F(SessionTest, PrivateNamespacesGiveTheirPlacesBack) {
  constexpr int kProcesses = 18;
  constexpr int kNamespaces = 64;  // of each
  for (int process = 0; process < kProcesses; ++process) {
    const int served = InChild([&] {
      const absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
      int stored = 0;
      for (int i = 0; client.ok() && i < kNamespaces; ++i) {
        v1::OpenNamespaceRequest open;
        *open.mutable_record() = TestRecord(8192);
        (*open.mutable_record()->mutable_labels())["private"] = absl::StrCat(process, "/", i);
        absl::StatusOr<v1::OpenNamespaceReply> opened;
        // The process before this one may not have been taken leave of yet.
        Eventually([&] {
          opened = (*client)->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open);
          return opened.ok();
        });
        v1::PutRequest put;
        put.mutable_part()->set_namespace_digest(opened.ok() ? opened->namespace_digest() : "");
        put.mutable_part()->set_keys(TestKey(1));
        put.set_payload(TestPayload(static_cast<uint64_t>(i), 8192));
        const auto reply = (*client)->Call<v1::PutReply>(v1::METHOD_PUT, put);
        stored +=
            reply.ok() && reply->outcomes()[0] == static_cast<char>(v1::PUT_OUTCOME_STORED) ? 1 : 0;
      }
      return stored;
    });
    ASSERT_EQ(served, kNamespaces) << process;
  }
  EXPECT_TRUE(Eventually([&] { return room_->store().Namespaces().empty(); }));
  EXPECT_EQ(room_->store().Usage().used_slot_bytes, 0U);
}

TEST_F(SessionTest, PushesReachTheirSession) {
  const std::unique_ptr<FrameClient> client = NewConnection();
  const absl::StatusOr<v1::HelloReply> hello = client->Hello();
  ASSERT_TRUE(hello.ok());
  room_->front().SlabRetired(SessionId{hello->session_id()}, SlabId{77});
  room_->front().SlabRetired(SessionId{hello->session_id() + 1000}, SlabId{78});
  const std::optional<ClientFrame> push = client->Receive();
  ASSERT_TRUE(push.has_value());
  EXPECT_EQ(push->kind, 3);
  EXPECT_EQ(push->method, v1::METHOD_SLAB_RETIRED_NOTICE);
  EXPECT_EQ(push->call_id, 0U);
  v1::SlabRetiredNotice notice;
  ASSERT_TRUE(notice.ParseFromString(push->payload));
  EXPECT_EQ(notice.slab_id(), 77U);
  EXPECT_EQ(notice.boot_id(), room_->front().boot_id());
}

}  // namespace
}  // namespace terrace::doubles
