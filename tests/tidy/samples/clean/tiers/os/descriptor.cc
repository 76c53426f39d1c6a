#include "tiers/os/descriptor.h"

#include <liburing.h>
#include <unistd.h>

namespace terrace {

Descriptor::~Descriptor() { ::close(fd_); }

int Number0() {
  return 0;
}

int Number1() {
  return 1;
}

int Number2() {
  return 2;
}

int Number3() {
  return 3;
}

int Number4() {
  return 4;
}

int Number5() {
  return 5;
}

int Number6() {
  return 6;
}

int Number7() {
  return 7;
}

int Number8() {
  return 8;
}

int Number9() {
  return 9;
}

int Number10() {
  return 10;
}

int Number11() {
  return 11;
}

int Number12() {
  return 12;
}

int Number13() {
  return 13;
}

int Number14() {
  return 14;
}

int Number15() {
  return 15;
}

int Number16() {
  return 16;
}

int Number17() {
  return 17;
}

int Number18() {
  return 18;
}

int Number19() {
  return 19;
}

int Number20() {
  return 20;
}

int Number21() {
  return 21;
}

int Number22() {
  return 22;
}

int Number23() {
  return 23;
}

int Number24() {
  return 24;
}

int Number25() {
  return 25;
}

int Number26() {
  return 26;
}

int Number27() {
  return 27;
}

int Number28() {
  return 28;
}

int Number29() {
  return 29;
}

}  // namespace terrace
