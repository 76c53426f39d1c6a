#include "tools/ctl/format.h"

#include <gtest/gtest.h>

namespace terrace::ctl {
namespace {

TEST(Hex, RoundTripsEveryByte) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) {
    bytes.push_back(static_cast<char>(i));
  }
  const std::string text = Hex(bytes);
  EXPECT_EQ(text.substr(0, 8), "00010203");
  EXPECT_EQ(text.substr(504), "fcfdfeff");
  ASSERT_TRUE(ParseHex(text).ok());
  EXPECT_EQ(*ParseHex(text), bytes);
  EXPECT_EQ(*ParseHex("ABcd"), "\xab\xcd");
  EXPECT_EQ(*ParseHex(""), "");
}

TEST(Hex, NamesThePlaceOfAForeignCharacter) {
  EXPECT_EQ(ParseHex("00g0").status().message(),
            "character 3 of '00g0' is not a hexadecimal digit");
  EXPECT_EQ(ParseHex("abc").status().message(), "'abc' has 3 hexadecimal digits, an odd number");
  EXPECT_FALSE(ParseHex("0x00").ok());
  EXPECT_FALSE(ParseHex("00 11").ok());
}

TEST(Hex, NeverEchoesControlCharacters) {
  EXPECT_EQ(ParseHex("\x1b[").status().message(), "character 1 of '?[' is not a hexadecimal digit");
}

TEST(Bytes, AreShownWithThreeDigitsAndABinaryUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1), "1 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{2} << 20), "2 MiB");
  EXPECT_EQ(FormatBytes((uint64_t{1} << 30) - 1), "1 GiB");
  EXPECT_EQ(FormatBytes((uint64_t{1} << 30) + (uint64_t{1} << 28)), "1.25 GiB");
  EXPECT_EQ(FormatBytes(~uint64_t{0}), "16 EiB");
}

TEST(Bytes, AreReadWithAndWithoutUnit) {
  EXPECT_EQ(*ParseBytes("0"), 0U);
  EXPECT_EQ(*ParseBytes("512"), 512U);
  EXPECT_EQ(*ParseBytes("64K"), 65536U);
  EXPECT_EQ(*ParseBytes("64KiB"), 65536U);
  EXPECT_EQ(*ParseBytes("1.5 GiB"), uint64_t{3} << 29);
  EXPECT_EQ(*ParseBytes("2gb"), uint64_t{2} << 30);
  EXPECT_EQ(*ParseBytes("3Ti"), uint64_t{3} << 40);
  EXPECT_EQ(*ParseBytes("9007199254740993"), 9007199254740993U)
      << "beyond what a double holds exactly";
}

