// The limits on what one peer may have open, and on how long it may keep the daemon waiting.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "tests/doubles/carrier_client.h"
#include "tests/doubles/front_room.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/step_executor.h"

namespace terrace::doubles {
namespace {

constexpr uint32_t kBlockBytes = 4096;

// Whatever a test leaves undone is done before its store goes, which waits for it.
struct StepRoom {
  StepExecutor executor;
  std::unique_ptr<FrontRoom> room;
  ~StepRoom() {
    if (room != nullptr) {
      room->StopFront();
    }
    executor.RunAll();
  }
  FrontRoom* operator->() const { return room.get(); }
};

std::unique_ptr<FrontRoom> OpenRoom(FrontRoomOptions options) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
  EXPECT_TRUE(room.ok()) << room.status();
  return room.ok() ? *std::move(room) : nullptr;
}

std::string OpenNamespace(FrameClient& client) {
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = TestRecord(kBlockBytes);
  const auto reply = client.Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, request);
  EXPECT_TRUE(reply.ok()) << reply.status();
  return reply.ok() ? reply->namespace_digest() : "";
}

v1::PutRequest PutOf(const std::string& digest, uint64_t key, uint32_t bytes = kBlockBytes) {
  v1::PutRequest request;
  request.mutable_part()->set_namespace_digest(digest);
  request.mutable_part()->set_keys(TestKey(key));
  request.add_payload_bytes(bytes);
  request.set_payload(TestPayload(key, bytes));
  return request;
}

bool Pings(FrameClient& client) {
  return client.Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok();
}

TEST(Limits, TheSixtyFifthConnectionOfAUidIsClosed) {
  const std::unique_ptr<FrontRoom> room = OpenRoom({});
  std::vector<std::unique_ptr<FrameClient>> clients;
  for (int i = 0; i < 64; ++i) {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room->NewSession();
    ASSERT_TRUE(client.ok()) << i << ": " << client.status();
    clients.push_back(*std::move(client));
  }
  absl::StatusOr<std::unique_ptr<FrameClient>> over = room->Connect();
  ASSERT_TRUE(over.ok());
  EXPECT_TRUE((*over)->SeesEnd());
  EXPECT_EQ(room->observer().Connections(Carrier::kSession, "refused_limit"), 1);
  // gRPC connections count among the same.
  const auto grpc = OpenGrpcCarrier(room->folder());
  ASSERT_TRUE(grpc.ok());
  v1::FlushReply reply;
  EXPECT_EQ((*grpc)->Call(v1::METHOD_FLUSH, v1::FlushRequest(), &reply).code, absl::StatusCode::kUnavailable);
  clients.pop_back();
  EXPECT_TRUE(Eventually([&] { return room->NewSession().ok(); }));
  EXPECT_TRUE(Pings(*clients.front()));
}

TEST(Limits, AGrpcConnectionGivesItsPlaceBackWhenItEnds) {
  FrontRoomOptions options;
  options.limits.connections_per_uid = 1;
  const std::unique_ptr<FrontRoom> room = OpenRoom(std::move(options));
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(Eventually([&] {
      const auto grpc = OpenGrpcCarrier(room->folder());
      v1::FlushReply reply;
      return (*grpc)->Call(v1::METHOD_FLUSH, v1::FlushRequest(), &reply).ok();
    })) << i;
  }
  EXPECT_TRUE(Eventually([&] { return room->observer().Connections(Carrier::kGrpc, "closed") >= 5; }));
}

