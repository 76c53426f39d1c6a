#include "daemon/wire/session_thread.h"

#include <errno.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <utility>

#include <pthread.h>
#include <sched.h>

namespace terrace {
namespace {

constexpr size_t kScratchBytes = size_t{128} << 10;
constexpr int kEventsPerTurn = 64;
constexpr int kTickMs = 50;
constexpr uint32_t kMostPollsSkipped = 64;
// With nobody else on the core a turn of polling takes a microsecond.
constexpr absl::Duration kLongestYield = absl::Microseconds(10);
// Who polls where another thread wants the core loses it for a time slice, of milliseconds; who
// sleeps has it back at once. Hypervisors, too, take cores away, but rarely for so long.
constexpr absl::Duration kTimeSlice = absl::Microseconds(500);
constexpr absl::Duration kContended = absl::Milliseconds(50);

// Shared by key and source: two low bits say which.
constexpr uint64_t KeyOf(uint64_t id, uint64_t source) {
  return id << 2 | source;
}

bool AddToEpoll(int epoll, int fd, uint64_t key) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SessionThread>> SessionThread::Start(
    std::shared_ptr<FrontShared> shared, const std::string& name, absl::Duration poll) {
  Descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) {
    return StatusFromErrno(errno, "epoll_create1");
  }
  absl::StatusOr<EventDescriptor> wake = EventDescriptor::Create();
  if (!wake.ok()) {
    return wake.status();
  }
  if (!AddToEpoll(epoll.get(), wake->get(), KeyOf(0, static_cast<uint64_t>(Source::kWake)))) {
    return StatusFromErrno(errno, "epoll_ctl");
  }
  std::unique_ptr<SessionThread> thread(
      new SessionThread(std::move(shared), std::move(epoll), *std::move(wake), poll));
  thread->thread_ = std::thread([self = thread.get()] { self->Loop(); });
  pthread_setname_np(thread->thread_.native_handle(), name.substr(0, 15).c_str());
  return thread;
}

SessionThread::SessionThread(std::shared_ptr<FrontShared> shared,
                             Descriptor epoll,
                             EventDescriptor wake,
                             absl::Duration poll)
    : shared_(std::move(shared)),
      epoll_(std::move(epoll)),
      wake_(std::move(wake)),
      poll_(std::thread::hardware_concurrency() > 1 ? poll : absl::ZeroDuration()),
      scratch_(kScratchBytes) {}

SessionThread::~SessionThread() {
  stopping_ = true;
  wake_.Notify();
  if (thread_.joinable()) {
    thread_.join();
  }
  for (const auto& [id, session] : sessions_) {
    session->End();
  }
}

void SessionThread::Adopt(AcceptedSession accepted) {
  {
    absl::MutexLock lock(&mutex_);
    adopted_.push_back(std::move(accepted));
  }
  wake_.Notify();
}

void SessionThread::Loop() {
  std::array<epoll_event, kEventsPerTurn> events;
  absl::Duration next_tick = BootClock().Now();
  while (!stopping_) {
    const int ready = Wait(absl::MakeSpan(events));
    turns_.fetch_add(1, std::memory_order_relaxed);
    for (int i = 0; i < ready; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      OnEvent(event.data.u64, event.events);
    }
    ContinueAll();
    if (const absl::Duration now = BootClock().Now(); now >= next_tick) {
      next_tick = now + absl::Milliseconds(kTickMs);
      TickAll();
    }
  }
}

int SessionThread::Wait(absl::Span<epoll_event> events) {
  const auto most = static_cast<int>(events.size());
  if (!more_.empty()) {
    return epoll_wait(epoll_.get(), events.data(), most, 0);
  }
  int ready = 0;
  if (worked_ && poll_ > absl::ZeroDuration()) {
    ready = Poll(events);
  }
  if (ready == 0) {
    ready = epoll_wait(epoll_.get(), events.data(), most, kTickMs);
  }
  worked_ = ready > 0;
  return ready;
}

int SessionThread::Poll(absl::Span<epoll_event> events) {
  if (polls_to_skip_ > 0) {
    --polls_to_skip_;
    return 0;
  }
  absl::Duration now = BootClock().Now();
  if (now < contended_until_) {
    return 0;
  }
  const absl::Duration until = now + poll_;
  int ready = 0;
  while (ready == 0 && now < until) {
    sched_yield();
    const absl::Duration before = std::exchange(now, BootClock().Now());
    ready = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    if (now - before > kTimeSlice) {
      contended_until_ = now + kContended;
    }
    if (now - before > kLongestYield) {
      break;  // somebody else wants this core
    }
  }
  polls_skipped_ = ready > 0 ? 0 : std::min(std::max(1U, 2 * polls_skipped_), kMostPollsSkipped);
  polls_to_skip_ = polls_skipped_;
  return std::max(ready, 0);
}

void SessionThread::OnEvent(uint64_t key, uint32_t events) {
  const uint64_t id = key >> 2;
  switch (static_cast<Source>(key & 3)) {
    case Source::kWake:
      wake_.Clear();
      TakeAdopted();
      return;
    case Source::kProcess:
      OnProcessGone(id);
      return;
    case Source::kSocket:
      break;
  }
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) {
    return;
  }
  const std::shared_ptr<Session> session = found->second;
  if ((events & EPOLLOUT) != 0) {
    session->OnWritable();
    AfterTurn(id, *session, session->Continue(arena_));
  }
  if ((events & EPOLLIN) != 0) {
    AfterTurn(id, *session, session->OnReadable(absl::MakeSpan(scratch_), arena_));
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    EndSession(id);
  }
}

