#include "tiers/copy/one_pass.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include <gtest/gtest.h>
#include <xxhash.h>

#include "tiers/vocab/block_key.h"

namespace terrace {
namespace {

Digest128 Expected(const char* payload, size_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(payload, bytes);
  return {hash.high64, hash.low64};
}

std::vector<char> RandomBytes(size_t bytes, std::mt19937_64& random) {
  std::vector<char> made(bytes);
  for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(made.data() + at, &word, std::min(sizeof(word), bytes - at));
  }
  return made;
}

// Bytes at a chosen distance from a multiple of 64, with a border that nobody may touch.
class Canvas {
 public:
  Canvas(size_t bytes, size_t misalignment)
      : memory_(bytes + 3 * kBorder, kUntouched), bytes_(bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(memory_.data());
    offset_ = (begin + kBorder + 63) / 64 * 64 - begin + misalignment;
  }
  [[nodiscard]] char* data() { return memory_.data() + offset_; }
  [[nodiscard]] bool BorderUntouched() const {
    const auto is_untouched = [](char c) { return c == kUntouched; };
    const auto first = memory_.begin() + static_cast<ptrdiff_t>(offset_);
    return std::all_of(memory_.begin(), first, is_untouched) &&
           std::all_of(first + static_cast<ptrdiff_t>(bytes_), memory_.end(), is_untouched);
  }

 private:
  static constexpr size_t kBorder = 128;
  static constexpr char kUntouched = '\x5a';
  std::vector<char> memory_;
  size_t bytes_;
  size_t offset_ = 0;
};

// Cuts `bytes` into pieces, empty ones among them.
std::vector<size_t> RandomCuts(size_t bytes, std::mt19937_64& random) {
  std::vector<size_t> cuts;
  const size_t longest = size_t{1} << (random() % 17);
  for (size_t left = bytes; left > 0;) {
    const size_t cut = std::min<size_t>(left, random() % (longest + 1));
    cuts.push_back(cut);
    left -= cut;
    if (cuts.size() == 400) {
      cuts.push_back(left);
      left = 0;
    }
  }
  return cuts;
}

// Lengths at which the algorithm changes its ways, and any others.
size_t RandomLength(std::mt19937_64& random) {
  constexpr size_t kEdges[] = {0, 1, 3, 8, 16, 128, 240, 241, 256, 1024, 2048, 4096, 16384, 65536};
  switch (random() % 4) {
    case 0:
      return kEdges[random() % std::size(kEdges)] + random() % 3;
    case 1:
      return random() % 600;
    case 2:
      return 64 * (random() % 300) + random() % 3;
    default:
      return random() % 100000;
  }
}

class OnePass : public testing::TestWithParam<CopyKernel> {
 protected:
  void SetUp() override {
    if (!CopyKernelSupported(GetParam())) {
      GTEST_SKIP() << "this CPU has no " << CopyKernelName(GetParam());
    }
    before_ = ActiveCopyKernel();
    SetCopyKernel(GetParam());
  }
  void TearDown() override {
    if (CopyKernelSupported(GetParam())) {
      SetCopyKernel(before_);
    }
  }

 private:
  CopyKernel before_ = CopyKernel::kBaseline;
};

INSTANTIATE_TEST_SUITE_P(
    Kernels,
    OnePass,
    testing::Values(CopyKernel::kBaseline, CopyKernel::kAvx2, CopyKernel::kAvx512),
    [](const auto& instance) { return std::string(CopyKernelName(instance.param)); });

TEST_P(OnePass, HashIsXxh3OfEveryLengthUpToSomeBlocks) {
  std::mt19937_64 random(1);
  const std::vector<char> bytes = RandomBytes(5000, random);
  for (size_t length = 0; length <= bytes.size(); ++length) {
    ASSERT_EQ(HashPayload({bytes.data(), length}), Expected(bytes.data(), length)) << length;
  }
}

TEST_P(OnePass, CopyAndHashStoresThePiecesEndToEndWithTheirHash) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  for (int round = 0; round < 600; ++round) {
    const size_t length = RandomLength(random);
    SCOPED_TRACE(testing::Message() << "round " << round << " length " << length);
    const std::vector<char> payload = RandomBytes(length, random);
    const size_t shift = random() % 64;
    std::vector<char> source(length + shift);
    std::copy(payload.begin(), payload.end(), source.begin() + static_cast<ptrdiff_t>(shift));
    std::vector<ConstPiece> pieces;
    const char* at = source.data() + shift;
    for (const size_t cut : RandomCuts(length, random)) {
      pieces.push_back({at, cut});
      at += cut;
    }
    Canvas canvas(length, random() % 2 == 0 ? 0 : random() % 64);
    const Digest128 hash = CopyAndHash(pieces, canvas.data());
    ASSERT_EQ(hash, Expected(payload.data(), length));
    ASSERT_TRUE(std::equal(payload.begin(), payload.end(), canvas.data()));
    ASSERT_TRUE(canvas.BorderUntouched());
  }
}

