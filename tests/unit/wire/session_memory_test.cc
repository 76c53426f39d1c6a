// What a session does with memory: leases through mapped slabs, regions, and what is left when the process dies.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/doubles/front_room.h"

namespace terrace::doubles {
namespace {

constexpr uint32_t kBlockBytes = 8192;

class SessionMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    digest_ = OpenNamespace(*client_);
    PutInline(*client_, digest_, {1, 2});
  }

  static std::string OpenNamespace(FrameClient& client) {
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(kBlockBytes);
    const auto reply = client.Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, request);
    return reply.ok() ? reply->namespace_digest() : "";
  }
  static v1::Part PartOf(const std::string& digest, const std::vector<uint64_t>& keys) {
    v1::Part part;
    part.set_namespace_digest(digest);
    for (const uint64_t key : keys) {
      part.mutable_keys()->append(TestKey(key));
    }
    return part;
  }
  static void PutInline(FrameClient& client, const std::string& digest, const std::vector<uint64_t>& keys) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(digest, keys);
    for (const uint64_t key : keys) {
      request.mutable_payload()->append(TestPayload(key, kBlockBytes));
    }
    const auto reply = client.Call<v1::PutReply>(v1::METHOD_PUT, request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    for (const char outcome : reply->outcomes()) {
      EXPECT_EQ(outcome, v1::PUT_OUTCOME_STORED);
    }
  }
  static absl::StatusOr<v1::GetReply> GetLease(FrameClient& client, const std::string& digest, uint64_t key) {
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest, {key});
    request.set_delivery(v1::DELIVERY_LEASE);
    return client.Call<v1::GetReply>(v1::METHOD_GET, request);
  }
  static v1::RegisterRegionRequest RegionOf(uint64_t bytes, uint32_t blocks) {
    v1::RegisterRegionRequest request;
    request.set_region_id(1);
    request.set_bytes(bytes);
    request.mutable_geometry()->set_block_count(blocks);
    v1::Plane* plane = request.mutable_geometry()->add_planes();
    plane->set_block_stride(kBlockBytes);
    plane->add_segments()->set_bytes(kBlockBytes);
    return request;
  }
  static Descriptor Memory(uint64_t bytes) {
    Descriptor memory(memfd_create("region", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(memory.get(), static_cast<off_t>(bytes)), 0);
    return memory;
  }

  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> client_;
  std::string digest_;
};

TEST_F(SessionMemoryTest, ALeasedBlockIsReadThroughTheMappedSlab) {
  const auto lease = GetLease(*client_, digest_, 2);
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_EQ(lease->slab_ids_size(), 1);
  v1::MapSlabRequest request;
  request.set_slab_id(lease->slab_ids(0));
  const auto reply = client_->Call<v1::MapSlabReply>(v1::METHOD_MAP_SLAB, request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(client_->received().size(), 1U);
  const int fd = client_->received().front().get();
  const absl::StatusOr<Mapping> slab = Mapping::Map(fd, 0, reply->slab_bytes(), MapAccess::kReadOnly);
  ASSERT_TRUE(slab.ok()) << slab.status();
  EXPECT_EQ(std::string(slab->data() + lease->slab_offsets(0), kBlockBytes), TestPayload(2, kBlockBytes));
  EXPECT_FALSE(Mapping::Map(fd, 0, reply->slab_bytes(), MapAccess::kReadWrite).ok());
}

TEST_F(SessionMemoryTest, AnUnknownSlabIsNotFound) {
  v1::MapSlabRequest request;
  request.set_slab_id(4711);
  EXPECT_TRUE(absl::IsNotFound(client_->Call<v1::MapSlabReply>(v1::METHOD_MAP_SLAB, request).status()));
  EXPECT_TRUE(client_->received().empty());
}

TEST_F(SessionMemoryTest, BlocksGoOutOfAndIntoRegions) {
  const Descriptor memory = Memory(4 * kBlockBytes);
  const absl::StatusOr<Mapping> view = Mapping::Map(memory.get(), 0, 4 * kBlockBytes, MapAccess::kReadWrite);
  ASSERT_TRUE(view.ok());
  const auto registered = client_->Call<v1::RegisterRegionReply>(
      v1::METHOD_REGISTER_REGION, RegionOf(4 * kBlockBytes, 4), {memory.get()});
  ASSERT_TRUE(registered.ok()) << registered.status();
  EXPECT_EQ(registered->payload_bytes(), kBlockBytes);

  v1::GetRequest get;
  *get.add_parts() = PartOf(digest_, {1, 2});
  get.set_delivery(v1::DELIVERY_REGION);
  get.add_regions()->set_region_id(1);
  get.mutable_regions(0)->add_block_indexes(3);
  get.mutable_regions(0)->add_block_indexes(0);
  const auto got = client_->Call<v1::GetReply>(v1::METHOD_GET, get);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->outcomes(), std::string(2, static_cast<char>(v1::GET_OUTCOME_OK)));
  EXPECT_EQ(std::string(view->data() + 3 * kBlockBytes, kBlockBytes), TestPayload(1, kBlockBytes));
  EXPECT_EQ(std::string(view->data(), kBlockBytes), TestPayload(2, kBlockBytes));

  v1::PutRequest put;
  *put.mutable_part() = PartOf(digest_, {3});
  put.mutable_region()->set_region_id(1);
  put.mutable_region()->add_block_indexes(3);
  const auto stored = client_->Call<v1::PutReply>(v1::METHOD_PUT, put);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->outcomes(), std::string(1, static_cast<char>(v1::PUT_OUTCOME_STORED)));

  v1::UnregisterRegionRequest gone;
  gone.set_region_id(1);
  EXPECT_TRUE(client_->Call<v1::UnregisterRegionReply>(v1::METHOD_UNREGISTER_REGION, gone).ok());
  EXPECT_TRUE(client_->Call<v1::UnregisterRegionReply>(v1::METHOD_UNREGISTER_REGION, gone).ok());
  EXPECT_TRUE(absl::IsNotFound(client_->Call<v1::PutReply>(v1::METHOD_PUT, put).status()));
}

