#include "models/open_inference.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/outputs.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelMetadataResponse;
using TensorMetadata = ModelMetadataResponse::TensorMetadata;

constexpr char kFloat32[] = "FP32";
constexpr char kInt64[] = "INT64";
constexpr int64_t kMaxWidth = 1 << 24;

std::string NameThere(const ServedModel& served, const std::string& output) {
  const auto named = served.outputs.find(output);
  return named == served.outputs.end() ? output : named->second;
}

template <typename Tensors>
std::string NamesOf(const Tensors& tensors) {
  if (tensors.empty()) return "none";
  return absl::StrJoin(tensors, ", ", [](std::string* out, const auto& tensor) { out->append(tensor.name()); });
}

absl::Status CheckInputs(const ModelMetadataResponse& metadata, const ServedModel& served) {
  const std::pair<const char*, const std::string&> inputs[] = {{"ids", served.ids}, {"mask", served.mask}};
  for (const auto& [key, name] : inputs) {
    const auto found = std::find_if(metadata.inputs().begin(), metadata.inputs().end(),
                                    [&name = name](const TensorMetadata& input) { return input.name() == name; });
    if (found == metadata.inputs().end()) {
      return absl::InvalidArgumentError(absl::StrCat("upstream.", key, ": the model has no input '", name,
                                                     "'; its inputs are ", NamesOf(metadata.inputs())));
    }
    const auto any = [](int64_t size) { return size == -1; };
    if (found->datatype() != kInt64 || found->shape_size() != 2 ||
        !std::all_of(found->shape().begin(), found->shape().end(), any)) {
      return absl::InvalidArgumentError(absl::StrCat("upstream.", key, ": the model's input '", name, "' is ",
                                                     found->datatype(), " [", absl::StrJoin(found->shape(), ", "),
                                                     "], it must be INT64 [-1, -1]: rows and tokens, any number"));
    }
  }
  if (metadata.inputs_size() == 2) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the model wants the inputs ", NamesOf(metadata.inputs()),
                                                 "; it is given '", served.ids, "' and '", served.mask, "' alone"));
}

std::string RawInt64(const at::Tensor& tensor) {
  const at::Tensor numbers = tensor.to(at::kLong).contiguous();
  return std::string(static_cast<const char*>(numbers.const_data_ptr()), numbers.nbytes());
}

void AddInput(const std::string& name, const at::Tensor& tensor, ModelInferRequest* request) {
  ModelInferRequest::InferInputTensor* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(kInt64);
  for (const int64_t size : tensor.sizes()) input->add_shape(size);
  *request->add_raw_input_contents() = RawInt64(tensor);
}

bool Fits(const ModelInferResponse::InferOutputTensor& given, const std::vector<int64_t>& shape) {
  if (given.datatype() != kFloat32 || given.shape_size() != static_cast<int>(shape.size())) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    const int64_t size = given.shape(static_cast<int>(i));
    if (shape[i] == -1 ? size < 1 || size > kMaxWidth : size != shape[i]) return false;
  }
  return true;
}

// The numbers of an output whose shape is as it should be.
absl::StatusOr<at::Tensor> NumbersOf(const ModelInferResponse& response, int place) {
  const ModelInferResponse::InferOutputTensor& output = response.outputs(place);
  const at::IntArrayRef sizes(output.shape().data(), output.shape_size());
  const auto& typed = output.contents().fp32_contents();
  const bool is_raw = response.raw_output_contents_size() > 0;
  const size_t count = static_cast<size_t>(c10::multiply_integers(sizes));
  const size_t held = is_raw ? response.raw_output_contents(place).size() : typed.size() * sizeof(float);
  if (held != count * sizeof(float)) {
    return absl::InternalError(absl::StrCat("'", output.name(), "' of shape ", c10::str(sizes), " comes with ", held,
                                            " bytes of float32, not ", count * sizeof(float)));
  }
  at::Tensor numbers = at::empty(sizes, at::kFloat);
  const void* bytes = is_raw ? static_cast<const void*>(response.raw_output_contents(place).data())
                             : static_cast<const void*>(typed.data());
  if (held > 0) std::memcpy(numbers.mutable_data_ptr(), bytes, held);
  return numbers;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> OutputsGiven(const ModelMetadataResponse& metadata,
                                                      const ServedModel& served) {
  RETURN_IF_ERROR(CheckInputs(metadata, served));
  std::map<std::string, std::string> ours;  // by the server's name
  for (const auto& [name, there] : served.outputs) ours[there] = name;
  std::vector<std::string> given;
  for (const TensorMetadata& output : metadata.outputs()) {
    const auto renamed = ours.find(output.name());
    const std::string name = renamed == ours.end() ? output.name() : renamed->second;
    if (!IsOutputName(name) || NameThere(served, name) != output.name()) continue;
    if (output.datatype() != kFloat32) {
      return absl::InvalidArgumentError(
          absl::StrCat("the model's output '", output.name(), "' is ", output.datatype(), "; it must be FP32"));
    }
    if (std::find(given.begin(), given.end(), name) == given.end()) given.push_back(name);
  }
  for (const auto& [name, there] : served.outputs) {
    if (std::find(given.begin(), given.end(), name) != given.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat("upstream.outputs.", name, ": the model has no output '", there,
                                                   "'; its outputs are ", NamesOf(metadata.outputs())));
  }
  if (!given.empty()) return given;
  return absl::InvalidArgumentError(
      absl::StrCat("upstream.outputs: none of the model's outputs (", NamesOf(metadata.outputs()),
                   ") is called logits, embedding or hidden.N; name them, as {logits: output_0}"));
}

ModelInferRequest InferRequestOf(const ServedModel& served, const std::vector<std::string>& outputs,
                                 const PaddedBatch& padded) {
  ModelInferRequest request;
  request.set_model_name(served.name);
  request.set_model_version(served.version);
  AddInput(served.ids, padded.ids, &request);
  AddInput(served.mask, padded.mask, &request);
  for (const std::string& name : outputs) request.add_outputs()->set_name(NameThere(served, name));
  return request;
}

absl::StatusOr<std::vector<at::Tensor>> OutputsOf(const ModelInferResponse& response,
                                                  const std::vector<ExpectedOutput>& expected) {
  std::map<std::string, int> places;
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (!places.emplace(response.outputs(i).name(), i).second) {
      return absl::InternalError(absl::StrCat("the answer holds '", response.outputs(i).name(), "' twice"));
    }
  }
  const int raw = response.raw_output_contents_size();
  if (raw > 0 && raw != response.outputs_size()) {
    return absl::InternalError(
        absl::StrCat("the answer holds ", response.outputs_size(), " outputs and the contents of ", raw));
  }
  std::vector<at::Tensor> outputs;
  for (const ExpectedOutput& wanted : expected) {
    const auto place = places.find(wanted.name);
    if (place == places.end()) {
      return absl::InternalError(
          absl::StrCat("the answer lacks '", wanted.name, "'; it holds ", NamesOf(response.outputs())));
    }
    const auto& given = response.outputs(place->second);
    if (!Fits(given, wanted.shape)) {
      return absl::InternalError(absl::StrCat("'", wanted.name, "' is ", given.datatype(), " [",
                                              absl::StrJoin(given.shape(), ", "), "], it must be FP32 [",
                                              absl::StrJoin(wanted.shape, ", "), "]"));
    }
    ASSIGN_OR_RETURN(outputs.emplace_back(), NumbersOf(response, place->second));
  }
  return outputs;
}

}  // namespace polystill::models
