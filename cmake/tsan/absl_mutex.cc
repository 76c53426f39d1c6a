// Tells ThreadSanitizer what the distribution's absl::Mutex does. Linked into every executable of a
// build with TERRACE_SANITIZE=thread, and into nothing else.
//
// The distribution's libabsl_synchronization is not instrumented and synchronises by atomics of its
// own, so that without this every object behind an absl::Mutex is reported as a data race. The
// functions below stand in front of those of the library, call them, and annotate
// (sanitizer/tsan_interface.h), as Abseil itself does where it is compiled for TSan.
#include <dlfcn.h>

#include "absl/base/config.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <sanitizer/tsan_interface.h>
#include <stdio.h>
#include <stdlib.h>

extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);

namespace {

#define TERRACE_TEXT_OF_ARGUMENT(x) #x
#define TERRACE_TEXT_OF(x) TERRACE_TEXT_OF_ARGUMENT(x)
constexpr char kInlineNamespace[] = TERRACE_TEXT_OF(ABSL_OPTION_INLINE_NAMESPACE_NAME);

// The library's function whose mangled name ends, behind the namespaces, in `tail`; @ in it stands
// for the namespaces of an argument's type.
void* Next(const char* tail) {
  char name[256];
#if ABSL_OPTION_USE_INLINE_NAMESPACE == 1
  snprintf(name, sizeof(name), "_ZN4absl%zu%s%s", sizeof(kInlineNamespace) - 1, kInlineNamespace,
           tail);
#else
  snprintf(name, sizeof(name), "_ZN4absl%s", tail);
#endif
  void* const found = dlsym(RTLD_NEXT, name);
  if (found == nullptr) {
    fprintf(stderr, "TSan: no %s in the distribution's Abseil\n", name);
    abort();
  }
  return found;
}

template <typename Result, typename... Arguments>
class NextFunction {
 public:
  explicit constexpr NextFunction(const char* tail) : tail_(tail) {}
  Result operator()(Arguments... arguments) {
    void* function = __atomic_load_n(&function_, __ATOMIC_ACQUIRE);
    if (function == nullptr) {
      function = Next(tail_);
      __atomic_store_n(&function_, function, __ATOMIC_RELEASE);
    }
    return reinterpret_cast<Result (*)(Arguments...)>(function)(arguments...);
  }

 private:
  const char* const tail_;
  void* function_ = nullptr;
};

constexpr unsigned kExclusive = 0;
constexpr unsigned kShared = __tsan_mutex_read_lock;
constexpr unsigned kTry = __tsan_mutex_try_lock;

// Gives the mutex up around a call that waits with it.
class Waiting {
 public:
  explicit Waiting(absl::Mutex* mutex) : mutex_(mutex) {
    __tsan_mutex_pre_unlock(mutex_, kExclusive);
    __tsan_mutex_post_unlock(mutex_, kExclusive);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() {
    __tsan_mutex_pre_lock(mutex_, kExclusive);
    __tsan_mutex_post_lock(mutex_, kExclusive, 0);
  }

 private:
  absl::Mutex* const mutex_;
};

// Conditions are evaluated with the mutex held, but by whichever thread happens to have it.
bool EvalUnseen(const absl::Condition* condition) {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  const bool holds = condition->Eval();
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  return holds;
}

NextFunction<void, absl::Mutex*> next_destroy("5MutexD1Ev");
NextFunction<void, absl::Mutex*> next_lock("5Mutex4LockEv");
NextFunction<void, absl::Mutex*> next_unlock("5Mutex6UnlockEv");
NextFunction<bool, absl::Mutex*> next_try_lock("5Mutex7TryLockEv");
NextFunction<void, absl::Mutex*> next_reader_lock("5Mutex10ReaderLockEv");
NextFunction<void, absl::Mutex*> next_reader_unlock("5Mutex12ReaderUnlockEv");
NextFunction<bool, absl::Mutex*> next_reader_try_lock("5Mutex13ReaderTryLockEv");
NextFunction<void, absl::Mutex*, const absl::Condition&> next_await(
    "5Mutex5AwaitERKNS0_9ConditionE");
NextFunction<bool, absl::Mutex*, const absl::Condition&, absl::Time> next_await_deadline(
    "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
NextFunction<void, absl::Mutex*, const absl::Condition&> next_lock_when(
    "5Mutex8LockWhenERKNS0_9ConditionE");
NextFunction<void, absl::CondVar*, absl::Mutex*> next_wait("7CondVar4WaitEPNS0_5MutexE");
NextFunction<bool, absl::CondVar*, absl::Mutex*, absl::Time> next_wait_deadline(
    "7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

Mutex::~Mutex() {
  __tsan_mutex_destroy(this, __tsan_mutex_not_static);
  next_destroy(this);
}

void Mutex::Lock() {
  __tsan_mutex_pre_lock(this, kExclusive);
  next_lock(this);
  __tsan_mutex_post_lock(this, kExclusive, 0);
}

void Mutex::Unlock() {
  __tsan_mutex_pre_unlock(this, kExclusive);
  next_unlock(this);
  __tsan_mutex_post_unlock(this, kExclusive);
}

bool Mutex::TryLock() {
  __tsan_mutex_pre_lock(this, kTry);
  const bool locked = next_try_lock(this);
  __tsan_mutex_post_lock(this, locked ? kTry : kTry | __tsan_mutex_try_lock_failed, 0);
  return locked;
}

void Mutex::ReaderLock() {
  __tsan_mutex_pre_lock(this, kShared);
  next_reader_lock(this);
  __tsan_mutex_post_lock(this, kShared, 0);
}

void Mutex::ReaderUnlock() {
  __tsan_mutex_pre_unlock(this, kShared);
  next_reader_unlock(this);
  __tsan_mutex_post_unlock(this, kShared);
}

bool Mutex::ReaderTryLock() {
  __tsan_mutex_pre_lock(this, kShared | kTry);
  const bool locked = next_reader_try_lock(this);
  __tsan_mutex_post_lock(
      this, locked ? kShared | kTry : kShared | kTry | __tsan_mutex_try_lock_failed, 0);
  return locked;
}

// Other threads look at the condition, so it is made before the mutex is given up.
void Mutex::Await(const Condition& condition) {
  const Condition unseen(&EvalUnseen, &condition);
  const Waiting waiting(this);
  next_await(this, unseen);
}

// Abseil's own would come back here for the deadline, and give the mutex up twice.
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  return AwaitWithDeadline(condition, Now() + timeout);
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  const Condition unseen(&EvalUnseen, &condition);
  const Waiting waiting(this);
  return next_await_deadline(this, unseen, deadline);
}

void Mutex::LockWhen(const Condition& condition) {
  __tsan_mutex_pre_lock(this, kExclusive);
  next_lock_when(this, Condition(&EvalUnseen, &condition));
  __tsan_mutex_post_lock(this, kExclusive, 0);
}

void CondVar::Wait(Mutex* mutex) {
  const Waiting waiting(mutex);
  next_wait(this, mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  return WaitWithDeadline(mutex, Now() + timeout);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  const Waiting waiting(mutex);
  return next_wait_deadline(this, mutex, deadline);
}

ABSL_NAMESPACE_END
}  // namespace absl
