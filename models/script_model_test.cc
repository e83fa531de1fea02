#include "models/script_model.h"

#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "models/package.h"
#include "runtime/files.h"

namespace polystill::models {
namespace {

using testing::HasSubstr;

// Mean of embeddings under the mask, then a linear head of 3 classes; fails unless the length is a bucket.
constexpr char kMeanModel[] = R"(
def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
    length = ids.size(1)
    assert length % 8 == 0 or length == 50
    x = self.embedding[ids] * mask.unsqueeze(2).to(self.embedding.dtype)
    return (x.sum(1) / mask.sum(1, True)).matmul(self.head)
)";

class ScriptModelTest : public testing::Test {
 protected:
  std::string Save(const std::string& forward) {
    torch::jit::Module module("m");
    embedding_ = at::arange(40 * 8).reshape({40, 8}).to(at::kFloat).sin();
    head_ = at::arange(24).reshape({8, 3}).to(at::kFloat).cos();
    module.register_parameter("embedding", embedding_, false);
    module.register_parameter("head", head_, false);
    module.define(forward);
    std::filesystem::create_directories(folder_);
    module.save(folder_ + "/model.pt");
    return folder_ + "/model.pt";
  }

  const std::string folder_ =
      testing::TempDir() + "script_model_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
  at::Tensor embedding_;
  at::Tensor head_;
};

absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& path, int64_t classes) {
  ModelShape shape;
  shape.classes = classes;
  shape.max_length = 50;
  return LoadScriptModel(path, shape);
}

std::vector<int32_t> Row(size_t length) {
  std::vector<int32_t> row(length);
  for (size_t i = 0; i < length; ++i) row[i] = static_cast<int32_t>((length + 3 * i) % 40);
  return row;
}

std::vector<int64_t> Concatenated(const Rows& rows) {
  std::vector<int64_t> ids;
  for (const auto& row : rows) ids.insert(ids.end(), row.begin(), row.end());
  return ids;
}

TEST_F(ScriptModelTest, GivesFeaturesAndLogitsOfTokens) {
  ModelShape shape;
  shape.task = v1::TASK_TOKEN_CLASSIFICATION;
  shape.classes = 3;
  shape.max_length = 50;
  const auto load = [&](const std::string& result) {
    return LoadScriptModel(Save("def forward(self, ids: Tensor, mask: Tensor) -> Dict[str, Tensor]:\n"
                                "    x = self.embedding[ids]\n    logits = x.matmul(self.head)\n    return " +
                                result + "\n"),
                           shape);
  };
  const auto model = load("{'logits': logits, 'hidden.0': x, 'embedding': x.sum(1)}");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->feature_widths(), (std::map<std::string, int64_t>{{"embedding", 8}, {"hidden.0", 8}}));
  const Rows rows = {Row(17), {}, Row(3)};
  const Outputs outputs = FixedShapeForward(**model, rows, {{{16, 2}, {}, {1}}, {"hidden.0"}});
  const at::Tensor tokens = embedding_.index_select(0, at::tensor(Concatenated(rows), at::kLong));
  EXPECT_TRUE(at::equal(outputs.features.at("hidden.0"), tokens));
  EXPECT_TRUE(at::allclose(outputs.logits, at::stack({tokens[16], tokens[2], tokens[18]}).matmul(head_)));

  EXPECT_THAT(load("{'hidden.0': x}").status().ToString(), HasSubstr("forward gives no logits"));
  EXPECT_THAT(load("{'logits': logits, 'pooled': x.sum(1)}").status().ToString(), HasSubstr("gives 'pooled'"));
  EXPECT_THAT(load("{'logits': logits, 'embedding': x}").status().ToString(), HasSubstr("[rows, width]"));
  EXPECT_THAT(load("{'logits': logits.sum(1)}").status().ToString(), HasSubstr("[rows, length, 3]"));
}

