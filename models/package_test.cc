#include "models/package.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "checkpoint/safetensors.h"
#include "runtime/files.h"

namespace polystill::models {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class PackageTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "package_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    folder_ = root_ + "/english";
    shape_.spec.set_kind(v1::Model::KIND_SUBWORD_BAG);
    shape_.spec.set_width(16);
    shape_.spec.set_hidden_layers(1);
    shape_.vocab_size = 50;
    shape_.classes = 2;
    signature_.set_input(v1::Signature::INPUT_TEXT);
    signature_.set_vocab_size(50);
    signature_.set_max_length(64);
    signature_.add_labels("net");
    signature_.add_labels("no");  // a boolean in some YAML readers
    tokenizer_ = root_ + "/some.model";
    ASSERT_TRUE(WriteFileAtomically(tokenizer_, "a tokeniser's bytes").ok());
    model_ = MakeModel(shape_, 5).value();
    const absl::StatusOr<PackageInfo> info = SavePackage(folder_, "english", *model_, shape_, signature_, tokenizer_);
    ASSERT_TRUE(info.ok()) << info.status();
    info_ = *info;
  }

  // teacher.yaml as somebody would write it by hand: without digests, and with `from` changed to `to`.
  void Rewrite(const std::string& from, const std::string& to) {
    std::string yaml = absl::StrCat(
        "format: polystill.package/1\nname: english\nbackend: native\n"
        "signature:\n  input: text\n  vocab_size: 50\n  max_length: 64\n  labels: [net, \"no\"]\n"
        "model:\n  kind: subword_bag\n  width: 16\n  hidden_layers: 1\n  dtype: float32\n  parameters: ",
        info_.parameters, "\n");
    ASSERT_TRUE(from.empty() || yaml.find(from) != std::string::npos) << from;
    if (!from.empty()) yaml = absl::StrReplaceAll(yaml, {{from, to}});
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/teacher.yaml", yaml).ok());
  }

  absl::Status LoadStatus() { return LoadPackage(folder_).status(); }

  std::string root_, folder_, tokenizer_;
  ModelShape shape_;
  v1::Signature signature_;
  std::unique_ptr<Model> model_;
  PackageInfo info_;
};

TEST_F(PackageTest, ComesBackEqual) {
  const absl::StatusOr<Package> package = LoadPackage(folder_);
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->info.name, "english");
  EXPECT_EQ(package->info.digest, info_.digest);
  EXPECT_EQ(package->info.parameters, 50 * 16 + 32 + 16 * 17 + 2 * 17);
  EXPECT_EQ(package->info.signature.SerializeAsString(), signature_.SerializeAsString());
  EXPECT_EQ(WeightsDigest(*package->model), WeightsDigest(*model_));
  EXPECT_EQ(ReadFile(package->tokenizer_file).value(), "a tokeniser's bytes");
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), fs::directory_iterator{}), 2);
}

TEST_F(PackageTest, TheDigestIsWhatTheShellComputes) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/notes/Z a", "text").ok());
  const std::string command = absl::StrCat("cd '", folder_, "' && find . -type f -printf '%P\\0' | LC_ALL=C sort -z | ",
                                           "xargs -0 sha256sum | sha256sum");
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char line[65] = {};
  ASSERT_EQ(std::fread(line, 1, 64, pipe), 64u);
  pclose(pipe);
  EXPECT_EQ(LoadPackage(folder_)->info.digest, line);
  EXPECT_NE(info_.digest, line);
}

TEST_F(PackageTest, IsReplacedWhole) {
  signature_.set_input(v1::Signature::INPUT_IDS);
  const auto other = MakeModel(shape_, 6).value();
  ASSERT_TRUE(SavePackage(folder_, "english", *other, shape_, signature_, "").ok());
  const absl::StatusOr<Package> package = LoadPackage(folder_);
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(WeightsDigest(*package->model), WeightsDigest(*other));
  EXPECT_EQ(package->tokenizer_file, "");
  EXPECT_FALSE(fs::exists(folder_ + "/tokenizer.model"));
}

