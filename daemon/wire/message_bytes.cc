#include "daemon/wire/message_bytes.h"

#include <climits>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "daemon/wire/call_status.h"
#include "google/protobuf/descriptor.h"
#include "terrace/v1/session.pb.h"

namespace terrace {
namespace {

constexpr absl::string_view kUndecodableUrl = "terrace/undecodable";

absl::Status Undecodable() {
  absl::Status status = absl::InvalidArgumentError("message: cannot be decoded");
  status.SetPayload(kUndecodableUrl, absl::Cord());
  return status;
}

// Walks tags without making anything. Source of the format: protobuf.dev/programming-guides/encoding.
class FieldCounter {
 public:
  explicit FieldCounter(uint32_t max_fields) : left_(max_fields) {}

  absl::Status Count(std::string_view bytes, const google::protobuf::Descriptor& type, int depth) {
    if (depth > kMaxMessageDepth) {
      return InvalidField("message", absl::StrCat("at most ", kMaxMessageDepth, " levels"));
    }
    int groups = 0;
    while (!bytes.empty()) {
      uint64_t tag = 0;
      if (!TakeVarint(&bytes, &tag) || tag > UINT32_MAX || (tag >> 3) == 0) {
        return Undecodable();
      }
      if (left_-- == 0) {
        return InvalidField("message", "too many fields");
      }
      std::string_view inner;
      if (!TakeValue(static_cast<uint32_t>(tag & 7), &bytes, &inner, &groups)) {
        return Undecodable();
      }
      if ((tag & 7) != 2 || inner.empty()) {
        continue;
      }
      const auto* field = type.FindFieldByNumber(static_cast<int>(tag >> 3));
      if (field != nullptr && field->type() == google::protobuf::FieldDescriptor::TYPE_MESSAGE) {
        if (absl::Status status = Count(inner, *field->message_type(), depth + 1); !status.ok()) {
          return status;
        }
      }
    }
    return groups == 0 ? absl::OkStatus() : Undecodable();
  }

 private:
  static bool TakeVarint(std::string_view* bytes, uint64_t* out) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes->size() && i < 10; ++i) {
      const auto byte = static_cast<uint8_t>((*bytes)[i]);
      value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) {
        bytes->remove_prefix(i + 1);
        *out = value;
        return true;
      }
    }
    return false;
  }

  static bool Skip(std::string_view* bytes, uint64_t count) {
    if (count > bytes->size()) {
      return false;
    }
    bytes->remove_prefix(count);
    return true;
  }

  static bool TakeValue(uint32_t wire_type,
                        std::string_view* bytes,
                        std::string_view* inner,
                        int* groups) {
    uint64_t value = 0;
    switch (wire_type) {
      case 0:
        return TakeVarint(bytes, &value);
      case 1:
        return Skip(bytes, 8);
      case 2:
        if (!TakeVarint(bytes, &value) || value > bytes->size()) {
          return false;
        }
        *inner = bytes->substr(0, value);
        return Skip(bytes, value);
      case 3:
        return ++*groups <= kMaxMessageDepth;
      case 4:
        return --*groups >= 0;
      case 5:
        return Skip(bytes, 4);
      default:
        return false;
    }
  }

  uint32_t left_;
};

}  // namespace

absl::Status CheckFieldCount(std::string_view bytes,
                             const google::protobuf::Descriptor& type,
                             uint32_t max_fields) {
  return FieldCounter(max_fields).Count(bytes, type, 1);
}

absl::Status ParseMessage(std::string_view bytes, google::protobuf::Message* out) {
  const google::protobuf::Descriptor& type = *out->GetDescriptor();
  const bool geometry = &type == v1::RegisterRegionRequest::descriptor();
  const uint32_t max_fields = geometry ? kMaxGeometryFields : kMaxMessageFields;
  if (absl::Status status = CheckFieldCount(bytes, type, max_fields); !status.ok()) {
    return status;
  }
  if (bytes.size() > INT_MAX || !out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Undecodable();
  }
  return absl::OkStatus();
}

bool IsUndecodable(const absl::Status& status) {
  return status.GetPayload(kUndecodableUrl).has_value();
}

}  // namespace terrace