TEST_F(ScriptModelTest, GivesFeaturesAloneWithoutClasses) {
  const auto load = [&](const std::string& result) {
    return Load(Save("def forward(self, ids: Tensor, mask: Tensor) -> Dict[str, Tensor]:\n"
                     "    x = self.embedding[ids] * mask.unsqueeze(2).to(self.embedding.dtype)\n    return " +
                     result + "\n"),
                0);
  };
  const auto model = load("{'hidden.0': x, 'embedding': x.sum(1)}");
  ASSERT_TRUE(model.ok()) << model.status();
  Rows rows;
  for (size_t i = 0; i < 40; ++i) rows.push_back(Row(1 + (i * 17) % 50));
  const Outputs outputs = FixedShapeForward(**model, rows, {{}, {"embedding", "hidden.0"}});
  EXPECT_FALSE(outputs.logits.defined());
  const at::Tensor tokens = embedding_.index_select(0, at::tensor(Concatenated(rows), at::kLong));
  EXPECT_TRUE(at::equal(outputs.features.at("hidden.0"), tokens));
  for (size_t i = 0; i < rows.size(); ++i) {
    const at::Tensor sum = embedding_.index({at::tensor(rows[i], at::kLong)}).sum(0);
    EXPECT_TRUE(at::allclose(outputs.features.at("embedding")[i], sum, 1e-5, 1e-5)) << i;
  }
  EXPECT_THAT(load("{'logits': x.sum(1)}").status().ToString(), HasSubstr("signature.labels is empty"));
  EXPECT_THAT(load("{'embedding': x}").status().ToString(), HasSubstr("[rows, width]"));
}

TEST_F(ScriptModelTest, ACompiledModelIsNoStudent) {
  ModelShape shape;
  shape.spec.set_path(folder_ + "/model.pt2");
  EXPECT_THAT(LoadScriptStudent(shape).status().ToString(), HasSubstr("is compiled for inference"));
}

TEST_F(ScriptModelTest, PadsToBucketsAndKeepsTheOrderOfRows) {
  const auto model = Load(Save(kMeanModel), 3);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->takes(), Model::Takes::kPaddedRows);
  EXPECT_EQ(ParameterCount((*model)->NamedParameters()), 40 * 8 + 8 * 3);
  std::vector<std::vector<int32_t>> rows;
  for (size_t i = 0; i < 80; ++i) rows.push_back(Row(1 + (i * 17) % 50));
  const at::Tensor all = FixedShapeForward(**model, rows).logits;
  ASSERT_TRUE(at::equal(all, FixedShapeForward(**model, rows).logits));
  for (size_t i = 0; i < rows.size(); ++i) {
    const at::Tensor expected = embedding_.index({at::tensor(rows[i], at::kLong)}).mean(0).matmul(head_);
    EXPECT_TRUE(at::allclose(all[i], expected, 1e-5, 1e-5)) << i;
    ASSERT_TRUE(at::equal(all[i], FixedShapeForward(**model, {rows[i]}).logits[0])) << i;
  }
}

TEST_F(ScriptModelTest, RefusesARowThatIsTooLong) {
  const auto model = Load(Save(kMeanModel), 3);
  EXPECT_THROW(FixedShapeForward(**model, {Row(51)}), c10::Error);
}

TEST_F(ScriptModelTest, AFailureInTheScriptIsAnErrorOfTorch) {
  const auto model = Load(Save("def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n"
                               "    assert ids.size(1) == 8\n    return self.head[0:ids.size(0)]\n"),
                          3);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THROW((*model)->Forward(MakeBatch({Row(17), Row(3)})), c10::Error);
}

TEST_F(ScriptModelTest, WhatForwardGivesIsChecked) {
  const struct {
    const char* forward;
    const char* message;
  } cases[] = {
      {"def forward(self, ids: Tensor) -> Tensor:\n    return ids\n", "forward(ids, mask) failed"},
      {"def forward(self, ids: Tensor, mask: Tensor) -> int:\n    return 1\n", "forward(ids, mask) failed"},
      {"def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n    return ids\n",
       "forward must give logits of floating"},
      {"def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n    return self.head[0:2] * float('nan')\n",
       "not finite"},
      {"def other(self, ids: Tensor, mask: Tensor) -> Tensor:\n    return ids\n", "forward"},
  };
  for (const auto& test : cases) {
    const std::string path = Save(test.forward);
    const absl::Status status = Load(path, 3).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.ToString(), HasSubstr(path));
    EXPECT_THAT(status.ToString(), HasSubstr(test.message));
  }
  EXPECT_THAT(Load(Save(kMeanModel), 4).status().ToString(), HasSubstr("[rows, 4]"));
}

