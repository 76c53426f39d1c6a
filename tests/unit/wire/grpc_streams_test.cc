// PutStream and GetStream: the same outcomes as the unary verbs, whole or not at all, in bounded
// memory, whatever the client does.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "terrace/v1/cache.grpc.pb.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/front_room.h"
#include "tests/doubles/step_executor.h"

namespace terrace::doubles {
namespace {

using Code = grpc::StatusCode;

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kLargest = 64 * kMiB;

std::string TrailerOf(const grpc::ClientContext& context, const std::string& name) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto found = trailers.find(name);
  return found == trailers.end() ? "" : std::string(found->second.data(), found->second.size());
}

std::string Outcomes(const std::vector<int>& values) {
  return {values.begin(), values.end()};
}

size_t ResidentBytes() {
  size_t total = 0;
  size_t resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  EXPECT_NE(file, nullptr);
  EXPECT_EQ(std::fscanf(file, "%zu %zu", &total, &resident), 2);
  std::fclose(file);
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// One put as a stream, message by message.
struct PutInPieces {
  explicit PutInPieces(v1::Cache::Stub& stub) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    writer = stub.PutStream(&context, &reply);
  }
  bool Send(const v1::PutRequest& request) {
    v1::PutStreamRequest message;
    *message.mutable_request() = request;
    return writer->Write(message);
  }
  bool SendChunk(const std::string& chunk) {
    v1::PutStreamRequest message;
    message.set_chunk(chunk);
    return writer->Write(message);
  }
  void SendPayload(const std::string& payload) {
    for (size_t at = 0; at < payload.size() && SendChunk(payload.substr(at, kMiB)); at += kMiB) {
    }
  }
  grpc::Status End() {
    writer->WritesDone();
    return writer->Finish();
  }

  grpc::ClientContext context;
  v1::PutReply reply;
  std::unique_ptr<grpc::ClientWriter<v1::PutStreamRequest>> writer;
};

// What a get as a stream brought.
struct GotInPieces {
  grpc::Status status;
  v1::GetReply header;
  std::string payload;
  size_t largest_chunk = 0;
  std::string field;
};

class GrpcStreamsTest : public ::testing::Test {
 protected:
  void SetUp() override { Open({}); }
  void TearDown() override {
    stub_ = nullptr;
    channel_ = nullptr;
    if (room_ != nullptr) {
      room_->StopFront();
    }
    executor_.RunAll();
  }

  void Open(FrontRoomOptions options) {
    stub_ = nullptr;
    room_ = nullptr;
    options.dram_bytes = 640 * kMiB;
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    channel_ = NewChannel();
    stub_ = v1::Cache::NewStub(channel_);
  }
  std::shared_ptr<grpc::Channel> NewChannel() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel("unix:" + room_->path("terrace.sock"),
                                     grpc::InsecureChannelCredentials(), arguments);
  }

  std::string OpenNamespace(uint64_t block_bytes) {
    grpc::ClientContext context;
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(block_bytes);
    v1::OpenNamespaceReply reply;
    const grpc::Status status = stub_->OpenNamespace(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.namespace_digest();
  }
  static v1::Part PartOf(const std::string& digest, const std::vector<uint64_t>& keys) {
    v1::Part part;
    part.set_namespace_digest(digest);
    for (const uint64_t key : keys) {
      part.mutable_keys()->append(TestKey(key));
    }
    return part;
  }
  static v1::PutRequest PutOf(const std::string& digest,
                              const std::vector<uint64_t>& keys,
                              size_t bytes) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(digest, keys);
    request.add_payload_bytes(static_cast<uint32_t>(bytes));
    return request;
  }
  // Stores a block of random bytes.
  std::string Store(const std::string& digest, uint64_t key, size_t bytes) {
    std::string payload = TestPayload(key, bytes);
    PutInPieces put(*stub_);
    EXPECT_TRUE(put.Send(PutOf(digest, {key}, bytes)));
    put.SendPayload(payload);
    const grpc::Status status = put.End();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(put.reply.outcomes(), Outcomes({v1::PUT_OUTCOME_STORED}));
    return payload;
  }
  GotInPieces Get(const v1::GetRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    const auto reader = stub_->GetStream(&context, request);
    GotInPieces got;
    v1::GetStreamReply message;
    for (bool first = true; reader->Read(&message); first = false) {
      EXPECT_EQ(message.has_header(), first);
      if (message.has_header()) {
        got.header = message.header();
      }
      got.largest_chunk = std::max(got.largest_chunk, message.chunk().size());
      got.payload += message.chunk();
    }
    got.status = reader->Finish();
    got.field = TrailerOf(context, "terrace-field");
    return got;
  }
  GotInPieces Get(const std::string& digest, const std::vector<uint64_t>& keys) {
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest, keys);
    return Get(request);
  }
  // Asks again and again: a call that its client cancelled may come to the server after that, and hold blocks for a moment.
  void ExpectNothingKeepsABlock() {
    EXPECT_TRUE(Eventually([&] {
      room_->EvictAll();
      const StoreUsage usage = room_->store().Usage();
      return usage.calls_in_flight == 0 && usage.used_slot_bytes == 0;
    }));
  }
  // Nothing stored, nothing under way, the whole budget back.
  void ExpectUntouched() {
    EXPECT_TRUE(Eventually([&] { return room_->store().Usage().calls_in_flight == 0; }));
    EXPECT_EQ(room_->store().Usage().blocks, 0U);
    EXPECT_EQ(room_->store().Usage().used_slot_bytes, 0U);
  }

  StepExecutor executor_;  // for the tests that bring it
  std::unique_ptr<FrontRoom> room_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Cache::Stub> stub_;
};

