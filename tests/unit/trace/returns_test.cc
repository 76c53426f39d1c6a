#include "tools/trace/returns.h"

#include <utility>

#include <gtest/gtest.h>

namespace terrace {
namespace {

TraceRequest At(double ms, std::vector<uint64_t> blocks) {
  TraceRequest request;
  request.timestamp_ms = ms;
  request.block_ids = std::move(blocks);
  return request;
}

TEST(ReturnsOf, IsTheTimeUntilSomebodyAsksForHalfOfTheBlocks) {
  RequestTrace trace;
  trace.requests = {At(0, {1, 2, 3, 4}), At(100, {1, 9}), At(250, {1, 2, 5}), At(900, {1, 2, 3})};
  // The second asks for the beginning alone, of which half of the first is not.
  EXPECT_EQ(ReturnsOf(trace), (std::vector<double>{250, 150, 650, 0}));
}

TEST(ReturnsOf, OfARequestWithoutBlocksIsNone) {
  RequestTrace trace;
  trace.requests = {At(0, {}), At(5, {7}), At(6, {7})};
  EXPECT_EQ(ReturnsOf(trace), (std::vector<double>{0, 1, 0}));
}

}  // namespace
}  // namespace terrace
