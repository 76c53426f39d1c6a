#include "tools/sim/report.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tools/sim/hit_plot.h"

namespace terrace::sim {
namespace {

using testing::HasSubstr;
using testing::Not;

CellResult CellOf(const char* trace, const char* policy, double capacity, double percent) {
  CellResult result;
  result.trace = trace;
  result.policy = policy;
  result.capacity_percent = capacity;
  result.capacity_blocks = 10;
  result.counts.hits = 5;
  result.prefix_hit_percent = percent;
  result.cpu_us_per_request = 3.5;
  return result;
}

std::vector<CellResult> Results() {
  return {CellOf("a", "lru", 1, 10),    CellOf("a", "lru", 5, 20), CellOf("a", "phl", 1, 15),
          CellOf("a", "phl", 5, 25),    CellOf("a", "min", 1, 30), CellOf("a", "min", 5, 40),
          CellOf("b<&>", "lru", 1, 7.5)};
}

TEST(Report, JsonHasACellPerResult) {
  const auto json = nlohmann::json::parse(ToJson(Results(), ShowCost::kNo));
  ASSERT_EQ(json["results"].size(), 7U);
  EXPECT_EQ(json["results"][2]["policy"], "phl");
  EXPECT_EQ(json["results"][2]["capacity_percent"], 1.0);
  EXPECT_EQ(json["results"][2]["prefix_hit_percent"], 15.0);
  EXPECT_EQ(json["results"][2]["trace"], "a");
  EXPECT_FALSE(json["results"][2].contains("cpu_us_per_request"));
  EXPECT_DOUBLE_EQ(json["mean_gap_closed_percent"]["phl"], 25);
}

TEST(Report, CostIsShownWhenAskedFor) {
  const auto json = nlohmann::json::parse(ToJson(Results(), ShowCost::kYes));
  EXPECT_EQ(json["results"][0]["cpu_us_per_request"], 3.5);
  EXPECT_THAT(ToTable(Results(), ShowCost::kYes), HasSubstr("3.50"));
  EXPECT_THAT(ToTable(Results(), ShowCost::kNo), Not(HasSubstr("3.50")));
}

TEST(Report, TableHasATraceAPolicyARow) {
  const std::string table = ToTable(Results(), ShowCost::kNo);
  EXPECT_THAT(table, HasSubstr("a: prefix hits"));
  EXPECT_THAT(table, HasSubstr("phl             15.00    25.00\n"));
  EXPECT_THAT(table, HasSubstr("phl closes 25.0 %"));
}

TEST(HitPlot, DrawsALineAPolicyAndEscapesNames) {
  const std::string svg = ToSvg(Results());
  size_t lines = 0;
  for (size_t at = svg.find("<path"); at != std::string::npos; at = svg.find("<path", at + 1)) {
    ++lines;
  }
  EXPECT_EQ(lines, 4U);
  EXPECT_THAT(svg, HasSubstr("b&lt;&amp;&gt;"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace terrace::sim
