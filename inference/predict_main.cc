#include <ATen/Parallel.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "inference/predict_files.h"
#include "inference/predict_formats.h"
#include "inference/predictor.h"
#include "runtime/allocator.h"
#include "runtime/status.h"

namespace {

using polystill::inference::Judgement;
using polystill::inference::PredictFile;
using polystill::inference::PredictFileOptions;
using polystill::inference::Prediction;
using polystill::inference::PredictLines;
using polystill::inference::Predictor;
using polystill::inference::Question;

constexpr int kExitFailed = 1;
constexpr int kExitInterrupted = 130;

constexpr char kExamples[] =
    "Examples:\n"
    "  polystill predict --student runs/package-topics --text 'Ein Texteditor für die Konsole'\n"
    "  polystill predict --student runs/package-topics --file reviews.jsonl --text-column body --out labelled.jsonl\n"
    "  polystill predict --student runs/package-topics --file reviews.parquet --out labelled.parquet\n"
    "  polystill predict --student my-package < texts.txt > labelled.jsonl\n"
    "\n"
    "Exit status: 0 fine, 1 failed, 130 interrupted; wrong usage has another.";

volatile std::sig_atomic_t interrupted = 0;

struct Arguments {
  std::string student;
  std::string model = "distilled";
  std::vector<std::string> texts;
  PredictFileOptions files;
  size_t top = 3;
  int threads = 1;
};

// Counts rows on a terminal's last line; false when Ctrl-C has come.
class Counter {
 public:
  bool operator()(int64_t rows) {
    if (terminal_) {
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
      std::fprintf(stderr, "\r%lld records, %.0f records/s ", static_cast<long long>(rows),
                   static_cast<double>(rows) / std::max(seconds.count(), 1e-3));
      shown_ = true;
    }
    return interrupted == 0;
  }
  ~Counter() {
    if (shown_) std::fprintf(stderr, "\n");
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool shown_ = false;
};

// "net 97.1%  ", for each of some labels.
void PrintLabels(const Predictor& predictor, const Judgement& judgement, const std::vector<size_t>& labels) {
  for (const size_t label : labels) {
    std::printf("%s %.1f%%  ", predictor.labels()[label].c_str(), 100 * judgement.probabilities[label]);
  }
}

// "Ada/PER 97.1%  left/O 99.2%", a line a text; a word beyond max_length stands alone.
void PrintWords(const Predictor& predictor, const Prediction& prediction, const Question& question) {
  for (size_t word = 0; word < question.words.size(); ++word) {
    std::printf(word < prediction.size() ? "%s/" : "%s  ", question.words[word].c_str());
    if (word < prediction.size()) PrintLabels(predictor, prediction[word], prediction[word].labels);
  }
  std::printf("\n");
}

// "net 97.1%  admin 1.2%  devel 0.8%   the text", a line a text, or a mask in it; with task multi_label the labels that
// are predicted.
void PrintText(const Predictor& predictor, const Judgement& judgement, const Question& question, size_t top) {
  std::vector<size_t> order(judgement.probabilities.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return judgement.probabilities[a] > judgement.probabilities[b]; });
  const bool many = predictor.task() == polystill::v1::TASK_MULTI_LABEL;
  order.resize(many ? judgement.labels.size() : std::min(top, order.size()));
  if (order.empty()) std::printf("no label  ");
  PrintLabels(predictor, judgement, order);
  std::printf(" %s\n", question.text.c_str());
}

void Print(const Predictor& predictor, const Prediction& prediction, const Question& question, size_t top) {
  if (predictor.judges_words()) return PrintWords(predictor, prediction, question);
  if (prediction.empty()) std::printf("no <mask>  %s\n", question.text.c_str());
  for (const Judgement& judgement : prediction) PrintText(predictor, judgement, question, top);
}

absl::Status Run(const Arguments& arguments) {
  at::set_num_threads(arguments.threads);
  ASSIGN_OR_RETURN(const std::string folder, polystill::inference::FindPackage(arguments.student, arguments.model));
  ASSIGN_OR_RETURN(const Predictor predictor, Predictor::Open(folder));
  if (!arguments.texts.empty()) {
    std::vector<Question> questions;
    for (const std::string& text : arguments.texts) {
      questions.push_back({text, polystill::inference::SplitWords(text)});
    }
    ASSIGN_OR_RETURN(const auto predictions, predictor.Predict(questions));
    for (size_t i = 0; i < predictions.size(); ++i) Print(predictor, predictions[i], questions[i], arguments.top);
    return absl::OkStatus();
  }
  if (predictor.fills_masks()) {
    return absl::InvalidArgumentError("a masked language model fills <mask> in a --text; it has no files to label");
  }
  Counter counter;
  const auto progress = [&counter](int64_t rows) { return counter(rows); };
  if (arguments.files.input.empty()) return PredictLines(predictor, std::cin, std::cout, progress).status();
  PredictFileOptions files = arguments.files;
  files.progress = progress;
  return PredictFile(predictor, files).status();
}

}  // namespace

int main(int argc, char** argv) {
  polystill::KeepFreedMemory();
  Arguments arguments;
  CLI::App app("Asks a trained student (or any model package) about texts: a label and its probability for each.",
               "polystill predict");
  app.footer(kExamples);
  app.add_option("--student", arguments.student, "a run's folder, or a model package")->required();
  app.add_option("--model", arguments.model, "which of the run's models: distilled, gold, teacher-NAME ...")
      ->capture_default_str();
  CLI::Option* text =
      app.add_option("--text", arguments.texts,
                     "a text, in words between white space where the model judges words; may be repeated")
          ->allow_extra_args(false);
  CLI::Option* file =
      app.add_option("--file", arguments.files.input, "records to predict: .jsonl, .parquet, or .txt (a text a line)");
  CLI::Option* out =
      app.add_option("--out", arguments.files.output,
                     "the same records with prediction, probability, and probabilities in the order of the labels");
  file->excludes(text)->needs(out);
  out->needs(file);
  app.add_option("--text-column", arguments.files.text_column, "column of the text in --file")->capture_default_str();
  app.add_option("--top", arguments.top, "labels to print for a --text; of a multi_label model those above 50%")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--threads", arguments.threads, "threads of tensor operations")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  const absl::Status status = Run(arguments);
  if (status.ok()) return 0;
  std::cerr << "polystill predict: " << status.message() << std::endl;
  return absl::IsCancelled(status) ? kExitInterrupted : kExitFailed;
}
