// Mutated configuration files: whatever the text, the answer is a valid configuration or one line
// that says what is wrong; never a crash, a hang or a leak. Runs 20,000 texts from a seed that is
// printed; TERRACE_FUZZ_SEED repeats a run, TERRACE_FUZZ_ITERATIONS asks for more. Compiled with
// -fsanitize=fuzzer and -DTERRACE_LIBFUZZER it is a libFuzzer target.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "daemon/settings.h"
#include "tests/doubles/from_environment.h"

#ifndef TERRACE_LIBFUZZER
#include <gtest/gtest.h>
#endif

namespace terrace {
namespace {

// What holds for every text; "": it does.
std::string Violation(const std::string& text) {
  const absl::StatusOr<LoadedConfig> loaded = ParseConfig(text, "fuzz.toml");
  if (!loaded.ok()) {
    const std::string message(loaded.status().message());
    if (message.find_first_of("\n\r") != std::string::npos) {
      return "the message has more than one line";
    }
    if (!message.starts_with("fuzz.toml:") && !message.starts_with("default:")) {
      return "the message names no place";
    }
    for (const char c : message) {
      if (static_cast<unsigned char>(c) < 0x20) {
        return "the message has control characters";
      }
    }
    return message.size() > 1000 ? "the message is long" : "";
  }
  // What is accepted is printed such that it is accepted again and means the same.
  const absl::StatusOr<LoadedConfig> again = ParseConfig(PrintConfig(*loaded), "printed.toml");
  if (!again.ok()) {
    return "the printed configuration is refused: " + std::string(again.status().message());
  }
  const ConfigDifference difference = CompareConfigs(loaded->config, again->config);
  if (!difference.live.empty() || !difference.needs_restart.empty()) {
    return "the printed configuration differs";
  }
  for (const TenantConfig& tenant : loaded->config.tenants) {
    if (tenant.guaranteed_bytes > loaded->config.store.dram_bytes) {
      return "a tenant has more than there is";
    }
  }
  return "";
}

}  // namespace
}  // namespace terrace

#ifdef TERRACE_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!terrace::Violation(std::string(reinterpret_cast<const char*>(data), size)).empty()) {
    std::abort();
  }
  return 0;
}
#else

namespace terrace {
namespace {

std::vector<std::string> Seeds() {
  const std::ifstream file(TERRACE_EXAMPLE_CONFIG);
  std::ostringstream text;
  text << file.rdbuf();
  std::vector<std::string> seeds = {PrintConfig(*ParseConfig("", "seed.toml"))};
  // The example with every setting switched on.
  std::string example = text.str();
  for (size_t at = 0; (at = example.find("\n#", at)) != std::string::npos; ++at) {
    if (at + 2 < example.size() && example[at + 2] != ' ') {
      example.erase(at + 1, 1);
    }
  }
  seeds.push_back(example);
  seeds.push_back(
      "[dram]\ncapacity = \"2GiB\"\n[[tenant]]\nalias = \"a\"\nuids = [1, 2]\nguaranteed = "
      "\"1GiB\"\n");
  seeds.push_back(
      "[[tenant]]\nalias = \"a\"\ngids = [1]\n[[tenant]]\nalias = \"b\"\nuids = [3]\nlimit = "
      "4096\n");
  seeds.push_back(
      "[[events]]\ntenant = \"uid-1\"\nzmq_endpoint = \"tcp://127.0.0.1:5557\"\nmodel = \"m\"\n"
      "format = \"array\"\nbuffer = \"2MiB\"\nsocket_mode = \"0660\"\n[[events]]\ntenant = "
      "\"uid-2\"\nzmq_endpoint = \"ipc:///x\"\n");
  seeds.push_back("daemon.io_threads = 3\ndram = { capacity = \"64MiB\", huge_pages = false }\n");
  return seeds;
}

// What configurations are made of, and what they should not be.
constexpr const char* kPieces[] = {"=",
                                   "[",
                                   "]",
                                   "[[",
                                   "]]",
                                   "\"",
                                   "'",
                                   "\"\"\"",
                                   "{",
                                   "}",
                                   ",",
                                   ".",
                                   "#",
                                   "\n",
                                   "\\",
                                   "\\u0000",
                                   "\xff",
                                   "\xc3\xa9",
                                   "\\\xc3\xa9",
                                   "\"\"\"\\\xc3\xa9\"\"\"",
                                   "\xc2\x85",
                                   "\xc2\xa0",
                                   "\xe1\x9a\x80",
                                   "\xe2\x80\xa8",
                                   "\xef\xbb\xbf",
                                   "\"\\u00e9\\U0000007E~\"",
                                   "true",
                                   "false",
                                   "nan",
                                   "-inf",
                                   "1979-05-27",
                                   "0x7fffffffffffffff",
                                   "-9223372036854775808",
                                   "1e308",
                                   "0o777",
                                   "_",
                                   "9999999999999999999999",
                                   "[tier]\n",
                                   "[[tenant]]\n",
                                   "[daemon]\n",
                                   "tenant = 1\n",
                                   "uids = [4294967295]\n",
                                   "\"18446744073709551615TiB\"",
                                   "\"-1s\"",
                                   "\"inf\"",
                                   "a.b.c = 1\n",
                                   "[a.b.c]\n"};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Make(const std::vector<std::string>& seeds) {
    std::string text = seeds[Below(seeds.size())];
    for (uint64_t left = 1 + Below(6); left > 0; --left) {
      Change(&text, seeds);
    }
    return text.substr(0, 16384);
  }

