#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "benchmarks/rivals/independent_draws.h"
#include "checkpoint/safetensors.h"
#include "losses/weighted.h"
#include "runtime/counter_rng.h"
#include "runtime/status.h"
#include "soft_labels/decode.h"
#include "soft_labels/sampled.h"
#include "teacher_server/row_encoder.h"

// The code under test of benchmarks/codecs.py: the teacher's encoder, the student's decoder and the losses that read
// it, on logits that a file brings, without a server between them. Statistics are Python's.

namespace polystill {
namespace {

using checkpoint::NamedTensors;
using Json = nlohmann::json;
using soft_labels::Array;
using Clock = std::chrono::steady_clock;

constexpr char kTeacher[] = "teacher";

// What is measured of some rows.
struct Rows {
  at::Tensor teacher;
  std::vector<at::Tensor> students;
  std::vector<at::Tensor> gradients;
  // Of hidden_head.
  at::Tensor hidden;
  losses::Head head;
  int64_t first = 0;  // number of the first row among all that the benchmark has
  double temperature = 1;
  uint64_t seed = 0;

  int64_t count() const { return teacher.size(0); }
  int64_t classes() const { return teacher.size(1); }
};

absl::StatusOr<Rows> ReadRows(const std::string& path, const Json& wanted) {
  Rows rows;
  ASSIGN_OR_RETURN(const NamedTensors tensors, checkpoint::ReadSafetensors(path));
  std::map<std::string, at::Tensor> named(tensors.begin(), tensors.end());
  rows.teacher = named["teacher"];
  if (!rows.teacher.defined()) return absl::InvalidArgumentError(absl::StrCat(path, ": has no tensor 'teacher'"));
  for (int i = 0; named.contains(absl::StrCat("student.", i)); ++i) {
    rows.students.push_back(named[absl::StrCat("student.", i)]);
    rows.gradients.push_back(named[absl::StrCat("gradient.", i)]);
    if (!rows.gradients.back().defined()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": student ", i, " has no gradient"));
    }
  }
  rows.hidden = named["hidden"];
  rows.head = {named["head.weight"], named["head.bias"]};
  rows.first = wanted.at("first_row");
  rows.temperature = wanted.at("temperature");
  rows.seed = wanted.at("seed");
  return rows;
}

absl::StatusOr<v1::Loss> LossOf(const Json& setting, double temperature) {
  v1::Loss loss;
  loss.set_kind(v1::LOSS_KIND_SOFT_LABEL);
  loss.set_weight(1);
  loss.set_temperature(temperature);
  loss.set_teacher(kTeacher);
  const std::string name = setting.at("codec");
  v1::Codec codec;
  if (!v1::Codec_Parse(absl::StrCat("CODEC_", absl::AsciiStrToUpper(name)), &codec)) {
    return absl::InvalidArgumentError(absl::StrCat("no codec ", name));
  }
  loss.set_codec(codec);
  loss.set_k(setting.value("k", 0));
  loss.set_draws_per_token(setting.value("draws", 0));
  return loss;
}

// A codec, as teacher and student use it on these rows.
class Label {
 public:
  Label(const Rows& rows, const v1::Loss& loss, uint64_t pass)
      : rows_(rows), output_{"logits", rows.classes(), false, rows.hidden.defined() ? rows.hidden.size(1) : 0} {
    teacher_.set_digest("a teacher");
    *request_.mutable_spec() = soft_labels::SpecOf(soft_labels::SettingsOf(loss), rows.seed);
    for (int64_t row = 0; row < rows.count(); ++row) {
      v1::LabelInput& input = *request_.add_inputs();
      input.mutable_ids()->add_ids(static_cast<int32_t>(rows.first + row));
      input.set_draw(pass);
      sizes_.push_back(SizeOf(request_.spec(), output_, input));
    }
  }

  absl::StatusOr<v1::SoftLabels> Encode() const {
    const bool hidden = request_.spec().codec() == v1::CODEC_HIDDEN_HEAD;
    return teacher_server::EncodeRows(teacher_, request_, output_, hidden ? rows_.hidden : rows_.teacher);
  }

  absl::StatusOr<Array> Decode(const v1::SoftLabels& labels) const {
    return soft_labels::Decode(labels, request_.spec(), output_, sizes_);
  }

