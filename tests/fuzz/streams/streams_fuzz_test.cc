// Streams of mutated messages, in any order, cut short, cancelled, or left alone half-way, against
// a front on a real socket: it may refuse, with codes that the contract knows; nothing of them
// stays.
#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "terrace/v1/cache.pb.h"
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/from_environment.h"
#include "tests/doubles/front_room.h"
#include "tests/fuzz/frames/message_mutator.h"

namespace terrace::doubles {
namespace {

constexpr uint32_t kBlockBytes = 4096;
constexpr uint64_t kStreamsPerConnection = 30;  // below the refusals that earn a pause

bool IsDocumented(grpc::StatusCode code) {
  static const std::set<grpc::StatusCode> kCodes = {
      grpc::StatusCode::OK,          grpc::StatusCode::INVALID_ARGUMENT,
      grpc::StatusCode::NOT_FOUND,   grpc::StatusCode::FAILED_PRECONDITION,
      grpc::StatusCode::CANCELLED,   grpc::StatusCode::RESOURCE_EXHAUSTED,
      grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::UNIMPLEMENTED};
  return kCodes.contains(code);
}

// What a stream is to send, and how it ends.
struct Plan {
  std::string method;
  std::vector<std::string> messages;
  enum class End : uint8_t {
    kHalfClose,
    kCancel,
    kCancelUnread,
    kCancelAfterOne
  } end = End::kHalfClose;
};

// Sends the plan and reads whatever comes.
grpc::Status Play(grpc::GenericStub& stub, const Plan& plan) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::CompletionQueue queue;
  const auto step = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto call = stub.PrepareCall(&context, plan.method, &queue);
  call->StartCall(nullptr);
  bool open = step();
  for (size_t i = 0; open && i < plan.messages.size(); ++i) {
    const grpc::Slice slice(plan.messages[i]);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    open = step();
  }
  grpc::ByteBuffer in;
  if (plan.end == Plan::End::kCancelAfterOne) {
    call->WritesDone(nullptr);
    step();
    call->Read(&in, nullptr);
    step();
  }
  if (plan.end == Plan::End::kHalfClose) {
    call->WritesDone(nullptr);
    step();
  } else {
    context.TryCancel();
  }
  for (bool more = plan.end != Plan::End::kCancelUnread; more;) {
    call->Read(&in, nullptr);
    more = step();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  step();
  return status;
}

class StreamsFuzz : public ::testing::Test {
 protected:
  void SetUp() override {
    streams_ = doubles::FromEnvironment("TERRACE_FUZZ_ITERATIONS", 20'000) / 20;
    seed_ = doubles::FromEnvironment(
        "TERRACE_FUZZ_SEED", static_cast<uint64_t>(absl::ToInt64Nanoseconds(BootClock().Now())));
    std::printf("TERRACE_FUZZ_SEED=%llu\n", static_cast<unsigned long long>(seed_));
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    absl::StatusOr<std::unique_ptr<FrameClient>> session = room_->NewSession();
    ASSERT_TRUE(session.ok());
    bystander_ = *std::move(session);
    v1::OpenNamespaceRequest open;
    *open.mutable_record() = TestRecord(kBlockBytes);
    const auto opened = bystander_->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open);
    ASSERT_TRUE(opened.ok());
    part_.set_namespace_digest(opened->namespace_digest());
    part_.set_keys(TestKey(1) + TestKey(2));
  }
  std::unique_ptr<grpc::GenericStub> NewStub() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return std::make_unique<grpc::GenericStub>(grpc::CreateCustomChannel(
        "unix:" + room_->path("terrace.sock"), grpc::InsecureChannelCredentials(), arguments));
  }
  // A good put of two blocks, its messages mutated, repeated, left out or exchanged.
  Plan PutPlan(MessageMutator& mutator) const {
    Plan plan{"/terrace.v1.Cache/PutStream", {}, Plan::End::kHalfClose};
    v1::PutStreamRequest first;
    *first.mutable_request()->mutable_part() = part_;
    first.mutable_request()->mutable_part()->set_salt(absl::StrCat(mutator.Pick(1000)));
    first.mutable_request()->add_payload_bytes(kBlockBytes);
    v1::PutStreamRequest chunk;
    chunk.set_chunk(std::string(kBlockBytes, 'p'));
    std::vector<v1::PutStreamRequest> messages = {first, chunk, chunk};
    if (mutator.OneIn(3)) {
      messages.insert(messages.begin() + static_cast<int64_t>(mutator.Pick(messages.size())),
                      messages[mutator.Pick(messages.size())]);
    }
    if (mutator.OneIn(3)) {
      messages.erase(messages.begin() + static_cast<int64_t>(mutator.Pick(messages.size())));
    }
    for (v1::PutStreamRequest& message : messages) {
      if (mutator.OneIn(4)) {
        mutator.Mutate(&message);
      }
      plan.messages.push_back(message.SerializeAsString());
      if (mutator.OneIn(20)) {
        plan.messages.back() = mutator.MutateBytes(std::move(plan.messages.back()));
      }
    }
    return plan;
  }
  Plan GetPlan(MessageMutator& mutator) const {
    v1::GetRequest request;
    *request.add_parts() = part_;
    request.mutable_parts(0)->set_salt(absl::StrCat(mutator.Pick(1000)));
    if (!mutator.OneIn(3)) {
      mutator.Mutate(&request);
    }
    Plan plan{"/terrace.v1.Cache/GetStream", {request.SerializeAsString()}, Plan::End::kHalfClose};
    if (mutator.OneIn(10)) {
      plan.messages[0] = mutator.MutateBytes(std::move(plan.messages[0]));
    }
    return plan;
  }
  // A watch has no end of its own. A snapshot says something at once, where it is not refused.
  Plan WatchPlan(MessageMutator& mutator) const {
    v1::WatchRequest request;
    request.add_namespaces(part_.namespace_digest());
    if (!mutator.OneIn(3)) {
      mutator.Mutate(&request);
    }
    request.set_snapshot(true);
    Plan plan{"/terrace.v1.Cache/Watch", {request.SerializeAsString()}, Plan::End::kCancelAfterOne};
    if (mutator.OneIn(10)) {
      plan.messages[0] = mutator.MutateBytes(std::move(plan.messages[0]));
      plan.end = Plan::End::kCancel;
    }
    return plan;
  }

