// Mutated requests, frames and handshakes against a front on a real socket: it may refuse and hang up, with codes that
// the contract knows; it may not fall over, hang, leak, or trouble a bystander.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/carrier_client.h"
#include "tests/doubles/from_environment.h"
#include "tests/doubles/front_room.h"
#include "tests/fuzz/frames/message_mutator.h"

namespace terrace::doubles {
namespace {

constexpr uint32_t kBlockBytes = 4096;
// A session's peer is paused after a hundred refusals: before that a new one goes on.
constexpr int kRequestsPerSession = 60;

size_t OpenDescriptors() {
  size_t count = 0;
  for (int fd = 0; fd < 4096; ++fd) {
    count += fcntl(fd, F_GETFD) != -1 ? 1 : 0;
  }
  return count;
}

struct Sample {
  v1::Method method = v1::METHOD_UNSPECIFIED;
  std::shared_ptr<google::protobuf::Message> request;
  std::shared_ptr<google::protobuf::Message> reply;
};

template <typename Request, typename Reply>
Sample MakeSample(v1::Method method, const Request& request) {
  return {method, std::make_shared<Request>(request), std::make_shared<Reply>()};
}

v1::Part PartOf(const std::string& digest) {
  v1::Part part;
  part.set_namespace_digest(digest);
  part.set_keys(TestKey(1) + TestKey(2) + TestKey(3));
  part.add_end_tokens(16);
  part.add_end_tokens(32);
  part.add_end_tokens(48);
  return part;
}

// A good request of every verb of the contract.
std::vector<Sample> Samples(const std::string& digest) {
  std::vector<Sample> samples;
  v1::OpenNamespaceRequest open;
  *open.mutable_record() = TestRecord(kBlockBytes);
  samples.push_back(MakeSample<v1::OpenNamespaceRequest, v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open));
  v1::ProbeRequest probe;
  *probe.add_parts() = PartOf(digest);
  *probe.add_parts() = PartOf(digest);
  probe.set_hold_ms(10);
  samples.push_back(MakeSample<v1::ProbeRequest, v1::ProbeReply>(v1::METHOD_PROBE, probe));
  v1::PrefetchRequest prefetch;
  *prefetch.add_parts() = PartOf(digest);
  samples.push_back(MakeSample<v1::PrefetchRequest, v1::PrefetchReply>(v1::METHOD_PREFETCH, prefetch));
  v1::TicketRequest ticket;
  ticket.set_ticket(1);
  samples.push_back(MakeSample<v1::TicketRequest, v1::TicketReply>(v1::METHOD_TICKET, ticket));
  v1::GetRequest get;
  *get.add_parts() = PartOf(digest);
  get.add_regions()->set_region_id(1);
  for (uint32_t i = 0; i < 3; ++i) {
    get.mutable_regions(0)->add_block_indexes(i);
  }
  samples.push_back(MakeSample<v1::GetRequest, v1::GetReply>(v1::METHOD_GET, get));
  v1::ReleaseRequest release;
  release.add_leases()->set_lease_id(std::string(16, 'l'));
  release.add_hold_ids(std::string(16, 'h'));
  samples.push_back(MakeSample<v1::ReleaseRequest, v1::ReleaseReply>(v1::METHOD_RELEASE, release));
  v1::PutRequest put;
  *put.mutable_part() = PartOf(digest);
  put.add_payload_bytes(100);
  put.set_payload(std::string(300, 'p'));
  put.add_metadata()->add_token_ids(1);
  samples.push_back(MakeSample<v1::PutRequest, v1::PutReply>(v1::METHOD_PUT, put));
  samples.push_back(MakeSample<v1::FlushRequest, v1::FlushReply>(v1::METHOD_FLUSH, {}));
  v1::DeleteRequest del;
  *del.mutable_part() = PartOf(digest);
  samples.push_back(MakeSample<v1::DeleteRequest, v1::DeleteReply>(v1::METHOD_DELETE, del));
  v1::PinRequest pin;
  *pin.mutable_part() = PartOf(digest);
  samples.push_back(MakeSample<v1::PinRequest, v1::PinReply>(v1::METHOD_PIN, pin));
  v1::UnpinRequest unpin;
  *unpin.mutable_part() = PartOf(digest);
  samples.push_back(MakeSample<v1::UnpinRequest, v1::UnpinReply>(v1::METHOD_UNPIN, unpin));
  v1::CancelRequest cancel;
  cancel.set_call_id(3);
  samples.push_back(MakeSample<v1::CancelRequest, v1::CancelReply>(v1::METHOD_CANCEL, cancel));
  return samples;
}

// What only a session has.
std::vector<Sample> SessionSamples(const std::string& digest) {
  std::vector<Sample> samples = Samples(digest);
  v1::RegisterRegionRequest region;
  region.set_region_id(1);
  region.set_bytes(uint64_t{4} * kBlockBytes);
  region.mutable_geometry()->set_block_count(4);
  v1::Plane* plane = region.mutable_geometry()->add_planes();
  plane->set_block_stride(kBlockBytes);
  plane->add_segments()->set_bytes(kBlockBytes);
  samples.push_back(
      MakeSample<v1::RegisterRegionRequest, v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, region));
  v1::UnregisterRegionRequest unregister;
  unregister.set_region_id(1);
  samples.push_back(MakeSample<v1::UnregisterRegionRequest, v1::UnregisterRegionReply>(
      v1::METHOD_UNREGISTER_REGION, unregister));
  v1::MapSlabRequest map;
  map.set_slab_id(1);
  samples.push_back(MakeSample<v1::MapSlabRequest, v1::MapSlabReply>(v1::METHOD_MAP_SLAB, map));
  samples.push_back(MakeSample<v1::PingRequest, v1::PingReply>(v1::METHOD_PING, {}));
  v1::WatchRequest watch;
  watch.set_snapshot(true);
  watch.add_namespaces(digest);
  watch.set_heartbeat_ms(5);
  samples.push_back(MakeSample<v1::WatchRequest, v1::WatchReply>(v1::METHOD_WATCH, watch));
  return samples;
}

