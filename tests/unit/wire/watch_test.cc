// Watch over real sockets: both carriers send the same, bounded, until somebody ends it.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "terrace/v1/cache.grpc.pb.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/frame_client.h"
#include "tests/doubles/front_room.h"

namespace terrace::doubles {
namespace {

constexpr uint32_t kBlockBytes = 4096;

// One watch, whichever its carrier.
class Watching {
 public:
  virtual ~Watching() = default;
  // The next message; nullopt: the watch is over, or nothing came for long.
  virtual std::optional<v1::WatchReply> Next() = 0;
};

class SessionWatching final : public Watching {
 public:
  SessionWatching(FrameClient& client, const v1::WatchRequest& request) : client_(client) {
    call_id_ = client_.Send(v1::METHOD_WATCH, request);
    reply_ = client_.Result<v1::WatchReply>(client_.ReceiveReply(call_id_));
  }
  std::optional<v1::WatchReply> Next() override {
    const std::optional<ClientFrame> frame = client_.Receive();
    if (!frame.has_value()) {
      return std::nullopt;
    }
    v1::WatchReply message;
    EXPECT_EQ(frame->method, v1::METHOD_WATCH);
    EXPECT_EQ(frame->kind, 3);
    EXPECT_EQ(frame->call_id, 0U);
    EXPECT_TRUE(message.ParseFromString(frame->payload));
    EXPECT_EQ(message.call_id(), call_id_);
    return message;
  }
  [[nodiscard]] const absl::StatusOr<v1::WatchReply>& reply() const { return reply_; }
  [[nodiscard]] uint64_t call_id() const { return call_id_; }

 private:
  FrameClient& client_;
  uint64_t call_id_ = 0;
  absl::StatusOr<v1::WatchReply> reply_;
};

class GrpcWatching final : public Watching {
 public:
  GrpcWatching(v1::Cache::Stub& stub, const v1::WatchRequest& request) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    reader_ = stub.Watch(&context_, request);
    reader_->WaitForInitialMetadata();
  }
  ~GrpcWatching() override { Cancel(); }
  std::optional<v1::WatchReply> Next() override {
    v1::WatchReply message;
    if (!reader_->Read(&message)) {
      return std::nullopt;
    }
    EXPECT_EQ(message.call_id(), 0U);
    return message;
  }
  void Cancel() {
    context_.TryCancel();
    End();
  }
  grpc::Status End() {
    if (reader_ != nullptr) {
      v1::WatchReply message;
      while (reader_->Read(&message)) {
      }
      status_ = reader_->Finish();
      reader_ = nullptr;
    }
    return status_;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchReply>> reader_;
  grpc::Status status_;
};

class WatchTest : public testing::TestWithParam<Carrier> {
 protected:
  void SetUp() override { Open({}); }
  void TearDown() override {
    stub_ = nullptr;
    client_ = nullptr;
    room_ = nullptr;
  }
  void Open(FrontRoomOptions options) {
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    client_ = *room_->NewSession();
    stub_ = NewStub();
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(kBlockBytes);
    const auto opened = client_->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, request);
    ASSERT_TRUE(opened.ok()) << opened.status();
    digest_ = opened->namespace_digest();
  }
  std::unique_ptr<v1::Cache::Stub> NewStub() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    return v1::Cache::NewStub(grpc::CreateCustomChannel(
        "unix:" + room_->path("terrace.sock"), grpc::InsecureChannelCredentials(), arguments));
  }
  // Over the carrier under test, on a connection of its own.
  std::unique_ptr<Watching> Watch(const v1::WatchRequest& request = {}) {
    if (GetParam() == Carrier::kGrpc) {
      // The initial metadata goes out when the server watches.
      return std::make_unique<GrpcWatching>(*stub_, request);
    }
    watchers_.push_back(*room_->NewSession());
    auto watching = std::make_unique<SessionWatching>(*watchers_.back(), request);
    EXPECT_TRUE(watching->reply().ok()) << watching->reply().status();
    return watching;
  }
  [[nodiscard]] uint64_t watchers() { return room_->store().Usage().watchers; }