void SessionThread::AfterTurn(uint64_t id, Session& session, Session::Turn turn) {
  if (session.TakeNewProcess() && !WatchProcess(id, session.process().get())) {
    // Leases could not be taken back from this session, so it ends before it can have any.
    session.TakeProcess();
    session.End();
    shared_->store.ProcessGone(session.id());
    turn = Session::Turn::kOver;
  }
  if (turn == Session::Turn::kOver) {
    EndSession(id);
  } else if (turn == Session::Turn::kMore) {
    more_.insert(id);
  }
}

void SessionThread::ContinueAll() {
  for (const uint64_t id : std::exchange(more_, {})) {
    if (const auto found = sessions_.find(id); found != sessions_.end()) {
      const std::shared_ptr<Session> session = found->second;
      AfterTurn(id, *session, session->Continue(arena_));
    }
  }
}

void SessionThread::TickAll() {
  const absl::Duration now = shared_->clock.Now();
  std::vector<uint64_t> over;
  for (const auto& [id, session] : sessions_) {
    if (session->Tick(now) == Session::Turn::kOver) {
      over.push_back(id);
    }
  }
  for (const uint64_t id : over) {
    EndSession(id);
  }
}

void SessionThread::TakeAdopted() {
  std::vector<AcceptedSession> adopted;
  {
    absl::MutexLock lock(&mutex_);
    adopted.swap(adopted_);
  }
  for (AcceptedSession& accepted : adopted) {
    const uint64_t id = next_id_++;
    auto session = std::make_shared<Session>(
        Session::Options{shared_, std::move(accepted), epoll_.get(),
                         KeyOf(id, static_cast<uint64_t>(Source::kSocket))});
    if (session->Watch().ok()) {
      sessions_.emplace(id, std::move(session));
    } else {
      session->End();
    }
  }
}

bool SessionThread::WatchProcess(uint64_t id, int pidfd) {
  return AddToEpoll(epoll_.get(), pidfd, KeyOf(id, static_cast<uint64_t>(Source::kProcess)));
}

void SessionThread::UnwatchProcess(const PidDescriptor& process) {
  // Closing is not enough: the peer shares the open file, and while anybody has it the event would
  // come for ever.
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, process.get(), nullptr);
}

void SessionThread::EndSession(uint64_t id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) {
    return;
  }
  const std::shared_ptr<Session> session = std::move(found->second);
  sessions_.erase(found);
  session->End();
  if (!session->process().valid()) {
    return;
  }
  if (session->process().Exited()) {
    UnwatchProcess(session->process());
    shared_->store.ProcessGone(session->id());
  } else {
    Depart(id, session->TakeProcess(), session->id());
  }
}

void SessionThread::Depart(uint64_t id, PidDescriptor process, SessionId session) {
  const int pid = process.Pid();
  if (pid > 0) {
    const auto [known, fresh] = departed_by_pid_.emplace(pid, id);
    if (!fresh) {
      // Both live, so one number is one process: its first watch serves, and this descriptor
      // closes.
      Departed& first = departed_[known->second];
      if (!first.process.Exited()) {
        first.sessions.push_back(session);
        UnwatchProcess(process);
        return;
      }
      known->second = id;
    }
  }
  departed_[id] = {std::move(process), pid, {session}};
  watched_.store(departed_.size(), std::memory_order_relaxed);
}

void SessionThread::OnProcessGone(uint64_t id) {
  if (sessions_.contains(id)) {
    // The socket may live on in a child that inherited it; the process that was told of leases does
    // not.
    EndSession(id);
    return;
  }
  const auto found = departed_.find(id);
  if (found == departed_.end()) {
    return;
  }
  const Departed departed = std::move(found->second);
  departed_.erase(found);
  UnwatchProcess(departed.process);
  if (const auto known = departed_by_pid_.find(departed.pid);
      known != departed_by_pid_.end() && known->second == id) {
    departed_by_pid_.erase(known);
  }
  watched_.store(departed_.size(), std::memory_order_relaxed);
  for (const SessionId session : departed.sessions) {
    shared_->store.ProcessGone(session);
  }
}

}  // namespace terrace
