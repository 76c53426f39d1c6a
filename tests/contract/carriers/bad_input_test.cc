// What the rows of refusals_test.cc do not say of bad and odd input: deadlines, what errors may
// tell, oddities that are no faults. README.md beside the suites has the whole table.
#include <unistd.h>

#include <chrono>
#include <functional>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "tests/contract/carriers/carrier_suite.h"
#include "tests/doubles/slow_tier.h"

namespace terrace::doubles {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr uint64_t kOddNumber = 987654321;
constexpr char kOddText[] = "s3cret-that-nobody-may-see";

class BadInput : public CarrierSuite {
 protected:
  FrontRoomOptions Options() override {
    FrontRoomOptions options;
    options.limits.get_cap = absl::Milliseconds(50);
    options.lower_tiers = {&tier_};
    return options;
  }
  void TearDown() override {
    while (tier_.EndOne(ReadOutcome::kGone)) {
    }
    client_ = nullptr;
    room_ = nullptr;
  }
  SlowTier tier_;
};
INSTANTIATE_TEST_SUITE_P(Both,
                         BadInput,
                         ::testing::Values(CarrierKind::kSession, CarrierKind::kGrpc),
                         CarrierName);

std::string Bytes(std::initializer_list<int> values) {
  return {values.begin(), values.end()};
}

// The read that the get waits for never ends: only the server's cap does.
TEST_P(BadInput, DeadlinesBeyondTheServersAreClampedToIt) {
  const std::string digest = OpenNamespace();
  Digest128 name;
  ASSERT_TRUE(Digest128::FromBytes(digest, &name));
  tier_.Hold({name, 1, "", TestKey(1)}, TestPayload(1, kBlockBytes));
  v1::GetRequest request;
  *request.add_parts() = PartOf(digest, {1});
  request.set_wait_pending(1);
  for (const absl::Duration deadline : {absl::InfiniteDuration(), absl::Hours(1)}) {
    v1::GetReply reply;
    const CallEnd end = client_->Call(v1::METHOD_GET, request, &reply, deadline);
    ASSERT_TRUE(end.ok()) << end.message;
    EXPECT_EQ(reply.outcomes(), Bytes({v1::GET_OUTCOME_DEADLINE}));
  }
}

TEST_P(BadInput, ASaltIsAnyBytesAndNeverInterpreted) {
  const std::string digest = OpenNamespace();
  std::string salt(256, '\0');
  for (size_t i = 0; i < salt.size(); ++i) {
    salt[i] = static_cast<char>(i);
  }
  for (const std::string& odd :
       {salt, std::string("../../etc"), std::string("%s%n"), std::string(1, '\0')}) {
    v1::PutRequest put;
    *put.mutable_part() = PartOf(digest, {1});
    put.mutable_part()->set_salt(odd);
    put.set_payload(TestPayload(odd.size(), kBlockBytes));
    v1::PutReply stored;
    ASSERT_TRUE(client_->Call(v1::METHOD_PUT, put, &stored).ok());
    EXPECT_EQ(stored.outcomes(), Bytes({v1::PUT_OUTCOME_STORED})) << "an identity of its own";
    v1::GetRequest get;
    *get.add_parts() = put.part();
    v1::GetReply got;
    ASSERT_TRUE(client_->Call(v1::METHOD_GET, get, &got).ok());
    EXPECT_EQ(got.payload(), put.payload());
  }
}

TEST_P(BadInput, AKeyNamedTwiceIsAnsweredTwice) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  v1::ProbeRequest probe;
  *probe.add_parts() = PartOf(digest, {1, 1});
  v1::ProbeReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, probe, &reply).ok());
  EXPECT_EQ(reply.states(), Bytes({v1::KEY_STATE_READY, v1::KEY_STATE_READY}));
  EXPECT_EQ(Get(digest, {1, 1}).payload(),
            TestPayload(1, kBlockBytes) + TestPayload(1, kBlockBytes));
}

