#include "daemon/ascii_text.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace terrace {
namespace {

// Every marker that there is, as an escape.
constexpr std::string_view kAllMarkersEscaped =
    "\\u007e \\U00000060 \\u005E \\u007c \\u0040 \\u003b \\u003F \\u0021 \\u0025 \\u0026 \\u002a "
    "\\u0024 \\u003c \\u003e";

TEST(AsciiText, LeavesAsciiAsItIs) {
  const std::optional<AsciiText> ascii = AsciiText::Of("a = '~c3'\n");
  ASSERT_TRUE(ascii.has_value());
  EXPECT_EQ(ascii->text(), "a = '~c3'\n");
  EXPECT_EQ(ascii->marker(), '\0');
  EXPECT_EQ(ascii->Restored("~c3"), "~c3");
  EXPECT_EQ(ascii->CharacterAt(5), "");
  EXPECT_TRUE(AsciiText::Of(kAllMarkersEscaped).has_value());
}

TEST(AsciiText, ReplacesBytesAndTheMarkerItself) {
  const std::optional<AsciiText> ascii = AsciiText::Of("a~\xc3\xa9\nb");
  ASSERT_TRUE(ascii.has_value());
  EXPECT_EQ(ascii->text(), "a~7e~c3~a9\nb");
  EXPECT_EQ(ascii->Restored(ascii->text()), "a~\xc3\xa9\nb");
}

TEST(AsciiText, EveryByteComesBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    all.push_back(static_cast<char>(byte));
  }
  const std::optional<AsciiText> ascii = AsciiText::Of(all);
  ASSERT_TRUE(ascii.has_value());
  EXPECT_TRUE(std::all_of(ascii->text().begin(), ascii->text().end(),
                          [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
  EXPECT_EQ(std::count(ascii->text().begin(), ascii->text().end(), '\n'), 1);
  EXPECT_EQ(ascii->Restored(ascii->text()), all);
}

TEST(AsciiText, TheMarkerIsNotWrittenAsAnEscape) {
  EXPECT_EQ(AsciiText::Of("\xc3\xa9 \\u007e")->marker(), '`');
  EXPECT_EQ(AsciiText::Of("\xc3\xa9 \\u007E \\U00000060")->marker(), '^');
  const std::string text = "\xc3\xa9 " + std::string(kAllMarkersEscaped);
  EXPECT_FALSE(AsciiText::Of(text).has_value());
  const std::string all_but_the_last = text.substr(0, text.size() - 1) + "f";
  EXPECT_EQ(AsciiText::Of(all_but_the_last)->marker(), '>');
}

TEST(AsciiText, PartsOfAReplacementStayWhatTheyAre) {
  const std::optional<AsciiText> ascii = AsciiText::Of("\xc3\xa9");
  EXPECT_EQ(ascii->Restored(""), "");
  EXPECT_EQ(ascii->Restored("~"), "~");
  EXPECT_EQ(ascii->Restored("~c"), "~c");
  EXPECT_EQ(ascii->Restored("~c~c3"), "~c\xc3");
}

TEST(AsciiText, TellsWhichCharacterStandsWhere) {
  const std::optional<AsciiText> ascii = AsciiText::Of("a~\xe2\x82\xac\xc3\xa9z");
  ASSERT_EQ(ascii->text(), "a~7e~e2~82~ac~c3~a9z");
  EXPECT_EQ(ascii->CharacterAt(0), "");
  EXPECT_EQ(ascii->CharacterAt(1), "") << "the marker itself is ASCII";
  EXPECT_EQ(ascii->CharacterAt(4), "\xe2\x82\xac");
  EXPECT_EQ(ascii->CharacterAt(13), "\xc3\xa9");
  EXPECT_EQ(ascii->CharacterAt(19), "");
  EXPECT_EQ(ascii->CharacterAt(20), "");
}

}  // namespace
}  // namespace terrace
