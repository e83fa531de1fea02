#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/inference_engine.h"

namespace polystill::models {

struct PythonOptions {
  // Of the package.
  std::string folder;
  // As PyTorch writes it: "cpu", "cuda:0".
  std::string device = "cpu";
  // Empty: PythonInterpreter (runtime/python.h).
  std::string interpreter = {};
  // Each with a copy of the model, one batch at a time.
  int processes = 1;
  // Time that loading the model may take, and a batch.
  std::chrono::seconds start{300};
  std::chrono::seconds answer{60};
  // Called whenever a process that has ended is started again, by any thread.
  std::function<void()> restarted = {};
};

// A package's model in Python processes (`python -m polystill.serve_model`), each a server of the Open Inference
// Protocol on a Unix socket that nobody else can reach. Every process has a thread that starts it, copies what it
// prints to the log, and starts it again when it ends (RestartDelay); a batch goes to one that is free:
//
//   - a process that ends while it computes a batch: the batch is tried once more, by another or by the next one, which
//     is waited for while it loads; where every process has ended again and again, batches are UNAVAILABLE at once;
//   - one that gives no answer within `answer` is killed, and the batch is UNAVAILABLE;
//   - one whose model raises lives on, and the batch is INTERNAL with the exception's last line.
//
// No process outlives the engine, nor this program. FAILED_PRECONDITION says why the model cannot be loaded, with the
// last line that the process printed. Waits until all have loaded.
absl::StatusOr<std::unique_ptr<InferenceEngine>> StartPythonEngine(PythonOptions options);

// How long to wait before a process is started again that has ended so often without an answer in between: not at all
// the first time, then 1, 2, 4 ... at most 30 seconds.
std::chrono::milliseconds RestartDelay(int failures);

}  // namespace polystill::models
