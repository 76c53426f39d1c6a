#include "tests/fuzz/frames/message_mutator.h"

#include <array>
#include <vector>

#include "google/protobuf/descriptor.h"

namespace terrace::doubles {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int kMaxDepth = 6;

}  // namespace

uint64_t MessageMutator::Number() {
  static constexpr std::array<uint64_t, 18> kEdges = {
      0,     1,     2,          15,         16,         31,         32,          64,         65,
      4096,  16384, 16385,      0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, UINT64_MAX, UINT64_MAX - 4095};
  return OneIn(3) ? random_() : kEdges[Pick(kEdges.size())];
}

std::string MessageMutator::Text() {
  static constexpr std::array<size_t, 10> kLengths = {0, 1, 15, 16, 17, 32, 64, 65, 257, 5000};
  std::string text(kLengths[Pick(kLengths.size())], static_cast<char>(Pick(128)));
  if (OneIn(2)) {
    for (char& c : text) {
      c = static_cast<char>(Pick(128));
    }
  }
  return text;
}

void MessageMutator::SetScalar(Message* message, const FieldDescriptor* field) {
  const auto* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(message, field, static_cast<uint32_t>(Number()));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(message, field, Number());
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(message, field, OneIn(2));
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnumValue(message, field, static_cast<int>(Number()));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(message, field, Text());
    default:
      return;
  }
}

void MessageMutator::AddScalar(Message* message, const FieldDescriptor* field) {
  const auto* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->AddUInt32(message, field, static_cast<uint32_t>(Number()));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->AddUInt64(message, field, Number());
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->AddEnumValue(message, field, static_cast<int>(Number()));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->AddString(message, field, Text());
    default:
      return;
  }
}

void MessageMutator::MutateField(Message* message, int depth) {
  const auto* descriptor = message->GetDescriptor();
  const auto* reflection = message->GetReflection();
  if (descriptor->field_count() == 0) {
    return;
  }
  const FieldDescriptor* field = descriptor->field(static_cast<int>(Pick(static_cast<uint64_t>(descriptor->field_count()))));
  if (field->is_map()) {
    return;
  }
  const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  if (!field->is_repeated()) {
    if (OneIn(6)) {
      reflection->ClearField(message, field);
    } else if (!is_message) {
      SetScalar(message, field);
    } else if (depth < kMaxDepth) {
      MutateField(reflection->MutableMessage(message, field), depth + 1);
    }
    return;
  }
  const int size = reflection->FieldSize(*message, field);
  if (size > 0 && OneIn(4)) {
    reflection->RemoveLast(message, field);
  } else if (is_message && size > 0 && depth < kMaxDepth && !OneIn(3)) {
    const auto at = static_cast<int>(Pick(static_cast<uint64_t>(size)));
    MutateField(reflection->MutableRepeatedMessage(message, field, at), depth + 1);
  } else {
    static constexpr std::array<int, 5> kCounts = {1, 2, 3, 65, 1025};
    for (int n = kCounts[OneIn(10) ? Pick(kCounts.size()) : Pick(3)]; n > 0; --n) {
      if (is_message) {
        reflection->AddMessage(message, field);
      } else {
        AddScalar(message, field);
      }
    }
  }
}

void MessageMutator::Mutate(Message* message) {
  for (uint64_t n = Pick(4); n < 4; ++n) {
    MutateField(message, 0);
  }
}

std::string MessageMutator::MutateBytes(std::string bytes) {
  for (uint64_t n = Pick(3); n < 3; ++n) {
    const size_t at = Pick(bytes.size() + 1);
    switch (Pick(5)) {
      case 0:
        if (at < bytes.size()) {
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << Pick(8)));
        }
        break;
      case 1:
        bytes.resize(at);
        break;
      case 2:
        bytes.insert(at, bytes.substr(Pick(bytes.size() + 1), Pick(64)));
        break;
      case 3:
        bytes.insert(at, std::string(Pick(16), static_cast<char>(Pick(256))));
        break;
      default:
        bytes.erase(at, Pick(16));
    }
  }
  return bytes;
}

}  // namespace terrace::doubles
