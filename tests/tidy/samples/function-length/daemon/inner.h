// A nested class behind an access label is looked into as well.
#pragma once

class Outer {
 public:
  template <class Value>
  struct Inner {
    void LongOne() {
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
      ++count;
    }
    int count = 0;
  };
};
