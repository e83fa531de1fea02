#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "corpus/columns.h"
#include "corpus/decode.h"
#include "corpus/files.h"
#include "corpus/sentencepiece.h"
#include "corpus/source.h"
#include "corpus/text_sample.h"
#include "corpus/tokenizer.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "runtime/tokenizer_file.h"

namespace polystill::corpus {
namespace {

// A file, once for each selection that reads it.
struct Task {
  v1::Selection selection;
  SourceFile file;
};

absl::StatusOr<std::vector<Task>> TasksOf(const std::vector<v1::Selection>& selections) {
  std::vector<Task> tasks;
  for (v1::Selection selection : selections) {
    // A tokeniser needs no label.
    selection.set_reads_labels(false);
    RETURN_IF_ERROR(CheckSelection(selection));
    ASSIGN_OR_RETURN(std::vector<SourceFile> files, ListFiles(selection.corpus().path()));
    for (SourceFile& file : files) tasks.push_back({selection, std::move(file)});
  }
  return tasks;
}

// `progress(bytes)`: bytes of the file that have been read.
absl::Status AddTexts(const Task& task, const std::function<void(int64_t)>& progress, TextSample* sample) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Source> source, OpenSource(task.file));
  ASSIGN_OR_RETURN(const std::vector<Unit> units, source->Units());
  for (size_t i = 0; i < units.size(); ++i) {
    ASSIGN_OR_RETURN(const std::vector<Record> records, DecodeRecords(task.selection, *source, units[i]));
    for (const Record& record : records) {
      sample->Add(record.words.empty() ? record.text : absl::StrJoin(record.words, " "));
      sample->Add(record.source_words.empty() ? record.source_text : absl::StrJoin(record.source_words, " "));
    }
    progress(task.file.bytes * static_cast<int64_t>(i + 1) / static_cast<int64_t>(units.size()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TrainTokenizer(const v1::Tokenizer& tokenizer, const std::vector<v1::Selection>& selections, uint64_t seed,
                            bool with_mask, const std::string& folder,
                            const std::function<void(int64_t, int64_t)>& progress) {
  if (tokenizer.kind() == v1::Tokenizer::KIND_IDS) {
    return absl::InvalidArgumentError("tokenizer.kind is ids: there is no tokeniser to train");
  }
  ASSIGN_OR_RETURN(const std::vector<Task> tasks, TasksOf(selections));
  int64_t bytes = 0;
  for (const Task& task : tasks) bytes += task.file.bytes;
  // Training counts as much as reading.
  const int64_t total = 2 * bytes;

  TextSample sample(tokenizer.training_sentences(), kTrainingTextBytes, seed);
  int64_t done = 0;
  for (const Task& task : tasks) {
    RETURN_IF_ERROR(AddTexts(
        task, [&](int64_t of_file) { progress(done + of_file, total); }, &sample));
    done += task.file.bytes;
  }
  std::string model;
  const std::vector<std::string> control =
      with_mask ? std::vector<std::string>{kMaskPiece} : std::vector<std::string>();
  const std::string error = TrainSentencePiece(sample.Take(), tokenizer.vocab_size(), control, &model);
  if (!error.empty()) return absl::InvalidArgumentError(absl::StrCat("training the tokeniser: ", error));
  RETURN_IF_ERROR(MakeFolder(folder));
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder, "/", kSentencePieceFile), model));
  progress(total, total);
  return absl::OkStatus();
}

}  // namespace polystill::corpus