TEST_F(SessionMemoryTest, RegionsThatBreakARuleAreRefused) {
  const Descriptor memory = Memory(4 * kBlockBytes);
  const auto refused = [&](v1::RegisterRegionRequest request, const std::string& field) {
    const auto reply = client_->Call<v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, request, {memory.get()});
    EXPECT_TRUE(absl::IsInvalidArgument(reply.status())) << field << ": " << reply.status();
    EXPECT_EQ(client_->error().field(), field) << reply.status();
  };
  v1::RegisterRegionRequest request = RegionOf(4 * kBlockBytes, 4);
  request.set_region_id(0);
  refused(request, "region_id");
  request = RegionOf(4 * kBlockBytes, 4);
  request.set_offset(1);
  refused(request, "offset");
  request.set_offset(4096);
  refused(request, "bytes");
  request.set_offset(UINT64_MAX - 4095);
  refused(request, "bytes");
  refused(RegionOf(0, 4), "bytes");
  refused(RegionOf(4 * kBlockBytes + 1, 4), "bytes");
  refused(RegionOf(4 * kBlockBytes, 0), "geometry.block_count");
  refused(RegionOf(4 * kBlockBytes, 5), "");
  request = RegionOf(4 * kBlockBytes, 4);
  request.mutable_geometry()->clear_planes();
  refused(request, "geometry.planes");
  request = RegionOf(4 * kBlockBytes, 4);
  request.mutable_geometry()->mutable_planes(0)->clear_segments();
  refused(request, "geometry.planes[0].segments");
  request = RegionOf(4 * kBlockBytes, 4);
  request.set_kind(static_cast<v1::RegionKind>(9));
  refused(request, "kind");
  EXPECT_EQ(room_->store().Usage().regions, 0U);
}

TEST_F(SessionMemoryTest, GpuRegionsAreNotServedWhereThereIsNoDriver) {
  const Descriptor memory = Memory(kBlockBytes);
  v1::RegisterRegionRequest request = RegionOf(kBlockBytes, 1);
  request.set_kind(v1::REGION_KIND_CUDA_VMM);
  EXPECT_TRUE(absl::IsUnimplemented(
      client_->Call<v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, request, {memory.get()}).status()));
  request.set_kind(v1::REGION_KIND_CUDA_IPC);
  request.set_handle(std::string(64, 'h'));
  EXPECT_TRUE(absl::IsUnimplemented(
      client_->Call<v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, request).status()));
}

