// How the local tier's notes keep the generation of a namespace: the note's name is the digest's
// 16 bytes, its value
//    0   1  version, 1
//    1   8  generation, little-endian, from 2
// Namespaces that were never cleared have no note. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace terrace {

std::string EncodeGeneration(uint64_t generation);
// nullopt: damaged, or of a newer version.
std::optional<uint64_t> DecodeGeneration(std::string_view value);

}  // namespace terrace
