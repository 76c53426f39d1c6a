// The worker of a GPU: all that this daemon does with CUDA, on a process of its own, because an
// error that ends the context ends the process that it happens in. It holds nothing but its socket,
// the slabs that loads name, and the memory that clients share.
//
// An error of the driver ends the process at once, without an answer: only when it is gone is it
// certain that no copy touches anything any more.
#pragma once

namespace terrace {

// Serves until the core closes the socket or the device is lost, and ends the process then. Returns
// only what is wrong with how it was started: an exit status, after a line on stderr.
int RunGpuWorker();

}  // namespace terrace
