// The worker's side of a shared tier: makes the calls of the file system that the core must not
// make, on a process of its own, which holds nothing but one socket and the bounce memory.
#pragma once

#include <string>

namespace terrace {

// Serves until the core closes the socket, and ends the process then, from whichever thread notices
// it: a thread that hangs in the file system keeps nobody. Returns only what is wrong with how it
// was started: an exit status, after a line on stderr.
//
// One thread a call, at most as many as the core says; each receives, calls and replies by itself.
int RunSharedWorker(const std::string& name);

}  // namespace terrace