TEST_F(GrpcStreamsTest, TheLargestBlockGoesInAndComesBackInChunks) {
  const std::string digest = OpenNamespace(kLargest);
  const std::string payload = Store(digest, 1, kLargest);
  const GotInPieces got = Get(digest, {1});
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.header.outcomes(), Outcomes({v1::GET_OUTCOME_OK}));
  EXPECT_EQ(got.header.boot_id(), room_->front().boot_id());
  EXPECT_EQ(got.largest_chunk, kMiB);
  EXPECT_TRUE(got.payload == payload);
  ExpectNothingKeepsABlock();
}

TEST_F(GrpcStreamsTest, OutcomesAreThoseOfTheUnaryVerbs) {
  const std::string digest = OpenNamespace(5000);
  v1::PutRequest put = PutOf(digest, {1, 2, 3}, 5000);
  put.add_payload_bytes(5001);  // more than a block of this namespace
  put.add_payload_bytes(17);
  put.mutable_part()->set_rule(v1::RULE_INDEPENDENT);
  PutInPieces pieces(*stub_);
  ASSERT_TRUE(pieces.Send(put));
  const std::string whole = TestPayload(1, 5000) + TestPayload(2, 5001) + TestPayload(3, 17);
  for (size_t at = 0; at < whole.size(); at += 999) {  // no border of a block
    ASSERT_TRUE(pieces.SendChunk(whole.substr(at, 999)));
  }
  ASSERT_TRUE(pieces.End().ok());
  EXPECT_EQ(pieces.reply.outcomes(),
            Outcomes({v1::PUT_OUTCOME_STORED, v1::PUT_OUTCOME_FAILED, v1::PUT_OUTCOME_STORED}));
  EXPECT_EQ(pieces.reply.reasons()[1], v1::REASON_INVALID);

  v1::GetRequest get;
  *get.add_parts() = put.part();
  const GotInPieces got = Get(get);
  EXPECT_TRUE(got.payload == TestPayload(1, 5000) + TestPayload(3, 17));
  grpc::ClientContext context;
  v1::GetReply unary;
  ASSERT_TRUE(stub_->Get(&context, get, &unary).ok());
  EXPECT_TRUE(unary.payload() == got.payload);
  unary.clear_payload();
  EXPECT_EQ(unary.SerializeAsString(), got.header.SerializeAsString());

  PutInPieces again(*stub_);
  ASSERT_TRUE(again.Send(PutOf(digest, {1}, 5000)));
  again.SendPayload(TestPayload(1, 5000));
  ASSERT_TRUE(again.End().ok());
  EXPECT_EQ(again.reply.outcomes(), Outcomes({v1::PUT_OUTCOME_DUPLICATE}));
  room_->store().SetDraining(true);
  PutInPieces late(*stub_);
  ASSERT_TRUE(late.Send(PutOf(digest, {9}, 5000)));
  late.SendPayload(TestPayload(9, 5000));
  ASSERT_TRUE(late.End().ok());
  EXPECT_EQ(late.reply.reasons(), Outcomes({v1::REASON_DRAINING}));
}

