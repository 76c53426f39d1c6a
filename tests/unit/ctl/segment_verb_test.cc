// `terracectl segment` over files that a tier wrote, and over garbage.
#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

#include "tests/doubles/manual_clock.h"
#include "tests/doubles/pool_executor.h"
#include "tests/doubles/private_folder.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/segment/segment_tier.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/format.h"
#include "tools/ctl/proto_json.h"

namespace terrace::ctl {
namespace {

namespace fs = std::filesystem;

constexpr int kBlocks = 3;
constexpr uint32_t kPayloadBytes = 9000;

std::string KeyOf(int number) {
  return "key-of-32-bytes-for-block-number" + std::to_string(number);
}

class SegmentVerb : public testing::Test {
 protected:
  struct Outcome {
    int exit_code = -1;
    std::string out;
    std::string err;
  };
  static Outcome Run(std::vector<std::string> args) {
    std::istringstream in;
    std::ostringstream out;
    std::ostringstream err;
    Terminal terminal{in, out, err};
    args.insert(args.begin(), "segment");
    Outcome outcome;
    outcome.exit_code = RunCtl(args, "/nowhere", terminal);
    outcome.out = out.str();
    outcome.err = err.str();
    return outcome;
  }
  static Json RunJson(std::vector<std::string> args, int exit_code) {
    args.emplace_back("--json");
    const Outcome outcome = Run(args);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.out;
    EXPECT_EQ(outcome.err, "");
    absl::StatusOr<Json> json = ParseJson(outcome.out);
    EXPECT_TRUE(json.ok() && json->is_object()) << outcome.out;
    return json.ok() ? *json : Json();
  }

  // A tier with kBlocks blocks, closed in order unless the test wants it as a kill leaves it.
  enum class End : uint8_t { kClosed, kKilled };
  void MakeTier(End end) {
    doubles::ManualClock clock;
    doubles::PoolExecutor executor{2};
    const std::unique_ptr<AsyncIo> io = MakeThreadedIo({}, clock);
    SegmentTierOptions options;
    options.path = tier_;
    options.segment_bytes = uint64_t{1} << 20;
    options.max_payload_bytes = 64 << 10;
    options.capacity_bytes = uint64_t{8} << 20;
    options.free_reserve_bytes = 0;
    const SegmentTierParts parts = {&KernelFileSystem(), io.get(), &clock, &executor,
                                    &executor,           nullptr,  nullptr};
    absl::StatusOr<std::unique_ptr<SegmentTier>> tier = OpenSegmentTier(options, parts);
    ASSERT_TRUE(tier.ok()) << tier.status();
    for (int i = 0; i < kBlocks; ++i) {
      Write(**tier, KeyOf(i));
    }
    if (end == End::kKilled) {
      fs::copy(tier_, tier_ + ".killed");
    }
    absl::Notification closed;
    (*tier)->Close([&](const absl::Status&) { closed.Notify(); });
    closed.WaitForNotification();
    tier->reset();
    if (end == End::kKilled) {
      fs::remove_all(tier_);
      fs::rename(tier_ + ".killed", tier_);
    }
  }
  static void Write(SegmentTier& tier, const std::string& key) {
    const AlignedBuffer slot(kPageBytes + uint64_t{PagesOf(kPayloadBytes)} * kPageBytes);
    std::memset(slot.bytes() + kPageBytes, key.back(), kPayloadBytes);
    WriteRequest request;
    request.identity = {{0x11, 0x22}, 1, "", key};
    request.slot = slot.span();
    request.payload_bytes = kPayloadBytes;
    request.checksum = PayloadChecksum(slot.span().subspan(kPageBytes, kPayloadBytes));
    absl::Notification written;
    WriteOutcome outcome = WriteOutcome::kFault;
    tier.Write(request, [&](WriteOutcome ended, const LowerBlock&) {
      outcome = ended;
      written.Notify();
    });
    written.WaitForNotification();
    ASSERT_EQ(outcome, WriteOutcome::kWritten);
  }
  std::string SegmentPath() const {
    for (const fs::directory_entry& entry : fs::directory_iterator(tier_)) {
      if (entry.path().filename().string().rfind("segment-", 0) == 0) {
        return entry.path();
      }
    }
    return "";
  }
  static void Flip(const std::string& path, uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 1));
  }

  doubles::PrivateFolder folder_;
  std::string tier_ = folder_.path() + "/tier";
};

