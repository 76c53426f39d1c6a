#pragma once

namespace terrace {

class Session {
 public:
  void End();
};

}  // namespace terrace
