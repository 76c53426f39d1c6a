// The examples of client/examples, as they are built for an engine: against a daemon, and without
// one.
#include <cstdio>
#include <cstdlib>

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

class Examples : public LonelyClientCase {
 protected:
  // What the program prints; fails the test when it does not exit with 0.
  std::string Run(const std::string& program) {
    const std::string command = "TERRACE_RUNTIME='" + folder_.path() + "' '" + program + "' 2>&1";
    std::FILE* pipe = ::popen(command.c_str(), "r");
    std::string output;
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
      output.push_back(static_cast<char>(c));
    }
    EXPECT_EQ(::pclose(pipe), 0) << program << ": " << output;
    return output;
  }
};

TEST_F(Examples, FiveLinesStoreABlockAndReadItBack) {
  EXPECT_EQ(Run(TERRACE_EXAMPLE_FIVE_LINES), "stored: no, read back: a miss\n");
  server_ = std::make_unique<ScriptedServer>(folder_.path());
  EXPECT_EQ(Run(TERRACE_EXAMPLE_FIVE_LINES), "stored: yes, read back: the same bytes\n");
}

TEST_F(Examples, ThePrefixCacheLoadsWhatItStoredBefore) {
  EXPECT_EQ(Run(TERRACE_EXAMPLE_PREFIX_CACHE),
            "request 1: 0 blocks loaded, 8 computed, 0 stored\n"
            "request 2: 0 blocks loaded, 8 computed, 0 stored\n");
  server_ = std::make_unique<ScriptedServer>(folder_.path());
  EXPECT_EQ(Run(TERRACE_EXAMPLE_PREFIX_CACHE),
            "request 1: 0 blocks loaded, 8 computed, 8 stored\n"
            "request 2: 8 blocks loaded, 0 computed, 0 stored\n");
}

TEST_F(Examples, TheEventLoopInCPutsAndGets) {
  EXPECT_EQ(Run(TERRACE_EXAMPLE_EVENT_LOOP), "put: not stored\nget: a miss\n");
  server_ = std::make_unique<ScriptedServer>(folder_.path());
  EXPECT_EQ(Run(TERRACE_EXAMPLE_EVENT_LOOP), "put: answered\nget: the same bytes\n");
}

}  // namespace
}  // namespace terrace::testing
