#include "tests/doubles/msgpack_value.h"

#include <cstring>

namespace terrace::doubles {
namespace {

using Kind = MsgpackValue::Kind;

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool AtEnd() const { return at_ == bytes_.size(); }

  MsgpackValue Read() {
    const auto head = static_cast<uint8_t>(Number(1));
    MsgpackValue value;
    if (head <= 0x7f) {
      value.kind = Kind::kNumber;
      value.number = head;
    } else if (head <= 0x8f) {
      ReadMap(head & 0xfU, &value);
    } else if (head <= 0x9f) {
      ReadArray(head & 0xfU, &value);
    } else if (head <= 0xbf) {
      ReadBytes(Kind::kText, head & 0x1fU, &value);
    } else {
      ReadTagged(head, &value);
    }
    return value;
  }

 private:
  uint64_t Number(size_t bytes) {
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; ++i) {
      if (at_ >= bytes_.size()) {
        failed_ = true;
        return 0;
      }
      number = number * 256 + static_cast<uint8_t>(bytes_[at_++]);
    }
    return number;
  }
  void ReadBytes(Kind kind, uint64_t length, MsgpackValue* value) {
    value->kind = kind;
    if (length > bytes_.size() - at_) {
      failed_ = true;
      return;
    }
    value->bytes = std::string(bytes_.substr(at_, length));
    at_ += length;
  }
  void ReadArray(uint64_t count, MsgpackValue* value) {
    value->kind = Kind::kArray;
    for (uint64_t i = 0; i < count && !failed_; ++i) {
      value->items.push_back(Read());
    }
  }
  void ReadMap(uint64_t count, MsgpackValue* value) {
    value->kind = Kind::kMap;
    for (uint64_t i = 0; i < count && !failed_; ++i) {
      const MsgpackValue name = Read();
      failed_ = failed_ || name.kind != Kind::kText;
      value->fields[name.bytes] = Read();
    }
  }
  void ReadTagged(uint8_t head, MsgpackValue* value) {
    switch (head) {
      case 0xc0:
        return;
      case 0xc2:
      case 0xc3:
        value->kind = Kind::kBoolean;
        value->number = head & 1U;
        return;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return ReadBytes(Kind::kBytes, Number(size_t{1} << (head - 0xc4)), value);
      case 0xcb: {
        value->kind = Kind::kFloat;
        const uint64_t bits = Number(8);
        std::memcpy(&value->real, &bits, sizeof(bits));
        return;
      }
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        value->kind = Kind::kNumber;
        value->number = Number(size_t{1} << (head - 0xcc));
        return;
      case 0xd9:
      case 0xda:
      case 0xdb:
        return ReadBytes(Kind::kText, Number(size_t{1} << (head - 0xd9)), value);
      case 0xdc:
        return ReadArray(Number(2), value);
      case 0xdd:
        return ReadArray(Number(4), value);
      case 0xde:
        return ReadMap(Number(2), value);
      case 0xdf:
        return ReadMap(Number(4), value);
      default:
        failed_ = true;
    }
  }

  const std::string_view bytes_;
  size_t at_ = 0;
  bool failed_ = false;
};

}  // namespace

std::optional<MsgpackValue> ReadMsgpack(std::string_view bytes) {
  Reader reader(bytes);
  MsgpackValue value = reader.Read();
  if (reader.failed() || !reader.AtEnd()) {
    return std::nullopt;
  }
  return value;
}

}  // namespace terrace::doubles
