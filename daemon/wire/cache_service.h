// service Cache over gRPC, for one tenant. Every verb and both streams end in Calls; Watch is answered UNIMPLEMENTED by
// gRPC itself.
#pragma once

#include <memory>

#include "daemon/wire/grpc_call.h"

namespace terrace {

// Borrows the table. Thread-safe.
std::unique_ptr<grpc::Service> MakeCacheService(GrpcCallTable& table, TenantId tenant);

}  // namespace terrace
