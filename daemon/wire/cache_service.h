// service Cache over gRPC, for one tenant. Every unary verb ends in Calls; PutStream, GetStream and Watch are answered
// UNIMPLEMENTED by gRPC itself.
#pragma once

#include <memory>

#include "daemon/wire/grpc_call.h"

namespace terrace {

// Borrows the table. Thread-safe.
std::unique_ptr<grpc::Service> MakeCacheService(GrpcCallTable& table, TenantId tenant);

}  // namespace terrace