 private:
  const Rows& rows_;
  const soft_labels::Output output_;
  v1::DescribeReply teacher_;
  v1::LabelRequest request_;
  std::vector<soft_labels::RecordSize> sizes_;
};

// Of the labels alone, with the lengths of rows where they differ.
int64_t BytesOf(const v1::SoftLabels& labels) {
  v1::SoftLabels lengths;
  *lengths.mutable_row_bytes() = labels.row_bytes();
  return static_cast<int64_t>(labels.packed().size() + labels.dense().data().size() + lengths.ByteSizeLong());
}

at::Tensor Int64(const std::vector<int32_t>& numbers) { return at::tensor(numbers, at::kInt).to(at::kLong); }

// The gradient of the loss to a student's logits, as a student worker computes it.
absl::StatusOr<at::Tensor> GradientOf(const Rows& rows, const v1::Loss& loss, const Array& array,
                                      const at::Tensor& student) {
  losses::Batch batch;
  batch.task = v1::TASK_CLASSIFICATION;
  batch.logits = student.clone().set_requires_grad(true);
  losses::TeacherLabels& labels = batch.teachers[{kTeacher, soft_labels::SettingsOf(loss), "logits"}];
  if (array.width > 0) labels.numbers = at::tensor(array.numbers).view({rows.count(), array.width});
  if (loss.codec() == v1::CODEC_TOP_K) labels.ids = Int64(array.ids).view({rows.count(), loss.k()});
  if (loss.codec() == v1::CODEC_SAMPLED) {
    labels.ids = Int64(array.ids);
    labels.counts = Int64(array.counts);
    labels.offsets = array.offsets;
  }
  if (loss.codec() == v1::CODEC_HIDDEN_HEAD) batch.heads[kTeacher] = rows.head;
  google::protobuf::RepeatedPtrField<v1::Loss> list;
  *list.Add() = loss;
  ASSIGN_OR_RETURN(const std::vector<at::Tensor> sums, losses::EvaluateLosses(list, batch));
  sums[0].backward();
  return batch.logits.grad();
}

// For each row |g|^2, <g, exact> and |g - exact|^2, in float64: [rows, 3].
at::Tensor Products(const at::Tensor& gradient, const at::Tensor& exact) {
  const at::Tensor found = at::zeros({gradient.size(0), 3}, at::kDouble);
  const at::Tensor dense = gradient.contiguous();
  const float* g = dense.const_data_ptr<float>();
  const auto* e = exact.const_data_ptr<double>();
  for (int64_t row = 0; row < gradient.size(0); ++row) {
    double length = 0, product = 0, error = 0;
    for (int64_t i = 0; i < gradient.size(1); ++i, ++g, ++e) {
      const double value = *g, off = value - *e;
      length += value * value;
      product += value * *e;
      error += off * off;
    }
    auto* to = found.data_ptr<double>() + 3 * row;
    to[0] = length, to[1] = product, to[2] = error;
  }
  return found;
}

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double NsARow(double seconds, const Rows& rows) { return 1e9 * seconds / static_cast<double>(rows.count()); }

// A codec once: bytes, times (the least of `timings`), and products of each student's gradient.
absl::StatusOr<Json> Measure(const Rows& rows, const Json& setting, const std::string& name, int timings,
                             NamedTensors* out) {
  ASSIGN_OR_RETURN(const v1::Loss loss, LossOf(setting, rows.temperature));
  const Label label(rows, loss, 0);
  v1::SoftLabels labels;
  Array array;
  double encode = 1e9, decode = 1e9;
  for (int i = 0; i < std::max(1, timings); ++i) {
    Clock::time_point start = Clock::now();
    ASSIGN_OR_RETURN(labels, label.Encode());
    encode = std::min(encode, SecondsSince(start));
    start = Clock::now();
    ASSIGN_OR_RETURN(array, label.Decode(labels));
    decode = std::min(decode, SecondsSince(start));
  }
  for (size_t i = 0; i < rows.students.size(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor gradient, GradientOf(rows, loss, array, rows.students[i]));
    out->emplace_back(absl::StrCat(name, ".products.", i), Products(gradient, rows.gradients[i]));
  }
  return Json{{"bytes", BytesOf(labels)}, {"encode_ns", NsARow(encode, rows)}, {"decode_ns", NsARow(decode, rows)}};
}