// Whole as a ZIP file, but of a script that does not compile: found by the compiler, which throws no c10::Error.
TEST_F(ScriptModelTest, BrokenCodeIsDataLoss) {
  const std::string path = Save(kMeanModel);
  caffe2::serialize::PyTorchStreamReader reader(path);
  const std::string broken = folder_ + "/broken.pt";
  caffe2::serialize::PyTorchStreamWriter writer(broken);
  for (const std::string& name : reader.getAllRecords()) {
    if (name.find("version") != std::string::npos || name.find("serialization_id") != std::string::npos) continue;
    const auto [data, size] = reader.getRecord(name);
    std::string record(static_cast<const char*>(data.get()), size);
    if (absl::EndsWith(name, ".py")) record = absl::StrReplaceAll(record, {{"def forward", "deaf forward"}});
    writer.writeRecord(name, record.data(), record.size());
  }
  writer.writeEndOfFile();
  const absl::Status status = Load(broken, 3).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(status.ToString(), HasSubstr(broken));
}

TEST_F(ScriptModelTest, TornFilesAreDataLoss) {
  const std::string path = Save(kMeanModel);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  EXPECT_EQ(Load(path, 3).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Load(folder_ + "/none.pt", 3).status().code(), absl::StatusCode::kNotFound);
}

// Of a student: dropout, tied weights under two names, and a scale that is not trained.
constexpr char kStudent[] = R"(
def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
    x = torch.dropout(self.embedding[ids], 0.5, self.training) * mask.unsqueeze(2).to(self.embedding.dtype)
    return (x.sum(1) * self.scale / mask.sum(1, True).clamp(1)).matmul(self.head) + self.tied.sum() - self.head.sum()
)";

class ScriptStudentTest : public ScriptModelTest {
 protected:
  ScriptStudentTest() {
    shape_.spec.set_kind(v1::Model::KIND_TORCHSCRIPT);
    shape_.vocab_size = 40;
    shape_.classes = 3;
    shape_.max_length = 50;
  }

  void SaveStudent(const std::string& forward) {
    torch::jit::Module module("m");
    module.register_parameter("embedding",
                              at::arange(40 * 8).reshape({40, 8}).to(at::kFloat).sin().set_requires_grad(true), false);
    const at::Tensor head = at::arange(24).reshape({8, 3}).to(at::kFloat).cos().set_requires_grad(true);
    module.register_parameter("head", head, false);
    module.register_parameter("tied", head, false);
    module.register_parameter("scale", at::full({}, 2.0f), false);
    module.register_buffer("statistics", at::ones({2}));
    module.register_attribute("training", c10::BoolType::get(), true);
    module.define(forward);
    std::filesystem::create_directories(folder_);
    module.save(folder_ + "/model.pt");
    shape_.spec.set_path(folder_ + "/model.pt");
  }

  // Of loading a student whose forward gives `result`.
  std::string Refusal(const std::string& result) {
    SaveStudent(
        "def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n    x = self.embedding[ids].sum(1) * self.scale\n" +
        result);
    const absl::Status status = MakeModel(shape_, 0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.ToString(), HasSubstr(folder_ + "/model.pt"));
    return status.ToString();
  }

  ModelShape shape_;
};

std::vector<std::vector<int32_t>> SomeRows() {
  std::vector<std::vector<int32_t>> rows;
  for (size_t i = 0; i < 30; ++i) rows.push_back(Row((i * 17) % 50));
  return rows;
}

TEST_F(ScriptStudentTest, TrainsItsParametersInPlaceAndIsSaved) {
  for (const auto dtype : {v1::Student::DTYPE_FLOAT32, v1::Student::DTYPE_FLOAT64}) {
    SaveStudent(kStudent);
    shape_.dtype = dtype;
    const auto model = MakeModel(shape_, 0);
    ASSERT_TRUE(model.ok()) << model.status();
    const checkpoint::NamedTensors parameters = (*model)->NamedParameters();
    ASSERT_EQ(parameters.size(), 2);
    EXPECT_EQ(parameters[0].first, "embedding");
    EXPECT_EQ(parameters[1].first, "head");
    EXPECT_EQ(parameters[0].second.scalar_type(), ScalarTypeOf(dtype));
    const at::Tensor before = FixedShapeForward(**model, SomeRows()).logits.detach();
    TrainingForward(**model, SomeRows(), std::vector<uint64_t>(30, 7)).logits.square().sum().backward();
    for (const auto& [name, parameter] : parameters) {
      const at::NoGradGuard no_grad;
      EXPECT_GT(parameter.grad().abs().sum().item<double>(), 0) << name;
      parameter.sub_(parameter.grad(), 1e-3);
    }
    const at::Tensor after = FixedShapeForward(**model, SomeRows()).logits;
    EXPECT_FALSE(at::allclose(before, after));
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/trained.pt", ScriptModelBytes(**model).value()).ok());
    const auto saved = Load(folder_ + "/trained.pt", 3);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_TRUE(at::equal(FixedShapeForward(**saved, SomeRows()).logits, after));
  }
}

