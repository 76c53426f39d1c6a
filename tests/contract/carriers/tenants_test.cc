// What one tenant can learn of another's: nothing. Every verb is called by another uid with what is
// there for its owner, and with what has never been anywhere; the two answers are the same, byte by
// byte, over both carriers. Needs root.
//
// That they also cost the same is shown in tests/unit/block_store/tenant_cost_test.cc.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "terrace/v1/cache.grpc.pb.h"
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>

#include "tests/contract/carriers/carrier_suite.h"
#include "tests/doubles/slow_tier.h"

namespace terrace::doubles {
namespace {

constexpr uid_t kOther = 65534;
constexpr uint64_t kStored = 1;    // by the owner
constexpr uint64_t kMoving = 2;    // up from a lower tier, for the owner
constexpr uint64_t kNowhere = 99;  // has never been stored by anybody

// Runs `connect_something` as another uid: the kernel keeps the identity of the moment of connect.
// The system call itself changes one thread, where the C library's function would change all.
void AsOther(const std::function<void()>& connect_something) {
  std::thread thread([&] {
    ASSERT_EQ(syscall(SYS_setresuid, -1, kOther, -1), 0);
    connect_something();
    ASSERT_EQ(syscall(SYS_setresuid, -1, 0, -1), 0);
  });
  thread.join();
}

Descriptor ConnectedAsOther(const std::string& path) {
  Descriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  AsOther([&] {
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  });
  fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  return fd;
}

// Everything that a caller can see of an answer.
struct Seen {
  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string message;
  std::string field;
  std::string reply;
};

class TenantsTest : public CarrierSuite {
 protected:
  FrontRoomOptions Options() override {
    FrontRoomOptions options;
    options.lower_tiers = {&tier_};
    return options;
  }
  void SetUp() override {
    if (geteuid() != 0) {
      GTEST_SKIP() << "needs root to become another uid";
    }
    CarrierSuite::SetUp();
    for (const char* name : {"session.sock", "terrace.sock"}) {
      ASSERT_EQ(chmod(room_->path(name).c_str(), 0666), 0);
    }
    StoreTheOwners();
    other_ = ClientOfOther();
    ASSERT_NE(other_, nullptr);
    v1::OpenNamespaceRequest open;
    *open.mutable_record() = TestRecord(kBlockBytes);
    v1::OpenNamespaceReply opened;
    ASSERT_TRUE(other_->Call(v1::METHOD_OPEN_NAMESPACE, open, &opened).ok());
    own_ = opened.namespace_digest();
    ASSERT_NE(own_, foreign_) << "the same record is another namespace for another tenant";
  }
  void TearDown() override {
    while (tier_.EndOne(ReadOutcome::kGone)) {
    }
    other_ = nullptr;
    owner_ = nullptr;
    client_ = nullptr;
    room_ = nullptr;
  }

