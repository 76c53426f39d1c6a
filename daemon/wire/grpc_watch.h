// Watch over gRPC: a stream of events until its client leaves, or the front ends.
//
// One message is in hand at a time; a client that does not read holds up its own stream alone, and
// is told of a gap when it reads again. Between messages the stream looks every kWatchPollInterval
// whether there is something to say, on a thread of gRPC's. It ends with UNAVAILABLE when the
// daemon stops.
#pragma once

#include <grpcpp/grpcpp.h>

#include "daemon/wire/grpc_call.h"

namespace terrace {

// What the service returns; deletes itself. Of the site all but response is needed, and `end` is
// filled in here.
grpc::ServerWriteReactor<grpc::ByteBuffer>* RunWatch(GrpcCallTable& table, GrpcCallSite site);

}  // namespace terrace