TEST_F(GrpcStreamsTest, NothingToSendIsNoError) {
  const std::string digest = OpenNamespace(4096);
  PutInPieces none(*stub_);
  ASSERT_TRUE(none.Send(PutOf(digest, {}, 4096)));
  EXPECT_TRUE(none.End().ok());
  const GotInPieces got = Get(digest, {1});
  EXPECT_TRUE(got.status.ok());
  EXPECT_EQ(got.header.outcomes(), Outcomes({v1::GET_OUTCOME_MISS}));
  EXPECT_EQ(got.payload, "");
}

// What is sent, and how the stream must end.
struct BadPut {
  std::string name;
  std::string field;
  std::function<void(PutInPieces&, v1::PutRequest)> send;
  Code code = Code::INVALID_ARGUMENT;
};

std::vector<BadPut> BadPuts() {
  const auto request_that = [](const std::function<void(v1::PutRequest&)>& spoil) {
    return [spoil](PutInPieces& put, v1::PutRequest good) {
      spoil(good);
      put.Send(good);
      put.SendChunk(std::string(100, 'p'));
    };
  };
  return {
      {"nothing at all", "request", [](PutInPieces&, const v1::PutRequest&) {}},
      {"a chunk before the request", "request",
       [](PutInPieces& put, const v1::PutRequest&) { put.SendChunk("p"); }},
      {"a chunk with the request", "chunk",
       [](PutInPieces& put, const v1::PutRequest& good) {
         v1::PutStreamRequest message;
         *message.mutable_request() = good;
         message.set_chunk("p");
         put.writer->Write(message);
       }},
      {"the request twice", "request",
       [](PutInPieces& put, const v1::PutRequest& good) {
         put.Send(good);
         put.SendChunk(std::string(50, 'p'));
         put.Send(good);
       }},
      {"too little", "payload",
       [](PutInPieces& put, const v1::PutRequest& good) {
         put.Send(good);
         put.SendChunk(std::string(99, 'p'));
       }},
      {"too much", "chunk",
       [](PutInPieces& put, const v1::PutRequest& good) {
         put.Send(good);
         put.SendChunk(std::string(100, 'p'));
         put.SendChunk("p");
       }},
      {"an empty chunk", "chunk",
       [](PutInPieces& put, const v1::PutRequest& good) {
         put.Send(good);
         put.SendChunk("");
       }},
      {"a chunk over 1 MiB", "chunk",
       [](PutInPieces& put, v1::PutRequest good) {
         good.set_payload_bytes(0, 3 * kMiB);
         put.Send(good);
         put.SendChunk(std::string(kMiB + 1, 'p'));
       }},
      {"payload in the request", "payload",
       request_that([](v1::PutRequest& r) { r.set_payload("p"); })},
      {"more than a stream may carry", "payload_bytes",
       request_that([](v1::PutRequest& r) { r.set_payload_bytes(0, kLargest + 1); })},
      {"keys that are too short", "part.key_bytes",
       request_that([](v1::PutRequest& r) { r.mutable_part()->set_key_bytes(15); })},
      {"a region", "",
       request_that([](v1::PutRequest& r) { r.mutable_region()->set_region_id(1); }),
       Code::FAILED_PRECONDITION},
      {"a level below DRAM", "",
       request_that([](v1::PutRequest& r) { r.set_wait_for(v1::LEVEL_LOCAL_SYNCED); }),
       Code::UNIMPLEMENTED},
      {"a namespace that nobody opened", "", request_that([](v1::PutRequest& r) {
         r.mutable_part()->set_namespace_digest(std::string(16, 'x'));
       }),
       Code::NOT_FOUND},
  };
}

TEST_F(GrpcStreamsTest, APutThatBreaksARuleIsRefusedByNameAndStoresNothing) {
  const v1::PutRequest good = PutOf(OpenNamespace(8 * kMiB), {1}, 100);
  for (const BadPut& bad : BadPuts()) {
    SCOPED_TRACE(bad.name);
    PutInPieces put(*stub_);
    bad.send(put, good);
    const grpc::Status status = put.End();
    EXPECT_EQ(status.error_code(), bad.code) << status.error_message();
    EXPECT_EQ(TrailerOf(put.context, "terrace-field"), bad.field);
    ExpectUntouched();
  }
}