TEST_P(OnePass, PiecesMayLieAnywhere) {
  std::mt19937_64 random(2);
  const std::vector<char> payload = RandomBytes(200000, random);
  // The pieces lie in memory in the reverse order of the payload, each at its own alignment.
  std::vector<std::vector<char>> memory;
  std::vector<ConstPiece> pieces;
  for (size_t at = 0; at < payload.size();) {
    const size_t bytes = std::min<size_t>(payload.size() - at, 1 + random() % 5000);
    const size_t shift = random() % 64;
    memory.emplace_back(bytes + shift);
    std::copy_n(payload.begin() + static_cast<ptrdiff_t>(at), bytes,
                memory.back().begin() + static_cast<ptrdiff_t>(shift));
    pieces.push_back({memory.back().data() + shift, bytes});
    at += bytes;
  }
  Canvas canvas(payload.size(), 0);
  EXPECT_EQ(CopyAndHash(pieces, canvas.data()), Expected(payload.data(), payload.size()));
  EXPECT_TRUE(std::equal(payload.begin(), payload.end(), canvas.data()));
}

TEST_P(OnePass, CopyOutFillsThePiecesAndNothingElse) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  for (int round = 0; round < 600; ++round) {
    const size_t length = RandomLength(random);
    SCOPED_TRACE(testing::Message() << "round " << round << " length " << length);
    const std::vector<char> payload = RandomBytes(length, random);
    const bool hashed = random() % 2 == 0;
    std::vector<Canvas> canvases;
    const std::vector<size_t> cuts = RandomCuts(length, random);
    canvases.reserve(cuts.size());
    std::vector<Piece> pieces;
    for (const size_t cut : cuts) {
      canvases.emplace_back(cut, random() % 2 == 0 ? 0 : random() % 64);
      pieces.push_back({canvases.back().data(), cut});
    }
    if (hashed) {
      ASSERT_EQ(CopyOutAndHash(payload, pieces), Expected(payload.data(), length));
    } else {
      CopyOut(payload, pieces);
    }
    const char* at = payload.data();
    for (size_t i = 0; i < pieces.size(); ++i) {
      ASSERT_TRUE(std::equal(at, at + pieces[i].bytes, pieces[i].data)) << "piece " << i;
      ASSERT_TRUE(canvases[i].BorderUntouched()) << "piece " << i;
      at += pieces[i].bytes;
    }
  }
}

TEST_P(OnePass, OneFlippedBitAnywhereChangesTheHash) {
  std::mt19937_64 random(3);
  std::vector<char> payload = RandomBytes(3000, random);
  const Digest128 before = HashPayload(payload);
  for (size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<char>(payload[i] ^ (1 << (i % 8)));
    ASSERT_NE(HashPayload(payload), before) << i;
    payload[i] = static_cast<char>(payload[i] ^ (1 << (i % 8)));
  }
}

TEST_P(OnePass, EmptyPayloadHasTheHashOfNothing) {
  EXPECT_EQ(CopyAndHash({}, nullptr), Expected("", 0));
  EXPECT_EQ(CopyOutAndHash({}, {}), Expected("", 0));
  EXPECT_EQ(HashPayload({}), Expected("", 0));
}

// The hash is on disk and on the wire; XXH3 of the header may not drift either.
TEST_P(OnePass, HashOfAKnownPayloadIsWhatItAlwaysWas) {
  std::vector<char> payload(4096);
  for (size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<char>(i * 7 + i / 256);
  }
  EXPECT_EQ(HashPayload(payload).ToHex(), "08ef8fc6d37a71915c722d9ceb6f9064");
}

TEST_P(OnePass, SizesThatDoNotSumUpAbort) {
  char bytes[300] = {};
  const Piece short_piece{bytes, 299};
  EXPECT_DEATH(CopyOut({bytes, 300}, {&short_piece, 1}), "");
  EXPECT_DEATH(CopyOutAndHash({bytes, 300}, {&short_piece, 1}), "");
}

TEST(CopyKernels, TheBestSupportedIsActive) {
  CopyKernel best = CopyKernel::kBaseline;
  for (const CopyKernel kernel : {CopyKernel::kAvx2, CopyKernel::kAvx512}) {
    best = CopyKernelSupported(kernel) ? kernel : best;
  }
  if (std::getenv("TERRACE_COPY_KERNEL") == nullptr) {
    EXPECT_EQ(ActiveCopyKernel(), best);
  }
  EXPECT_TRUE(CopyKernelSupported(CopyKernel::kBaseline));
}

TEST(CopyKernels, HaveTheNamesOfTheEnvironmentVariable) {
  EXPECT_EQ(CopyKernelName(CopyKernel::kBaseline), "baseline");
  EXPECT_EQ(CopyKernelName(CopyKernel::kAvx2), "avx2");
  EXPECT_EQ(CopyKernelName(CopyKernel::kAvx512), "avx512");
}

class CopyKernelsDeathTest : public testing::Test {
 protected:
  // The choice is made once per process.
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(CopyKernelsDeathTest, EnvironmentOverridesTheChoice) {
  for (const CopyKernel kernel : {CopyKernel::kBaseline, CopyKernel::kAvx2, CopyKernel::kAvx512}) {
    if (!CopyKernelSupported(kernel)) {
      continue;
    }
    EXPECT_EXIT(
        {
          setenv("TERRACE_COPY_KERNEL", std::string(CopyKernelName(kernel)).c_str(), 1);
          _exit(ActiveCopyKernel() == kernel ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
  }
}

TEST_F(CopyKernelsDeathTest, UnknownNameInTheEnvironmentIsIgnored) {
  EXPECT_EXIT(
      {
        unsetenv("TERRACE_COPY_KERNEL");
        setenv("TERRACE_COPY_KERNEL", "avx9000", 1);
        _exit(CopyKernelSupported(ActiveCopyKernel()) ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace terrace
