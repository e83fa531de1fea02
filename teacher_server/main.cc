#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>

#include "runtime/allocator.h"
#include "teacher_server/server.h"

namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  polystill-teacher --package runs/demo/models/teacher-english --listen 127.0.0.1:7070\n"
    "      answers label requests on port 7070 until SIGTERM\n"
    "  polystill-teacher --coordinator 127.0.0.1:7000 --teacher english\n"
    "      joins a run and serves its teacher `english` as soon as it is trained\n"
    "  polystill-teacher --package my-teacher --listen 0.0.0.0:7070 --advertise gpu3 --insecure --threads 8\n"
    "      is reachable from other machines, without TLS\n";

void AddFlags(CLI::App& app, polystill::teacher_server::ServerOptions& options, int64_t& memo_mib, int64_t& delay_us) {
  auto* package = app.add_option("--package", options.package, "folder of the teacher package to serve on its own");
  app.add_option("--coordinator", options.coordinator, "host:port of the coordinator whose run to join")
      ->excludes(package);
  app.add_option("--teacher", options.teacher, "name of the teacher in the run file")->excludes(package);
  app.add_option("--server-id", options.server_id,
                 "its name among the run's servers, the same whenever it starts again:\n"
                 "then it is asked for the labels that it has kept")
      ->excludes(package);
  app.add_option_function<double>(
         "--coordinator-patience",
         [&options](double seconds) { options.coordinator_patience_ms = static_cast<int64_t>(1000 * seconds); },
         "seconds to look for a coordinator that is away, while it answers")
      ->check(CLI::Range(0.0, 1e6))
      ->default_str("600")
      ->excludes(package);
  app.add_option("--listen", options.listen, "host:port to listen on; port 0: any free one")->capture_default_str();
  app.add_option("--advertise", options.advertise, "host that callers are told; that of --listen when left out");
  app.add_flag("--insecure", options.insecure, "allow an address other than loopback, without TLS");
  app.add_option("--address-file", options.address_file, "file to write the bound host:port to");
  app.add_option("--metrics", options.metrics, "host:port at which Prometheus reads /metrics; none when left out");
  auto* cache = app.add_option("--cache", options.cache, "folder of this server's own in which labels are kept");
  app.add_option("--cache-bytes", options.cache_bytes, "bytes on the disk that they may take, e.g. 50GiB")
      ->needs(cache)
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->default_str("10GiB");
  app.add_flag_callback(
      "--cuda", [&options] { options.device = polystill::v1::DEVICE_CUDA; },
      "with --package: compute on a GPU; in a run, the run file's teachers.N.device says");
  app.add_option("--gpu", options.gpu, "which of this machine's GPUs")
      ->check(CLI::Range(0, 1023))
      ->capture_default_str();
  auto& engine = options.engine;
  app.add_option("--threads", engine.threads,
                 "batches computed at once, each on a thread of its own, on a GPU on a stream")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--max-records", engine.max_records_per_request, "records that one request may hold")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--stream-credits", engine.stream_credits, "records in flight of one stream")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--batch-tokens", engine.batch.max_tokens, "tokens of one batch, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch-records", engine.batch.max_rows,
                 "records of one batch, at most; 0: 64 on a CPU, 1024 on a GPU")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--batch-delay-us", delay_us, "microseconds that a request waits for company\nwhile a thread is free")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  app.add_option("--queue-records", engine.queue.max_records, "records that may wait")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--queue-tokens", engine.queue.max_tokens, "tokens that may wait")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--memo-mib", memo_mib, "MiB for token ids of the texts asked for last")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--drain-ms", options.drain_ms,
                 "milliseconds that work under way has to end after SIGTERM;\nafter them the process exits with 1")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  polystill::KeepFreedMemory();
  spdlog::set_default_logger(spdlog::stderr_color_mt("teacher"));
  polystill::teacher_server::ServerOptions options;
  int64_t memo_mib = options.engine.memo_bytes >> 20;
  int64_t delay_us = options.engine.batch.max_delay.count();
  CLI::App app("A teacher server: answers with a model's soft labels over gRPC.");
  app.footer(kExamples);
  AddFlags(app, options, memo_mib, delay_us);
  CLI11_PARSE(app, argc, argv);
  options.engine.memo_bytes = memo_mib << 20;
  options.engine.batch.max_delay = std::chrono::microseconds(delay_us);
  polystill::teacher_server::StopSignal stop;
  const absl::Status status = polystill::teacher_server::RunTeacherServer(options, &stop);
  if (status.ok()) return 0;
  spdlog::error("{}", status.ToString());
  return 1;
}