TEST_P(BadInput, APayloadOfNoBytesFailsAlone) {
  const std::string digest = OpenNamespace();
  v1::PutRequest put;
  *put.mutable_part() = PartOf(digest, {1, 2});
  put.mutable_part()->set_rule(v1::RULE_INDEPENDENT);
  put.add_payload_bytes(0);
  put.add_payload_bytes(5);
  put.set_payload("12345");
  v1::PutReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PUT, put, &reply).ok());
  EXPECT_EQ(reply.outcomes(), Bytes({v1::PUT_OUTCOME_FAILED, v1::PUT_OUTCOME_STORED}));
  EXPECT_EQ(reply.reasons(), Bytes({v1::REASON_INVALID, v1::REASON_NONE}));
}

TEST_P(BadInput, APutBeyondTheQuotaIsDeclinedAtOnce) {
  const std::string digest = OpenNamespace();
  const absl::StatusOr<TenantId> tenant =
      room_->store().OpenTenant(absl::StrCat("uid-", geteuid()));
  ASSERT_TRUE(tenant.ok());
  ASSERT_TRUE(room_->store().SetQuota(*tenant, 0, 4096).ok());  // a slot is larger
  const v1::PutReply reply = Put(digest, {1});
  EXPECT_EQ(reply.outcomes(), Bytes({v1::PUT_OUTCOME_DECLINED}));
  EXPECT_EQ(reply.reasons(), Bytes({v1::REASON_QUOTA}));
}

// ---------------------------------------------------------------- what errors tell

struct Sample {
  v1::Method method = v1::METHOD_UNSPECIFIED;
  std::shared_ptr<Message> request;
  std::shared_ptr<Message> reply;
};

template <typename Request, typename Reply>
Sample MakeSample(v1::Method method, const Request& request) {
  return {method, std::make_shared<Request>(request), std::make_shared<Reply>()};
}

std::vector<Sample> Samples(const v1::Part& part) {
  std::vector<Sample> samples;
  v1::OpenNamespaceRequest open;
  *open.mutable_record() = TestRecord(4096);
  samples.push_back(MakeSample<v1::OpenNamespaceRequest, v1::OpenNamespaceReply>(
      v1::METHOD_OPEN_NAMESPACE, open));
  v1::ClearNamespaceRequest clear;
  clear.set_namespace_digest(std::string(16, 'x'));
  samples.push_back(MakeSample<v1::ClearNamespaceRequest, v1::ClearNamespaceReply>(
      v1::METHOD_CLEAR_NAMESPACE, clear));
  v1::ProbeRequest probe;
  *probe.add_parts() = part;
  samples.push_back(MakeSample<v1::ProbeRequest, v1::ProbeReply>(v1::METHOD_PROBE, probe));
  v1::PrefetchRequest prefetch;
  *prefetch.add_parts() = part;
  samples.push_back(
      MakeSample<v1::PrefetchRequest, v1::PrefetchReply>(v1::METHOD_PREFETCH, prefetch));
  samples.push_back(MakeSample<v1::TicketRequest, v1::TicketReply>(v1::METHOD_TICKET, {}));
  v1::GetRequest get;
  *get.add_parts() = part;
  samples.push_back(MakeSample<v1::GetRequest, v1::GetReply>(v1::METHOD_GET, get));
  samples.push_back(MakeSample<v1::ReleaseRequest, v1::ReleaseReply>(v1::METHOD_RELEASE, {}));
  v1::PutRequest put;
  *put.mutable_part() = part;
  put.add_payload_bytes(8);
  put.set_payload(std::string(16, 'p'));
  samples.push_back(MakeSample<v1::PutRequest, v1::PutReply>(v1::METHOD_PUT, put));
  samples.push_back(MakeSample<v1::FlushRequest, v1::FlushReply>(v1::METHOD_FLUSH, {}));
  v1::DeleteRequest del;
  *del.mutable_part() = part;
  samples.push_back(MakeSample<v1::DeleteRequest, v1::DeleteReply>(v1::METHOD_DELETE, del));
  v1::PinRequest pin;
  *pin.mutable_part() = part;
  samples.push_back(MakeSample<v1::PinRequest, v1::PinReply>(v1::METHOD_PIN, pin));
  v1::UnpinRequest unpin;
  *unpin.mutable_part() = part;
  samples.push_back(MakeSample<v1::UnpinRequest, v1::UnpinReply>(v1::METHOD_UNPIN, unpin));
  samples.push_back(MakeSample<v1::CancelRequest, v1::CancelReply>(v1::METHOD_CANCEL, {}));
  return samples;
}