void AddArray(const Array& array, const std::string& name, NamedTensors* out) {
  out->emplace_back(name + ".ids", at::tensor(array.ids, at::kInt));
  if (!array.counts.empty()) out->emplace_back(name + ".counts", at::tensor(array.counts, at::kInt));
  if (!array.offsets.empty()) out->emplace_back(name + ".offsets", at::tensor(array.offsets, at::kLong));
  out->emplace_back(name + ".numbers", at::tensor(array.numbers, at::kFloat));
}

// What a student would hold of one pass over the rows: by codec sampled or top_k as they are, or by the rival.
absl::StatusOr<int64_t> Draw(const Rows& rows, const rivals::IndependentDraws& rival, const Json& setting,
                             uint64_t pass, Array* array) {
  if (setting.at("codec") == "independent") {
    const int draws = setting.at("draws");
    *array = rival.Draw(draws, CombineKey(rows.seed, draws, pass, rows.first));
    ASSIGN_OR_RETURN(const v1::SoftLabels labels,
                     soft_labels::EncodeSampled(*array, rows.count(), draws, rows.classes()));
    return BytesOf(labels);
  }
  ASSIGN_OR_RETURN(const v1::Loss loss, LossOf(setting, rows.temperature));
  const Label label(rows, loss, pass);
  ASSIGN_OR_RETURN(const v1::SoftLabels labels, label.Encode());
  ASSIGN_OR_RETURN(*array, label.Decode(labels));
  return BytesOf(labels);
}

// Labels of several passes, for statistics; the passes' bytes together.
absl::StatusOr<Json> Collect(const Rows& rows, const rivals::IndependentDraws& rival, const Json& setting,
                             const std::string& name, NamedTensors* out) {
  int64_t bytes = 0;
  for (int pass = 0; pass < setting.value("passes", 1); ++pass) {
    Array array;
    ASSIGN_OR_RETURN(const int64_t more, Draw(rows, rival, setting, pass, &array));
    bytes += more;
    AddArray(array, absl::StrCat(name, ".", pass), out);
  }
  return Json{{"bytes", bytes}};
}

absl::StatusOr<Json> Answer(const Json& wanted) {
  ASSIGN_OR_RETURN(const Rows rows, ReadRows(wanted.at("input"), wanted));
  NamedTensors out;
  Json report = {{"gradients", Json::array()}, {"labels", Json::array()}};
  for (const Json& setting : wanted.at("gradients")) {
    const std::string name = absl::StrCat("gradients.", report["gradients"].size());
    ASSIGN_OR_RETURN(Json measured, Measure(rows, setting, name, wanted.at("timings"), &out));
    report["gradients"].push_back(std::move(measured));
  }
  const rivals::IndependentDraws rival(rows.teacher, rows.temperature);
  for (const Json& setting : wanted.at("labels")) {
    const std::string name = absl::StrCat("labels.", report["labels"].size());
    ASSIGN_OR_RETURN(Json collected, Collect(rows, rival, setting, name, &out));
    report["labels"].push_back(std::move(collected));
  }
  RETURN_IF_ERROR(checkpoint::WriteSafetensors(wanted.at("output"), out));
  return report;
}

absl::StatusOr<Json> AnswerSafely(const std::string& line) {
  try {
    return Answer(Json::parse(line));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace
}  // namespace polystill

int main(int argc, char** argv) {
  CLI::App app(
      "Puts logits through codecs and losses, with one thread. Each line of the input is a JSON object: input (a "
      "safetensors file with teacher, student.I and gradient.I), output (the file to write), first_row, temperature, "
      "seed, timings, gradients, labels. Answers each with a line of bytes and times.");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(1);
  for (std::string line; std::getline(std::cin, line);) {
    const auto report = polystill::AnswerSafely(line);
    if (!report.ok()) {
      std::fprintf(stderr, "codec-quality: %s\n", report.status().ToString().c_str());
      return 1;
    }
    std::cout << report->dump() << std::endl;
  }
  return 0;
}
