// service Cache over gRPC, for one tenant. Every verb and every stream ends in Calls.
#pragma once

#include <memory>

#include "daemon/wire/grpc_call.h"

namespace terrace {

// Borrows the table. Thread-safe.
std::unique_ptr<grpc::Service> MakeCacheService(GrpcCallTable& table, TenantId tenant);

}  // namespace terrace
