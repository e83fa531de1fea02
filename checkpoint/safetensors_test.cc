#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors_header.h"
#include "runtime/files.h"

namespace polystill::checkpoint {
namespace {

using testing::HasSubstr;

// A file with this header and so many bytes of data.
std::string FileOf(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string content(8, '\0');
  std::memcpy(content.data(), &length, 8);
  return content + header + std::string(data_bytes, '\0');
}

TEST(SafetensorsTest, EveryDtypeAndShapeComesBack) {
  NamedTensors tensors;
  for (const at::ScalarType type :
       {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kByte, at::kBool}) {
    tensors.emplace_back(absl::StrCat("type ", static_cast<int>(type)), at::arange(6).reshape({2, 3}).to(type));
  }
  tensors.emplace_back("scalar", at::scalar_tensor(2.5));
  tensors.emplace_back("empty", at::empty({0, 4}));
  tensors.emplace_back("transposed", at::arange(6.0).reshape({2, 3}).t().set_requires_grad(true));
  const absl::StatusOr<std::string> content = FormatSafetensors(tensors, {{"made by", "a test"}});
  ASSERT_TRUE(content.ok()) << content.status();
  const absl::StatusOr<NamedTensors> read = ParseSafetensors(*content, "file");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ((*read)[i].first, tensors[i].first);
    EXPECT_EQ((*read)[i].second.scalar_type(), tensors[i].second.scalar_type());
    EXPECT_TRUE(at::equal((*read)[i].second, tensors[i].second)) << tensors[i].first;
  }
  EXPECT_EQ(ParseHeader(*content, "file")->metadata.at("made by"), "a test");
  EXPECT_EQ(ParseHeader(*content, "file")->data_start % 8, 0);
}

TEST(SafetensorsTest, RefusesWhatTheFormatCannotHold) {
  EXPECT_THAT(FormatSafetensors({{"z", at::zeros({1}, at::kComplexFloat)}}).status().ToString(), HasSubstr("'z'"));
  EXPECT_THAT(FormatSafetensors({{"z", at::Tensor()}}).status().ToString(), HasSubstr("'z'"));
  EXPECT_THAT(FormatSafetensors({{"a", at::zeros({1})}, {"a", at::zeros({1})}}).status().ToString(),
              HasSubstr("two tensors"));
}

TEST(SafetensorsTest, EveryCutAndNoHalfFile) {
  const std::string content = FormatSafetensors({{"a", at::ones({3})}, {"b", at::ones({2, 2}, at::kDouble)}}).value();
  for (size_t length = 0; length < content.size(); ++length) {
    EXPECT_EQ(ParseSafetensors(content.substr(0, length), "cut").status().code(), absl::StatusCode::kDataLoss)
        << length;
  }
  EXPECT_EQ(ParseSafetensors(content + "x", "long").status().code(), absl::StatusCode::kDataLoss);
}

TEST(SafetensorsTest, HostileHeadersAreNamed) {
  const auto one = [](const std::string& entry) { return FileOf(absl::StrCat(R"({"w":)", entry, "}"), 8); };
  const struct {
    const char* what;
    std::string content;
    const char* message;
  } cases[] = {
      {"header longer than the file", std::string("\xff\xff\0\0\0\0\0\0{}", 10), "header claims"},
      {"header length near 2^64", std::string(8, '\xff') + "{}", "header claims"},
      {"not JSON", FileOf("{\"w\":", 8), "not a JSON object"},
      {"deep JSON", FileOf(std::string(100'000, '['), 0), "not a JSON object"},
      {"a list", FileOf("[]", 0), "not a JSON object"},
      {"entry of another kind", one("7"), "'w': its entry needs"},
      {"unknown dtype", one(R"({"dtype":"F8","shape":[8],"data_offsets":[0,8]})"), "'w': dtype \"F8\""},
      {"dtype of another kind", one(R"({"dtype":8,"shape":[8],"data_offsets":[0,8]})"), "'w': dtype 8"},
      {"negative size", one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "'w': shape"},
      {"fractional size", one(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "'w': shape"},
      {"shape overflows", one(R"({"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]})"),
       "too large"},
      {"shape and bytes differ", one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), "needs 12"},
      {"offsets reversed", one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), "before they begin"},
      {"one offset", one(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), "two sizes"},
      {"beyond the file", one(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})"), "'w' ends at byte 16"},
      {"a hole", FileOf(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "'w' begins at byte 4"},
      {"overlap",
       FileOf(
           R"({"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           8),
       "overlap"},
      {"bytes of nobody", FileOf("{}", 8), "8 bytes after the last tensor"},
      {"metadata of another kind", FileOf(R"({"__metadata__":{"a":1}})", 0), "__metadata__"},
  };
  for (const auto& test : cases) {
    const absl::Status status = ParseSafetensors(test.content, "weights.file").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << test.what;
    EXPECT_THAT(status.ToString(), HasSubstr("weights.file")) << test.what;
    EXPECT_THAT(status.ToString(), HasSubstr(test.message)) << test.what;
  }
}

TEST(SafetensorsTest, FilesAreWrittenWhole) {
  const std::string path = testing::TempDir() + "safetensors_test/w.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, {{"w", at::full({2}, 7.0f)}}).ok());
  EXPECT_TRUE(at::equal(ReadSafetensors(path)->front().second, at::full({2}, 7.0f)));
  EXPECT_THAT(WriteSafetensors(path, {{"w", at::Tensor()}}).ToString(), HasSubstr(path));
  EXPECT_TRUE(ReadSafetensors(path).ok());
  EXPECT_EQ(ReadSafetensors(path + ".none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace polystill::checkpoint
