#include "tools/trace/request_trace.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include <zlib.h>

#include "tiers/placement/replay.h"

namespace terrace {
namespace {

using Ids = std::vector<uint64_t>;

class RequestTraceTest : public testing::Test {
 protected:
  RequestTraceTest() {
    std::string name = (std::filesystem::temp_directory_path() / "terrace-trace.XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~RequestTraceTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<RequestTrace> Read(const std::string& content, uint64_t max_requests = 0) {
    const std::string path = (folder_ / "some.trace.jsonl").string();
    std::ofstream(path, std::ios::binary) << content;
    return ReadRequestTrace(path, {.max_requests = max_requests});
  }
  // The message with which `content` is refused.
  std::string Refusal(const std::string& content) {
    const auto trace = Read(content);
    EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << content;
    return std::string(trace.status().message());
  }
  static std::string Gzip(const std::string& content, const std::filesystem::path& path) {
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
    gzclose(file);
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  std::filesystem::path folder_;
};

constexpr char kGood[] =
    R"({"timestamp": 1.5, "input_length": 100, "output_length": 7, "hash_ids": [0, 18446744073709551615], "stop": "length"})"
    "\n"
    R"({"hash_ids":[],"timestamp":20,"later":{"a":[{"hash_ids":[true]},null,-1.5,"x"]},"more":false})"
    "\n";

TEST_F(RequestTraceTest, ReadsEveryField) {
  const auto trace = Read(kGood);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->name, "some");
  ASSERT_EQ(trace->requests.size(), 2U);
  EXPECT_EQ(trace->requests[0].timestamp_ms, 1.5);
  EXPECT_EQ(trace->requests[0].input_tokens, 100U);
  EXPECT_EQ(trace->requests[0].output_tokens, 7U);
  EXPECT_EQ(trace->requests[0].block_ids, (Ids{0, 18446744073709551615U}));
  EXPECT_EQ(trace->requests[0].stop, "length");
  EXPECT_EQ(trace->requests[1].timestamp_ms, 20);
  EXPECT_EQ(trace->requests[1].block_ids, Ids{});
  EXPECT_EQ(trace->requests[1].stop, "");
}

TEST_F(RequestTraceTest, CountsBlocksAndDistinctBlocks) {
  const auto trace = Read(
      "{\"timestamp\":0,\"hash_ids\":[1,2,3]}\n"
      "{\"timestamp\":0,\"hash_ids\":[1,2,4]}");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->total_blocks, 6U);
  EXPECT_EQ(trace->distinct_blocks, 4U);
}

TEST_F(RequestTraceTest, ReadsGzip) {
  Gzip(kGood, folder_ / "packed.jsonl.gz");
  const auto trace = ReadRequestTrace((folder_ / "packed.jsonl.gz").string(), {});
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->name, "packed");
  EXPECT_EQ(trace->requests.size(), 2U);
}

TEST_F(RequestTraceTest, AnEmptyFileIsAnEmptyTrace) {
  const auto trace = Read("");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_TRUE(trace->requests.empty());
}

TEST_F(RequestTraceTest, BlankLinesAndCarriageReturnsArePassedOver) {
  const auto trace = Read(
      "\n{\"timestamp\":0,\"hash_ids\":[1]}\r\n \r\n"
      "{\"timestamp\":0,\"hash_ids\":[2]}\n\n");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->requests.size(), 2U);
}

TEST_F(RequestTraceTest, StopsAtMaxRequestsBeforeLaterLinesAreLookedAt) {
  const auto trace = Read(std::string(kGood) + "garbage", 2);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->requests.size(), 2U);
}

TEST_F(RequestTraceTest, AMissingFileIsNotFound) {
  const auto trace = ReadRequestTrace((folder_ / "absent").string(), {});
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(trace.status().message()).find("absent"), std::string::npos);
}