  // A block, a hold, a lease, a region, a running prefetch.
  void StoreTheOwners() {
    absl::StatusOr<std::unique_ptr<FrameClient>> session = room_->NewSession();
    ASSERT_TRUE(session.ok());
    owner_ = *std::move(session);
    foreign_ = OpenNamespace();
    Put(foreign_, {kStored});
    v1::ProbeRequest probe;
    *probe.add_parts() = PartOf(foreign_, {kStored});
    probe.set_hold_ms(600'000);
    const auto probed = owner_->Call<v1::ProbeReply>(v1::METHOD_PROBE, probe);
    ASSERT_TRUE(probed.ok());
    hold_ = probed->hold_id();
    v1::GetRequest get;
    *get.add_parts() = PartOf(foreign_, {kStored});
    get.set_delivery(v1::DELIVERY_LEASE);
    const auto leased = owner_->Call<v1::GetReply>(v1::METHOD_GET, get);
    ASSERT_TRUE(leased.ok());
    lease_ = leased->lease_id();
    slab_ = leased->slab_ids(0);
    const Descriptor memory(memfd_create("region", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(memory.get(), kBlockBytes), 0);
    v1::RegisterRegionRequest region;
    region.set_region_id(kRegion);
    region.set_bytes(kBlockBytes);
    region.mutable_geometry()->set_block_count(1);
    region.mutable_geometry()->add_planes()->add_segments()->set_bytes(kBlockBytes);
    ASSERT_TRUE(
        owner_->Call<v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, region, {memory.get()})
            .ok());
    Digest128 name;
    ASSERT_TRUE(Digest128::FromBytes(foreign_, &name));
    tier_.Hold({name, 1, "", TestKey(kMoving)}, TestPayload(kMoving, kBlockBytes));
    v1::PrefetchRequest prefetch;
    *prefetch.add_parts() = PartOf(foreign_, {kMoving});
    prefetch.set_deadline_ms(60'000);
    const auto moving = owner_->Call<v1::PrefetchReply>(v1::METHOD_PREFETCH, prefetch);
    ASSERT_TRUE(moving.ok());
    ticket_ = moving->ticket();
    ASSERT_NE(ticket_, 0U);
    // The read begins on a thread of the store; what TearDown ends must be there by then.
    ASSERT_TRUE(Eventually([&] { return tier_.running() == 1; }));
  }

  std::unique_ptr<CarrierClient> ClientOfOther() {
    if (GetParam() == CarrierKind::kGrpc) {
      return GrpcCarrierOver(ConnectedAsOther(room_->path("terrace.sock")));
    }
    absl::StatusOr<std::unique_ptr<FrameClient>> client;
    AsOther([&] { client = room_->Connect(); });
    if (!client.ok()) {
      return nullptr;
    }
    const auto hello = (*client)->Hello();
    EXPECT_TRUE(hello.ok()) << hello.status();
    EXPECT_EQ(hello->tenant(), absl::StrCat("uid-", kOther));
    return SessionCarrierOver(*std::move(client));
  }

  template <typename Reply>
  Seen CallAsOther(v1::Method method, const google::protobuf::Message& request) {
    Reply reply;
    const CallEnd end = other_->Call(method, request, &reply);
    return {end.code, end.message, end.field, reply.SerializeAsString()};
  }
  // The owner's and what never was are answered alike; returns the answer.
  template <typename Reply, typename Request>
  Seen ExpectAlike(v1::Method method, const Request& owners, const Request& nobodys) {
    SCOPED_TRACE(owners.ShortDebugString());
    const Seen of_owners = CallAsOther<Reply>(method, owners);
    const Seen of_nobodys = CallAsOther<Reply>(method, nobodys);
    EXPECT_EQ(of_owners.code, of_nobodys.code);
    EXPECT_EQ(of_owners.message, of_nobodys.message);
    EXPECT_EQ(of_owners.field, of_nobodys.field);
    EXPECT_EQ(of_owners.reply, of_nobodys.reply);
    return of_owners;
  }
  // The same for every verb that names blocks.
  void ExpectBlocksAlike(const v1::Part& owners, const v1::Part& nobodys) {
    const auto with_parts = [](auto request, const v1::Part& part) {
      *request.add_parts() = part;
      request.set_request_id("r");
      return request;
    };
    v1::ProbeRequest probe;
    probe.set_hold_ms(1000);
    probe.set_prefetch(true);
    EXPECT_EQ(ExpectAlike<v1::ProbeReply>(v1::METHOD_PROBE, with_parts(probe, owners),
                                          with_parts(probe, nobodys))
                  .code,
              absl::StatusCode::kOk);
    v1::PrefetchRequest prefetch;
    prefetch.set_hold_ms(1000);
    ExpectAlike<v1::PrefetchReply>(v1::METHOD_PREFETCH, with_parts(prefetch, owners),
                                   with_parts(prefetch, nobodys));
    v1::GetRequest get;
    get.set_wait_pending(1);
    ExpectAlike<v1::GetReply>(v1::METHOD_GET, with_parts(get, owners), with_parts(get, nobodys));
    get.set_hold_id(hold_);
    ExpectAlike<v1::GetReply>(v1::METHOD_GET, with_parts(get, owners), with_parts(get, nobodys));
    const auto with_part = [](auto request, const v1::Part& part) {
      *request.mutable_part() = part;
      return request;
    };
    ExpectAlike<v1::DeleteReply>(v1::METHOD_DELETE, with_part(v1::DeleteRequest(), owners),
                                 with_part(v1::DeleteRequest(), nobodys));
    ExpectAlike<v1::PinReply>(v1::METHOD_PIN, with_part(v1::PinRequest(), owners),
                              with_part(v1::PinRequest(), nobodys));
    ExpectAlike<v1::UnpinReply>(v1::METHOD_UNPIN, with_part(v1::UnpinRequest(), owners),
                                with_part(v1::UnpinRequest(), nobodys));
  }
  void ExpectOwnersUntouched() {
    const StoreUsage usage = room_->store().Usage();
    EXPECT_EQ(usage.holds, 1U);
    EXPECT_EQ(usage.leased_blocks, 1U);
    EXPECT_EQ(usage.regions, 1U);
    EXPECT_EQ(usage.tickets, 1U);
    EXPECT_EQ(Get(foreign_, {kStored}).payload(), TestPayload(kStored, kBlockBytes));
  }

  static constexpr uint32_t kRegion = 7;
  SlowTier tier_;
  std::unique_ptr<FrameClient> owner_;
  std::unique_ptr<CarrierClient> other_;
  std::string foreign_;  // the owner's namespace
  std::string own_;      // the other's, of the same record
  std::string hold_;
  std::string lease_;
  uint32_t slab_ = 0;
  uint64_t ticket_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Both,
                         TenantsTest,
                         ::testing::Values(CarrierKind::kSession, CarrierKind::kGrpc),
                         CarrierName);

TEST_P(TenantsTest, AForeignNamespaceIsAsOneThatNeverWas) {
  const std::string never(16, 'n');
  for (const uint64_t key : {kStored, kMoving}) {
    ExpectBlocksAlike(PartOf(foreign_, {key}), PartOf(never, {key}));
  }
  v1::PutRequest put;
  *put.mutable_part() = PartOf(foreign_, {kStored});
  put.set_payload(TestPayload(kStored, kBlockBytes));
  v1::PutRequest elsewhere = put;
  elsewhere.mutable_part()->set_namespace_digest(never);
  EXPECT_EQ(ExpectAlike<v1::PutReply>(v1::METHOD_PUT, put, elsewhere).code,
            absl::StatusCode::kNotFound);
  put.add_payload_bytes(kBlockBytes);
  elsewhere.add_payload_bytes(kBlockBytes);
  EXPECT_EQ(ExpectAlike<v1::PutReply>(v1::METHOD_PUT, put, elsewhere).code,
            absl::StatusCode::kNotFound);
  v1::ClearNamespaceRequest clear;
  clear.set_namespace_digest(foreign_);
  v1::ClearNamespaceRequest clear_nothing;
  clear_nothing.set_namespace_digest(never);
  EXPECT_EQ(
      ExpectAlike<v1::ClearNamespaceReply>(v1::METHOD_CLEAR_NAMESPACE, clear, clear_nothing).code,
      absl::StatusCode::kNotFound);
  ExpectOwnersUntouched();
}

TEST_P(TenantsTest, AKeyThatAnotherStoredIsAsOneThatNobodyStored) {
  for (const uint64_t key : {kStored, kMoving}) {
    ExpectBlocksAlike(PartOf(own_, {key}), PartOf(own_, {kNowhere}));
  }
  v1::PutRequest put;
  *put.mutable_part() = PartOf(own_, {kStored});
  put.set_payload(TestPayload(kStored, kBlockBytes));
  v1::PutReply reply;
  ASSERT_TRUE(other_->Call(v1::METHOD_PUT, put, &reply).ok());
  EXPECT_EQ(reply.outcomes(), std::string(1, static_cast<char>(v1::PUT_OUTCOME_STORED)))
      << "no tenant saves another the bytes";
  ExpectOwnersUntouched();
}

TEST_P(TenantsTest, ForeignIdsAreAsIdsThatNeverWere) {
  const auto release = [](const std::string& hold, const std::string& lease) {
    v1::ReleaseRequest request;
    request.add_hold_ids(hold);
    request.add_leases()->set_lease_id(lease);
    return request;
  };
  EXPECT_EQ(ExpectAlike<v1::ReleaseReply>(v1::METHOD_RELEASE, release(hold_, lease_),
                                          release(std::string(16, 'h'), std::string(16, 'l')))
                .code,
            absl::StatusCode::kOk);
  const auto ticket = [](uint64_t id) {
    v1::TicketRequest request;
    request.set_ticket(id);
    request.set_wait_ms(1);
    return request;
  };
  EXPECT_EQ(
      ExpectAlike<v1::TicketReply>(v1::METHOD_TICKET, ticket(ticket_), ticket(ticket_ + 4711)).code,
      absl::StatusCode::kNotFound);
  const auto cancel = [](uint64_t id) {
    v1::CancelRequest request;
    request.set_ticket(id);
    return request;
  };
  ExpectAlike<v1::CancelReply>(v1::METHOD_CANCEL, cancel(ticket_), cancel(ticket_ + 4711));
  EXPECT_FALSE(tier_.OldestIsCancelled());
  ExpectOwnersUntouched();
}

TEST_P(TenantsTest, ForeignMemoryIsAsMemoryThatNeverWas) {
  if (GetParam() == CarrierKind::kGrpc) {
    return;  // over gRPC no verb names slabs, regions or calls
  }
  const auto map = [](uint32_t id) {
    v1::MapSlabRequest request;
    request.set_slab_id(id);
    return request;
  };
  EXPECT_EQ(ExpectAlike<v1::MapSlabReply>(v1::METHOD_MAP_SLAB, map(slab_), map(slab_ + 4711)).code,
            absl::StatusCode::kNotFound);
  const auto get = [this](uint32_t region) {
    v1::GetRequest request;
    *request.add_parts() = PartOf(own_, {kStored});
    request.set_delivery(v1::DELIVERY_REGION);
    request.add_regions()->set_region_id(region);
    request.mutable_regions(0)->add_block_indexes(0);
    return request;
  };
  EXPECT_EQ(ExpectAlike<v1::GetReply>(v1::METHOD_GET, get(kRegion), get(4711)).code,
            absl::StatusCode::kNotFound);
  const auto put = [this](uint32_t region) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(own_, {kStored});
    request.mutable_region()->set_region_id(region);
    request.mutable_region()->add_block_indexes(0);
    return request;
  };
  EXPECT_EQ(ExpectAlike<v1::PutReply>(v1::METHOD_PUT, put(kRegion), put(4711)).code,
            absl::StatusCode::kNotFound);
  const auto unregister = [](uint32_t region) {
    v1::UnregisterRegionRequest request;
    request.set_region_id(region);
    return request;
  };
  ExpectAlike<v1::UnregisterRegionReply>(v1::METHOD_UNREGISTER_REGION, unregister(kRegion),
                                         unregister(4711));
  // A call of the owner's that waits for the block on its way up.
  v1::GetRequest waiting;
  *waiting.add_parts() = PartOf(foreign_, {kMoving});
  waiting.set_wait_pending(1);
  const uint64_t call = owner_->Send(v1::METHOD_GET, waiting);
  ASSERT_TRUE(Eventually([&] { return room_->store().Usage().calls_in_flight >= 2; }));
  const auto cancel = [](uint64_t id) {
    v1::CancelRequest request;
    request.set_call_id(id);
    return request;
  };
  ExpectAlike<v1::CancelReply>(v1::METHOD_CANCEL, cancel(call), cancel(call + 4711));
  ASSERT_TRUE(tier_.EndOne());
  const auto got = owner_->Result<v1::GetReply>(owner_->ReceiveReply(call));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->payload(), TestPayload(kMoving, kBlockBytes)) << "nobody else ended it";
}

TEST_P(TenantsTest, AStreamIsOfItsPeersTenant) {
  if (GetParam() == CarrierKind::kSession) {
    return;  // streams are for gRPC alone
  }
  const auto stub = v1::Cache::NewStub(grpc::CreateInsecureChannelFromFd(
      "localhost", ConnectedAsOther(room_->path("terrace.sock")).Release()));
  std::vector<std::string> answers;
  for (const std::string& digest : {foreign_, std::string(16, 'n')}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::GetRequest get;
    *get.add_parts() = PartOf(digest, {kStored});
    const auto reader = stub->GetStream(&context, get);
    v1::GetStreamReply message;
    std::string& answer = answers.emplace_back();
    while (reader->Read(&message)) {
      answer += message.SerializeAsString();
    }
    EXPECT_TRUE(reader->Finish().ok());
  }
  EXPECT_EQ(answers[0], answers[1]);
  std::vector<grpc::Status> ends;
  for (const std::string& digest : {foreign_, std::string(16, 'n')}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::PutReply reply;
    const auto writer = stub->PutStream(&context, &reply);
    v1::PutStreamRequest message;
    *message.mutable_request()->mutable_part() = PartOf(digest, {kNowhere});
    message.mutable_request()->add_payload_bytes(1);
    writer->Write(message);
    message.Clear();
    message.set_chunk("p");
    writer->Write(message);
    writer->WritesDone();
    ends.push_back(writer->Finish());
  }
  EXPECT_EQ(ends[0].error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ends[0].error_code(), ends[1].error_code());
  EXPECT_EQ(ends[0].error_message(), ends[1].error_message());
  ExpectOwnersUntouched();
}

}  // namespace
}  // namespace terrace::doubles
