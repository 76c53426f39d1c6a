#include "daemon/wire/grpc_call.h"

#include <sys/socket.h>

#include <chrono>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "daemon/wire/call_status.h"
#include "daemon/wire/message_bytes.h"

namespace terrace {
namespace {

grpc::Status GrpcStatusOf(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

// From now on; infinite when the caller has named none.
absl::Duration TimeoutOf(const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return absl::InfiniteDuration();
  }
  return absl::FromChrono(deadline - std::chrono::system_clock::now());
}

}  // namespace

void GrpcPeer::HangUp() const { shutdown(socket_.get(), SHUT_RDWR); }

bool GrpcPeer::CountFault(absl::Duration now, bool undecodable) {
  absl::MutexLock lock(&mutex_);
  faults_.Refused(now);
  if (undecodable) {
    faults_.Undecodable(now);
  }
  return faults_.Exhausted();
}

void GrpcPeers::Add(std::shared_ptr<GrpcPeer> peer) {
  absl::MutexLock lock(&mutex_);
  const int number = peer->number();
  peers_[number] = std::move(peer);
}

void GrpcPeers::Remove(const GrpcPeer& peer) {
  std::shared_ptr<GrpcPeer> removed;  // destroyed after the lock
  absl::MutexLock lock(&mutex_);
  if (const auto found = peers_.find(peer.number());
      found != peers_.end() && found->second.get() == &peer) {
    removed = std::move(found->second);
    peers_.erase(found);
  }
}

std::shared_ptr<GrpcPeer> GrpcPeers::Find(const std::string& peer_name) {
  absl::string_view number = peer_name;
  int fd = -1;
  if (!absl::ConsumePrefix(&number, "fd:") || !absl::SimpleAtoi(number, &fd)) {
    return nullptr;
  }
  absl::MutexLock lock(&mutex_);
  const auto found = peers_.find(fd);
  return found == peers_.end() ? nullptr : found->second;
}

void GrpcCall::Finish(const absl::Status& status, const google::protobuf::MessageLite& reply) {
  permit.Return();
  FinishOnce(status, reply, call.keys);
}

void GrpcCall::FinishOnce(const absl::Status& status,
                          const google::protobuf::MessageLite& reply,
                          uint32_t keys) {
  if (!shared_->gate.Enter()) {
    return;
  }
  if (!answered_.exchange(true)) {
    table_.Forget(shared_from_this());
    shared_->observer.Finished({verb,
                                Carrier::kGrpc,
                                call.caller.tenant,
                                status.code(),
                                shared_->clock.Now() - call.arrived,
                                keys});
    grpc::ByteBuffer bytes;
    if (status.ok()) {
      bytes = GrpcBytesOf(reply);
    } else {
      const v1::ErrorDetail detail = ErrorDetailOf(status, shared_->boot_id);
      context_->AddTrailingMetadata("terrace-boot-id", absl::StrCat(detail.boot_id()));
      if (!detail.field().empty()) {
        context_->AddTrailingMetadata("terrace-field", detail.field());
      }
      if (detail.retry_after_ms() != 0) {
        context_->AddTrailingMetadata("terrace-retry-after-ms", absl::StrCat(detail.retry_after_ms()));
      }
    }
    if (absl::IsInvalidArgument(status) && peer != nullptr &&
        peer->CountFault(shared_->clock.Now(), IsUndecodable(status))) {
      peer->HangUp();
    }
    end_(GrpcStatusOf(status), bytes);
  }
  shared_->gate.Leave();
}

std::shared_ptr<GrpcCall> GrpcCallTable::Begin(const GrpcCallSite& site) {
  auto call = std::make_shared<GrpcCall>(shared_, *this, site);
  call->verb = site.verb;
  call->call.caller = {site.tenant, kNoSession};
  call->call.carrier = Carrier::kGrpc;
  call->call.arrived = shared_->clock.Now();
  call->call.timeout = TimeoutOf(*site.context);
  call->answer_by = call->call.Deadline(site.cap) + kSafetyMargin;
  call->peer = peers_.Find(site.context->peer());
  shared_->calls_in_flight.fetch_add(call->endless() ? 0 : 1);
  absl::Status stopped;
  {
    absl::MutexLock lock(&mutex_);
    calls_.insert(call);
    stopped = stopped_;
  }
  const v1::PingReply nothing;
  if (!stopped.ok()) {
    call->Finish(stopped, nothing);
  } else if (call->peer == nullptr) {
    call->Finish(absl::UnavailableError("the connection is over"), nothing);
  } else if (call->peer->Paused(call->call.arrived)) {
    call->Finish(TryLater("too many refused requests", 1000), nothing);
  } else if (call->call.timeout < absl::Milliseconds(1)) {
    call->Finish(absl::DeadlineExceededError("the deadline has passed"), nothing);
  } else {
    call->permit = CallPermit::Take(call->peer->budget());
    if (!call->permit.valid()) {
      call->Finish(TryLater(absl::StrCat("calls in flight: at most ",
                                         shared_->limits.calls_in_flight_per_uid,
                                         " a uid"),
                            10),
                   nothing);
    }
  }
  return call;
}

void GrpcCallTable::Forget(const std::shared_ptr<GrpcCall>& call) {
  absl::MutexLock lock(&mutex_);
  if (calls_.erase(call) != 0) {
    shared_->calls_in_flight.fetch_sub(call->endless() ? 0 : 1);
  }
}

void GrpcCallTable::Tick(absl::Duration now) {
  std::vector<std::shared_ptr<GrpcCall>> late;
  {
    absl::MutexLock lock(&mutex_);
    for (const std::shared_ptr<GrpcCall>& call : calls_) {
      if (call->answer_by < now) {
        late.push_back(call);
      }
    }
  }
  for (const std::shared_ptr<GrpcCall>& call : late) {
    call->FinishEarly(absl::DeadlineExceededError("the server's deadline has passed"));
  }
}

void GrpcCallTable::FinishEndless(const absl::Status& status) {
  std::vector<std::shared_ptr<GrpcCall>> endless;
  {
    absl::MutexLock lock(&mutex_);
    for (const std::shared_ptr<GrpcCall>& call : calls_) {
      if (call->endless()) {
        endless.push_back(call);
      }
    }
  }
  for (const std::shared_ptr<GrpcCall>& call : endless) {
    call->FinishStream(status);
  }
}

void GrpcCallTable::FinishAll(const absl::Status& status) {
  std::vector<std::shared_ptr<GrpcCall>> all;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = status;
    all.assign(calls_.begin(), calls_.end());
  }
  for (const std::shared_ptr<GrpcCall>& call : all) {
    call->FinishEarly(status);
  }
}

grpc::ByteBuffer GrpcBytesOf(const google::protobuf::MessageLite& message) {
  const size_t bytes = message.ByteSizeLong();
  grpc_slice slice = grpc_slice_malloc(bytes);
  message.SerializeWithCachedSizesToArray(GRPC_SLICE_START_PTR(slice));
  const grpc::Slice owned(slice, grpc::Slice::STEAL_REF);
  return {&owned, 1};
}

absl::Status ParseGrpcMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* out) {
  grpc::Slice slice;
  if (!bytes.TrySingleSlice(&slice).ok() && !bytes.DumpToSingleSlice(&slice).ok()) {
    return absl::InvalidArgumentError("message: cannot be read");
  }
  return ParseMessage({reinterpret_cast<const char*>(slice.begin()), slice.size()}, out);
}

}  // namespace terrace
