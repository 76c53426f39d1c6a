// The peers' protocols, spoken with the real servers where they are installed.
#include "tools/bench/store_peer.h"

#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tools/bench/payload.h"

namespace terrace::bench {
namespace {

class StorePeerTest : public testing::TestWithParam<size_t> {
 protected:
  StorePeerTest() {
    std::string name = (std::filesystem::temp_directory_path() / "terrace-peer.XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~StorePeerTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

TEST_P(StorePeerTest, GivesBackWhatWasPutAndForgetsWhatWasDeleted) {
  const PeerKind& kind = PeerKinds()[GetParam()];
  absl::StatusOr<std::unique_ptr<StorePeer>> peer =
      kind.start(folder_.string(), uint64_t{64} << 20);
  if (peer.status().code() == absl::StatusCode::kNotFound) {
    GTEST_SKIP() << kind.program << " is not installed";
  }
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ((*peer)->name(), kind.name);
  const PayloadSource source(1);
  for (const size_t bytes : {size_t{1}, size_t{1'000}, size_t{2} << 20}) {
    std::vector<char> payload(bytes);
    source.Fill("k", absl::MakeSpan(payload));
    ASSERT_TRUE((*peer)->Put("bench:1", payload).ok());
    std::vector<char> out(bytes);
    const absl::Status got = (*peer)->Get("bench:1", absl::MakeSpan(out));
    ASSERT_TRUE(got.ok()) << got;
    EXPECT_EQ(out, payload);
    ASSERT_TRUE((*peer)->Delete("bench:1").ok());
    EXPECT_FALSE((*peer)->Delete("bench:1").ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds,
                         StorePeerTest,
                         testing::Range<size_t>(0, PeerKinds().size()),
                         [](const testing::TestParamInfo<size_t>& each) {
                           return std::string(PeerKinds()[each.param].name);
                         });

}  // namespace
}  // namespace terrace::bench
