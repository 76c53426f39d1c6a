#include "tools/bench/payload.h"

#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace terrace::bench {
namespace {

std::vector<char> Filled(const PayloadSource& source, std::string_view key, size_t bytes) {
  std::vector<char> out(bytes, '\x7f');
  source.Fill(key, absl::MakeSpan(out));
  return out;
}

TEST(PayloadSource, WhatItFillsHasNoWrongBytes) {
  const PayloadSource source(3);
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{4096}, size_t{4097}, size_t{100'003}}) {
    const std::string key = source.Key(bytes, 36);
    EXPECT_EQ(source.WrongBytes(key, Filled(source, key, bytes)), 0U) << bytes;
  }
}

TEST(PayloadSource, CountsEveryWrongByteWhereverItIs) {
  const PayloadSource source(3);
  const std::string key = source.Key(1, 36);
  for (const size_t at : {size_t{0}, size_t{4095}, size_t{4096}, size_t{9'998}}) {
    std::vector<char> payload = Filled(source, key, 9'999);
    payload[at] = static_cast<char>(payload[at] ^ 1);
    EXPECT_EQ(source.WrongBytes(key, payload), 1U) << at;
    payload[(at + 5'000) % payload.size()] ^= '\x80';
    EXPECT_EQ(source.WrongBytes(key, payload), 2U) << at;
  }
}

TEST(PayloadSource, AnotherKeyOrSpaceGivesOtherBytes) {
  const PayloadSource source(3);
  const std::vector<char> payload = Filled(source, source.Key(1, 36), 4'096);
  EXPECT_GT(source.WrongBytes(source.Key(2, 36), payload), 4'000U);
  EXPECT_GT(PayloadSource(4).WrongBytes(source.Key(1, 36), payload), 4'000U);
  std::vector<char> zeros(4'096, '\0');
  EXPECT_GT(source.WrongBytes(source.Key(1, 36), zeros), 4'000U);
}

TEST(PayloadSource, ContentThatMovedByAWordIsWrong) {
  const PayloadSource source(3);
  const std::string key = source.Key(1, 36);
  const std::vector<char> payload = Filled(source, key, 4'104);
  EXPECT_GT(source.WrongBytes(key, absl::MakeConstSpan(payload).subspan(8)), 4'000U);
}

TEST(PayloadSource, KeysHaveTheirLengthAndDiffer) {
  const PayloadSource source(3);
  std::set<std::string> keys;
  for (uint64_t name = 0; name < 1'000; ++name) {
    for (const uint32_t bytes : {16U, 36U, 64U}) {
      keys.insert(source.Key(name, bytes));
      EXPECT_EQ(source.Key(name, bytes).size(), bytes);
    }
    keys.insert(PayloadSource(4).Key(name, 36));
  }
  EXPECT_EQ(keys.size(), 4'000U);
  EXPECT_EQ(source.Keys({5, 6}, 36), source.Key(5, 36) + source.Key(6, 36));
}

}  // namespace
}  // namespace terrace::bench
