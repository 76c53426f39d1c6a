// Reading a message field by field: what all decoders of the library share. The only place where
// protozero's exceptions end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "terrace/terrace.h"
#include <protozero/exception.hpp>
#include <protozero/pbf_reader.hpp>

namespace terrace::client {

// Calls read(reader) at every field; false when the message is malformed.
template <typename Read>
bool ReadFields(std::string_view message, Read read) {
  try {
    protozero::pbf_reader reader(message.data(), message.size());
    while (reader.next()) {
      if (!read(reader)) {
        return false;
      }
    }
    return true;
  } catch (const protozero::exception&) {
    return false;
  }
}

inline bool IsBytes(protozero::pbf_reader& reader) {
  return reader.wire_type() == protozero::pbf_wire_type::length_delimited;
}

inline bool TakeBytes(protozero::pbf_reader& reader, std::string_view* out) {
  if (!IsBytes(reader)) {
    return false;
  }
  const protozero::data_view view = reader.get_view();
  *out = std::string_view(view.data(), view.size());
  return true;
}

template <typename Number>
bool TakeNumber(protozero::pbf_reader& reader, Number* out) {
  if (reader.wire_type() != protozero::pbf_wire_type::varint) {
    return false;
  }
  *out = static_cast<Number>(reader.get_uint64());
  return true;
}

// Sixteen bytes or none.
inline bool TakeId(protozero::pbf_reader& reader, terrace_id128* out) {
  std::string_view bytes;
  if (!TakeBytes(reader, &bytes) || (!bytes.empty() && bytes.size() != sizeof(out->bytes))) {
    return false;
  }
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(out->bytes));
  return true;
}

inline bool Skip(protozero::pbf_reader& reader) {
  reader.skip();
  return true;
}

}  // namespace terrace::client