 private:
  uint64_t Below(uint64_t end) { return end == 0 ? 0 : random_() % end; }

  // The bounds of a line, its break included.
  std::pair<size_t, size_t> Line(const std::string& text) {
    const size_t inside = Below(text.size());
    const size_t before = text.rfind('\n', inside == 0 ? 0 : inside - 1);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    const size_t end = text.find('\n', begin);
    return {begin, end == std::string::npos ? text.size() : end + 1};
  }

  void Change(std::string* text, const std::vector<std::string>& seeds) {
    const std::string piece = kPieces[Below(std::size(kPieces))];
    const size_t at = Below(text->size() + 1);
    switch (Below(9)) {
      case 0:  // flip a bit
        if (!text->empty()) {
          (*text)[Below(text->size())] ^= static_cast<char>(1U << Below(8));
        }
        return;
      case 1:
        text->insert(at, piece);
        return;
      case 2:
        text->erase(at, 1 + Below(8));
        return;
      case 3:
        text->resize(at);
        return;
      case 4: {  // a line twice
        if (text->empty()) {
          return;
        }
        const auto [begin, end] = Line(*text);
        text->insert(Below(text->size() + 1), text->substr(begin, end - begin));
        return;
      }
      case 5: {  // a line away
        if (text->empty()) {
          return;
        }
        const auto [begin, end] = Line(*text);
        text->erase(begin, end - begin);
        return;
      }
      case 6: {  // another value
        const size_t equals = text->find('=', at);
        if (equals == std::string::npos) {
          return;
        }
        const size_t end = std::min(text->find('\n', equals), text->size());
        text->replace(equals + 1, end - equals - 1, " " + piece);
        return;
      }
      case 7: {  // the tail of another
        const std::string& other = seeds[Below(seeds.size())];
        text->resize(at);
        text->append(other.substr(Below(other.size())));
        return;
      }
      default:
        text->insert(at, std::string(1 + Below(300), piece.front()));
    }
  }

  std::mt19937_64 random_;
};

TEST(ConfigFuzz, AnyTextIsAConfigurationOrOneLineOfError) {
  const uint64_t seed = doubles::FromEnvironment("TERRACE_FUZZ_SEED", std::random_device()());
  const uint64_t iterations = doubles::FromEnvironment("TERRACE_FUZZ_ITERATIONS", 20000);
  std::printf("TERRACE_FUZZ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  RecordProperty("seed", std::to_string(seed));
  const std::vector<std::string> seeds = Seeds();
  for (const std::string& text : seeds) {
    ASSERT_TRUE(ParseConfig(text, "seed.toml").ok())
        << ParseConfig(text, "seed.toml").status() << "\n"
        << text;
  }
  Mutator mutator(seed);
  uint64_t accepted = 0;
  for (uint64_t i = 0; i < iterations; ++i) {
    const std::string text = mutator.Make(seeds);
    const std::string violation = Violation(text);
    ASSERT_EQ(violation, "") << "seed " << seed << ", text " << i << ":\n" << text;
    accepted += ParseConfig(text, "fuzz.toml").ok() ? 1 : 0;
  }
  // Both answers must have been given, or the mutations are too tame or too wild to find anything.
  EXPECT_GT(accepted, iterations / 100);
  EXPECT_LT(accepted, iterations * 9 / 10);
}

}  // namespace
}  // namespace terrace
#endif
