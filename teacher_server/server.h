#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "teacher_server/engine.h"
#include "teacher_server/stop_signal.h"

namespace polystill::teacher_server {

struct ServerOptions {
  // A run's teacher: host:port of the coordinator and the teacher's name in the run file ...
  std::string coordinator = {};
  std::string teacher = {};
  // Its name among the run's servers; any when empty.
  std::string server_id = {};
  // How long it looks for a coordinator that is away.
  int64_t coordinator_patience_ms = 600'000;
  // ... or on its own: folder of the package.
  std::string package = {};

  std::string listen = "127.0.0.1:0";
  // Host that callers are told; that of `listen` when empty.
  std::string advertise = {};
  bool insecure = false;
  // Gets host:port: on its own once the teacher answers, in a run as soon as the port is bound.
  std::string address_file = {};
  // host:port at which Prometheus reads; none when empty.
  std::string metrics = {};
  // Folder of the label cache, which no other server may use at the same time, and its cap; no cache when empty.
  std::string cache = {};
  int64_t cache_bytes = int64_t{10} << 30;
  // Where the model computes; in a run the coordinator says. With DEVICE_CUDA: which of this machine's GPUs.
  v1::Device device = v1::DEVICE_CPU;
  int gpu = 0;
  // Time that work under way has to end after a stop; after it the process exits with 1.
  int64_t drain_ms = 10'000;
  // engine.batch.max_rows 0: 64 on a CPU, 1024 on a GPU.
  EngineOptions engine = {.batch = {.max_rows = 0}};
};

// A teacher server from start to end: listens, loads the package (its own or the one the coordinator names), answers
// until SIGTERM, SIGINT or the coordinator's stop, drains. OK after any of these; otherwise why it could not go on.
absl::Status RunTeacherServer(const ServerOptions& options, StopSignal* stop);

}  // namespace polystill::teacher_server
