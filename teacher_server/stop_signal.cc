#include "teacher_server/stop_signal.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace polystill::teacher_server {
namespace {

// An eventfd, since writing to one is all that a signal handler needs.
std::atomic<int> event_fd = -1;

void Wake(int) {
  const int saved = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
  errno = saved;
}

void Handle(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

}  // namespace

StopSignal::StopSignal() {
  event_fd = eventfd(0, EFD_CLOEXEC);
  Handle(Wake);
}

StopSignal::~StopSignal() {
  Handle(SIG_DFL);
  close(event_fd.exchange(-1));
}

void StopSignal::Notify(absl::Status why) {
  MutexLock lock(&mutex_);
  if (notified_) return;
  notified_ = true;
  why_ = std::move(why);
  Wake(0);
}

absl::Status StopSignal::Wait() {
  uint64_t count = 0;
  while (read(event_fd, &count, sizeof(count)) < 0 && errno == EINTR) {
  }
  MutexLock lock(&mutex_);
  return why_;
}

}  // namespace polystill::teacher_server
