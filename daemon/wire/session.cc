#include "daemon/wire/session.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/wire/call_status.h"
#include "daemon/wire/message_bytes.h"

namespace terrace {
namespace {

// Frames that one session may have answered before the others have their turn.
constexpr int kFramesPerTurn = 32;

// What the peer of a session that has ended still has, until nothing can touch its memory. Owners:
// those who tell that. The permit goes with the socket: else a peer whose copies hang could open
// any number of them.
struct EndedConnection {
  Descriptor socket;
  ConnectionPermit permit;
};

}  // namespace

Session::Session(Options options)
    : shared_(std::move(options.shared)),
      credentials_(options.accepted.credentials),
      tenant_(options.accepted.tenant),
      tenant_alias_(std::move(options.accepted.tenant_alias)),
      permit_(std::move(options.accepted.permit)),
      socket_({std::move(options.accepted.socket),
               options.epoll,
               options.epoll_key,
               shared_->limits.reply_backlog_bytes,
               &shared_->clock}),
      assembly_(shared_->limits.message_bytes),
      opened_at_(shared_->clock.Now()),
      frame_began_(opened_at_) {}

Session::Turn Session::OnReadable(absl::Span<char> scratch, google::protobuf::Arena& arena) {
  if (ended_ || !reading_) {
    return Turn::kIdle;
  }
  size_t bytes = 0;
  std::vector<Descriptor> descriptors;
  switch (socket_.Read(scratch, &bytes, &descriptors)) {
    case SessionSocket::ReadResult::kNothing:
      return Turn::kIdle;
    case SessionSocket::ReadResult::kEnd:
      return Turn::kOver;
    case SessionSocket::ReadResult::kBroken:
      shared_->observer.Connection(Carrier::kSession, "protocol_error");
      return Turn::kOver;
    case SessionSocket::ReadResult::kBytes:
      break;
  }
  const bool began = assembly_.pending_bytes() == 0;
  assembly_.Feed({scratch.data(), bytes}, std::move(descriptors));
  const Turn turn = Process(arena);
  assembly_.Retain();
  if (began && assembly_.pending_bytes() != 0) {
    frame_began_ = shared_->clock.Now();
  }
  return turn;
}

Session::Turn Session::Continue(google::protobuf::Arena& arena) {
  if (ended_) {
    return Turn::kIdle;
  }
  const Turn turn = Process(arena);
  assembly_.Retain();
  frame_began_ = shared_->clock.Now();
  return turn;
}

Session::Turn Session::Process(google::protobuf::Arena& arena) {
  socket_.Cork();
  Turn turn = Turn::kMore;
  for (int i = 0; i < kFramesPerTurn && turn == Turn::kMore; ++i) {
    reading_ = socket_.MayRead();
    if (!reading_) {
      turn = Turn::kIdle;
      break;
    }
    Frame frame;
    switch (assembly_.Next(&frame)) {
      case FrameAssembly::Step::kNeedMore:
        turn = Turn::kIdle;
        break;
      case FrameAssembly::Step::kBroken:
        Break(frame.header, absl::string_view(assembly_.broken_field().data(),
                                              assembly_.broken_field().size()));
        turn = Turn::kOver;
        break;
      case FrameAssembly::Step::kFrame:
        turn = OnFrame(frame, arena) ? Turn::kMore : Turn::kOver;
        break;
    }
  }
  if (turn == Turn::kMore && !assembly_.HasWhole()) {
    turn = Turn::kIdle;
  }
  socket_.Uncork();
  if (socket_.failed()) {
    return Turn::kOver;
  }
  if (turn == Turn::kIdle && !reading_ && socket_.MayRead()) {
    turn = Turn::kMore;  // the kernel took it all at once, and will not say so again
  }
  return turn;
}

bool Session::OnFrame(Frame& frame, google::protobuf::Arena& arena) {
  frame_arrived_ = shared_->clock.Now();
  if (id_ == kNoSession && frame.header.method != v1::METHOD_HELLO) {
    return Break(frame.header, "method");
  }
  if (faults_.Paused(frame_arrived_)) {
    ReplyNow(frame.header, TryLater("too many refused requests", 1000), v1::PingReply());
    return true;
  }
  if (IsInFlight(frame.header.call_id)) {
    return Break(frame.header, "call_id");
  }
  const bool goes_on = Dispatch(frame, arena);
  arena.Reset();
  if (refused_.exchange(0, std::memory_order_relaxed) != 0) {
    faults_.Refused(frame_arrived_);
  }
  if (faults_.Exhausted()) {
    shared_->observer.Connection(Carrier::kSession, "protocol_error");
    return false;
  }
  return goes_on;
}

Session::Turn Session::Tick(absl::Duration now) {
  const FrontLimits& limits = shared_->limits;
  if (id_ == kNoSession && now - opened_at_ > limits.hello_timeout) {
    return Turn::kOver;
  }
  if (socket_.failed() || socket_.StalledFor(now) > limits.write_stall_timeout) {
    return Turn::kOver;
  }
  const bool half_a_frame = reading_ && assembly_.pending_bytes() != 0 && !assembly_.HasWhole();
  if (half_a_frame && now - frame_began_ > limits.write_stall_timeout) {
    return Turn::kOver;
  }
  PushEvents();
  std::vector<std::shared_ptr<SessionCall>> late;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, in_flight] : in_flight_) {
      if (in_flight.answer_by < now) {
        late.push_back(in_flight.call);
      }
    }
  }
  for (const std::shared_ptr<SessionCall>& call : late) {
    if (Forget(*call)) {
      const absl::Status status = absl::DeadlineExceededError("the server's deadline has passed");
      SendAnswer(static_cast<uint16_t>(call->method), call->call_id, status, v1::PingReply(), {});
      Observe(call->method, call->context, status);
    }
  }
  return Turn::kIdle;
}

