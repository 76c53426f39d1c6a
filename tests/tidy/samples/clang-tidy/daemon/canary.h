#pragma once

struct canary_in_lower_case {
  int* Pointer(bool wanted) {
    if (wanted) return 0;
    return &number_;
  }
  int number_ = 0;
};