TEST(Limits, TheTwoHundredFiftySeventhCallOfAUidIsRefused) {
  StepRoom room;
  FrontRoomOptions options;
  options.executor = &room.executor;
  room.room = OpenRoom(std::move(options));
  absl::StatusOr<std::unique_ptr<FrameClient>> client = room->NewSession();
  absl::StatusOr<std::unique_ptr<FrameClient>> other = room->NewSession();
  ASSERT_TRUE(client.ok() && other.ok());
  const std::string digest = OpenNamespace(**client);
  std::vector<uint64_t> calls;
  for (uint64_t i = 0; i < 256; ++i) {
    calls.push_back((*client)->Send(v1::METHOD_PUT, PutOf(digest, i)));
  }
  // Frames of one session are begun in their order: when this one is answered, all those are in flight.
  const auto refused = (*client)->Call<v1::PutReply>(v1::METHOD_PUT, PutOf(digest, 1000));
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_GT((*client)->error().retry_after_ms(), 0U);
  // Of the uid, not of the session.
  EXPECT_TRUE(absl::IsResourceExhausted(
      (*other)->Call<v1::PutReply>(v1::METHOD_PUT, PutOf(digest, 1001)).status()));
  const auto grpc = OpenGrpcCarrier(room->folder());
  v1::PutReply reply;
  EXPECT_EQ((*grpc)->Call(v1::METHOD_PUT, PutOf(digest, 1002), &reply).code, absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Pings(**client));
  room.executor.RunAll();
  for (const uint64_t call : calls) {
    EXPECT_TRUE((*client)->Result<v1::PutReply>((*client)->ReceiveReply(call)).ok());
  }
  const uint64_t next = (*client)->Send(v1::METHOD_PUT, PutOf(digest, 1000));
  ASSERT_TRUE(Eventually([&] { return room.executor.Step(); }));
  room.executor.RunAll();
  EXPECT_TRUE((*client)->Result<v1::PutReply>((*client)->ReceiveReply(next)).ok());
}

TEST(Limits, ACallIdInFlightMayNotBeUsedAgain) {
  StepRoom room;
  FrontRoomOptions options;
  options.executor = &room.executor;
  room.room = OpenRoom(std::move(options));
  absl::StatusOr<std::unique_ptr<FrameClient>> client = room->NewSession();
  ASSERT_TRUE(client.ok());
  const std::string digest = OpenNamespace(**client);
  const uint64_t call = (*client)->Send(v1::METHOD_PUT, PutOf(digest, 1));
  ClientFrame again;
  again.method = v1::METHOD_PING;
  again.call_id = call;
  (*client)->SendBytes(again.Header());
  EXPECT_TRUE((*client)->SeesEnd());
  room.executor.RunAll();
}

TEST(Limits, APeerThatDoesNotSayHelloIsClosed) {
  ManualClock clock;
  FrontRoomOptions options;
  options.clock = &clock;
  const std::unique_ptr<FrontRoom> room = OpenRoom(std::move(options));
  absl::StatusOr<std::unique_ptr<FrameClient>> good = room->NewSession();
  absl::StatusOr<std::unique_ptr<FrameClient>> silent = room->Connect();
  absl::StatusOr<std::unique_ptr<FrameClient>> trickling = room->Connect();
  absl::StatusOr<std::unique_ptr<FrameClient>> silent_grpc = FrameClient::Connect(room->path("terrace.sock"));
  ASSERT_TRUE(good.ok() && silent.ok() && trickling.ok() && silent_grpc.ok());
  (*trickling)->SendBytes("\x04");
  ASSERT_TRUE(Eventually([&] {
    return room->observer().Connections(Carrier::kSession, "accepted") == 3 &&
           room->observer().Connections(Carrier::kGrpc, "accepted") == 1;
  }));
  EXPECT_TRUE(Eventually([&] {
    clock.Advance(absl::Milliseconds(100));
    return (*silent)->SeesEnd(absl::ZeroDuration()) && (*trickling)->SeesEnd(absl::ZeroDuration()) &&
           (*silent_grpc)->SeesEnd(absl::ZeroDuration());
  }));
  EXPECT_TRUE(Pings(**good));
}

