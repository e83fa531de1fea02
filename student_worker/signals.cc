#include "student_worker/signals.h"

#include <pthread.h>
#include <signal.h>

#include <initializer_list>
#include <utility>

namespace polystill::student_worker {
namespace {

// Ends the watching thread.
constexpr int kEndOfWatch = SIGUSR2;

sigset_t SetOf(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  return set;
}

}  // namespace

Signals::Signals(std::stop_source stop) : stop_(std::move(stop)) {
  const sigset_t all = SetOf({SIGINT, SIGTERM, kEndOfWatch});
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  thread_ = std::thread([this] { Watch(); });
}

Signals::~Signals() {
  pthread_kill(thread_.native_handle(), kEndOfWatch);
  thread_.join();
}

void Signals::Watch() {
  const sigset_t all = SetOf({SIGINT, SIGTERM, kEndOfWatch});
  const sigset_t ending = SetOf({SIGINT, SIGTERM});
  const sigset_t end_of_watch = SetOf({kEndOfWatch});
  int signal = 0;
  sigwait(&all, &signal);
  if (signal == kEndOfWatch) return;
  received_ = signal;
  stop_.request_stop();
  pthread_sigmask(SIG_UNBLOCK, &ending, nullptr);  // in this thread: the next one takes its course
  sigwait(&end_of_watch, &signal);
}

}  // namespace polystill::student_worker
