#include "cli/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_join.h"
#include "runtime/yaml_proto.h"

namespace polystill::cli {
namespace {

using testing::ElementsAre;

// Of a run with these teachers and student.
v1::RunSpec SpecWith(const std::string& keys) {
  v1::RunSpec spec;
  const std::string yaml =
      "version: 1\nname: x\noutput: runs/x\ncorpus: {path: c, labels: [a, b]}\ntokenizer: {}\n" + keys;
  EXPECT_TRUE(ReadYaml(yaml, "run.yaml", {}, &spec).ok());
  return spec;
}

TEST(LaunchCoordinator, PassesSettings) {
  const Launch launch = LaunchCoordinator("/bin", "run.yaml", {"a.b=1", "c=[x, y]"}, "127.0.0.1:7");
  EXPECT_EQ(launch.name, "coordinator");
  EXPECT_THAT(launch.argv, ElementsAre("/bin/polystill-coordinator", "--spec", "run.yaml", "--set", "a.b=1", "--set",
                                       "c=[x, y]", "--listen", "127.0.0.1:7"));
}

TEST(LaunchMembers, StartsTeachersThatAreAskedAndTheWorkers) {
  const v1::RunSpec spec = SpecWith(R"(teachers:
  - {name: used, package: p, replicas: 2, cache_mb: 5}
  - {name: unused, package: p}
  - {name: far, address: 'h:1'}
  - {name: stored, store: labels}
student:
  losses:
    - {kind: soft_label, teacher: used}
    - {kind: soft_label, teacher: stored}
    - {kind: hard_label, teacher: far}
  workers: 2
  threads: 3
  epochs: 2
)");
  std::vector<std::string> lines;
  for (const Launch& launch : LaunchMembers("/bin", spec, "127.0.0.1:7", 6)) {
    lines.push_back(launch.name + ": " + absl::StrJoin(launch.argv, " "));
  }
  EXPECT_THAT(
      lines,
      ElementsAre("teacher-used-0: /bin/polystill-teacher --coordinator 127.0.0.1:7 --teacher used --server-id used-0 "
                  "--threads 3 --cache runs/x/label_cache/used-0 --cache-bytes 5MiB",
                  "teacher-used-1: /bin/polystill-teacher --coordinator 127.0.0.1:7 --teacher used --server-id used-1 "
                  "--threads 3 --cache runs/x/label_cache/used-1 --cache-bytes 5MiB",
                  "student-0: /bin/polystill-student --coordinator 127.0.0.1:7",
                  "student-1: /bin/polystill-student --coordinator 127.0.0.1:7"));
}

TEST(LaunchMembers, KeepsLabelsWhereTheyAreAskedForAgain) {
  const std::pair<const char*, bool> cases[] = {
      {"student: {epochs: 2, losses: [{kind: soft_label, teacher: t}]}", true},
      {"student: {epochs: 1, losses: [{kind: soft_label, teacher: t}]}", false},
      {"task: masked_lm\nstudent: {epochs: 2, losses: [{kind: soft_label, teacher: t}]}", false},
      {"student: {epochs: 2, losses: [{kind: soft_label, teacher: t, codec: sampled}]}", true},
      {"student: {epochs: 2, losses: [{kind: soft_label, teacher: t, codec: sampled, draws: per_epoch}]}", false},
      {"student: {epochs: 2, losses: [{kind: soft_label, teacher: t, codec: sampled, draws: per_epoch}, {kind: "
       "hard_label, teacher: t}]}",
       true},
  };
  for (const auto& [keys, keeps] : cases) {
    const v1::RunSpec spec = SpecWith(std::string("teachers: [{name: t, package: p}]\n") + keys);
    const std::vector<std::string> argv = LaunchMembers("/bin", spec, "a:7", 2)[0].argv;
    EXPECT_EQ(std::count(argv.begin(), argv.end(), "--cache"), keeps ? 1 : 0) << keys;
  }
}

TEST(LaunchMembers, EachProcessOnGpusHasItsOwn) {
  const v1::RunSpec spec = SpecWith(R"(teachers:
  - {name: small, package: p, cache_mb: 0}
  - {name: large, package: p, replicas: 2, device: cuda}
  - {name: other, package: p, device: cuda}
student:
  losses:
    - {kind: soft_label, teacher: small}
    - {kind: soft_label, teacher: large}
    - {kind: soft_label, teacher: other}
  workers: 2
  device: cuda
)");
  std::vector<std::string> last;
  for (const Launch& launch : LaunchMembers("/bin", spec, "a:7", 2)) {
    last.push_back(launch.name + " " + launch.argv[launch.argv.size() - 2] + " " + launch.argv.back());
  }
  EXPECT_THAT(last, ElementsAre("teacher-small-0 --threads 1", "teacher-large-0 --gpu 0", "teacher-large-1 --gpu 1",
                                "teacher-other-0 --gpu 2", "student-0 --gpu 0", "student-1 --gpu 1"));
}

TEST(CanSpare, StudentsWhereEnoughOthersAreLeft) {
  v1::RunSpec spec;
  spec.mutable_student()->set_workers(3);
  spec.mutable_student()->set_min_workers(2);
  EXPECT_TRUE(CanSpare("student-1", spec, {}, 2));
  EXPECT_FALSE(CanSpare("student-1", spec, {}, 1));
  spec.mutable_student()->clear_min_workers();
  EXPECT_TRUE(CanSpare("student-3", spec, {}, 3));
  EXPECT_FALSE(CanSpare("student-1", spec, {}, 2));
}

TEST(CanSpare, TeachersOnceNoJobIsToComeThatWaitsForThem) {
  const v1::RunSpec spec = SpecWith(R"(teachers: [{name: english, package: p, replicas: 2}]
student: {losses: [{kind: soft_label, teacher: english}]}
baselines: [gold]
)");
  v1::RunStatus status;
  EXPECT_FALSE(CanSpare("teacher-english-1", spec, status, 1));
  for (const char* name : {"index", "tokenizer", "distilled", "gold", "evaluate"}) status.add_stages()->set_name(name);
  status.mutable_stages(0)->set_finished(true);
  status.mutable_stages(2)->set_waiting_for("teacher english (1 of 2 servers)");
  EXPECT_FALSE(CanSpare("teacher-english-1", spec, status, 1));
  status.mutable_stages(2)->clear_waiting_for();
  status.mutable_stages(2)->set_seconds(0.1);
  EXPECT_TRUE(CanSpare("teacher-english-1", spec, status, 1));
  status.mutable_stages(2)->set_finished(true);
  EXPECT_TRUE(CanSpare("teacher-english-1", spec, status, 1));
}

}  // namespace
}  // namespace polystill::cli