TEST_F(GrpcStreamsTest, AGetThatBreaksARuleIsRefusedByName) {
  v1::GetRequest lease;
  *lease.add_parts() = PartOf(std::string(16, 'n'), {1});
  lease.set_delivery(v1::DELIVERY_LEASE);
  EXPECT_EQ(Get(lease).status.error_code(), Code::FAILED_PRECONDITION);
  const GotInPieces none = Get(v1::GetRequest());
  EXPECT_EQ(none.status.error_code(), Code::INVALID_ARGUMENT);
  EXPECT_EQ(none.field, "parts");
}

TEST_F(GrpcStreamsTest, AMessageOverTheLimitOfMessagesEndsTheStream) {
  const v1::PutRequest good = PutOf(OpenNamespace(8 * kMiB), {1}, 8 * kMiB);
  PutInPieces put(*stub_);
  put.Send(good);
  put.SendChunk(std::string(5 * kMiB, 'p'));
  EXPECT_EQ(put.End().error_code(), Code::RESOURCE_EXHAUSTED);
  ExpectUntouched();
}

TEST_F(GrpcStreamsTest, APutWhoseClientDiesInTheMiddleLeavesNothing) {
  const std::string digest = OpenNamespace(kLargest);
  for (int i = 0; i < 8; ++i) {
    const std::shared_ptr<grpc::Channel> doomed = NewChannel();
    const auto stub = v1::Cache::NewStub(doomed);
    PutInPieces put(*stub);
    ASSERT_TRUE(put.Send(PutOf(digest, {1}, 8 * kMiB)));
    for (int n = 0; n < i; ++n) {
      ASSERT_TRUE(put.SendChunk(std::string(kMiB, 'p')));
    }
    put.context.TryCancel();
    EXPECT_FALSE(put.writer->Finish().ok());
  }
  ExpectUntouched();
  // The budget is back: as much as fits at a time is taken again.
  EXPECT_TRUE(Eventually([&] {
    PutInPieces first(*stub_);
    PutInPieces second(*stub_);
    first.Send(PutOf(digest, {1}, kLargest));
    second.Send(PutOf(digest, {1}, kLargest));
    const bool both = first.SendChunk("p") && second.SendChunk("p");
    // Refused for what they lack, and not for want of room.
    const Code one = first.End().error_code();
    return both && one == Code::INVALID_ARGUMENT &&
           second.End().error_code() == Code::INVALID_ARGUMENT;
  }));
}

TEST_F(GrpcStreamsTest, StreamsOfAUidShareABudget) {
  FrontRoomOptions options;
  options.limits.stream_bytes_per_uid = 12 * kMiB;
  Open(options);
  const std::string digest = OpenNamespace(kLargest);
  PutInPieces first(*stub_);
  ASSERT_TRUE(first.Send(PutOf(digest, {1}, 9 * kMiB)));  // and two chunks: 11 MiB
  ASSERT_TRUE(first.SendChunk(std::string(kMiB, 'p')));
  const auto refused_put = [&] {
    PutInPieces second(*stub_);
    second.Send(PutOf(digest, {2}, 1));
    const grpc::Status status = second.End();
    return status.error_code() == Code::RESOURCE_EXHAUSTED &&
           TrailerOf(second.context, "terrace-retry-after-ms") == "1000";
  };
  EXPECT_TRUE(Eventually(refused_put));
  EXPECT_EQ(Get(digest, {1}).status.error_code(), Code::RESOURCE_EXHAUSTED);
  first.context.TryCancel();
  EXPECT_FALSE(first.writer->Finish().ok());
  EXPECT_TRUE(Eventually([&] { return Get(digest, {1}).status.ok(); }));
}

TEST_F(GrpcStreamsTest, AClientThatStopsSendingIsEndedByTheServersDeadline) {
  FrontRoomOptions options;
  options.limits.put_cap = absl::Milliseconds(50);
  Open(options);
  PutInPieces put(*stub_);
  ASSERT_TRUE(put.Send(PutOf(OpenNamespace(kLargest), {1}, kLargest)));
  ASSERT_TRUE(put.SendChunk(std::string(kMiB, 'p')));
  EXPECT_EQ(put.writer->Finish().error_code(), Code::DEADLINE_EXCEEDED);
  EXPECT_EQ(room_->observer().Calls("PutStream", absl::StatusCode::kDeadlineExceeded), 1);
  ExpectUntouched();
}