TEST_F(PackageTest, Float64IsKept) {
  shape_.dtype = v1::Student::DTYPE_FLOAT64;
  const auto wide = MakeModel(shape_, 6).value();
  ASSERT_TRUE(SavePackage(folder_, "english", *wide, shape_, signature_, tokenizer_).ok());
  EXPECT_EQ(WeightsDigest(*LoadPackage(folder_)->model), WeightsDigest(*wide));
}

TEST_F(PackageTest, AHandWrittenManifestLoads) {
  Rewrite("", "");
  EXPECT_TRUE(LoadStatus().ok()) << LoadStatus();
}

TEST_F(PackageTest, MistakesInTeacherYamlAreNamed) {
  const struct {
    const char* from;
    const char* to;
    const char* message;
  } cases[] = {
      {"polystill.package/1", "polystill.package/2", "teacher.yaml:1: format: 'polystill.package/2' is not known"},
      {"format: polystill.package/1\n", "", "teacher.yaml: format: missing"},
      {"name: english", "name: \"\"", "name"},
      {"backend: native", "backend: onnx", "backend"},
      {"backend: native", "backends: native", "backends"},
      {"input: text", "input: audio", "signature.input"},
      {"  input: text\n", "", "signature.input"},
      {"vocab_size: 50", "vocab_size: 0", "signature.vocab_size"},
      {"max_length: 64", "max_length: -1", "signature.max_length"},
      {"labels: [net, \"no\"]", "labels: []", "signature.labels"},
      {"labels: [net, \"no\"]", "labels: [net]", "signature.labels: has 1"},
      {"labels: [net, \"no\"]", "labels: [net, net]", "'net' stands twice"},
      {"kind: subword_bag", "kind: transformor", "model.kind"},
      {"  width: 16\n", "", "model.width"},
      {"width: 16", "width: 99999", "model.width"},
      {"dtype: float32", "dtype: float16", "model.dtype"},
      {"parameters: 1", "parameters: 2", "model.parameters"},
      {"width: 16", "width: 16\n  heads: 4", "model.heads: goes with kind: transformer only"},
      {"width: 16", "width: 16\n  layers: 2", "model.layers: goes with kind: transformer only"},
      {"kind: subword_bag", "kind: transformer\n  layers: 2\n  heads: 4",
       "model.hidden_layers: goes with kind: subword_bag only"},
      {"backend: native", "backend: torchscript", "model.kind: goes with backend: native only"},
      {"backend: native", "backend: native\noutputs: [logits]", "outputs: goes with backend: aot_inductor only"},
      {"backend: native", "backend: aot_inductor", "outputs: missing"},
      {"backend: native", "backend: aot_inductor\noutputs: [logits, logits]", "outputs: 'logits' stands twice"},
      {"backend: native", "backend: aot_inductor\noutputs: [logits, hidden.x]", "outputs: 'hidden.x' is none"},
      {"backend: native", "backend: aot_inductor\noutputs: [embedding]", "outputs: has no logits"},
      {"backend: native", "backend: aot_inductor\noutputs: [logits]", "model.kind: goes with backend: native only"},
      {"backend: native", "backend: native\npython: {module: m}", "python: goes with backend: python only"},
      {"backend: native", "backend: native\nupstream: {address: a, model: m}", "upstream: goes with backend: open_inf"},
      {"backend: native", "backend: python", "python: missing; write {module: NAME}"},
      {"backend: native", "backend: python\npython: {function: f}", "python.module"},
      {"backend: native", "backend: python\npython: {module: m.py}", "python.module: 'm.py' is no module's name"},
      {"backend: native", "backend: python\npython: {module: 3m}", "python.module: '3m' is no module's name"},
      {"backend: native", "backend: python\npython: {module: m, processes: 0}", "python.processes"},
      {"backend: native", "backend: python\npython: {module: m, proceses: 2}", "did you mean processes?"},
      {"backend: native", "backend: open_inference", "upstream: missing; write {address: HOST:PORT, model: NAME}"},
      {"backend: native", "backend: open_inference\nupstream: {model: m}", "upstream.address"},
      {"backend: native", "backend: open_inference\nupstream: {address: a, model: m, outputs: {x: y}}",
       "upstream.outputs.x: is none; write logits"},
      {"backend: native", "backend: open_inference\nupstream: {address: a, model: m, outputs: {logits: ''}}",
       "upstream.outputs.logits: is empty"},
      {"backend: native", "backend: open_inference\nupstream: {address: a, model: m}", "model.kind: goes with backend"},
  };
  for (const auto& test : cases) {
    Rewrite(test.from, test.to);
    const absl::Status status = LoadStatus();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.to << ": " << status;
    EXPECT_THAT(status.ToString(), HasSubstr(folder_ + "/teacher.yaml"));
    EXPECT_THAT(status.ToString(), HasSubstr(test.message)) << test.to;
  }
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/teacher.yaml", "format: [\x01").ok());
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PackageTest, HoldsTheTokeniserUnderTheNameOfItsKind) {
  ASSERT_TRUE(WriteFileAtomically(tokenizer_, "{\"model\": {}}").ok());
  ASSERT_TRUE(SavePackage(folder_, "english", *model_, shape_, signature_, tokenizer_).ok());
  EXPECT_EQ(LoadPackage(folder_)->tokenizer_file, folder_ + "/tokenizer.json");
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/tokenizer.model", "another").ok());
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(LoadStatus().ToString(), HasSubstr("holds two tokenisers"));
}

TEST_F(PackageTest, AWrongShapeIsDataLossAndAsksForNoMemory) {
  for (const char* change : {"vocab_size: 51", "vocab_size: 2147483647"}) {
    Rewrite("vocab_size: 50", change);
    EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(LoadStatus().ToString(), HasSubstr("model.safetensors: holds 1138 numbers"));
  }
  Rewrite("dtype: float32", "dtype: float64");
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kDataLoss);
}

