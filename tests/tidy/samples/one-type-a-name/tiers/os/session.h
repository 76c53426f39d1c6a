#pragma once

namespace terrace {

struct Session {
  int id = 0;
};

}  // namespace terrace