  void Put(const std::vector<uint64_t>& keys, bool metadata = false) {
    v1::PutRequest request;
    request.mutable_part()->set_namespace_digest(digest_);
    for (const uint64_t key : keys) {
      request.mutable_part()->mutable_keys()->append(TestKey(key));
      request.mutable_payload()->append(TestPayload(key, kBlockBytes));
      if (metadata) {
        v1::BlockMetadata* block = request.add_metadata();
        block->add_token_ids(static_cast<uint32_t>(key));
        block->set_lora_name("sql");
        block->set_extra_keys("extra");
      }
    }
    const auto reply = client_->Call<v1::PutReply>(v1::METHOD_PUT, request);
    ASSERT_TRUE(reply.ok()) << reply.status();
  }

  // Reads on until an event of the kind has come; heartbeats are passed over.
  static std::vector<v1::Event> Until(Watching& watching, v1::EventKind kind) {
    std::vector<v1::Event> events;
    while (true) {
      const std::optional<v1::WatchReply> message = watching.Next();
      if (!message.has_value()) {
        ADD_FAILURE() << "the watch ended";
        return events;
      }
      EXPECT_LE(message->events_size(), 256);
      bool found = false;
      for (const v1::Event& event : message->events()) {
        found = found || event.kind() == kind;
        if (event.kind() != v1::EVENT_KIND_HEARTBEAT || kind == v1::EVENT_KIND_HEARTBEAT) {
          events.push_back(event);
        }
      }
      if (found) {
        return events;
      }
    }
  }

  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> client_;
  std::vector<std::unique_ptr<FrameClient>> watchers_;
  std::unique_ptr<v1::Cache::Stub> stub_;
  std::string digest_;
};

TEST_P(WatchTest, TellsAPutAsItsEngineDescribedIt) {
  const std::unique_ptr<Watching> watching = Watch();
  Put({1, 2}, true);
  const std::optional<v1::WatchReply> message = watching->Next();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->boot_id(), room_->front().boot_id());
  EXPECT_NE(message->publisher_id(), 0U);
  ASSERT_EQ(message->namespaces_size(), 1);
  EXPECT_EQ(message->namespaces(0).namespace_digest(), digest_);
  EXPECT_EQ(message->namespaces(0).record().model(), "test/model");
  EXPECT_EQ(message->namespaces(0).family_digest().size(), 16U);
  ASSERT_EQ(message->events_size(), 1);
  const v1::Event& event = message->events(0);
  EXPECT_EQ(event.kind(), v1::EVENT_KIND_STORED);
  EXPECT_EQ(event.namespace_digest(), digest_);
  EXPECT_EQ(event.key_bytes(), 32U);
  EXPECT_EQ(event.keys(), TestKey(1) + TestKey(2));
  EXPECT_EQ(event.tier(), "g2");
  EXPECT_EQ(event.block_tokens(), 16U);
  ASSERT_EQ(event.metadata_size(), 2);
  EXPECT_EQ(event.metadata(1).token_ids(0), 2U);
  EXPECT_EQ(event.metadata(1).lora_name(), "sql");
  EXPECT_EQ(event.metadata(1).extra_keys(), "extra");
}

TEST_P(WatchTest, ASnapshotOfManyBlocksComesWholeAndInBoundedMessages) {
  std::vector<uint64_t> keys;
  for (uint64_t key = 1; key <= 600; ++key) {
    keys.push_back(key);
  }
  Put(keys);
  v1::WatchRequest request;
  request.set_snapshot(true);
  const std::unique_ptr<Watching> watching = Watch(request);
  const std::vector<v1::Event> events = Until(*watching, v1::EVENT_KIND_SNAPSHOT_END);
  ASSERT_EQ(events.size(), 601U);
  EXPECT_EQ(events[0].keys(), TestKey(1));
  EXPECT_EQ(events[599].parent(), TestKey(599));
  EXPECT_EQ(events[0].sequence(), events[600].sequence());
}

TEST_P(WatchTest, AnotherConnectionGoesOnWhereOneBrokeOff) {
  uint64_t publisher = 0;
  uint64_t sequence = 0;
  {
    const std::unique_ptr<Watching> watching = Watch();
    Put({1});
    const std::optional<v1::WatchReply> message = watching->Next();
    ASSERT_TRUE(message.has_value());
    publisher = message->publisher_id();
    sequence = message->events(0).sequence();
    watchers_.clear();
  }
  ASSERT_TRUE(Eventually([&] { return watchers() == 0; }));
  Put({2});
  v1::WatchRequest request;
  request.set_publisher_id(publisher);
  request.set_after_sequence(sequence);
  const std::unique_ptr<Watching> again = Watch(request);
  const std::vector<v1::Event> events = Until(*again, v1::EVENT_KIND_STORED);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].keys(), TestKey(2));
  request.set_publisher_id(publisher + 2);
  EXPECT_EQ(Until(*Watch(request), v1::EVENT_KIND_GAP).size(), 1U);
}

