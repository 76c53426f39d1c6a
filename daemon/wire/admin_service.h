// service Admin over gRPC. Answers come from the store's own figures; nothing here returns payload or takes a path.
#pragma once

#include <functional>
#include <memory>

#include "daemon/front.h"
#include "daemon/wire/grpc_call.h"

namespace terrace {

struct AdminRoom {
  AdminHooks hooks;
  std::function<void(bool draining)> draining_changed;  // tells the sessions; any thread
};

// Borrows the table. Thread-safe.
std::unique_ptr<grpc::Service> MakeAdminService(GrpcCallTable& table, AdminRoom room);

}  // namespace terrace