TEST_F(ScriptStudentTest, DropoutFollowsFromTheKeyOfTheFirstRow) {
  SaveStudent(kStudent);
  const auto model = MakeModel(shape_, 0).value();
  const auto draw = [&](uint64_t key) { return TrainingForward(*model, {Row(9), Row(5)}, {key, 1}).logits; };
  const at::Tensor one = draw(1);
  EXPECT_FALSE(at::equal(one, draw(2)));
  EXPECT_TRUE(at::equal(one, draw(1)));
  EXPECT_FALSE(at::equal(one, FixedShapeForward(*model, {Row(9), Row(5)}).logits));
  EXPECT_TRUE(at::equal(FixedShapeForward(*model, {Row(9)}).logits, FixedShapeForward(*model, {Row(9)}).logits));
}

TEST_F(ScriptStudentTest, AnEmptySliceGivesGradientsOfZeros) {
  SaveStudent(kStudent);
  const auto model = MakeModel(shape_, 0).value();
  TrainingForward(*model, {}, {}).logits.sum().backward();
  for (const auto& [name, parameter] : model->NamedParameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_EQ(parameter.grad().abs().sum().item<double>(), 0) << name;
  }
}

TEST_F(ScriptStudentTest, WhatCannotBeTrainedIsRefusedByName) {
  const std::string good = "    return x.matmul(self.head)\n";
  EXPECT_THAT(Refusal("    if self.training:\n        self.statistics.mul_(0.9)\n" + good),
              HasSubstr("training changes buffer 'statistics'"));
  EXPECT_THAT(Refusal("    return x.matmul(self.head.detach())\n"), HasSubstr("do not depend on parameter 'head'"));
  EXPECT_THAT(Refusal("    return x[:, :2]\n"), HasSubstr("[rows, 3]"));
  shape_.vocab_size = 41;
  EXPECT_THAT(Refusal(good), HasSubstr("forward(ids, mask) failed"));
  shape_.vocab_size = 40;
  SaveStudent("def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n    return self.embedding[ids].sum(1)" +
              good.substr(12));
  EXPECT_TRUE(MakeModel(shape_, 0).ok()) << MakeModel(shape_, 0).status();
  shape_.spec.set_path(Save(kMeanModel));
  EXPECT_THAT(MakeModel(shape_, 0).status().ToString(), HasSubstr("no parameter requires a gradient"));
  shape_.spec.set_path(folder_ + "/none.pt");
  EXPECT_EQ(MakeModel(shape_, 0).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ScriptStudentTest, APackageHoldsTheModule) {
  SaveStudent(kStudent);
  const auto model = MakeModel(shape_, 0).value();
  v1::Signature signature;
  signature.set_input(v1::Signature::INPUT_IDS);
  signature.set_vocab_size(40);
  signature.set_max_length(50);
  for (const char* label : {"a", "b", "c"}) signature.add_labels(label);
  const auto info = SavePackage(folder_ + "/package", "script", *model, shape_, signature, "");
  ASSERT_TRUE(info.ok()) << info.status();
  const auto package = LoadPackage(folder_ + "/package");
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->info.digest, info->digest);
  EXPECT_TRUE(
      at::equal(FixedShapeForward(*package->model, SomeRows()).logits, FixedShapeForward(*model, SomeRows()).logits));
  // Served, it names what is frozen and what is tied, too.
  EXPECT_EQ(package->model->NamedParameters().size(), 4);
  EXPECT_EQ(WeightsDigest(*package->model), WeightsDigest(*model));
  EXPECT_EQ(WeightsDigest(*package->model), WeightsDigest(model->NamedParameters()));
}

}  // namespace
}  // namespace polystill::models
