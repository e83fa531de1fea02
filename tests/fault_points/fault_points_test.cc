#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/fault_points/subjects.h"

namespace polystill::fault_points {
namespace {

namespace fs = std::filesystem;
using testing::AllOfArray;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

Subjects AllSubjects() {
  Subjects subjects = PlainSubjects();
#ifdef POLYSTILL_FAULT_POINTS_OF_TORCH
  for (const auto& subject : TorchSubjects()) subjects.push_back(subject);
#endif
  return subjects;
}

std::string FolderOf(const std::string& test) {
  return fs::absolute(testing::TempDir()).string() + "fault_points-" + test;
}

class FaultPointsTest : public testing::TestWithParam<std::shared_ptr<const Subject>> {};

TEST_P(FaultPointsTest, LeaveTheOldStateOrTheNewOne) {
  const Verdict verdict = Try(*GetParam(), FolderOf(GetParam()->name()));
  EXPECT_THAT(verdict.findings, IsEmpty()) << absl::StrJoin(verdict.findings, "\n");
  // So that a writer whose calls are seen by nobody is no success.
  EXPECT_GE(verdict.writes, 2);
  EXPECT_GE(verdict.points_reached, 15);
  std::cout << verdict.writes << " writes, " << verdict.points_reached << " points, " << verdict.trials << " faults\n";
}

INSTANTIATE_TEST_SUITE_P(Of, FaultPointsTest, testing::ValuesIn(AllSubjects()),
                         [](const auto& info) { return info.param->name(); });

class PlantedBugTest : public testing::TestWithParam<Planted> {};

TEST_P(PlantedBugTest, IsFound) {
  const Verdict verdict = Try(*GetParam().subject, FolderOf(GetParam().subject->name()));
  std::vector<testing::Matcher<std::string>> words;
  for (const char* word : GetParam().finding) words.push_back(HasSubstr(word));
  EXPECT_THAT(verdict.findings, Contains(AllOfArray(words))) << absl::StrJoin(verdict.findings, "\n");
}

INSTANTIATE_TEST_SUITE_P(Of, PlantedBugTest, testing::ValuesIn(PlantedBugs()),
                         [](const auto& info) { return info.param.subject->name(); });

#ifdef POLYSTILL_FAULT_POINTS_OF_TORCH
// The names in the sources (ctest runs this at the root of the tree) are those that the subjects reach.
TEST(FaultPointNamesTest, EachIsReached) {
  std::set<std::string> written, reached;
  const std::regex point("FAULT_POINT\\(\"([^\"]*)\"\\)");
  for (const char* folder : {"checkpoint", "coordinator", "corpus", "evaluation", "inference", "models", "runtime",
                             "soft_labels", "student_worker", "teacher_server"}) {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.path().extension() != ".cc") continue;
      std::ifstream file(entry.path());
      const std::string text{std::istreambuf_iterator<char>(file), {}};
      for (std::sregex_iterator found(text.begin(), text.end(), point), end; found != end; ++found) {
        written.insert((*found)[1]);
      }
    }
  }
  EXPECT_GE(written.size(), 10u);
  for (const auto& subject : AllSubjects()) {
    for (const std::string& name : PointsOf(*subject, FolderOf(subject->name() + "-names"))) {
      if (absl::StartsWith(name, "fault point: ")) reached.insert(name.substr(sizeof("fault point: ") - 1));
    }
  }
  EXPECT_EQ(reached, written);
}
#endif

}  // namespace
}  // namespace polystill::fault_points