TEST(Limits, APeerOfGrpcThatDoesNotSpeakHttp2IsClosed) {
  const std::unique_ptr<FrontRoom> room = OpenRoom({});
  absl::StatusOr<std::unique_ptr<FrameClient>> client = FrameClient::Connect(room->path("terrace.sock"));
  ASSERT_TRUE(client.ok());
  (*client)->SendBytes("GET / HTTP/1.1\r\n\r\n");
  EXPECT_TRUE((*client)->SeesEnd());
  EXPECT_EQ(room->observer().Connections(Carrier::kGrpc, "protocol_error"), 1);
}

TEST(Limits, HalfAFrameIsNotWaitedForForEver) {
  ManualClock clock;
  FrontRoomOptions options;
  options.clock = &clock;
  const std::unique_ptr<FrontRoom> room = OpenRoom(std::move(options));
  absl::StatusOr<std::unique_ptr<FrameClient>> client = room->NewSession();
  ASSERT_TRUE(client.ok());
  ClientFrame frame;
  frame.method = v1::METHOD_PING;
  frame.call_id = 9;
  frame.payload_bytes = 100;
  (*client)->SendBytes(frame.Header());
  EXPECT_TRUE(Eventually([&] {
    clock.Advance(absl::Milliseconds(200));
    return (*client)->SeesEnd(absl::ZeroDuration());
  }));
}

// Asks for far more than the socket takes, without reading.
void AskForMuch(FrameClient& client, const std::string& digest, int times) {
  v1::GetRequest get;
  get.add_parts()->set_namespace_digest(digest);
  get.mutable_parts(0)->set_keys(TestKey(1));
  for (int i = 0; i < times; ++i) {
    ClientFrame frame;
    frame.method = v1::METHOD_GET;
    frame.call_id = 5000 + static_cast<uint64_t>(i);
    const std::string payload = get.SerializeAsString();
    frame.payload_bytes = static_cast<uint32_t>(payload.size());
    if (!client.SendBytes(frame.Header() + payload, {}, absl::Milliseconds(200))) {
      return;
    }
  }
}

struct StalledRoom {
  ManualClock clock;
  std::unique_ptr<FrontRoom> room;
  std::unique_ptr<FrameClient> stalled;
  std::unique_ptr<FrameClient> good;
  std::string digest;

  void Open(uint64_t backlog_bytes) {
    FrontRoomOptions options;
    options.clock = &clock;
    options.limits.reply_backlog_bytes = backlog_bytes;
    room = OpenRoom(std::move(options));
    ASSERT_NE(room, nullptr);
    absl::StatusOr<std::unique_ptr<FrameClient>> first = room->NewSession();
    absl::StatusOr<std::unique_ptr<FrameClient>> second = room->NewSession();
    ASSERT_TRUE(first.ok() && second.ok());
    stalled = *std::move(first);
    good = *std::move(second);
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(1 << 20);
    const auto reply = good->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, request);
    ASSERT_TRUE(reply.ok());
    digest = reply->namespace_digest();
    ASSERT_TRUE(good->Call<v1::PutReply>(v1::METHOD_PUT, PutOf(digest, 1, 1 << 20)).ok());
  }
};

TEST(Limits, AReaderThatStallsIsClosedAndNobodyElseNotices) {
  StalledRoom rooms;
  ASSERT_NO_FATAL_FAILURE(rooms.Open(uint64_t{64} << 20));
  AskForMuch(*rooms.stalled, rooms.digest, 20);
  EXPECT_TRUE(Pings(*rooms.good));
  EXPECT_TRUE(Eventually([&] {
    rooms.clock.Advance(absl::Seconds(1));
    return rooms.room->store().Usage().sessions == 1;
  }));
  EXPECT_TRUE(Pings(*rooms.good));
}

