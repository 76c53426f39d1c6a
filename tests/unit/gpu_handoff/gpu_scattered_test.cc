// Blocks of a million segments together: slow, as the stand-in copies each by itself.
#include "tests/unit/gpu_handoff/gpu_room.h"
#include "tiers/gpu/copy_plan.h"

namespace terrace::doubles {
namespace {

class ScatteredTest : public GpuRoomTest {
 protected:
  template <typename Reply>
  absl::StatusOr<Reply> Await(v1::Method method, const google::protobuf::MessageLite& request) {
    return client_->Result<Reply>(
        client_->ReceiveReply(client_->Send(method, request), absl::Minutes(5)));
  }
};

// More pieces than one plan may have, in small blocks: several copies.
TEST_F(ScatteredTest, ACallOfMorePiecesThanAPlanHoldsIsSeveralCopies) {
  constexpr uint32_t kSegments = 1000;
  constexpr uint32_t kPlanes = 20;
  constexpr uint32_t kMany = 60;
  constexpr uint64_t kStride = 8 * kSegments;
  static_assert(uint64_t{kSegments} * kPlanes * kMany > kMaxPiecesOfPlan);
  Open();
  v1::OpenNamespaceRequest open;
  *open.mutable_record() = TestRecord(uint64_t{4} * kSegments * kPlanes);
  open.mutable_record()->set_model("scattered");
  digest_ =
      client_->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open)->namespace_digest();
  const uint64_t bytes = kStride * kMany * kPlanes;
  const cuda::DevicePointer memory = Allocate(bytes);
  v1::RegisterRegionRequest region = RegionOf(memory);
  region.set_allocation_bytes(bytes);
  region.set_bytes(bytes);
  region.mutable_geometry()->clear_planes();
  region.mutable_geometry()->set_block_count(kMany);
  for (uint32_t p = 0; p < kPlanes; ++p) {
    v1::Plane* plane = region.mutable_geometry()->add_planes();
    plane->set_offset(p * kStride * kMany);
    plane->set_block_stride(kStride);
    for (uint32_t s = 0; s < kSegments; ++s) {
      v1::Segment* segment = plane->add_segments();
      segment->set_offset(uint64_t{8} * s);
      segment->set_bytes(4);
    }
  }
  const auto registered = Register(*client_, region);
  ASSERT_TRUE(registered.ok()) << registered.status();
  const std::string all = Seeded(2).Bytes(bytes);
  Write(memory, all);
  const auto put = Await<v1::PutReply>(v1::METHOD_PUT, PutOf(Numbers(0, kMany), Numbers(0, kMany)));
  ASSERT_TRUE(put.ok()) << put.status();
  ASSERT_EQ(put->outcomes(), std::string(kMany, static_cast<char>(v1::PUT_OUTCOME_STORED)));
  Write(memory, std::string(bytes, '\0'));
  const auto get = Await<v1::GetReply>(v1::METHOD_GET, GetOf(Numbers(0, kMany), Numbers(0, kMany)));
  ASSERT_TRUE(get.ok()) << get.status();
  ASSERT_EQ(get->outcomes(), std::string(kMany, static_cast<char>(v1::GET_OUTCOME_OK)));
  const std::string after = Read(memory, bytes);
  for (uint64_t i = 0; i < bytes; i += 8) {
    ASSERT_EQ(after.compare(i, 4, all, i, 4), 0) << i;
  }
}

}  // namespace
}  // namespace terrace::doubles
