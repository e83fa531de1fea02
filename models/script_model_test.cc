#include "models/script_model.h"

#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "runtime/files.h"

namespace polystill::models {
namespace {

using testing::HasSubstr;

// Mean of embeddings under the mask, then a linear head of 3 classes; fails unless the length is a bucket.
constexpr char kMeanModel[] = R"(
def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
    length = ids.size(1)
    assert length == 16 or length == 32 or length == 50
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

std::vector<int32_t> Row(size_t length) {
  std::vector<int32_t> row(length);
  for (size_t i = 0; i < length; ++i) row[i] = static_cast<int32_t>((length + 3 * i) % 40);
  return row;
}

TEST_F(ScriptModelTest, PadsToBucketsAndKeepsTheOrderOfRows) {
  const auto model = LoadScriptModel(Save(kMeanModel), 3, 50);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE((*model)->pads_to_length());
  EXPECT_EQ(ParameterCount((*model)->NamedParameters()), 40 * 8 + 8 * 3);
  std::vector<std::vector<int32_t>> rows;
  for (size_t i = 0; i < 80; ++i) rows.push_back(Row(1 + (i * 17) % 50));
  const at::Tensor all = FixedShapeForward(**model, rows);
  ASSERT_TRUE(at::equal(all, FixedShapeForward(**model, rows)));
  for (size_t i = 0; i < rows.size(); ++i) {
    const at::Tensor expected = embedding_.index({at::tensor(rows[i], at::kLong)}).mean(0).matmul(head_);
    EXPECT_TRUE(at::allclose(all[i], expected, 1e-5, 1e-5)) << i;
    ASSERT_TRUE(at::equal(all[i], FixedShapeForward(**model, {rows[i]})[0])) << i;
  }
}

TEST_F(ScriptModelTest, RefusesARowThatIsTooLong) {
  const auto model = LoadScriptModel(Save(kMeanModel), 3, 50);
  EXPECT_THROW(FixedShapeForward(**model, {Row(51)}), c10::Error);
}

TEST_F(ScriptModelTest, AFailureInTheScriptIsAnErrorOfTorch) {
  const auto model = LoadScriptModel(Save("def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n"
                                          "    assert ids.size(1) == 16\n    return self.head[0:ids.size(0)]\n"),
                                     3, 50);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THROW((*model)->Forward(MakeBatch({Row(17), Row(3)}, 0, 2)), c10::Error);
}

TEST_F(ScriptModelTest, WhatForwardGivesIsChecked) {
  const struct {
    const char* forward;
    const char* message;
  } cases[] = {
      {"def forward(self, ids: Tensor) -> Tensor:\n    return ids\n", "forward(ids, mask) failed"},
      {"def forward(self, ids: Tensor, mask: Tensor) -> int:\n    return 1\n", "forward(ids, mask) failed"},
      {"def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n    return ids\n", "forward must give floating"},
      {"def forward(self, ids: Tensor, mask: Tensor) -> Tensor:\n    return self.head[0:2] * float('nan')\n",
       "not finite"},
      {"def other(self, ids: Tensor, mask: Tensor) -> Tensor:\n    return ids\n", "forward"},
  };
  for (const auto& test : cases) {
    const std::string path = Save(test.forward);
    const absl::Status status = LoadScriptModel(path, 3, 50).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.ToString(), HasSubstr(path));
    EXPECT_THAT(status.ToString(), HasSubstr(test.message));
  }
  EXPECT_THAT(LoadScriptModel(Save(kMeanModel), 4, 50).status().ToString(), HasSubstr("[rows, 4]"));
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
  const absl::Status status = LoadScriptModel(broken, 3, 50).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(status.ToString(), HasSubstr(broken));
}

TEST_F(ScriptModelTest, TornFilesAreDataLoss) {
  const std::string path = Save(kMeanModel);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  EXPECT_EQ(LoadScriptModel(path, 3, 50).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(LoadScriptModel(folder_ + "/none.pt", 3, 50).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace polystill::models
