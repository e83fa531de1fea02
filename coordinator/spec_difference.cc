#include "coordinator/spec_difference.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace polystill::coordinator {
namespace {

using google::protobuf::Message;
using google::protobuf::util::MessageDifferencer;
using Path = std::vector<MessageDifferencer::SpecificField>;

// Keys that change how a run is carried out, never what comes out of it (workers: beyond the last bits).
constexpr const char* kFreeOfStudents[] = {"workers",           "min_workers",       "max_workers",
                                           "last_call_seconds", "evict_slower_than", "threads",
                                           "prefetch",          "checkpoint_every",  "keep_checkpoints"};
constexpr const char* kFreeOfTeachers[] = {"cache_mb", "compression"};

class KeyCollector : public MessageDifferencer::Reporter {
 public:
  explicit KeyCollector(std::vector<std::string>* keys) : keys_(keys) {}

  void ReportAdded(const Message&, const Message&, const Path& path) override { Add(path); }
  void ReportDeleted(const Message&, const Message&, const Path& path) override { Add(path); }
  // Comes for each message around a key, too.
  void ReportModified(const Message&, const Message&, const Path& path) override {
    const auto* field = path.back().field;
    if (field->is_map() || field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) Add(path);
  }

 private:
  void Add(const Path& path) {
    std::string key;
    for (const auto& step : path) {
      absl::StrAppend(&key, key.empty() ? "" : ".", step.field->name());
      if (step.field->is_map()) break;
      const int index = std::max(step.index, step.new_index);
      if (step.field->is_repeated() && index >= 0) absl::StrAppend(&key, ".", index);
    }
    if (std::find(keys_->begin(), keys_->end(), key) == keys_->end()) keys_->push_back(std::move(key));
  }

  std::vector<std::string>* const keys_;
};

}  // namespace

std::vector<std::string> DifferingKeys(const v1::RunSpec& began, const v1::RunSpec& now) {
  std::vector<std::string> keys;
  KeyCollector collector(&keys);
  MessageDifferencer differencer;
  for (const char* name : kFreeOfStudents) differencer.IgnoreField(v1::Student::descriptor()->FindFieldByName(name));
  for (const char* name : kFreeOfTeachers) differencer.IgnoreField(v1::Teacher::descriptor()->FindFieldByName(name));
  differencer.ReportDifferencesTo(&collector);
  differencer.Compare(began, now);
  return keys;
}

absl::Status CheckSameRun(const v1::RunSpec& began, const v1::RunSpec& now) {
  const std::vector<std::string> keys = DifferingKeys(began, now);
  if (keys.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      now.output(), ": cannot go on with the run in this folder, which began with another ", absl::StrJoin(keys, ", "),
      "; write what its run.yaml says, or choose another output without --resume"));
}

}  // namespace polystill::coordinator
