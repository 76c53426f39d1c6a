// A reader of msgpack, written from its specification alone, for tests of what is written in it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace terrace::doubles {

struct MsgpackValue {
  enum class Kind : uint8_t { kNil, kBoolean, kNumber, kFloat, kText, kBytes, kArray, kMap };
  Kind kind = Kind::kNil;
  uint64_t number = 0;  // kNumber: never negative here; kBoolean
  double real = 0;
  std::string bytes;  // kText, kBytes
  std::vector<MsgpackValue> items;
  std::map<std::string, MsgpackValue> fields;  // kMap with texts as keys
};

// nullopt: it is not exactly one value, or of a kind that events do not have.
std::optional<MsgpackValue> ReadMsgpack(std::string_view bytes);

}  // namespace terrace::doubles
