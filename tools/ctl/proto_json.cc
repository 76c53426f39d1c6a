#include "tools/ctl/proto_json.h"

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include <google/protobuf/descriptor.h>

#include "tools/ctl/format.h"

namespace terrace::ctl {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// KeyState -> KEY_STATE_
std::string EnumPrefix(const EnumDescriptor* descriptor) {
  std::string prefix;
  for (const char c : descriptor->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !prefix.empty()) {
      prefix.push_back('_');
    }
    prefix.push_back(absl::ascii_toupper(static_cast<unsigned char>(c)));
  }
  return prefix + "_";
}

Json TextOf(const FieldDescriptor* field, const std::string& value) {
  return field->type() == FieldDescriptor::TYPE_BYTES ? Json(Hex(value)) : Json(value);
}

Json UnsignedOf(const FieldDescriptor* field, uint64_t value) {
  if (field->type() == FieldDescriptor::TYPE_FIXED64) {
    return absl::StrFormat("%016x", value);
  }
  return value;
}

Json SingleOf(const Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->GetInt32(message, field);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->GetInt64(message, field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->GetUInt32(message, field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return UnsignedOf(field, reflection->GetUInt64(message, field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->GetDouble(message, field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->GetFloat(message, field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->GetBool(message, field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumName(field->enum_type(), reflection->GetEnumValue(message, field));
    case FieldDescriptor::CPPTYPE_STRING:
      return TextOf(field, reflection->GetString(message, field));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return reflection->HasField(message, field) ? JsonOf(reflection->GetMessage(message, field))
                                                  : Json(nullptr);
  }
  return nullptr;
}

Json RepeatedOf(const Message& message, const FieldDescriptor* field, int i) {
  const Reflection* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->GetRepeatedInt32(message, field, i);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->GetRepeatedInt64(message, field, i);
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->GetRepeatedUInt32(message, field, i);
    case FieldDescriptor::CPPTYPE_UINT64:
      return UnsignedOf(field, reflection->GetRepeatedUInt64(message, field, i));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->GetRepeatedDouble(message, field, i);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->GetRepeatedFloat(message, field, i);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->GetRepeatedBool(message, field, i);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumName(field->enum_type(), reflection->GetRepeatedEnumValue(message, field, i));
    case FieldDescriptor::CPPTYPE_STRING:
      return TextOf(field, reflection->GetRepeatedString(message, field, i));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return JsonOf(reflection->GetRepeatedMessage(message, field, i));
  }
  return nullptr;
}

// Maps of strings; the order of a protobuf map is not defined, so the keys are sorted.
Json MapOf(const Message& message, const FieldDescriptor* field) {
  std::map<std::string, std::string> sorted;
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    const Message& entry = reflection->GetRepeatedMessage(message, field, i);
    const google::protobuf::Descriptor* type = entry.GetDescriptor();
    sorted.emplace(entry.GetReflection()->GetString(entry, type->map_key()),
                   entry.GetReflection()->GetString(entry, type->map_value()));
  }
  Json object = Json::object();
  for (const auto& [key, value] : sorted) {
    object[key] = value;
  }
  return object;
}

absl::Status WrongKind(const FieldDescriptor* field, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("field '", field->name(), "' must be ", expected));
}

absl::Status SetUnsigned(const Json& value,
                         const FieldDescriptor* field,
                         uint64_t limit,
                         Message* message) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > limit) {
    return WrongKind(field, absl::StrCat("a whole number from 0 to ", limit));
  }
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
    message->GetReflection()->SetUInt32(message, field, value.get<uint32_t>());
  } else {
    message->GetReflection()->SetUInt64(message, field, value.get<uint64_t>());
  }
  return absl::OkStatus();
}

