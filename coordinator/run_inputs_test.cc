#include "coordinator/run_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/files.h"
#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

// KEY PATH: JOB JOB ..., a line each.
std::vector<std::string> Lines(const v1::RunSpec& spec) {
  std::vector<std::string> lines;
  for (const RunInput& input : InputsOf(spec)) {
    lines.push_back(absl::StrCat(input.key, " ", input.path, ": ", absl::StrJoin(input.jobs, " ")));
  }
  return lines;
}

v1::RunSpec Read(const std::string& tokenizer, const std::string& teachers, const std::string& student) {
  v1::RunSpec spec;
  const std::string yaml =
      absl::StrCat("version: 1\nname: x\noutput: out\ncorpus: {path: c, labels: [a, b]}\ntokenizer: {", tokenizer,
                   "}\nteachers: [", teachers, "]\nstudent: {", student, "}\n");
  const absl::Status read = ReadYaml(yaml, "run.yaml", {}, &spec);
  EXPECT_TRUE(read.ok()) << read;
  return spec;
}

TEST(InputsOf, NamesTheJobsThatReadEach) {
  const v1::RunSpec spec = Read("path: t.model",
                                "{name: one, package: p/one}, {name: two, package: p/two}, "
                                "{name: three, train: {model: {kind: torchscript, path: teacher.pt}}}",
                                "model: {kind: torchscript, path: student.pt}, losses: [{kind: soft_label, teacher: "
                                "two}]");
  EXPECT_THAT(Lines(spec),
              UnorderedElementsAre("tokenizer.path t.model: teacher:three distilled",
                                   "student.model.path student.pt: distilled",
                                   "teachers.0.package p/one: ", "teachers.1.package p/two: distilled evaluate",
                                   "teachers.2.train.model.path teacher.pt: teacher:three"));
}

TEST(InputsOf, AreThePackagesThatModelsStartFrom) {
  const v1::RunSpec spec =
      Read("", "{name: one, train: {model: {initial: p/large}}}", "model: {initial: p/small}, losses: [{kind: task}]");
  EXPECT_THAT(Lines(spec), UnorderedElementsAre("student.model.initial p/small: distilled",
                                                "teachers.0.train.model.initial p/large: teacher:one"));
}

TEST(InputsOf, AreTheManifestsOfLabelStores) {
  const v1::RunSpec spec = Read("", "{name: one, store: labels}", "losses: [{kind: soft_label, teacher: one}]");
  EXPECT_THAT(Lines(spec), UnorderedElementsAre("teachers.0.store labels/manifest.yaml: distilled"));
}

TEST(InputsOf, ARunThatMakesAllItselfReadsNone) {
  EXPECT_THAT(Lines(Read("", "{name: one, train: {}}", "losses: [{kind: soft_label, teacher: one}]")), ElementsAre());
}

TEST(WithDigests, AreOfTheFileOrOfTheWholePackage) {
  const std::string folder = testing::TempDir() + "run_inputs_test";
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(WriteFileAtomically(folder + "/package/teacher.yaml", "abc").ok());
  ASSERT_TRUE(WriteFileAtomically(folder + "/t.model", "abc").ok());
  const auto inputs = WithDigests({{"tokenizer.path", folder + "/t.model", {}}, {"p", folder + "/package", {}}});
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  // By sha256sum, of "abc", and of its line for that file.
  EXPECT_EQ(inputs->at(0).digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(inputs->at(1).digest, "5ec3af41f31e215c3944386897bd4b72c8d29aea35d19972d22178697affb690");
  const absl::Status missing = WithDigests({{"student.model.path", folder + "/none.pt", {}}}).status();
  EXPECT_THAT(std::string(missing.message()), HasSubstr("student.model.path: " + folder + "/none.pt"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace polystill::coordinator
