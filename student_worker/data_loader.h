#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/plan.h"
#include "corpus/reader.h"
#include "corpus/tokenizer.h"
#include "runtime/mutex.h"
#include "soft_labels/client.h"
#include "soft_labels/outputs.h"
#include "student_worker/batch.h"
#include "student_worker/inputs.h"
#include "student_worker/masker.h"

namespace polystill::student_worker {

// Gets this rank's slices of the steps ready ahead of time, and hands them out in order.
//
//   thread: plan -> reader -> tokeniser -> batch ----> queue (at most `prefetch` batches) ----> Next()
//                                            `-> teachers -- labels arrive --^
//
// Thread-safe for one caller of Next.
class DataLoader {
 public:
  // Asks for labels; the callback comes exactly once, from another thread (soft_labels::LabelClient::Label).
  using AskForLabels =
      std::function<void(v1::LabelSpec, std::vector<v1::LabelInput>, soft_labels::LabelClient::Callback)>;
  // Labels that lie on a disk: of records by their places in the corpus, without waiting for anybody
  // (soft_labels::LabelStore::Read).
  using ReadLabels = std::function<absl::StatusOr<soft_labels::LabelClient::Labels>(
      const std::vector<corpus::RecordRef>&, const std::vector<v1::LabelInput>&)>;
  // Where the labels of one teacher by one codec come from: those of all its outputs that the job needs, in one
  // request.
  struct LabelSource {
    std::string teacher;
    // With its outputs and codec.
    v1::LabelSpec spec;
    // What the spec's outputs are.
    soft_labels::Outputs outputs;
    v1::Side reads = v1::SIDE_TEXT;
    v1::Signature::Input input = v1::Signature::INPUT_TEXT;
    // The batch's own token ids are sent, whatever `input` is: the teacher reads the same side by the same tokeniser.
    bool sends_tokens = false;
    // Codec sampled: each pass over a record has draws of its own.
    bool draws_anew = false;
    // One of the two.
    AskForLabels ask;
    ReadLabels read;

    LabelKind KindOf(const soft_labels::Output& output) const {
      return {teacher, soft_labels::SettingsOf(spec, draws_anew), output.name};
    }
  };
  struct Options {
    // Steps [first_step, steps) are loaded.
    int64_t first_step = 0;
    int64_t steps = 0;
    int rank = 0;
    int world_size = 1;
    // Steps whose records are read and whose labels are asked for ahead; 0: as many as their measured times call for
    // (soft_labels/look_ahead.h). What batches hold, and their order, does not depend on it.
    int prefetch = 0;
    // The side that the model reads.
    v1::Side reads = v1::SIDE_TEXT;
    // How long Next goes on waiting for a batch once it is asked to stop.
    std::chrono::milliseconds stop_patience{0};
    // Once requested, Next fails with ABORTED at once.
    std::stop_token leave = {};
    // Called once a second while Next waits, by its caller's thread; null: nobody is.
    std::function<void()> while_waiting = nullptr;
    // Says what is judged of a record, and the form of its gold labels.
    v1::Task task = v1::TASK_CLASSIFICATION;
    // With task masked_lm alone: hides the tokens that are judged.
    std::optional<Masker> masker = std::nullopt;
    // Whether every record must have a gold label.
    bool needs_gold = false;
    // Bytes of token ids that are remembered.
    int64_t memo_bytes = int64_t{256} << 20;
    std::vector<LabelSource> labels;
  };

  // `tokenizer`: null when the corpus holds token ids.
  DataLoader(Options options, std::shared_ptr<const corpus::Plan> plan, std::unique_ptr<corpus::Reader> reader,
             std::shared_ptr<const corpus::Tokenizer> tokenizer);
  // Label sources must have called back, or must never do so any more, before what they refer to goes away.
  ~DataLoader();

  // The batch of the next step. CANCELLED when `stop` is requested and the batch is not there within stop_patience;
  // ABORTED when the loader is left;
  // else the error that its records or labels met, naming the step and the record.
  absl::StatusOr<Batch> Next(std::stop_token stop);

  // How often a block of the corpus was read per pass, on average; a pass begun counts as a whole one. Once Next has
  // given the batch of the last step: the thread reads no more.
  double ReadsPerBlock() const;

  // Words of the records drawn, again in each pass, that tokenizer.max_length left no room for. When ReadsPerBlock may
  // be called.
  int64_t cut_words() const { return cut_words_; }

  // Time that Next has waited so far.
  double wait_seconds() const { return wait_seconds_; }

  // Steps that are got ready ahead at present.
  int prefetch() const;

 private:
  // A batch on its way: it is whole when no label is missing and no error has come.
  struct Pending {
    Batch batch;
    size_t missing_labels = 0;
    absl::Status status;
    std::chrono::steady_clock::time_point asked_at = {};
    int64_t label_bytes = 0;  // decoded
  };
  struct Shared;

  void Run();
  void AwaitFirst(const std::stop_token& stop);
  // The records of this rank's slice of a step, and where they are.
  struct Slice {
    std::vector<corpus::RecordRef> refs;
    std::vector<corpus::Record> records;
  };
  // What a source is asked about a batch.
  struct Question {
    std::vector<corpus::RecordRef> refs;
    std::vector<v1::LabelInput> inputs;
  };
  absl::Status Fill(int64_t step, Slice* slice, Batch* batch);
  Tokens TokensOf(const corpus::RecordRef& ref, const corpus::Record& record);
  absl::Status FillRecord(const corpus::RecordRef& ref, const corpus::Record& record, Batch* batch);
  absl::Status FillWords(const corpus::Record& record, const Tokens& tokens, Batch* batch);
  void FillHidden(std::vector<int32_t>* ids, Batch* batch);
  void Ask(const LabelSource& source, const Slice& slice, std::shared_ptr<Pending> pending);
  Question QuestionFor(const LabelSource& source, const Slice& slice, const Batch& batch) const;

  const Options options_;
  const std::shared_ptr<const corpus::Plan> plan_;
  const std::unique_ptr<corpus::Reader> reader_;
  const std::shared_ptr<const corpus::Tokenizer> tokenizer_;
  TokenMemo memo_;         // of the thread
  int64_t cut_words_ = 0;  // of the thread
  double wait_seconds_ = 0;
  std::optional<std::chrono::steady_clock::time_point> left_at_;  // when Next last gave a batch

  // Outlives this object in the callbacks of label sources.
  const std::shared_ptr<Shared> shared_;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace polystill::student_worker