absl::Status SetText(const Json& value, const FieldDescriptor* field, Message* message) {
  if (!value.is_string()) {
    return WrongKind(field, field->type() == FieldDescriptor::TYPE_BYTES
                                ? "a string of hexadecimal digits"
                                : "a string");
  }
  std::string text = value.get<std::string>();
  if (field->type() == FieldDescriptor::TYPE_BYTES) {
    absl::StatusOr<std::string> bytes = ParseHex(text);
    if (!bytes.ok()) {
      return WrongKind(field, absl::StrCat("hexadecimal: ", bytes.status().message()));
    }
    text = *std::move(bytes);
  }
  message->GetReflection()->SetString(message, field, std::move(text));
  return absl::OkStatus();
}

absl::Status SetEnum(const Json& value, const FieldDescriptor* field, Message* message) {
  const EnumDescriptor* type = field->enum_type();
  std::string known;
  for (int i = 0; i < type->value_count(); ++i) {
    const std::string name = EnumName(type, type->value(i)->number());
    if (value.is_string() && value.get<std::string>() == name) {
      message->GetReflection()->SetEnumValue(message, field, type->value(i)->number());
      return absl::OkStatus();
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", name);
  }
  return WrongKind(field, absl::StrCat("one of ", known));
}

absl::Status SetMap(const Json& value, const FieldDescriptor* field, Message* message) {
  if (!value.is_object()) {
    return WrongKind(field, "an object of strings");
  }
  for (const auto& [key, item] : value.items()) {
    if (!item.is_string()) {
      return WrongKind(field, "an object of strings");
    }
    Message* entry = message->GetReflection()->AddMessage(message, field);
    const google::protobuf::Descriptor* type = entry->GetDescriptor();
    entry->GetReflection()->SetString(entry, type->map_key(), key);
    entry->GetReflection()->SetString(entry, type->map_value(), item.get<std::string>());
  }
  return absl::OkStatus();
}

}  // namespace

std::string EnumName(const EnumDescriptor* descriptor, int value) {
  const google::protobuf::EnumValueDescriptor* known = descriptor->FindValueByNumber(value);
  if (known == nullptr) {
    return absl::StrCat(value);
  }
  return absl::AsciiStrToLower(absl::StripPrefix(known->name(), EnumPrefix(descriptor)));
}

Json JsonOf(const Message& message) {
  Json object = Json::object();
  const google::protobuf::Descriptor* type = message.GetDescriptor();
  for (int f = 0; f < type->field_count(); ++f) {
    const FieldDescriptor* field = type->field(f);
    if (field->is_map()) {
      object[field->name()] = MapOf(message, field);
    } else if (field->is_repeated()) {
      Json list = Json::array();
      for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) {
        list.push_back(RepeatedOf(message, field, i));
      }
      object[field->name()] = std::move(list);
    } else {
      object[field->name()] = SingleOf(message, field);
    }
  }
  return object;
}

absl::Status MessageFromJson(const Json& json, Message* message) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError("a JSON object is needed");
  }
  for (const auto& [name, value] : json.items()) {
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(name);
    if (field == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(message->GetDescriptor()->name(), " has no field '", Printable(name), "'"));
    }
    if (value.is_null()) {
      continue;
    }
    const auto is = [field](FieldDescriptor::CppType type) {
      return !field->is_repeated() && field->cpp_type() == type;
    };
    absl::Status status;
    if (field->is_map()) {
      status = SetMap(value, field, message);
    } else if (is(FieldDescriptor::CPPTYPE_UINT32)) {
      status = SetUnsigned(value, field, std::numeric_limits<uint32_t>::max(), message);
    } else if (is(FieldDescriptor::CPPTYPE_UINT64)) {
      status = SetUnsigned(value, field, std::numeric_limits<uint64_t>::max(), message);
    } else if (is(FieldDescriptor::CPPTYPE_STRING)) {
      status = SetText(value, field, message);
    } else if (is(FieldDescriptor::CPPTYPE_ENUM)) {
      status = SetEnum(value, field, message);
    } else {
      status = WrongKind(field, "left out");
    }
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseJson(absl::string_view text) {
  Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return absl::InvalidArgumentError("not valid JSON");
  }
  return json;
}

std::string DumpJson(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace terrace::ctl