TEST(Limits, BeyondTheBacklogRequestsAreNotReadButAnsweredOnceThePeerReadsOn) {
  StalledRoom rooms;
  ASSERT_NO_FATAL_FAILURE(rooms.Open(uint64_t{4} << 20));
  AskForMuch(*rooms.stalled, rooms.digest, 40);
  EXPECT_TRUE(Pings(*rooms.good));
  EXPECT_EQ(rooms.room->store().Usage().sessions, 2U);
  // Not all of the forty megabytes have been made.
  EXPECT_LT(rooms.room->observer().Calls("Get", absl::StatusCode::kOk), 20);
  for (uint64_t i = 0; i < 40; ++i) {
    const auto reply = rooms.stalled->Result<v1::GetReply>(rooms.stalled->ReceiveReply(5000 + i));
    ASSERT_TRUE(reply.ok()) << i << reply.status();
    EXPECT_EQ(reply->payload().size(), size_t{1} << 20);
  }
}

TEST(Limits, AFloodOfOneSessionDoesNotStarveAnother) {
  FrontRoomOptions options;
  options.io_threads = 1;
  const std::unique_ptr<FrontRoom> room = OpenRoom(std::move(options));
  absl::StatusOr<std::unique_ptr<FrameClient>> flooding = room->NewSession();
  absl::StatusOr<std::unique_ptr<FrameClient>> good = room->NewSession();
  ASSERT_TRUE(flooding.ok() && good.ok());
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    uint64_t id = 1'000'000;
    while (!stop) {
      std::string bytes;
      for (int i = 0; i < 500; ++i) {
        ClientFrame frame;
        frame.method = v1::METHOD_PING;
        frame.call_id = ++id;
        bytes += frame.Header();
      }
      if (!(*flooding)->SendBytes(bytes)) {
        return;
      }
      for (int i = 0; i < 500; ++i) {
        (*flooding)->Receive();
      }
    }
  });
  for (int i = 0; i < 200; ++i) {
    EXPECT_TRUE(Pings(**good));
  }
  stop = true;
  flood.join();
}

TEST(Limits, ACallThatTheStoreDoesNotAnswerIsAnsweredAfterItsDeadline) {
  ManualClock clock;
  StepRoom room;
  FrontRoomOptions options;
  options.clock = &clock;
  options.executor = &room.executor;
  room.room = OpenRoom(std::move(options));
  absl::StatusOr<std::unique_ptr<FrameClient>> client = room->NewSession();
  ASSERT_TRUE(client.ok());
  const std::string digest = OpenNamespace(**client);
  const uint64_t call = (*client)->Send(v1::METHOD_PUT, PutOf(digest, 1), {}, 50);
  ASSERT_TRUE(Eventually([&] { return room->store().Usage().calls_in_flight >= 1; }));
  std::optional<ClientFrame> frame;
  EXPECT_TRUE(Eventually([&] {
    clock.Advance(absl::Milliseconds(100));
    frame = (*client)->ReceiveReply(call, absl::ZeroDuration());
    return frame.has_value();
  }));
  // Its own answer per key, or the safety answer for the whole call: never silence.
  ASSERT_TRUE(frame.has_value());
  EXPECT_TRUE(frame->status == 0 || frame->status == 4) << frame->status;
  room.executor.RunAll();
  EXPECT_TRUE(Pings(**client));
  EXPECT_EQ((*client)->Receive(absl::ZeroDuration()), std::nullopt) << "answered twice";
}

TEST(Limits, OutOfDescriptorsConnectionsAreClosedAndTheLoopGoesOn) {
  const std::unique_ptr<FrontRoom> room = OpenRoom({});
  absl::StatusOr<std::unique_ptr<FrameClient>> good = room->NewSession();
  ASSERT_TRUE(good.ok());
  // One descriptor for the test's own side of the connection, none for the daemon's.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int lowest = dup(0);
  ASSERT_GE(lowest, 0);
  static_cast<void>(Descriptor(lowest));
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(lowest) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  absl::StatusOr<std::unique_ptr<FrameClient>> refused = room->Connect();
  const bool closed = refused.ok() && (*refused)->SeesEnd();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(closed) << refused.status();
  EXPECT_TRUE(Pings(**good));
  EXPECT_TRUE(room->NewSession().ok());
}

}  // namespace
}  // namespace terrace::doubles
