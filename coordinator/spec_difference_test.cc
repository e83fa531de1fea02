#include "coordinator/spec_difference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
namespace {

v1::RunSpec Spec() {
  v1::RunSpec spec;
  const absl::Status read = ReadYaml(R"(version: 1
name: x
corpus: {path: c, labels: [a, b]}
tokenizer: {}
teachers: [{name: english, package: p}]
student:
  losses: [{kind: soft_label}]
  where: {pool: B}
)",
                                     "run.yaml", {}, &spec);
  EXPECT_TRUE(read.ok()) << read;
  return spec;
}

struct Case {
  const char* name;
  std::function<void(v1::RunSpec*)> change;
  std::vector<std::string> keys;
};
class Difference : public testing::TestWithParam<Case> {};
TEST_P(Difference, NamesTheKeys) {
  v1::RunSpec now = Spec();
  GetParam().change(&now);
  EXPECT_EQ(DifferingKeys(Spec(), now), GetParam().keys);
}
INSTANTIATE_TEST_SUITE_P(
    Cases, Difference,
    testing::Values(
        Case{"Nothing", [](v1::RunSpec*) {}, {}},
        Case{"Free",
             [](v1::RunSpec* spec) {
               spec->mutable_student()->set_workers(9);
               spec->mutable_student()->set_threads(9);
               spec->mutable_student()->set_prefetch(9);
               spec->mutable_student()->set_checkpoint_every(9);
               spec->mutable_student()->set_keep_checkpoints(9);
               spec->mutable_teachers(0)->set_cache_mb(9);
               spec->mutable_teachers(0)->set_compression(v1::COMPRESSION_ZSTD);
             },
             {}},
        Case{"Deep",
             [](v1::RunSpec* spec) {
               spec->set_seed(3);
               spec->mutable_student()->mutable_optimizer()->set_lr(0.5);
             },
             {"seed", "student.optimizer.lr"}},
        Case{"InAList",
             [](v1::RunSpec* spec) { spec->mutable_student()->mutable_losses(0)->set_weight(2); },
             {"student.losses.0.weight"}},
        Case{"LongerList", [](v1::RunSpec* spec) { spec->add_teachers()->set_name("french"); }, {"teachers.1"}},
        Case{"Map",
             [](v1::RunSpec* spec) { (*spec->mutable_student()->mutable_where())["pool"] = "A"; },
             {"student.where"}},
        Case{"NewMessage",
             [](v1::RunSpec* spec) { spec->mutable_student()->mutable_early_stopping()->set_every(5); },
             {"student.early_stopping"}}),
    [](const auto& info) { return info.param.name; });

TEST(CheckSameRun, RefusesByKey) {
  v1::RunSpec other = Spec();
  other.set_output("runs/x");
  EXPECT_TRUE(CheckSameRun(other, other).ok());
  v1::RunSpec began = other;
  other.mutable_student()->set_epochs(9);
  const absl::Status status = CheckSameRun(began, other);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("runs/x: "));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("another student.epochs;"));
}

}  // namespace
}  // namespace polystill::coordinator
