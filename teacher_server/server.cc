#include "teacher_server/server.h"

#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/address.h"
#include "runtime/cuda/device.h"
#include "runtime/files.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "teacher_server/label_cache.h"
#include "teacher_server/libtorch_backend.h"
#include "teacher_server/metrics.h"
#include "teacher_server/registration.h"
#include "teacher_server/service.h"

namespace polystill::teacher_server {
namespace {

using std::chrono::milliseconds;

// Records of a batch.
constexpr int64_t kRowsOnGpu = 1'024;

// The parts of a running server; ended by Drain.
class Server {
 public:
  explicit Server(const ServerOptions& options) : options_(options) {}

  absl::Status Start() {
    if (!options_.cache.empty()) {
      auto segments = LabelSegments::Open({.folder = options_.cache, .max_bytes = options_.cache_bytes});
      // A run can do without.
      if (!segments.ok() && options_.coordinator.empty()) return segments.status();
      if (!segments.ok()) spdlog::warn("labels are not kept: {}", segments.status().ToString());
      if (segments.ok()) OpenCache(*std::move(segments));
    }
    if (!options_.metrics.empty()) RETURN_IF_ERROR(metrics_.Listen(options_.metrics, options_.insecure));
    ASSIGN_OR_RETURN(listening_, Listen(options_.listen, {&service_}, options_.insecure, options_.advertise));
    SetHealthy(false);
    spdlog::info("listening on {}", listening_.address);
    return absl::OkStatus();
  }

  // The digest of what is served from now on.
  absl::StatusOr<std::string> Load(const std::string& package, v1::Device kind) {
    if (!package_.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("this server serves ", package_, " already, cannot load ", package));
    }
    ASSIGN_OR_RETURN(const at::Device device, cuda::OpenDevice(kind, options_.gpu));
    ASSIGN_OR_RETURN(Teacher teacher, LoadTeacher(package, device, [this] { teacher_metrics_.BackendRestarted(); }));
    EngineOptions fitted = FitToTeacher(options_.engine, teacher.signature);
    if (fitted.batch.max_rows == 0) fitted.batch.max_rows = device.is_cpu() ? BatchLimits().max_rows : kRowsOnGpu;
    if (teacher.batches_at_once > 0) fitted.threads = teacher.batches_at_once;  // they only wait
    const std::string digest = teacher.digest;
    spdlog::info("serving teacher '{}' of {} with digest {}", teacher.name, package, digest);
    service_.Serve(std::make_unique<Engine>(std::move(teacher), fitted, std::chrono::steady_clock::now,
                                            &teacher_metrics_, cache_.get()));
    SetHealthy(true);
    package_ = package;
    return digest;
  }

  absl::Status WriteAddress() const {
    if (options_.address_file.empty()) return absl::OkStatus();
    return WriteFileAtomically(options_.address_file, listening_.address + "\n");
  }

  // What the cache was good for.
  void TellCache() const {
    if (cache_ == nullptr) return;
    spdlog::info("label cache: {} labels were there, {} were not", cache_->found(), cache_->missed());
  }

  // Ends the process, as failed, when work under way has not ended in time: nobody can wait for a forward that hangs.
  void Drain() {
    SetHealthy(false);
    if (!service_.Drain(milliseconds(options_.drain_ms))) {
      spdlog::error("gave up on work that was not finished {} ms after the stop", options_.drain_ms);
      spdlog::default_logger()->flush();
      std::_Exit(1);
    }
    listening_.server->Shutdown(std::chrono::system_clock::now());
  }

  const std::string& address() const { return listening_.address; }

 private:
  void OpenCache(std::unique_ptr<LabelSegments> segments) {
    spdlog::info("label cache {}: holds {} MiB of at most {}", options_.cache, segments->bytes() >> 20,
                 options_.cache_bytes >> 20);
    cache_ = std::make_unique<LabelCache>(std::move(segments), &teacher_metrics_);
  }

  void SetHealthy(bool healthy) {
    grpc::HealthCheckServiceInterface* health = listening_.server->GetHealthCheckService();
    health->SetServingStatus(v1::TeacherService::service_full_name(), healthy);
    health->SetServingStatus(healthy);
  }

  const ServerOptions& options_;
  Metrics metrics_;
  TeacherMetrics teacher_metrics_{&metrics_};
  std::unique_ptr<LabelCache> cache_;
  TeacherService service_;
  ListeningServer listening_;
  std::string package_;
};

// A teacher on loopback is of use to a run on the same machine only.
absl::Status CheckReachable(const ServerOptions& options, const std::string& address) {
  if (options.coordinator.empty() || IsLoopback(HostOf(options.coordinator)) || !IsLoopback(HostOf(address))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("workers of the run at ", options.coordinator, " could not reach this server at ", address,
                   "; give it an address of this machine, e.g. --listen 0.0.0.0:0 --advertise $(hostname) --insecure"));
}

}  // namespace

absl::Status RunTeacherServer(const ServerOptions& options, StopSignal* stop) {
  if (options.package.empty() == (options.coordinator.empty() || options.teacher.empty())) {
    return absl::InvalidArgumentError("give either --package, or both --coordinator and --teacher");
  }
  Server server(options);
  RETURN_IF_ERROR(server.Start());
  RETURN_IF_ERROR(CheckReachable(options, server.address()));
  std::unique_ptr<Registration> registration;
  if (options.package.empty()) {
    RETURN_IF_ERROR(server.WriteAddress());
    registration = std::make_unique<Registration>(
        Registration::Options{.coordinator = options.coordinator,
                              .teacher = options.teacher,
                              .address = server.address(),
                              .server_id = options.server_id,
                              .lost_patience_ms = options.coordinator_patience_ms},
        [&](const v1::TeacherOrder::Load& order) { return server.Load(order.package(), order.device()); },
        [&](absl::Status why) { stop->Notify(std::move(why)); });
  } else {
    RETURN_IF_ERROR(server.Load(options.package, options.device).status());
    RETURN_IF_ERROR(server.WriteAddress());
  }
  const absl::Status why = stop->Wait();
  registration.reset();
  server.Drain();
  server.TellCache();
  return why;
}

}  // namespace polystill::teacher_server