TEST_F(GrpcStreamsTest, AClientThatStopsReadingFillsNoMemoryAndIsEndedByTheServersDeadline) {
  FrontRoomOptions options;
  options.limits.get_cap = absl::Milliseconds(50);
  Open(options);
  const std::string digest = OpenNamespace(kLargest);
  Store(digest, 1, kLargest);
  v1::GetRequest request;
  *request.add_parts() = PartOf(digest, {1});
  const size_t before = ResidentBytes();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto reader = stub_->GetStream(&context, request);
  size_t most = before;
  EXPECT_TRUE(Eventually([&] {
    most = std::max(most, ResidentBytes());
    return room_->observer().Calls("GetStream", absl::StatusCode::kDeadlineExceeded) == 1;
  }));
  EXPECT_LT(most - std::min(most, before), kLargest / 2) << "client and server together";
  ExpectNothingKeepsABlock();
  v1::GetStreamReply message;
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(GrpcStreamsTest, AGetWhoseClientDiesInTheMiddleGivesTheBlocksBack) {
  const std::string digest = OpenNamespace(kLargest);
  Store(digest, 1, kLargest);
  for (int i = 0; i < 8; ++i) {
    const std::shared_ptr<grpc::Channel> doomed = NewChannel();
    const auto stub = v1::Cache::NewStub(doomed);
    grpc::ClientContext context;
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest, {1});
    const auto reader = stub->GetStream(&context, request);
    v1::GetStreamReply message;
    for (int n = 0; n < i; ++n) {
      ASSERT_TRUE(reader->Read(&message));
    }
    context.TryCancel();
    EXPECT_FALSE(reader->Finish().ok());
  }
  ExpectNothingKeepsABlock();
}

TEST_F(GrpcStreamsTest, StoppingEndsStreamsThatGoNowhere) {
  const std::string digest = OpenNamespace(kLargest);
  Store(digest, 1, kLargest);
  PutInPieces put(*stub_);
  ASSERT_TRUE(put.Send(PutOf(digest, {2}, kLargest)));
  grpc::ClientContext context;
  v1::GetRequest request;
  *request.add_parts() = PartOf(digest, {1});
  const auto reader = stub_->GetStream(&context, request);
  v1::GetStreamReply message;
  ASSERT_TRUE(reader->Read(&message));
  room_->StopFront();
  const grpc::Status put_end = put.writer->Finish();
  EXPECT_EQ(put_end.error_code(), Code::UNAVAILABLE) << put_end.error_message();
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
  EXPECT_TRUE(Eventually([&] { return room_->store().Usage().calls_in_flight == 0; }));
}

// The store answers only when the test steps its executor.
TEST_F(GrpcStreamsTest, AnAnswerThatComesAfterTheEndOfItsStreamIsDropped) {
  FrontRoomOptions options;
  options.executor = &executor_;
  Open(options);
  const std::string digest = OpenNamespace(4096);
  {
    PutInPieces put(*stub_);
    ASSERT_TRUE(put.Send(PutOf(digest, {1}, 4096)));
    ASSERT_TRUE(put.SendChunk(std::string(4096, 'p')));
    ASSERT_TRUE(put.writer->WritesDone());
    ASSERT_TRUE(Eventually([&] { return executor_.HasWork(); }));
    put.context.TryCancel();
    EXPECT_FALSE(put.writer->Finish().ok());
    executor_.RunAll();  // it had been received whole: it is stored, and nobody is told
    EXPECT_TRUE(Eventually([&] { return room_->store().Usage().blocks == 1; }));
  }
  grpc::ClientContext context;
  v1::GetRequest request;
  *request.add_parts() = PartOf(digest, {1});
  const auto reader = stub_->GetStream(&context, request);
  ASSERT_TRUE(Eventually([&] { return executor_.HasWork(); }));
  context.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
  ASSERT_TRUE(Eventually(
      [&] { return room_->observer().Calls("GetStream", absl::StatusCode::kCancelled) == 1; }));
  executor_.RunAll();
  ExpectNothingKeepsABlock();
}

}  // namespace
}  // namespace terrace::doubles