void Session::End() {
  if (std::exchange(ended_, true)) {
    return;
  }
  auto connection =
      std::make_shared<EndedConnection>(EndedConnection{socket_.Leave(), std::move(permit_)});
  if (socket_.PeerHasGone()) {
    connection.reset();  // for nobody sees it
  }
  watches_.clear();
  absl::flat_hash_map<uint64_t, InFlight> dropped;
  {
    absl::MutexLock lock(&mutex_);
    dropped = std::exchange(in_flight_, {});
  }
  shared_->calls_in_flight.fetch_sub(dropped.size());
  if (id_ != kNoSession) {
    shared_->directory.Remove(id_);
    shared_->store.CloseSession(id_, [connection] {});
    if (shared_->gpu != nullptr) {
      shared_->gpu->CloseSession(id_, [connection] {});
    }
  }
  shared_->observer.Connection(Carrier::kSession, "closed");
}

std::shared_ptr<SessionCall> Session::Begin(const Frame& frame) {
  CallPermit permit = CallPermit::Take(permit_.budget());
  if (!permit.valid()) {
    ReplyNow(frame.header,
             TryLater(absl::StrCat("calls in flight: at most ",
                                   shared_->limits.calls_in_flight_per_uid,
                                   " a uid"),
                      10),
             v1::PingReply());
    return nullptr;
  }
  auto call = std::make_shared<SessionCall>();
  call->session = shared_from_this();
  call->method = static_cast<v1::Method>(frame.header.method);
  call->call_id = frame.header.call_id;
  call->sequence = next_sequence_++;
  call->permit = std::move(permit);
  call->context.caller = {tenant_, id_};
  call->context.carrier = Carrier::kSession;
  call->context.arrived = frame_arrived_;
  if (frame.header.deadline_ms != 0) {
    call->context.timeout = absl::Milliseconds(frame.header.deadline_ms);
  }
  call->context.call_id = frame.header.call_id;
  const absl::Duration cap = shared_->calls.CapOf(call->method);
  const absl::Duration answer_by = call->context.Deadline(cap) + kSafetyMargin;
  call->context.alone = shared_->calls_in_flight.fetch_add(1) == 0 && !assembly_.HasWhole();
  absl::MutexLock lock(&mutex_);
  in_flight_[call->call_id] = {call->sequence, answer_by, call};
  return call;
}