TEST_F(PackageTest, WeightsThatAreNotFiniteAreDataLoss) {
  Rewrite("", "");
  checkpoint::NamedTensors weights = checkpoint::ReadSafetensors(folder_ + "/model.safetensors").value();
  weights[0].second[3][4] = std::nan("");
  ASSERT_TRUE(checkpoint::WriteSafetensors(folder_ + "/model.safetensors", weights).ok());
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(LoadStatus().ToString(), HasSubstr("model.safetensors: tensor 'embedding.weight'"));
}

TEST_F(PackageTest, TornAndMissingFilesAreNamed) {
  fs::resize_file(folder_ + "/tokenizer.model", 3);
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(LoadStatus().ToString(), HasSubstr("tokenizer.model: has 3 bytes"));
  Rewrite("", "");  // lists no digests
  fs::remove(folder_ + "/tokenizer.model");
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(LoadStatus().ToString(), HasSubstr("tokenizer.model"));
  fs::resize_file(folder_ + "/model.safetensors", 1000);
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kDataLoss);
  fs::remove(folder_ + "/model.safetensors");
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadPackage(root_ + "/none").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/teacher.yaml",
                                  "format: polystill.package/1\nname: english\nbackend: torchscript\n"
                                  "signature: {input: text, vocab_size: 50, max_length: 64, labels: [net, devel]}\n")
                  .ok());
  EXPECT_THAT(LoadStatus().ToString(), HasSubstr("model.pt"));
}

TEST_F(PackageTest, APythonModelMustBeInTheFolder) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/teacher.yaml",
                                  "format: polystill.package/1\nname: english\nbackend: python\n"
                                  "signature: {input: text, vocab_size: 50, max_length: 64, labels: [net, devel]}\n"
                                  "python: {module: judge}\n")
                  .ok());
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(LoadStatus().ToString(), HasSubstr("teacher.yaml: python.module: the package has no file judge.py"));
}

TEST_F(PackageTest, AListedFileMustBeInTheFolder) {
  Rewrite("name: english", "name: english\nfiles: [{name: ../some.model, bytes: 3, sha256: aa}]");
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(LoadStatus().ToString(), HasSubstr("'../some.model' is not the name of a file"));
}

}  // namespace
}  // namespace polystill::models