  uint64_t streams_ = 0;
  uint64_t seed_ = 0;
  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> bystander_;
  v1::Part part_;
};

TEST_F(StreamsFuzz, MutatedStreamsAreRefusedOrServedAndLeaveNothing) {
  MessageMutator mutator(seed_);
  std::unique_ptr<grpc::GenericStub> stub;
  uint64_t served = 0;
  for (uint64_t i = 0; i < streams_; ++i) {
    if (i % kStreamsPerConnection == 0) {
      stub = NewStub();
    }
    Plan plan = mutator.OneIn(3) ? GetPlan(mutator) : PutPlan(mutator);
    if (mutator.OneIn(5)) {
      plan = WatchPlan(mutator);
    } else if (mutator.OneIn(5)) {
      plan.end = mutator.OneIn(2) ? Plan::End::kCancel : Plan::End::kCancelUnread;
    }
    const grpc::Status status = Play(*stub, plan);
    served += status.ok() ? 1 : 0;
    ASSERT_TRUE(IsDocumented(status.error_code()))
        << i << " " << plan.method << ": " << status.error_code() << " " << status.error_message();
    ASSERT_TRUE(i % 100 != 0 ||
                bystander_->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
  }
  // Both answers must have been given, or the mutations are too tame or too wild to find anything.
  EXPECT_GT(served, streams_ / 10);
  EXPECT_LT(served, streams_ * 9 / 10);
  EXPECT_TRUE(Eventually([&] {
    const StoreUsage usage = room_->store().Usage();
    return usage.calls_in_flight == 0 && usage.watchers == 0;
  }));
  absl::Notification evicted;
  room_->store().Evict("", 0, [&evicted](const absl::StatusOr<EvictResult>& result) {
    EXPECT_TRUE(result.ok()) << result.status();
    evicted.Notify();
  });
  ASSERT_TRUE(evicted.WaitForNotificationWithTimeout(absl::Seconds(60)));
  EXPECT_EQ(room_->store().Usage().used_slot_bytes, 0U) << "something is still held";
}

}  // namespace
}  // namespace terrace::doubles
