#include "tiers/vocab/utf8.h"

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include <gtest/gtest.h>

namespace terrace {
namespace {

TEST(Utf8, KnowsWhatIsWellFormed) {
  for (const std::string_view good :
       {"", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xc3\xa4z"}) {
    EXPECT_TRUE(IsUtf8(good)) << absl::BytesToHexString(std::string(good));
  }
  for (const std::string_view bad :
       {"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xe1\x80",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf1\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff", "a\xc3"}) {
    EXPECT_FALSE(IsUtf8(bad)) << absl::BytesToHexString(std::string(bad));
  }
}

TEST(Utf8, TellsHowLongTheFirstSequenceIs) {
  EXPECT_EQ(Utf8SequenceBytes(""), 0U);
  EXPECT_EQ(Utf8SequenceBytes(std::string_view("\0", 1)), 1U);
  EXPECT_EQ(Utf8SequenceBytes("ab"), 1U);
  EXPECT_EQ(Utf8SequenceBytes("\xc3\xa4z"), 2U);
  EXPECT_EQ(Utf8SequenceBytes("\xe2\x82\xac\xe2"), 3U);
  EXPECT_EQ(Utf8SequenceBytes("\xf0\x9f\x98\x80"), 4U);
  EXPECT_EQ(Utf8SequenceBytes("\xa4z"), 0U);
}

TEST(Utf8, TellsWhereTheFirstWrongByteStands) {
  EXPECT_EQ(FirstNotUtf8(""), 0U);
  EXPECT_EQ(FirstNotUtf8("a\xc3\xa4z"), 4U);
  EXPECT_EQ(FirstNotUtf8("a\xc3\xa4\xa4z"), 3U);
  EXPECT_EQ(FirstNotUtf8("ab\xe2\x82"), 2U);
}

}  // namespace
}  // namespace terrace
