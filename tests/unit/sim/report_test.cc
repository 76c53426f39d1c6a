#include "tools/sim/report.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tools/sim/hit_plot.h"
#include "tools/sim/line_plot.h"
#include "tools/sim/tiers_plot.h"

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

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(LinePlot, ALogarithmicAxisHasTheUsualTicks) {
  PlotPanel panel{"t", "x", "y", {{"a", 1, 0.3}, {"a", 2, 40}}, PlotScale::kLogarithmic};
  const std::string svg = DrawPanels({panel});
  for (const char* tick : {">0.2<", ">0.5<", ">1<", ">2<", ">5<", ">10<", ">20<", ">50<"}) {
    EXPECT_THAT(svg, HasSubstr(tick));
  }
  EXPECT_THAT(svg, Not(HasSubstr(">0.1<")));
  EXPECT_THAT(svg, Not(HasSubstr(">100<")));
}

TEST(LinePlot, OnePointIsEnoughAndPanelsShareColours) {
  const PlotPanel first{"t", "x", "y", {{"a", 5, 7}, {"b", 5, 7}}};
  const PlotPanel second{"u", "x", "y", {{"b", 5, 0}}};
  const std::string svg = DrawPanels({first, second});
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_EQ(Count(svg, "fill=\"#0072b2\""), 1U);
  EXPECT_EQ(Count(svg, "fill=\"#d55e00\""), 2U);
}

TEST(TiersPlot, LinesAreNamedByWhatDiffers) {
  PreparedTrace trace;
  trace.name = "some";
  std::vector<TiersResult> results;
  for (const char* policy : {"lru", "phl"}) {
    for (const double dram : {1.0, 5.0}) {
      TiersResult result;
      result.cell.trace = &trace;
      result.cell.policy = policy;
      result.cell.dram_percent = dram;
      result.prefix_hit_percent = dram;
      results.push_back(result);
    }
  }
  const std::string hits = ToSvg(results);
  EXPECT_EQ(Count(hits, "<path"), 2U);
  EXPECT_THAT(hits, HasSubstr(">phl<"));
  EXPECT_THAT(hits, HasSubstr("capacity of DRAM"));
  EXPECT_THAT(hits, Not(HasSubstr("first token")));
  for (TiersResult& result : results) {
    result.cell.timing.emplace();
    result.cell.dram_percent = 2;
    result.cell.shared_percent = result.prefix_hit_percent;
    result.cell.timing->load = result.cell.policy == "lru" ? LoadRule::kNever : LoadRule::kAlways;
    result.cell.timing->prefetch =
        result.cell.policy == "lru" ? PrefetchRule::kNone : PrefetchRule::kProbe;
    result.mean_first_token_seconds = result.cell.policy == "lru" ? 90 : 1;
  }
  const std::string times = ToSvg(results);
  EXPECT_EQ(Count(times, "<path"), 4U);
  EXPECT_THAT(times, HasSubstr(">phl, always, ahead<"));
  EXPECT_THAT(times, HasSubstr(">lru, never<"));
  EXPECT_THAT(times, HasSubstr("capacity of the pool"));
  EXPECT_THAT(times, HasSubstr(">50<")) << "logarithmic";
  EXPECT_THAT(ToSvg(std::vector<TiersResult>{}), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace terrace::sim
