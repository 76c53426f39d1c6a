#include "daemon/events/event_encoding.h"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <optional>
#include <utility>

namespace terrace {
namespace {

constexpr int kMaxDepth = 16;
constexpr char kNil = '\xc0';

// The `bytes` low bytes of `value`, the highest first.
void AppendBigEndian(std::string* out, uint64_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

void AppendNumber(std::string* out, uint64_t value) {
  if (value < 0x80) {
    out->push_back(static_cast<char>(value));
  } else if (value <= 0xff) {
    out->push_back('\xcc');
    AppendBigEndian(out, value, 1);
  } else if (value <= 0xffff) {
    out->push_back('\xcd');
    AppendBigEndian(out, value, 2);
  } else if (value <= 0xffffffff) {
    out->push_back('\xce');
    AppendBigEndian(out, value, 4);
  } else {
    out->push_back('\xcf');
    AppendBigEndian(out, value, 8);
  }
}

void AppendFloat(std::string* out, double value) {
  out->push_back('\xcb');
  AppendBigEndian(out, std::bit_cast<uint64_t>(value), 8);
}

// `wide` with 16 bits of length; the one with 32 bits is the next byte.
void AppendWideLength(std::string* out, uint64_t length, uint8_t wide) {
  const bool is_short = length <= 0xffff;
  out->push_back(static_cast<char>(is_short ? wide : wide + 1));
  AppendBigEndian(out, length, is_short ? 2 : 4);
}

void AppendText(std::string* out, std::string_view text) {
  if (text.size() < 32) {
    out->push_back(static_cast<char>(0xa0 | text.size()));
  } else if (text.size() <= 0xff) {
    out->push_back('\xd9');
    AppendBigEndian(out, text.size(), 1);
  } else {
    AppendWideLength(out, text.size(), 0xda);
  }
  out->append(text);
}

void AppendTextOrNil(std::string* out, std::string_view text) {
  if (text.empty()) {
    out->push_back(kNil);
  } else {
    AppendText(out, text);
  }
}

void AppendBytes(std::string* out, std::string_view bytes) {
  if (bytes.size() <= 0xff) {
    out->push_back('\xc4');
    AppendBigEndian(out, bytes.size(), 1);
  } else {
    AppendWideLength(out, bytes.size(), 0xc5);
  }
  out->append(bytes);
}

void AppendArray(std::string* out, size_t count) {
  if (count < 16) {
    out->push_back(static_cast<char>(0x90 | count));
  } else {
    AppendWideLength(out, count, 0xdc);
  }
}

// Of fewer than 16 pairs.
void AppendSmallMap(std::string* out, size_t count) {
  out->push_back(static_cast<char>(0x80 | count));
}

void AppendTokens(std::string* out, const RouterEvent& event) {
  AppendArray(out, event.token_ids.size());
  for (const uint32_t token : event.token_ids) {
    AppendNumber(out, token);
  }
}

void AppendExtraKeys(std::string* out, const RouterEvent& event) {
  if (event.extra_keys.empty()) {
    out->push_back(kNil);
    return;
  }
  AppendArray(out, event.extra_keys.size());
  for (const std::string& keys : event.extra_keys) {
    keys.empty() ? out->push_back(kNil) : static_cast<void>(out->append(keys));
  }
}

std::string_view TypeOf(const RouterEvent& event) {
  switch (event.kind) {
    case RouterEvent::Kind::kStored:
      return "BlockStored";
    case RouterEvent::Kind::kRemoved:
      return "BlockRemoved";
    case RouterEvent::Kind::kAllCleared:
      break;
  }
  return "AllBlocksCleared";
}

// Walks over values in msgpack.
class Walk {
 public:
  explicit Walk(std::string_view bytes) : left_(bytes) {}

  [[nodiscard]] bool IsOver() const { return left_.empty(); }
  // False: there is none, or it is too deep.
  bool Value(int depth) {
    if (left_.empty() || depth > kMaxDepth) {
      return false;
    }
    const auto head = static_cast<uint8_t>(left_.front());
    left_.remove_prefix(1);
    if (head < 0x80 || head >= 0xe0) {
      return true;  // a small number
    }
    if (head < 0xa0) {
      return Values(uint64_t{head & 0x0fU} * (head < 0x90 ? 2 : 1), depth + 1);
    }
    if (head < 0xc0) {
      return Skip(head & 0x1fU);
    }
    return Tagged(head, depth);
  }

 private:
  bool Skip(uint64_t bytes) {
    if (bytes > left_.size()) {
      return false;
    }
    left_.remove_prefix(bytes);
    return true;
  }
  bool Values(uint64_t count, int depth) {
    for (; count > 0; --count) {
      if (!Value(depth)) {
        return false;  // a value takes a byte at least, so this ends
      }
    }
    return true;
  }
  std::optional<uint64_t> Length(int bytes) {
    if (static_cast<size_t>(bytes) > left_.size()) {
      return std::nullopt;
    }
    uint64_t length = 0;
    for (int i = 0; i < bytes; ++i) {
      length = length << 8 | static_cast<uint8_t>(left_[static_cast<size_t>(i)]);
    }
    left_.remove_prefix(static_cast<size_t>(bytes));
    return length;
  }
  bool SkipCounted(int length_bytes, uint64_t more) {
    const std::optional<uint64_t> length = Length(length_bytes);
    return length.has_value() && Skip(*length + more);
  }
  bool ValuesCounted(int length_bytes, uint64_t each, int depth) {
    const std::optional<uint64_t> length = Length(length_bytes);
    return length.has_value() && Values(*length * each, depth + 1);
  }
  bool Tagged(uint8_t head, int depth) {
    switch (head) {
      case 0xc0:  // nil
      case 0xc2:  // false
      case 0xc3:  // true
        return true;
      case 0xc4:  // binary
      case 0xc5:
      case 0xc6:
        return SkipCounted(1 << (head - 0xc4), 0);
      case 0xc7:  // extensions, which have a byte of type
      case 0xc8:
      case 0xc9:
        return SkipCounted(1 << (head - 0xc7), 1);
      case 0xca:  // float
        return Skip(4);
      case 0xcb:
        return Skip(8);
      case 0xcc:  // unsigned, then signed numbers
      case 0xcd:
      case 0xce:
      case 0xcf:
        return Skip(uint64_t{1} << (head - 0xcc));
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
        return Skip(uint64_t{1} << (head - 0xd0));
      case 0xd4:  // extensions of 1 to 16 bytes
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return Skip((uint64_t{1} << (head - 0xd4)) + 1);
      case 0xd9:  // text
      case 0xda:
      case 0xdb:
        return SkipCounted(1 << (head - 0xd9), 0);
      case 0xdc:  // arrays, then maps
      case 0xdd:
        return ValuesCounted(2 << (head - 0xdc), 1, depth);
      case 0xde:
      case 0xdf:
        return ValuesCounted(2 << (head - 0xde), 2, depth);
      default:
        return false;
    }
  }

  std::string_view left_;
};

}  // namespace

void EventBatchWriter::AppendHash(std::string_view hash) {
  if (hash.empty()) {
    events_.push_back(kNil);
  } else if (hashes_ == EventHashes::kBytes) {
    AppendBytes(&events_, hash);
  } else {
    uint64_t low = 0;
    for (const char c : hash.substr(hash.size() - std::min<size_t>(hash.size(), 8))) {
      low = low << 8 | static_cast<uint8_t>(c);
    }
    AppendNumber(&events_, low);
  }
}

void EventBatchWriter::AppendHashes(const RouterEvent& event) {
  AppendArray(&events_, event.hashes.size());
  for (const std::string& hash : event.hashes) {
    AppendHash(hash);
  }
}

void EventBatchWriter::Add(const RouterEvent& event) {
  ++count_;
  if (format_ == EventFormat::kMap) {
    AddMap(event);
  } else {
    AddArray(event);
  }
}

void EventBatchWriter::AddMap(const RouterEvent& event) {
  const bool is_stored = event.kind == RouterEvent::Kind::kStored;
  const size_t fields = is_stored ? 10 : event.kind == RouterEvent::Kind::kAllCleared ? 1 : 4;
  AppendSmallMap(&events_, fields + (event.extra_keys.empty() ? 0 : 1));
  const auto name = [this](std::string_view text) { AppendText(&events_, text); };
  name("type");
  name(TypeOf(event));
  if (event.kind == RouterEvent::Kind::kAllCleared) {
    return;
  }
  name("block_hashes");
  AppendHashes(event);
  if (is_stored) {
    name("parent_block_hash");
    AppendHash(event.parent);
    name("token_ids");
    AppendTokens(&events_, event);
    name("block_size");
    AppendNumber(&events_, event.block_tokens);
    name("lora_id");
    events_.push_back(kNil);
  }
  name("medium");
  name(event.medium);
  if (is_stored) {
    name("lora_name");
    AppendTextOrNil(&events_, event.lora_name);
    if (!event.extra_keys.empty()) {
      name("extra_keys");
      AppendExtraKeys(&events_, event);
    }
  }
  name("group_idx");
  AppendNumber(&events_, event.group);
  if (is_stored) {
    name("kv_cache_spec_kind");
    name(event.spec_kind);
  }
}

void EventBatchWriter::AddArray(const RouterEvent& event) {
  const bool is_stored = event.kind == RouterEvent::Kind::kStored;
  const size_t fields = is_stored ? 11 : event.kind == RouterEvent::Kind::kAllCleared ? 1 : 4;
  AppendArray(&events_, fields);
  AppendText(&events_, TypeOf(event));
  if (event.kind == RouterEvent::Kind::kAllCleared) {
    return;
  }
  AppendHashes(event);
  if (is_stored) {
    AppendHash(event.parent);
    AppendTokens(&events_, event);
    AppendNumber(&events_, event.block_tokens);
    events_.push_back(kNil);
  }
  AppendText(&events_, event.medium);
  if (is_stored) {
    AppendTextOrNil(&events_, event.lora_name);
    AppendExtraKeys(&events_, event);
  }
  AppendNumber(&events_, event.group);
  if (is_stored) {
    AppendText(&events_, event.spec_kind);
  }
}

std::string EventBatchWriter::Finish(absl::Duration at) {
  std::string batch;
  AppendArray(&batch, 3);
  AppendFloat(&batch, absl::ToDoubleSeconds(at));
  AppendArray(&batch, std::exchange(count_, 0));
  batch += std::exchange(events_, "");
  AppendNumber(&batch, rank_);
  return batch;
}

bool IsMsgpackValue(std::string_view bytes) {
  Walk walk(bytes);
  return walk.Value(0) && walk.IsOver();
}

}  // namespace terrace