bool IsDocumented(absl::StatusCode code) {
  using Code = absl::StatusCode;
  static const std::set<Code> kCodes = {
      Code::kOk,          Code::kInvalidArgument,   Code::kNotFound,     Code::kAlreadyExists,
      Code::kUnavailable, Code::kResourceExhausted, Code::kUnimplemented, Code::kFailedPrecondition,
      Code::kDeadlineExceeded};
  return kCodes.contains(code);
}

class FramesFuzz : public ::testing::Test {
 protected:
  void SetUp() override {
    iterations_ = doubles::FromEnvironment("TERRACE_FUZZ_ITERATIONS", 20'000);
    seed_ = doubles::FromEnvironment(
        "TERRACE_FUZZ_SEED", static_cast<uint64_t>(absl::ToInt64Nanoseconds(BootClock().Now())));
    std::printf("TERRACE_FUZZ_SEED=%llu TERRACE_FUZZ_ITERATIONS=%llu\n",
                static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(iterations_));
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    absl::StatusOr<std::unique_ptr<FrameClient>> bystander = room_->NewSession();
    ASSERT_TRUE(bystander.ok());
    bystander_ = *std::move(bystander);
    v1::OpenNamespaceRequest open;
    *open.mutable_record() = TestRecord(kBlockBytes);
    const auto opened = bystander_->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open);
    ASSERT_TRUE(opened.ok());
    digest_ = opened->namespace_digest();
    memory_ = Descriptor(memfd_create("fuzz", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(memory_.get(), 4 * kBlockBytes), 0);
    OpenOdd();
    ASSERT_TRUE(Pings());
    descriptors_before_ = OpenDescriptors();
  }
  // One of each kind that a peer may send where another, or none, belongs.
  void OpenOdd() {
    odd_.clear();
    odd_.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
    odd_.emplace_back(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    odd_.emplace_back(::open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    odd_.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    odd_.emplace_back(eventfd(0, EFD_CLOEXEC));
    odd_.emplace_back(epoll_create1(EPOLL_CLOEXEC));
    int ends[2] = {-1, -1};
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    odd_.emplace_back(ends[0]);
    odd_.emplace_back(ends[1]);
    odd_.emplace_back(memfd_create("empty", MFD_CLOEXEC));
    odd_.emplace_back(memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(ftruncate(odd_.back().get(), kBlockBytes), 0);
    ASSERT_EQ(fcntl(odd_.back().get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL), 0);
    for (const Descriptor& descriptor : odd_) {
      ASSERT_TRUE(descriptor.valid());
    }
  }
  // `count` descriptors, mostly the one that belongs there.
  std::vector<int> Descriptors(MessageMutator& mutator, uint64_t count, int right) const {
    std::vector<int> chosen(count, right);
    for (int& fd : chosen) {
      fd = mutator.OneIn(4) ? odd_[mutator.Pick(odd_.size())].get() : right;
    }
    return chosen;
  }

  bool Pings() { return bystander_->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok(); }

  // All attackers have gone: nothing of theirs is left.
  void ExpectClean() {
    EXPECT_TRUE(Pings());
    EXPECT_TRUE(Eventually([&] {
      const StoreUsage usage = room_->store().Usage();
      return usage.sessions == 1 && usage.regions == 0 && usage.calls_in_flight == 0 &&
             usage.watchers == 0;
    }));
    EXPECT_TRUE(Eventually([&] { return OpenDescriptors() <= descriptors_before_ + kSlack; }))
        << OpenDescriptors() << " open, " << descriptors_before_ << " before";
  }
  // gRPC makes some of its own with the first connection; the pidfds of this very process stay watched, one an I/O thread.
  static constexpr size_t kSlack = 24;

  uint64_t iterations_ = 0;
  uint64_t seed_ = 0;
  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> bystander_;
  std::string digest_;
  Descriptor memory_;
  std::vector<Descriptor> odd_;
  size_t descriptors_before_ = 0;
};

TEST_F(FramesFuzz, MutatedRequestsOnASession) {
  MessageMutator mutator(seed_);
  const std::vector<Sample> samples = SessionSamples(digest_);
  std::unique_ptr<FrameClient> client;
  int left = 0;
  for (uint64_t i = 0; i < iterations_; ++i) {
    if (client == nullptr || left-- == 0) {
      client.reset();
      absl::StatusOr<std::unique_ptr<FrameClient>> next;
      ASSERT_TRUE(Eventually([&] {
        next = room_->NewSession();
        return next.ok();
      })) << i;
      client = *std::move(next);
      left = kRequestsPerSession;
    }
    const Sample& sample = samples[mutator.Pick(samples.size())];
    const std::unique_ptr<google::protobuf::Message> request(sample.request->New());
    request->CopyFrom(*sample.request);
    mutator.Mutate(request.get());
    std::string bytes = request->SerializeAsString();
    if (mutator.OneIn(5)) {
      bytes = mutator.MutateBytes(std::move(bytes));
    }
    std::vector<int> descriptors;
    if ((sample.method == v1::METHOD_REGISTER_REGION && !mutator.OneIn(10)) || mutator.OneIn(100)) {
      descriptors = Descriptors(mutator, mutator.OneIn(20) ? mutator.Pick(12) : 1, memory_.get());
    }
    const uint64_t id = client->SendRequest(sample.method, bytes, descriptors, mutator.OneIn(4) ? 1 : 0);
    const std::optional<ClientFrame> reply = client->ReceiveReply(id);
    if (!reply.has_value()) {
      ASSERT_TRUE(client->SeesEnd(absl::ZeroDuration())) << "no answer to request " << i;
      client.reset();
      continue;
    }
    ASSERT_TRUE(IsDocumented(static_cast<absl::StatusCode>(reply->status)))
        << i << ": " << reply->status << " " << request->ShortDebugString();
    ASSERT_TRUE(i % 1000 != 0 || Pings());
  }
  client.reset();
  ExpectClean();
}

TEST_F(FramesFuzz, MutatedFramesAndHandshakes) {
  MessageMutator mutator(seed_);
  const absl::StatusOr<PidDescriptor> self = PidDescriptor::Open(getpid());
  ASSERT_TRUE(self.ok());
  const std::vector<Sample> samples = SessionSamples(digest_);
  for (uint64_t i = 0; i < iterations_ / 4; ++i) {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->Connect();
    ASSERT_TRUE(client.ok()) << i;
    v1::HelloRequest hello;
    hello.set_protocol_major(1);
    hello.set_pidfd(true);
    if (mutator.OneIn(3)) {
      mutator.Mutate(&hello);
    }
    // Also more than a frame may carry, and a count that is not what comes.
    const std::vector<int> passed =
        Descriptors(mutator, mutator.OneIn(4) ? mutator.Pick(20) : 1, self->get());
    const auto announced = static_cast<uint8_t>(mutator.OneIn(8) ? mutator.Pick(256) : passed.size());
    std::string payload = hello.SerializeAsString();
    if (mutator.OneIn(10)) {
      payload = mutator.MutateBytes(std::move(payload));
    }
    std::string stream;
    for (uint64_t n = 0; n <= mutator.Pick(4); ++n) {
      ClientFrame frame;
      const Sample& sample = samples[mutator.Pick(samples.size())];
      const std::string body = n == 0 ? payload : sample.request->SerializeAsString();
      frame.payload_bytes = static_cast<uint32_t>(body.size());
      frame.method = static_cast<uint16_t>(n == 0 ? v1::METHOD_HELLO : sample.method);
      frame.call_id = n + 1;
      frame.descriptor_count = n == 0 ? announced : 0;
      std::string bytes = frame.Header() + body;
      stream += mutator.OneIn(3) ? mutator.MutateBytes(std::move(bytes)) : bytes;
    }
    const size_t cut = mutator.OneIn(3) ? mutator.Pick(stream.size() + 1) : stream.size();
    (*client)->SendBytes(std::string_view(stream).substr(0, cut), passed);
    (*client)->SendBytes(std::string_view(stream).substr(cut));
    // Whatever comes, comes before a half-closed socket is given up.
    shutdown((*client)->get(), SHUT_WR);
    ASSERT_TRUE((*client)->SeesEnd()) << i;
    ASSERT_TRUE(i % 1000 != 0 || Pings());
  }
  ExpectClean();
}

TEST_F(FramesFuzz, MutatedRequestsOverGrpc) {
  MessageMutator mutator(seed_);
  const std::vector<Sample> samples = Samples(digest_);
  std::unique_ptr<CarrierClient> client;
  for (uint64_t i = 0; i < iterations_ / 4; ++i) {
    if (i % kRequestsPerSession == 0) {
      client.reset();
      absl::StatusOr<std::unique_ptr<CarrierClient>> next = OpenGrpcCarrier(room_->folder());
      ASSERT_TRUE(next.ok());
      client = *std::move(next);
    }
    const Sample& sample = samples[mutator.Pick(samples.size())];
    const std::unique_ptr<google::protobuf::Message> request(sample.request->New());
    request->CopyFrom(*sample.request);
    mutator.Mutate(request.get());
    std::string bytes = request->SerializeAsString();
    if (mutator.OneIn(5)) {
      bytes = mutator.MutateBytes(std::move(bytes));
    }
    const CallEnd end =
        client->CallWithBytes(sample.method, bytes, sample.reply.get(), absl::InfiniteDuration());
    ASSERT_TRUE(IsDocumented(end.code)) << i << ": " << static_cast<int>(end.code) << " " << end.message << " "
                                        << request->ShortDebugString();
    ASSERT_TRUE(i % 1000 != 0 || Pings());
  }
  client.reset();
  ExpectClean();
}

}  // namespace
}  // namespace terrace::doubles
