#pragma once

class SessionManager final {
 public:
  void Run();
};

using BlockInfo = int;
