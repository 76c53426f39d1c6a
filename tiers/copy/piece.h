// Pieces of a payload that does not lie in one place: payload = the pieces end to end. Plain
// values, so that the copy kernels, which are compiled for newer instruction sets, need no other
// header.
#pragma once

#include <cstddef>

namespace terrace {

struct ConstPiece {
  const char* data = nullptr;
  size_t bytes = 0;
};
struct Piece {
  char* data = nullptr;
  size_t bytes = 0;
};

}  // namespace terrace
