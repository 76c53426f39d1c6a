#include "tiers/vocab/block_key.h"

#include <string>

#include <gtest/gtest.h>

namespace terrace {
namespace {

constexpr Digest128 kDigest{0x0123456789abcdefU, 0xfedcba98765432f0U};

TEST(Digest128, IsWrittenHighWordFirstAndBigEndian) {
  EXPECT_EQ(kDigest.ToHex(), "0123456789abcdeffedcba98765432f0");
  EXPECT_EQ(kDigest.ToBytes(),
            std::string("\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\xf0", 16));
}

TEST(Digest128, ComesBackFromItsBytes) {
  Digest128 read;
  ASSERT_TRUE(Digest128::FromBytes(kDigest.ToBytes(), &read));
  EXPECT_EQ(read, kDigest);
}

TEST(Digest128, RefusesAnyOtherLengthAndLeavesTheResultAlone) {
  const std::string bytes = kDigest.ToBytes() + "x";
  for (const size_t length : {0U, 1U, 15U, 17U}) {
    Digest128 read = kDigest;
    EXPECT_FALSE(Digest128::FromBytes(std::string(bytes, 0, length), &read)) << length;
    EXPECT_EQ(read, kDigest);
  }
}

TEST(Digest128, OrdersAsItsBytesDo) {
  const Digest128 small{1, ~uint64_t{0}};
  const Digest128 large{2, 0};
  EXPECT_LT(small, large);
  EXPECT_LT(small.ToBytes(), large.ToBytes());
}

TEST(Digest128, IsZeroOnlyWhenBothWordsAre) {
  EXPECT_TRUE(Digest128{}.IsZero());
  EXPECT_FALSE((Digest128{1, 0}.IsZero()));
  EXPECT_FALSE((Digest128{0, 1}.IsZero()));
}

}  // namespace
}  // namespace terrace
