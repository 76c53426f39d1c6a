#include "tiers/segment/set_note_format.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/types/span.h"

#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr std::string_view kMagic = "TRRCSET\n";

}  // namespace

std::string EncodeSetNote(uint64_t version, std::string_view value) {
  std::array<char, kSetNoteBytes> front{};
  FieldWriter writer(absl::MakeSpan(front));
  writer.Bytes(kMagic);
  writer.U64(version);
  std::string note(front.data(), front.size());
  note.append(value);
  return note;
}

void DecodeSetNote(std::string_view note, uint64_t* version, std::string_view* value) {
  if (note.size() < kSetNoteBytes || note.substr(0, kMagic.size()) != kMagic) {
    *version = 0;
    *value = note;
    return;
  }
  FieldReader reader({note.data(), kSetNoteBytes});
  reader.Bytes(kMagic.size());
  *version = reader.U64();
  *value = note.substr(kSetNoteBytes);
}

}  // namespace terrace