TEST_F(SegmentVerb, ASealedSegmentIsListedRecordByRecord) {
  MakeTier(End::kClosed);
  const Json json = RunJson({SegmentPath(), "--verify"}, 0);
  ASSERT_EQ(json["segments"].size(), 1U);
  const Json& segment = json["segments"][0];
  EXPECT_EQ(segment["use"], "used");
  EXPECT_EQ(segment["role"], "blocks");
  EXPECT_EQ(segment["footer"], "sound");
  EXPECT_EQ(segment["records"], kBlocks);
  ASSERT_EQ(segment["listed"].size(), kBlocks);
  for (int i = 0; i < kBlocks; ++i) {
    const Json& record = segment["listed"][i];
    EXPECT_EQ(record["key"], Hex(KeyOf(i)));
    EXPECT_EQ(record["payload_bytes"], kPayloadBytes);
    EXPECT_EQ(record["state"], "sound");
    EXPECT_EQ(record["kind"], "block");
  }
  const Outcome text = Run({SegmentPath()});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_NE(text.out.find(Hex(KeyOf(1))), std::string::npos) << text.out;
}

TEST_F(SegmentVerb, AFolderShowsItsSuperblockAndItsSegments) {
  MakeTier(End::kClosed);
  const Json json = RunJson({tier_}, 0);
  EXPECT_EQ(json["superblock"]["segment_bytes"], 1 << 20);
  EXPECT_EQ(json["superblock"]["copies"], Json({"sound", "sound"}));
  EXPECT_EQ(json["segments"][0]["tier_uuid"], json["superblock"]["uuid"]);
  EXPECT_EQ(json["segments"][0]["listed"].size(), 0U);
  EXPECT_EQ(json["records"], kBlocks);
  EXPECT_EQ(RunJson({tier_, "--records"}, 0)["segments"][0]["listed"].size(), kBlocks);
}

TEST_F(SegmentVerb, ASegmentThatWasNeverSealedIsReadByItsHeaders) {
  MakeTier(End::kKilled);
  const Json json = RunJson({SegmentPath(), "--verify"}, 0);
  EXPECT_EQ(json["segments"][0]["footer"], "none");
  EXPECT_EQ(json["segments"][0]["records"], kBlocks);
}

TEST_F(SegmentVerb, AFlippedPayloadIsFoundOnlyWhenPayloadsAreRead) {
  MakeTier(End::kClosed);
  Flip(SegmentPath(), 2 * kPageBytes + 5000);  // page 1 is the first header
  EXPECT_EQ(RunJson({SegmentPath()}, 0)["damaged"], 0);
  const Json json = RunJson({tier_, "--verify"}, 1);
  EXPECT_EQ(json["damaged"], 1);
  EXPECT_EQ(json["segments"][0]["listed"][0]["state"], "payload_damaged");
}

TEST_F(SegmentVerb, ADamagedHeaderShowsAndTheRecordsAroundItStay) {
  MakeTier(End::kClosed);
  Flip(SegmentPath(), kPageBytes + 100);
  const Json json = RunJson({SegmentPath()}, 1);
  EXPECT_EQ(json["segments"][0]["listed"][0]["state"], "header_damaged");
  EXPECT_EQ(json["segments"][0]["listed"][1]["state"], "sound");
}

TEST_F(SegmentVerb, ADamagedHeadIsTakenFromTheFooterAndADamagedFooterFromTheHeaders) {
  MakeTier(End::kClosed);
  Flip(SegmentPath(), 20);
  EXPECT_EQ(RunJson({SegmentPath()}, 0)["segments"][0]["use"], "head_damaged");
  Flip(SegmentPath(), 20);
  Flip(SegmentPath(), (1 << 20) - 4000);
  const Json json = RunJson({SegmentPath()}, 0);
  EXPECT_EQ(json["segments"][0]["footer"], "damaged");
  EXPECT_EQ(json["segments"][0]["records"], kBlocks);
}

TEST_F(SegmentVerb, GarbageGivesOneClearLine) {
  const std::string path = folder_.path() + "/x";
  for (const uint64_t bytes : {1U, 4096U, 12288U, 5000U}) {
    std::ofstream(path, std::ios::binary) << std::string(bytes, '\x5a');
    const Outcome outcome = Run({path});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.err.find("is not a segment"), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1);
  }
  EXPECT_EQ(Run({folder_.path() + "/absent"}).exit_code, 1);
  EXPECT_EQ(Run({folder_.path()}).exit_code, 1);
  EXPECT_EQ(Run({}).exit_code, 2);
}

TEST_F(SegmentVerb, NothingIsWrittenAndALockIsNoHindrance) {
  MakeTier(End::kClosed);
  const std::string path = SegmentPath();
  const auto bytes = [](const std::string& of) {
    std::ifstream in(of, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  };
  const std::string segment = bytes(path);
  const std::string superblock = bytes(tier_ + "/terrace.superblock");
  const absl::StatusOr<std::unique_ptr<Folder>> owner =
      KernelFileSystem().OpenFolder(tier_, FolderMode::kExisting);
  ASSERT_TRUE((*owner)->OwnExclusively().ok());
  chmod(path.c_str(), 0400);
  EXPECT_EQ(Run({tier_, "--verify"}).exit_code, 0);
  EXPECT_TRUE(bytes(path) == segment);
  EXPECT_TRUE(bytes(tier_ + "/terrace.superblock") == superblock);
}

}  // namespace
}  // namespace terrace::ctl
