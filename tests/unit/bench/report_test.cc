#include "tools/bench/report.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace terrace::bench {
namespace {

TEST(Report, RatioIsTheMedianOfThePairsNotTheRatioOfMedians) {
  Report report("some");
  report.AddPairs("x", "an x", "GB/s", std::vector<Pair>{{1, 10}, {20, 10}, {30, 100}});
  const Figure& figure = report.figures().at(0);
  EXPECT_EQ(figure.value, 20);
  EXPECT_EQ(figure.limit, 10);
  ASSERT_TRUE(figure.ratio.has_value());
  EXPECT_EQ(figure.ratio->median, 0.3);
  EXPECT_EQ(figure.ratio->min, 0.1);
  EXPECT_EQ(figure.ratio->max, 2);
}

TEST(Report, JsonHasTheFormThatIsPromised) {
  Report report("some");
  report.AddPairs("x", "an x", "GB/s", std::vector<Pair>{{1, 2}});
  report.AddValue("y", "a y", "us", 3.5);
  report.AddAgainst("z", "a z", "bytes", 200, {100, 150, 100});
  report.AddWrongBytes(7);
  report.AddError("it \"broke\"\xff");
  const nlohmann::json json = nlohmann::json::parse(report.ToJson());
  EXPECT_EQ(report.ToJson().find('\n'), std::string::npos);
  EXPECT_EQ(json["scenario"], "some");
  EXPECT_EQ(json["wrong_bytes"], 7);
  EXPECT_EQ(json["errors"], 1);
  EXPECT_EQ(
      json["figures"]["x"],
      nlohmann::json::parse(
          R"({"value":1.0,"unit":"GB/s","limit":2.0,"ratio":{"median":0.5,"min":0.5,"max":0.5}})"));
  EXPECT_EQ(json["figures"]["y"],
            nlohmann::json::parse(R"({"value":3.5,"unit":"us","limit":null,"ratio":null})"));
  EXPECT_EQ(json["figures"]["z"]["limit"], 200);
  EXPECT_EQ(json["figures"]["z"]["ratio"]["median"], 0.5);
}

TEST(Report, TextNamesEveryFigureAndTheWrongBytes) {
  Report report("some");
  report.AddValue("y", "a y", "us", 1234.5);
  report.AddWrongBytes(42);
  report.AddNote("by some model");
  const std::string text = report.ToText();
  for (const char* part : {"some", "a y", "1234", "us", "wrong bytes", "42", "by some model"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST(Report, KeepsOnlyTheFirstErrorsButCountsAll) {
  Report report("some");
  for (int i = 0; i < 1'000; ++i) {
    report.AddError("e" + std::to_string(i));
  }
  EXPECT_EQ(report.errors(), 1'000U);
  EXPECT_LT(report.ToJson().size(), 1'000U);
}

TEST(Spread, OfAnEvenNumberIsBetweenTheMiddleOnes) {
  const Spread spread = SpreadOf({4, 1, 3, 2});
  EXPECT_EQ(spread.median, 2.5);
  EXPECT_EQ(spread.min, 1);
  EXPECT_EQ(spread.max, 4);
}

TEST(Percentile, PicksByRank) {
  std::vector<double> values;
  for (int i = 100; i > 0; --i) {
    values.push_back(i);
  }
  EXPECT_EQ(Percentile(values, 0.5), 51);
  EXPECT_EQ(Percentile(values, 0.99), 100);
  EXPECT_EQ(Percentile(values, 1), 100);
  values.clear();
  EXPECT_EQ(Percentile(values, 0.5), 0);
}

}  // namespace
}  // namespace terrace::bench