TEST_F(RequestTraceTest, NamesTheMalformedLine) {
  const std::string first = "{\"timestamp\":0,\"hash_ids\":[1]}\n";
  for (const char* bad : {"garbage",
                          "{",
                          "[]",
                          "3",
                          "null",
                          "{\"timestamp\":0,\"hash_ids\":[1]",
                          "{\"timestamp\":0,\"hash_ids\":[1]} {}",
                          "{\"timestamp\":0}",
                          "{\"hash_ids\":[1]}",
                          "{\"timestamp\":-1,\"hash_ids\":[1]}",
                          "{\"timestamp\":\"0\",\"hash_ids\":[1]}",
                          "{\"timestamp\":1e999,\"hash_ids\":[1]}",
                          "{\"timestamp\":0,\"hash_ids\":3}",
                          "{\"timestamp\":0,\"hash_ids\":{\"a\":1}}",
                          "{\"timestamp\":0,\"hash_ids\":[1.5]}",
                          "{\"timestamp\":0,\"hash_ids\":[-1]}",
                          "{\"timestamp\":0,\"hash_ids\":[\"1\"]}",
                          "{\"timestamp\":0,\"hash_ids\":[null]}",
                          "{\"timestamp\":0,\"hash_ids\":[true]}",
                          "{\"timestamp\":0,\"hash_ids\":[[1]]}",
                          "{\"timestamp\":0,\"hash_ids\":[18446744073709551616]}",
                          "{\"timestamp\":0,\"hash_ids\":[1],\"hash_ids\":[2]}",
                          "{\"timestamp\":0,\"hash_ids\":[1],\"input_length\":4294967296}",
                          "{\"timestamp\":0,\"hash_ids\":[1],\"output_length\":1.5}",
                          "{\"timestamp\":0,\"hash_ids\":[1],\"stop\":7}",
                          "{\"timestamp\":0,\"hash_ids\":[1],\"stop\":\"\xff\"}"}) {
    EXPECT_EQ(Refusal(first + bad).rfind("line 2: ", 0), 0U) << bad << ": " << Refusal(first + bad);
  }
}

TEST_F(RequestTraceTest, DeepNestingIsNoProblem) {
  const std::string deep = "{\"x\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') +
                           ",\"timestamp\":0,\"hash_ids\":[]}";
  EXPECT_TRUE(Read(deep).ok());
}

TEST_F(RequestTraceTest, AnOverlongLineIsRefused) {
  const auto trace = Read("\n" + std::string((size_t{16} << 20) + 1, ' '));
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(std::string(trace.status().message()).rfind("line 2: ", 0), 0U);
}

TEST_F(RequestTraceTest, ATruncatedGzipFileIsRefused) {
  std::string content;
  std::minstd_rand random(7);
  for (int i = 0; i < 10'000; ++i) {
    content += "{\"timestamp\":" + std::to_string(random()) + ",\"hash_ids\":[" +
               std::to_string(random()) + "]}\n";
  }
  const std::string packed = Gzip(content, folder_ / "packed.gz");
  const auto trace = Read(packed.substr(0, packed.size() / 2));
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << trace.status();
}

TEST_F(RequestTraceTest, MutatedTracesNeverDoAnythingButFailOrParse) {
  const auto seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  std::minstd_rand random(seed);
  const std::string packed = Gzip(kGood, folder_ / "packed.gz");
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    std::string mutated = i % 2 == 0 ? std::string(kGood) : packed;
    for (uint32_t flips = 1 + static_cast<uint32_t>(random() % 3); flips > 0; --flips) {
      mutated[random() % mutated.size()] = static_cast<char>(random());
    }
    refused += Read(mutated).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 0);
}

TEST(SampleTrace, HasTheFiguresThatItIsPublishedWith) {
  const auto trace = ReadRequestTrace(TERRACE_SAMPLES "/lmc_agents.jsonl.gz", {});
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->name, "lmc_agents");
  EXPECT_EQ(trace->requests.size(), 1'376U);
  EXPECT_EQ(trace->distinct_blocks, 6'250U);
  EXPECT_EQ(trace->total_blocks, 61'916U);
}

TEST(SampleTrace, ReplayedAloneGivesTheKnownHitRatios) {
  const auto trace = ReadRequestTrace(TERRACE_SAMPLES "/lmc_agents.jsonl.gz", {});
  ASSERT_TRUE(trace.ok()) << trace.status();
  struct Case {
    uint64_t capacity;
    double percent;
  };
  for (const Case& each : {Case{125, 63.7}, Case{313, 83.9}, Case{6'250, 89.9}}) {
    const auto replay = PlacementReplay::Create("lru", each.capacity);
    for (const TraceRequest& request : trace->requests) {
      replay->Request(request.block_ids);
    }
    const ReplayCounts& counts = replay->counts();
    const double percent =
        100.0 * static_cast<double>(counts.hits) / static_cast<double>(counts.blocks);
    EXPECT_NEAR(percent, each.percent, 0.05) << each.capacity;
  }
}

}  // namespace
}  // namespace terrace
