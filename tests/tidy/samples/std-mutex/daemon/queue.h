#pragma once

#include <mutex>

struct Queue {
  std::mutex mutex;
};