TEST_P(WatchTest, SilenceIsBrokenByHeartbeatsThatNameTheNewestEvent) {
  v1::WatchRequest request;
  request.set_heartbeat_ms(1);
  const std::unique_ptr<Watching> watching = Watch(request);
  Put({1});
  const uint64_t stored = Until(*watching, v1::EVENT_KIND_STORED).back().sequence();
  for (int i = 0; i < 3; ++i) {
    const std::vector<v1::Event> beats = Until(*watching, v1::EVENT_KIND_HEARTBEAT);
    ASSERT_EQ(beats.size(), 1U);
    EXPECT_EQ(beats[0].sequence(), stored);
    EXPECT_EQ(beats[0].namespace_digest(), "");
  }
}

TEST_P(WatchTest, BadRequestsAreRefusedByField) {
  std::map<std::string, v1::WatchRequest> bad;
  bad["heartbeat_ms"].set_heartbeat_ms(60'001);
  bad["namespaces[1]"].add_namespaces(digest_);
  bad["namespaces[1]"].add_namespaces("short");
  for (int i = 0; i <= 16384; ++i) {
    bad["namespaces"].add_namespaces(digest_);
  }
  for (const auto& [field, request] : bad) {
    if (GetParam() == Carrier::kGrpc) {
      const grpc::Status status = GrpcWatching(*stub_, request).End();
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << field;
      EXPECT_EQ(status.error_message().rfind(field, 0), 0U) << status.error_message();
    } else {
      const SessionWatching refused(*client_, request);
      EXPECT_TRUE(absl::IsInvalidArgument(refused.reply().status())) << field;
      EXPECT_EQ(client_->error().field(), field);
    }
  }
  EXPECT_EQ(watchers(), 0U);
}

TEST_P(WatchTest, MoreWatchersThanTheLimitAreToldToComeBack) {
  std::vector<std::unique_ptr<Watching>> all;
  for (uint32_t i = 0; i < kMaxWatchersPerTenant; ++i) {
    all.push_back(Watch());
  }
  ASSERT_EQ(watchers(), kMaxWatchersPerTenant);
  if (GetParam() == Carrier::kGrpc) {
    EXPECT_EQ(GrpcWatching(*stub_, {}).End().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  } else {
    const SessionWatching refused(*client_, {});
    EXPECT_TRUE(absl::IsResourceExhausted(refused.reply().status()));
    EXPECT_GT(client_->error().retry_after_ms(), 0U);
  }
  all.clear();
  watchers_.clear();
  EXPECT_TRUE(Eventually([&] { return watchers() == 0; }));
}

TEST_P(WatchTest, WhoDoesNotReadCostsNothingAndHearsOfAGap) {
  const std::unique_ptr<Watching> slow = Watch();
  v1::PutRequest request;
  request.mutable_part()->set_namespace_digest(digest_);
  request.add_payload_bytes(1);
  request.set_payload("x");
  request.add_metadata()->set_extra_keys(std::string(12'000, 'x'));
  for (uint64_t key = 0; key < 4000; ++key) {
    request.mutable_part()->set_keys(TestKey(key));
    ASSERT_TRUE(client_->Call<v1::PutReply>(v1::METHOD_PUT, request).ok());
  }
  EXPECT_LE(room_->store().Usage().event_bytes, uint64_t{17} << 20);
  uint64_t last = 0;
  bool gap = false;
  while (last < 4001) {
    const std::optional<v1::WatchReply> message = slow->Next();
    ASSERT_TRUE(message.has_value());
    for (const v1::Event& event : message->events()) {
      EXPECT_TRUE(event.kind() == v1::EVENT_KIND_GAP || event.sequence() == last + 1 || last == 0);
      gap = gap || event.kind() == v1::EVENT_KIND_GAP;
      last = event.sequence();
    }
  }
  EXPECT_TRUE(gap);
}

TEST_P(WatchTest, TheEndOfTheFrontEndsIt) {
  const std::unique_ptr<Watching> watching = Watch();
  room_->front().BeginDrain(absl::Seconds(10));
  const absl::Duration began = BootClock().Now();
  room_->StopFront();
  EXPECT_LT(BootClock().Now() - began, absl::Seconds(9)) << "a watch is not waited for";
  if (GetParam() == Carrier::kGrpc) {
    const grpc::Status status = static_cast<GrpcWatching&>(*watching).End();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  } else {
    EXPECT_TRUE(watchers_.back()->SeesEnd());
  }
  EXPECT_EQ(watchers(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Carriers,
                         WatchTest,
                         testing::Values(Carrier::kSession, Carrier::kGrpc),
                         [](const testing::TestParamInfo<Carrier>& carrier) {
                           return carrier.param == Carrier::kSession ? "Session" : "Grpc";
                         });

// ---- what only a session has

using SessionWatchTest = WatchTest;

TEST_P(SessionWatchTest, TwoWatchesOfASessionAreToldApartAndCancelledOneByOne) {
  v1::WatchRequest none;
  none.add_namespaces(std::string(16, '\0'));
  SessionWatching all(*client_, {});
  const SessionWatching filtered(*client_, none);
  ASSERT_TRUE(all.reply().ok());
  ASSERT_TRUE(filtered.reply().ok());
  EXPECT_EQ(all.reply()->publisher_id(), filtered.reply()->publisher_id());
  EXPECT_EQ(watchers(), 2U);
  const auto cancel = [&](uint64_t call_id) {
    v1::CancelRequest request;
    request.set_call_id(call_id);
    const auto reply = client_->Call<v1::CancelReply>(v1::METHOD_CANCEL, request);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() && reply->found();
  };
  EXPECT_TRUE(cancel(filtered.call_id()));
  EXPECT_FALSE(cancel(filtered.call_id()));
  EXPECT_EQ(watchers(), 1U);
  Put({1});
  EXPECT_EQ(Until(all, v1::EVENT_KIND_STORED).size(), 1U);
  EXPECT_TRUE(cancel(all.call_id()));
  EXPECT_EQ(watchers(), 0U);
}

TEST_P(SessionWatchTest, ACallIdThatAWatchHasIsRefused) {
  const SessionWatching first(*client_, {});
  ClientFrame frame;
  frame.method = v1::METHOD_WATCH;
  frame.call_id = first.call_id();
  ASSERT_TRUE(client_->SendBytes(frame.Header()));
  const auto again = client_->Result<v1::WatchReply>(client_->ReceiveReply(first.call_id()));
  EXPECT_TRUE(absl::IsAlreadyExists(again.status())) << again.status();
  EXPECT_EQ(watchers(), 1U);
}

TEST_P(SessionWatchTest, AWatchIsNoCallInFlight) {
  std::vector<std::unique_ptr<SessionWatching>> watches;
  for (uint32_t i = 0; i < kMaxWatchersPerTenant; ++i) {
    watches.push_back(std::make_unique<SessionWatching>(*client_, v1::WatchRequest()));
  }
  EXPECT_TRUE(client_->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
  EXPECT_EQ(room_->observer().Calls("Watch", absl::StatusCode::kOk),
            static_cast<int>(kMaxWatchersPerTenant));
}

TEST_P(SessionWatchTest, ADeadWatcherIsForgotten) {
  const pid_t child = fork();
  if (child == 0) {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->Connect();
    if (!client.ok() || !(*client)->Hello().ok()) {
      _exit(1);
    }
    const SessionWatching watching(**client, {});
    if (!watching.reply().ok()) {
      _exit(1);
    }
    pause();
    _exit(0);
  }
  ASSERT_TRUE(Eventually([&] { return watchers() == 1; }));
  kill(child, SIGKILL);
  EXPECT_TRUE(Eventually([&] { return watchers() == 0; }, absl::Seconds(5)));
  int status = 0;
  waitpid(child, &status, 0);
}

INSTANTIATE_TEST_SUITE_P(Sessions, SessionWatchTest, testing::Values(Carrier::kSession));

// ---- what only gRPC has

using GrpcWatchTest = WatchTest;

TEST_P(GrpcWatchTest, AConnectionThatHasWatchedGivesItsPlaceBack) {
  TearDown();
  FrontRoomOptions options;
  options.limits.connections_per_uid = 4;
  Open(std::move(options));
  v1::WatchRequest request;
  request.set_snapshot(true);  // says something at once
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(Eventually([&] {
      stub_ = NewStub();
      return Watch(request)->Next().has_value();
    })) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Grpc, GrpcWatchTest, testing::Values(Carrier::kGrpc));

}  // namespace
}  // namespace terrace::doubles