void SetOdd(Message* message, const FieldDescriptor* field) {
  const auto* reflection = message->GetReflection();
  const bool repeated = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      repeated ? reflection->AddString(message, field, kOddText)
               : reflection->SetString(message, field, kOddText);
      return;
    case FieldDescriptor::CPPTYPE_UINT32:
      repeated ? reflection->AddUInt32(message, field, kOddNumber)
               : reflection->SetUInt32(message, field, kOddNumber);
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      repeated ? reflection->AddUInt64(message, field, kOddNumber)
               : reflection->SetUInt64(message, field, kOddNumber);
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      reflection->SetEnumValue(message, field, static_cast<int>(kOddNumber));
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      reflection->SetBool(message, field, true);
      return;
    default:
      ADD_FAILURE() << field->full_name() << " is of a type that this test does not know";
  }
}

// Calls `visit` once for each field at any depth of the root, which has then only this field
// changed.
void ForEachOddField(const Message& good,
                     const std::function<Message*(Message*)>& find,
                     const google::protobuf::Descriptor& type,
                     const std::function<void(const Message&, const FieldDescriptor&)>& visit) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* field = type.field(i);
    if (field->is_map()) {
      continue;
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ForEachOddField(
          good,
          [find, field](Message* root) {
            Message* at = find(root);
            const auto* reflection = at->GetReflection();
            if (!field->is_repeated()) {
              return reflection->MutableMessage(at, field);
            }
            return reflection->FieldSize(*at, field) == 0
                       ? reflection->AddMessage(at, field)
                       : reflection->MutableRepeatedMessage(at, field, 0);
          },
          *field->message_type(), visit);
      continue;
    }
    const std::unique_ptr<Message> changed(good.New());
    changed->CopyFrom(good);
    SetOdd(find(changed.get()), field);
    visit(*changed, *field);
  }
}

TEST_P(BadInput, ErrorsNameFieldsAndLimitsAndNeverRepeatWhatWasSent) {
  const std::vector<Sample> samples = Samples(PartOf(OpenNamespace(), {1, 2}));
  int refused = 0;
  for (const Sample& sample : samples) {
    client_ = NewClient();  // a flood of refusals would earn a pause
    ASSERT_NE(client_, nullptr);
    ForEachOddField(
        *sample.request, [](Message* root) { return root; }, *sample.request->GetDescriptor(),
        [&](const Message& odd, const FieldDescriptor& field) {
          const CallEnd end = client_->Call(sample.method, odd, sample.reply.get());
          refused += end.ok() ? 0 : 1;
          EXPECT_EQ(end.message.find("s3cret"), std::string::npos)
              << field.full_name() << ": " << end.message;
          EXPECT_EQ(end.message.find("98765"), std::string::npos)
              << field.full_name() << ": " << end.message;
          EXPECT_EQ(end.field.find("s3cret"), std::string::npos) << field.full_name();
          if (end.code == absl::StatusCode::kInvalidArgument) {
            EXPECT_NE(end.message, "") << field.full_name();
          }
        });
  }
  EXPECT_GT(refused, 40) << "the fields were not visited";
}

// ---------------------------------------------------------------- gRPC alone

TEST(GrpcOnly, AMethodThatNobodyKnowsIsUnimplemented) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok()) << room.status();
  grpc::GenericStub stub(grpc::CreateChannel("unix:" + (*room)->path("terrace.sock"),
                                             grpc::InsecureChannelCredentials()));
  for (const char* method : {"/terrace.v1.Cache/Reboot", "/terrace.v1.Nothing/Probe", "/x"}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    grpc::CompletionQueue queue;
    const grpc::Slice slice("x");
    const auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
  }
}

}  // namespace
}  // namespace terrace::doubles