TEST(Bytes, RefuseWhatIsNoSize) {
  for (const char* bad : {"", "GiB", "-1", "1.2.3", "5 parsecs", "1KB7", "1e3", "99999999TiB",
                          "18446744073709551616", "k"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

TEST(Counts, AreGroupedByThreeDigits) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(~uint64_t{0}), "18,446,744,073,709,551,615");
}

TEST(Rates, KeepThreeDigits) {
  EXPECT_EQ(FormatRate(0), "0");
  EXPECT_EQ(FormatRate(0.25), "0.2");
  EXPECT_EQ(FormatRate(12), "12");
  EXPECT_EQ(FormatRate(999.4), "999");
  EXPECT_EQ(FormatRate(999.6), "1k");
  EXPECT_EQ(FormatRate(123456), "123k");
  EXPECT_EQ(FormatRate(3.4e6), "3.4M");
  EXPECT_EQ(FormatRate(-1), "0");
  EXPECT_EQ(FormatByteRate(1.5 * (1 << 30)), "1.5 GiB/s");
  EXPECT_EQ(FormatByteRate(-1), "0 B/s");
}

TEST(Elapsed, UsesTheLargestTwoUnits) {
  EXPECT_EQ(FormatElapsed(absl::ZeroDuration()), "0 us");
  EXPECT_EQ(FormatElapsed(absl::Microseconds(250)), "250 us");
  EXPECT_EQ(FormatElapsed(absl::Microseconds(1500)), "1.5 ms");
  EXPECT_EQ(FormatElapsed(absl::Milliseconds(1000)), "1 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(59.99)), "1 min");
  EXPECT_EQ(FormatElapsed(absl::Seconds(185)), "3 min 5 s");
  EXPECT_EQ(FormatElapsed(absl::Minutes(130)), "2 h 10 min");
  EXPECT_EQ(FormatElapsed(absl::Hours(24)), "1 d");
  EXPECT_EQ(FormatElapsed(absl::Hours(97)), "4 d 1 h");
  EXPECT_EQ(FormatElapsed(-absl::Seconds(2)), "-2 s");
}

TEST(Durations, AreReadWithUnitsAndAsSeconds) {
  EXPECT_EQ(*ParseDuration("30"), absl::Seconds(30));
  EXPECT_EQ(*ParseDuration("250ms"), absl::Milliseconds(250));
  EXPECT_EQ(*ParseDuration("1.5s"), absl::Milliseconds(1500));
  EXPECT_EQ(*ParseDuration("5m"), absl::Minutes(5));
  EXPECT_EQ(*ParseDuration("2h"), absl::Hours(2));
  EXPECT_EQ(*ParseDuration("7d"), absl::Hours(168));
  for (const char* bad : {"", "s", "-1s", "5 fortnights", "1:30", "1h30m"}) {
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  }
}

TEST(Shares, OfNothingAreADash) {
  EXPECT_EQ(FormatShare(1, 0), "-");
  EXPECT_EQ(FormatShare(0, 3), "0.0%");
  EXPECT_EQ(FormatShare(7, 8), "87.5%");
}

TEST(Printable, ReplacesControlCharactersAndKeepsUtf8) {
  EXPECT_EQ(Printable("a\x1b[31mb\n\x7f"), "a?[31mb??");
  EXPECT_EQ(Printable("größe"), "größe");
}

TEST(Tables, AlignColumnsAndLeaveNoTrailingSpace) {
  Table table({{"NAME", Table::Align::kLeft},
               {"USED", Table::Align::kRight},
               {"STATE", Table::Align::kLeft}});
  table.Add({"g2", "1.5 GiB", "ready"});
  table.Add({"größer", "2 B"});
  EXPECT_EQ(table.Render(Style(Style::Colour::kNever)),
            "NAME       USED  STATE\n"
            "g2      1.5 GiB  ready\n"
            "größer      2 B\n");
}

TEST(Tables, ColoursDoNotChangeTheAlignment) {
  Table table({{"A", Table::Align::kRight}, {"B", Table::Align::kLeft}});
  table.Add({Table::Cell("x", Tone::kBad), "y"});
  EXPECT_EQ(table.Render(Style(Style::Colour::kAnsi)),
            "\x1b[1mA\x1b[0m  \x1b[1mB\x1b[0m\n\x1b[31mx\x1b[0m  y\n");
}

TEST(Facts, StandInTwoColumns) {
  const std::vector<Fact> facts = {{"a", "1"}, {"long name", "2"}};
  EXPECT_EQ(RenderFacts(facts, Style(Style::Colour::kNever)), "a          1\nlong name  2\n");
}

TEST(Bars, ShowAtLeastOneCellOfSomething) {
  EXPECT_EQ(Bar(0, 100, 10), "[..........]");
  EXPECT_EQ(Bar(1, 1000000, 10), "[#.........]");
  EXPECT_EQ(Bar(50, 100, 10), "[#####.....]");
  EXPECT_EQ(Bar(200, 100, 10), "[##########]");
  EXPECT_EQ(Bar(5, 0, 4), "[....]");
}

}  // namespace
}  // namespace terrace::ctl
