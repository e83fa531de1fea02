#include "evaluation/latency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "runtime/files.h"

namespace polystill::evaluation {
namespace {

TEST(Latencies, AreReadAsTheyWereWritten) {
  const std::string path = testing::TempDir() + "/latencies.json";
  const std::map<std::string, Latencies> models = {{"teacher", {{"batch_1", {1.5, 2.25}}, {"batch_32", {3, 4}}}},
                                                   {"student", {{"batch_1", {0.125, std::nullopt}}}}};
  ASSERT_TRUE(WriteLatencies(models, path).ok());
  const auto read = ReadLatencies(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->size(), 2u);
  EXPECT_EQ(read->at("teacher").at("batch_1").text_ms, 2.25);
  EXPECT_EQ(read->at("teacher").at("batch_32").forward_ms, 3);
  EXPECT_EQ(read->at("student").at("batch_1").forward_ms, 0.125);
  EXPECT_EQ(read->at("student").at("batch_1").text_ms, std::nullopt);
}

TEST(Latencies, WhatIsNoSuchFileIsNamed) {
  const std::string path = testing::TempDir() + "/no_latencies.json";
  std::filesystem::remove(path);
  EXPECT_EQ(ReadLatencies(path).status().code(), absl::StatusCode::kNotFound);
  for (const char* text : {"", "[]", "{\"a\": 3}", "{\"a\": {\"batch_1\": {}}}"}) {
    ASSERT_TRUE(WriteFileAtomically(path, text).ok());
    const absl::Status status = ReadLatencies(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path));
  }
}

}  // namespace
}  // namespace polystill::evaluation
