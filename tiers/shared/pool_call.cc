#include "tiers/shared/pool_call.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace terrace {
namespace {

// Beyond what any file system has, and far from where sums overflow.
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 50;

bool NamesAPath(PoolOp op) {
  return op != PoolOp::kSpace && op != PoolOp::kCheckRoot;
}

}  // namespace

bool UsesBuffer(PoolOp op) {
  return op == PoolOp::kRead || op == PoolOp::kWrite || op == PoolOp::kCreate ||
         op == PoolOp::kReplace;
}

absl::Status CheckPoolOperands(const PoolCall& call) {
  const auto number = static_cast<uint32_t>(call.op);
  if (number == 0 || number > kPoolOps) {
    return absl::InvalidArgumentError("op: unknown");
  }
  if (call.priority < Priority::kLow || call.priority > Priority::kHigh) {
    return absl::InvalidArgumentError("priority: unknown");
  }
  const bool names_root = call.op == PoolOp::kList && call.path.empty();
  if (NamesAPath(call.op) && !names_root && !IsRootedPath(call.path)) {
    return absl::InvalidArgumentError("path: not one below the root");
  }
  if (call.offset > kMaxFileBytes || call.length > kMaxFileBytes) {
    return absl::InvalidArgumentError("offset and length: at most 2^50 each");
  }
  const bool small = call.op == PoolOp::kCreate || call.op == PoolOp::kReplace;
  if (small && call.length > kMaxSmallFileBytes) {
    return absl::InvalidArgumentError(
        "length: at most 4 MiB of a file that is replaced as a whole");
  }
  return absl::OkStatus();
}

absl::Status CheckPoolCall(const PoolCall& call) {
  if (absl::Status operands = CheckPoolOperands(call); !operands.ok()) {
    return operands;
  }
  const uint64_t room = call.buffer == nullptr ? 0 : call.buffer->memory().size();
  if (UsesBuffer(call.op) && room < call.length) {
    return absl::InvalidArgumentError("buffer: smaller than the length");
  }
  return absl::OkStatus();
}

bool IsPoolFault(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kFailedPrecondition:
      return false;
    default:
      return true;
  }
}

PoolReply RunPoolCall(RootedFiles& files, const PoolCall& call, absl::Span<char> memory) {
  PoolReply reply;
  const auto take = [&reply](auto answer, auto PoolReply::*field) {
    reply.status = answer.status();
    if (answer.ok()) {
      reply.*field = *std::move(answer);
    }
  };
  const absl::Span<char> used = UsesBuffer(call.op) ? memory.first(call.length) : memory;
  switch (call.op) {
    case PoolOp::kRead:
      take(files.Read(call.path, call.offset, used, call.how), &PoolReply::bytes);
      break;
    case PoolOp::kWrite:
      reply.status = files.Write(call.path, call.offset, used);
      break;
    case PoolOp::kSync:
      reply.status = files.Sync(call.path);
      break;
    case PoolOp::kMake:
      reply.status = files.Make(call.path, call.length);
      break;
    case PoolOp::kCreate:
      reply.status = files.Create(call.path, used);
      break;
    case PoolOp::kReplace:
      reply.status = files.Replace(call.path, used);
      break;
    case PoolOp::kRemove:
      reply.status = files.Remove(call.path);
      break;
    case PoolOp::kMakeFolder:
      reply.status = files.MakeFolder(call.path);
      break;
    case PoolOp::kRemoveFolder:
      reply.status = files.RemoveFolder(call.path);
      break;
    case PoolOp::kList:
      take(files.List(call.path), &PoolReply::entries);
      break;
    case PoolOp::kSpace:
      take(files.Space(), &PoolReply::space);
      break;
    case PoolOp::kCheckRoot:
      reply.status = files.CheckRoot();
      break;
  }
  return reply;
}

}  // namespace terrace