bool Session::IsInFlight(uint64_t call_id) {
  absl::MutexLock lock(&mutex_);
  return in_flight_.contains(call_id);
}

void Session::Unbound(const SessionCall& call) {
  absl::MutexLock lock(&mutex_);
  const auto found = in_flight_.find(call.call_id);
  if (found != in_flight_.end() && found->second.sequence == call.sequence) {
    found->second.answer_by = absl::InfiniteDuration();
  }
}

bool Session::Forget(const SessionCall& call) {
  InFlight forgotten;  // destroyed after the lock
  absl::MutexLock lock(&mutex_);
  const auto found = in_flight_.find(call.call_id);
  if (found == in_flight_.end() || found->second.sequence != call.sequence) {
    return false;
  }
  forgotten = std::move(found->second);
  in_flight_.erase(found);
  shared_->calls_in_flight.fetch_sub(1);
  return true;
}

void Session::Finish(SessionCall& call,
                     const absl::Status& status,
                     const google::protobuf::MessageLite& reply,
                     Descriptor descriptor) {
  // First of all, so that a client that waits for this answer finds its call given back.
  call.permit.Return();
  if (!shared_->gate.Enter()) {
    return;
  }
  if (Forget(call)) {
    SendAnswer(static_cast<uint16_t>(call.method), call.call_id, status, reply, std::move(descriptor));
    Observe(call.method, call.context, status);
    if (absl::IsInvalidArgument(status)) {
      refused_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  if (call.expected_bytes != 0) {
    socket_.Made(call.expected_bytes);
  }
  shared_->gate.Leave();
}

void Session::Expect(SessionCall& call, uint64_t bytes) {
  call.expected_bytes = bytes;
  socket_.Expect(bytes);
}

void Session::SendAnswer(uint16_t method,
                         uint64_t call_id,
                         const absl::Status& status,
                         const google::protobuf::MessageLite& reply,
                         Descriptor descriptor) {
  FrameHeader header;
  header.method = method;
  header.kind = FrameKind::kReply;
  header.call_id = call_id;
  header.status = static_cast<uint32_t>(status.code());
  if (status.ok()) {
    socket_.Send(header, reply, std::move(descriptor));
  } else {
    socket_.Send(header, ErrorDetailOf(status, shared_->boot_id), {});
  }
}

void Session::ReplyNow(const FrameHeader& request,
                       const absl::Status& status,
                       const google::protobuf::MessageLite& reply,
                       Descriptor descriptor) {
  CallContext context;
  context.caller = {tenant_, id_};
  context.arrived = frame_arrived_;
  SendAnswer(request.method, request.call_id, status, reply, std::move(descriptor));
  Observe(static_cast<v1::Method>(request.method), context, status);
  if (absl::IsInvalidArgument(status)) {
    refused_.fetch_add(1, std::memory_order_relaxed);
  }
}

void Session::Push(v1::Method method,
                   const google::protobuf::MessageLite& message,
                   Descriptor descriptor) {
  FrameHeader header;
  header.method = static_cast<uint16_t>(method);
  header.kind = FrameKind::kPush;
  socket_.Send(header, message, std::move(descriptor));
}

void Session::Observe(v1::Method method, const CallContext& context, const absl::Status& status) {
  FinishedCall finished;
  finished.verb = VerbName(method);
  finished.carrier = Carrier::kSession;
  finished.tenant = context.caller.tenant;
  finished.status = status.code();
  finished.duration = shared_->clock.Now() - context.arrived;
  finished.keys = context.keys;
  shared_->observer.Finished(finished);
}

bool Session::Break(const FrameHeader& header, absl::string_view field) {
  shared_->observer.Connection(Carrier::kSession, "protocol_error");
  if (header.call_id != 0) {
    const absl::Status status =
        field == "payload_bytes"
            ? InvalidField(field, absl::StrCat("at most ", shared_->limits.message_bytes))
            : InvalidField(field, "breaks a rule of the session");
    SendAnswer(header.method, header.call_id, status, v1::PingReply(), {});
  }
  return false;
}

}  // namespace terrace
