// How a process becomes a worker, whatever it works at.
#pragma once

#include <string>

namespace terrace {

// Where a worker finds its socket: everything above is closed before it begins.
inline constexpr int kWorkerSocket = 3;

// Exit statuses of workers; the core does not look at them.
inline constexpr int kWorkerBroken = 1;
inline constexpr int kWorkerWrongUsage = 2;

// Whether this process was started by a core: kWorkerSocket is a socket of packets.
bool IsWorkerSocket();
// A line on stderr; returns kWorkerWrongUsage.
int SayWorkersAreStartedByTerraced();

// The end of the core is the end of its workers, also if it comes before this; what else this
// process inherited, it gives up. `name`: of the process, 15 characters of it.
void SetUpWorker(const std::string& name);

// A worker that hangs must not keep whoever reads the daemon's messages from their end. The core
// knows why a worker ends, and says it.
void LetGoOfWorkersLog();

// Not exit(): destructors would wait for threads that may never end.
[[noreturn]] void LeaveWorker(int status);

}  // namespace terrace
