// PutStream and GetStream over gRPC: payload that no message can carry, in chunks of at most 1 MiB.
// Both end in the handlers of calls.h, with the checks, outcomes and deadlines of the unary verbs.
//
//   put   The first message is the request, checked before anything is kept. Payload is collected
//         in memory of the size that the request announces; only when the client has half-closed
//         and exactly that much has come does the put begin, so that of a stream that breaks off,
//         overflows or dies nothing is stored.
//   get   The blocks are found, verified and kept in place; then the header goes out, and chunk by
//         chunk what they hold.
//
// Bounds: one message is read or written at a time. A put holds what it announces, at most
// kMaxStreamBytes, and two chunks; a get holds two chunks; both are charged to the peer's budget
// (RESOURCE_EXHAUSTED when that is used up), and gRPC's own buffers to its quota. A stream is a
// call in flight from its beginning to its end, which comes at the verb's deadline at the latest,
// whatever the client does.
//
// What it does not promise: that a client which has stopped reading learns why its stream ended.
#pragma once

#include <grpcpp/grpcpp.h>

#include "daemon/wire/grpc_call.h"

namespace terrace {

// What the service returns; both delete themselves. Of the site all but bytes (put) and response
// (get) is needed, and `end` is filled in here.
grpc::ServerReadReactor<grpc::ByteBuffer>* RunPutStream(GrpcCallTable& table, GrpcCallSite site);
grpc::ServerWriteReactor<grpc::ByteBuffer>* RunGetStream(GrpcCallTable& table, GrpcCallSite site);

}  // namespace terrace
