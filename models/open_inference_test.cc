#include "models/open_inference.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace polystill::models {
namespace {

using inference::ModelInferResponse;
using inference::ModelMetadataResponse;
using testing::ElementsAre;
using testing::HasSubstr;

// A response of logits [2, 3] = 0 .. 5 and embedding [2, 2] = 10 .. 13, by raw or typed contents.
ModelInferResponse Response(bool raw) {
  ModelInferResponse response;
  const auto add = [&](const char* name, int64_t width, float first) {
    auto* output = response.add_outputs();
    output->set_name(name);
    output->set_datatype("FP32");
    output->add_shape(2);
    output->add_shape(width);
    const at::Tensor numbers = at::arange(first, first + static_cast<float>(2 * width), at::kFloat);
    const auto* values = numbers.const_data_ptr<float>();
    if (raw) {
      response.add_raw_output_contents(reinterpret_cast<const char*>(values), numbers.nbytes());
    } else {
      output->mutable_contents()->mutable_fp32_contents()->Add(values, values + numbers.numel());
    }
  };
  add("out_0", 3, 0);
  add("embedding", 2, 10);
  return response;
}

const std::vector<ExpectedOutput>& Expected() {
  static const std::vector<ExpectedOutput> expected = {{"embedding", {2, -1}}, {"out_0", {2, 3}}};
  return expected;
}

TEST(OutputsOf, ReadsRawAndTypedContents) {
  for (const bool raw : {true, false}) {
    const auto outputs = OutputsOf(Response(raw), Expected());
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ASSERT_EQ(outputs->size(), 2u);
    EXPECT_TRUE((*outputs)[0].equal(at::arange(10, 14, at::kFloat).view({2, 2})));
    EXPECT_TRUE((*outputs)[1].equal(at::arange(0, 6, at::kFloat).view({2, 3})));
  }
}

TEST(OutputsOf, NumbersThatAreNotFiniteAreTheCallersMatter) {
  ModelInferResponse response = Response(false);
  response.mutable_outputs(0)->mutable_contents()->set_fp32_contents(1, std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(std::isnan(OutputsOf(response, Expected())->at(1)[0][1].item<float>()));
}

TEST(OutputsOf, HostileAnswersAreRefused) {
  const struct {
    bool raw;
    std::function<void(ModelInferResponse*)> change;
    const char* says;
  } cases[] = {
      {true, [](auto* r) { r->mutable_outputs(0)->set_name("x"); }, "lacks 'out_0'; it holds x, embedding"},
      {true, [](auto* r) { r->mutable_outputs(0)->set_name("embedding"); }, "holds 'embedding' twice"},
      {true, [](auto* r) { r->Clear(); }, "lacks 'embedding'; it holds none"},
      {true, [](auto* r) { r->mutable_outputs(0)->set_datatype("FP16"); }, "'out_0' is FP16 [2, 3]"},
      {true, [](auto* r) { r->mutable_outputs(0)->set_shape(0, 3); }, "'out_0' is FP32 [3, 3], it must be FP32 [2, 3]"},
      {true, [](auto* r) { r->mutable_outputs(0)->set_shape(1, 4); }, "'out_0' is FP32 [2, 4]"},
      {true, [](auto* r) { r->mutable_outputs(0)->add_shape(1); }, "'out_0' is FP32 [2, 3, 1]"},
      {true, [](auto* r) { r->mutable_outputs(0)->clear_shape(); }, "'out_0' is FP32 []"},
      {true, [](auto* r) { r->mutable_outputs(1)->set_shape(1, 0); }, "'embedding' is FP32 [2, 0]"},
      {true, [](auto* r) { r->mutable_outputs(1)->set_shape(1, -2); }, "'embedding' is FP32 [2, -2]"},
      {true, [](auto* r) { r->mutable_outputs(1)->set_shape(1, INT64_MAX); }, "'embedding' is FP32 [2, 92233"},
      {true, [](auto* r) { r->mutable_outputs(1)->set_shape(1, 1 << 24); }, "comes with 16 bytes"},
      {true, [](auto* r) { r->mutable_raw_output_contents(0)->push_back('x'); }, "comes with 25 bytes"},
      {true, [](auto* r) { r->mutable_raw_output_contents(0)->clear(); }, "comes with 0 bytes"},
      {true, [](auto* r) { r->add_raw_output_contents("more"); }, "holds 2 outputs and the contents of 3"},
      {true, [](auto* r) { r->mutable_raw_output_contents()->RemoveLast(); }, "the contents of 1"},
      {false, [](auto* r) { r->mutable_outputs(0)->mutable_contents()->add_fp32_contents(1); }, "comes with 28 bytes"},
      {false, [](auto* r) { r->mutable_outputs(0)->clear_contents(); }, "comes with 0 bytes"},
  };
  for (const auto& test : cases) {
    ModelInferResponse response = Response(test.raw);
    test.change(&response);
    const absl::Status status = OutputsOf(response, Expected()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << test.says;
    EXPECT_THAT(status.ToString(), HasSubstr(test.says));
  }
}

TEST(InferRequestOf, CarriesIdsAndMask) {
  ServedModel served{.name = "m", .version = "3", .ids = "tokens", .outputs = {{"logits", "out_0"}}};
  const PaddedBatch padded = PadToBucket(MakeBatch({{7, 8, 9}, {5}}), 100);
  const inference::ModelInferRequest request = InferRequestOf(served, {"logits", "embedding"}, padded);
  EXPECT_EQ(request.model_name(), "m");
  EXPECT_EQ(request.model_version(), "3");
  ASSERT_EQ(request.inputs_size(), 2);
  ASSERT_EQ(request.raw_input_contents_size(), 2);
  const std::vector<int64_t> expected[] = {{7, 8, 9, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0},
                                           {1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}};
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(request.inputs(i).name(), i == 0 ? "tokens" : "attention_mask");
    EXPECT_EQ(request.inputs(i).datatype(), "INT64");
    EXPECT_THAT(request.inputs(i).shape(), ElementsAre(2, 8));
    const std::string bytes(reinterpret_cast<const char*>(expected[i].data()), expected[i].size() * sizeof(int64_t));
    EXPECT_EQ(request.raw_input_contents(i), bytes);
  }
  ASSERT_EQ(request.outputs_size(), 2);
  EXPECT_EQ(request.outputs(0).name(), "out_0");
  EXPECT_EQ(request.outputs(1).name(), "embedding");
}

void AddTensor(const char* name, const char* datatype, std::vector<int64_t> shape,
               ModelMetadataResponse::TensorMetadata* tensor) {
  tensor->set_name(name);
  tensor->set_datatype(datatype);
  for (const int64_t size : shape) tensor->add_shape(size);
}

ModelMetadataResponse Metadata() {
  ModelMetadataResponse metadata;
  AddTensor("input_ids", "INT64", {-1, -1}, metadata.add_inputs());
  AddTensor("attention_mask", "INT64", {-1, -1}, metadata.add_inputs());
  AddTensor("out_0", "FP32", {-1, 3}, metadata.add_outputs());
  AddTensor("hidden.2", "FP32", {-1, -1, 8}, metadata.add_outputs());
  AddTensor("pooled", "INT32", {-1}, metadata.add_outputs());
  return metadata;
}

TEST(OutputsGiven, KnowsOutputsByTheirNamesHere) {
  EXPECT_THAT(*OutputsGiven(Metadata(), {.name = "m", .outputs = {{"logits", "out_0"}}}),
              ElementsAre("logits", "hidden.2"));
  EXPECT_THAT(*OutputsGiven(Metadata(), {.name = "m"}), ElementsAre("hidden.2"));
}

TEST(OutputsGiven, MistakesAreNamed) {
  const struct {
    std::function<void(ModelMetadataResponse*, ServedModel*)> change;
    const char* says;
  } cases[] = {
      {[](auto*, auto* s) { s->ids = "ids"; },
       "upstream.ids: the model has no input 'ids'; its inputs are input_ids, attention_mask"},
      {[](auto* m, auto*) { m->mutable_inputs(1)->set_datatype("BOOL"); },
       "upstream.mask: the model's input 'attention_mask' is BOOL [-1, -1], it must be INT64 [-1, -1]"},
      {[](auto* m, auto*) { m->mutable_inputs(0)->set_shape(1, 128); }, "is INT64 [-1, 128], it must be"},
      {[](auto* m, auto*) { m->clear_inputs(); }, "its inputs are none"},
      {[](auto* m, auto*) { m->add_inputs()->set_name("token_type_ids"); },
       "wants the inputs input_ids, attention_mask, token_type_ids"},
      {[](auto*, auto* s) { s->outputs["logits"] = "out_1"; },
       "upstream.outputs.logits: the model has no output 'out_1'; its outputs are out_0, hidden.2, pooled"},
      {[](auto* m, auto*) { m->mutable_outputs(1)->set_datatype("FP16"); }, "'hidden.2' is FP16; it must be FP32"},
      {[](auto* m, auto*) { m->mutable_outputs(1)->set_name("x"); }, "upstream.outputs: none of the model's outputs"},
  };
  for (const auto& test : cases) {
    ModelMetadataResponse metadata = Metadata();
    ServedModel served{.name = "m"};
    test.change(&metadata, &served);
    const absl::Status status = OutputsGiven(metadata, served).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.says;
    EXPECT_THAT(status.ToString(), HasSubstr(test.says));
  }
}

}  // namespace
}  // namespace polystill::models