TEST_F(SessionMemoryTest, OnlyMemoryMayBeARegion) {
  // A file of a file system could hang; so could a pipe or a device.
  for (const char* path : {"/proc/self/exe", "/dev/null"}) {
    const Descriptor file(open(path, O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(file.valid());
    v1::RegisterRegionRequest request = RegionOf(kBlockBytes, 1);
    request.set_read_only(true);
    const auto reply = client_->Call<v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, request, {file.get()});
    EXPECT_TRUE(absl::IsInvalidArgument(reply.status())) << path;
    EXPECT_EQ(client_->error().field(), "descriptor");
  }
}

TEST_F(SessionMemoryTest, ARegionWithoutItsDescriptorEndsTheConnection) {
  client_->Send(v1::METHOD_REGISTER_REGION, RegionOf(kBlockBytes, 1));
  EXPECT_TRUE(client_->SeesEnd());
}

TEST_F(SessionMemoryTest, LeasesOutliveTheSocketAndEndWithTheProcess) {
  int ready[2] = {-1, -1};
  ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
  const Descriptor read_end(ready[0]);
  Descriptor write_end(ready[1]);
  const std::string digest = digest_;
  const pid_t child = fork();
  if (child == 0) {
    {
      absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
      const bool leased = client.ok() && GetLease(**client, digest, 1).ok();
      const char word = leased ? 'y' : 'n';
      if (write(write_end.get(), &word, 1) != 1) {
        _exit(1);
      }
    }
    // The socket is closed, the process lives on.
    if (write(write_end.get(), "c", 1) != 1) {
      _exit(1);
    }
    while (true) {
      pause();
    }
  }
  write_end = Descriptor();
  char word[2] = {};
  ASSERT_EQ(read(read_end.get(), &word[0], 1), 1);
  EXPECT_EQ(word[0], 'y');
  ASSERT_EQ(read(read_end.get(), &word[1], 1), 1);
  EXPECT_TRUE(Eventually([&] { return room_->store().Usage().sessions == 1; }));
  EXPECT_EQ(room_->store().Usage().leased_blocks, 1U);
  EXPECT_GT(room_->store().Usage().quarantined_bytes, 0U);
  kill(child, SIGKILL);
  EXPECT_TRUE(Eventually([&] { return room_->store().Usage().leased_blocks == 0; }));
  EXPECT_EQ(room_->store().Usage().quarantined_bytes, 0U);
  waitpid(child, nullptr, 0);
}

TEST_F(SessionMemoryTest, AProcessThatIsKilledGivesEverythingBack) {
  const StoreUsage before = room_->store().Usage();
  for (int i = 0; i < 20; ++i) {
    int ready[2] = {-1, -1};
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    const Descriptor read_end(ready[0]);
    Descriptor write_end(ready[1]);
    const std::string digest = digest_;
    const pid_t child = fork();
    if (child == 0) {
      absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
      const Descriptor memory(memfd_create("region", MFD_CLOEXEC));
      bool good = client.ok() && ftruncate(memory.get(), kBlockBytes) == 0;
      good = good && GetLease(**client, digest, 1).ok();
      good = good && (*client)
                         ->Call<v1::RegisterRegionReply>(
                             v1::METHOD_REGISTER_REGION, RegionOf(kBlockBytes, 1), {memory.get()})
                         .ok();
      v1::ProbeRequest probe;
      *probe.add_parts() = PartOf(digest, {1, 2});
      probe.set_hold_ms(600'000);
      good = good && (*client)->Call<v1::ProbeReply>(v1::METHOD_PROBE, probe).ok();
      const char word = good ? 'y' : 'n';
      _exit(write(write_end.get(), &word, 1) == 1 && pause() != 0 ? 0 : 1);
    }
    write_end = Descriptor();
    char word = 0;
    ASSERT_EQ(read(read_end.get(), &word, 1), 1);
    EXPECT_EQ(word, 'y');
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  EXPECT_TRUE(Eventually([&] {
    const StoreUsage usage = room_->store().Usage();
    return usage.sessions == before.sessions && usage.leased_blocks == 0 && usage.holds == 0 &&
           usage.regions == 0 && usage.quarantined_bytes == 0;
  }));
  EXPECT_TRUE(client_->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
}

}  // namespace
}  // namespace terrace::doubles
