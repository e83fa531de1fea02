#include "cli/report_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace polystill::cli {
namespace {

constexpr char kReport[] = R"({
  "run": "topics",
  "metrics": ["accuracy", "macro_f1"],
  "models": {"speedup": {"batch_1": {"forward": 100.37}, "batch_32": {"forward": 200}}, "teacher": {"parameters": 3072643, "bytes": 12345678,
                         "latency": {"batch_1": {"forward_ms": 1.2345, "text_ms": 1.5}, "batch_32": {"forward_ms": 20, "text_ms": 30}}},
             "student": {"parameters": null, "bytes": 50000, "latency": {"batch_1": {"forward_ms": 0.0123}, "batch_32": {"forward_ms": 0.1}}}},
  "bootstrap": {"resamples": 1000, "groups": 400, "seed": 7},
  "differences": {"gold": {"accuracy": {"difference": -0.2417, "interval": [-0.25, -0.2]},
                           "macro_f1": {"difference": 0.25, "interval": [0.2, 0.3]}}},
  "languages": {
    "de": {"records": 1234, "zero_shot": {"accuracy": 0.41, "macro_f1": 0.4}, "no_teacher": {"accuracy": 0.4, "macro_f1": 0.39},
           "distilled": {"accuracy": 0.7166, "macro_f1": 0.7}, "gold": {"accuracy": 1, "macro_f1": 0.0}},
    "pt_BR": {"records": 12, "zero_shot": {"accuracy": 0.1, "macro_f1": 0.2}, "no_teacher": {"accuracy": 0.3, "macro_f1": 0.4},
              "distilled": {"accuracy": 0.5, "macro_f1": 0.6}, "gold": {"accuracy": 0.7, "macro_f1": 0.8}}
  },
  "mean": {"records": 1246, "zero_shot": {"accuracy": 0.255, "macro_f1": 0.3}, "no_teacher": {"accuracy": 0.35, "macro_f1": 0.395},
           "distilled": {"accuracy": 0.6083, "macro_f1": 0.65}, "gold": {"accuracy": 0.85, "macro_f1": 0.4}}
})";

TEST(ReportTable, HasARowALanguageAndTheMean) {
  const absl::StatusOr<std::string> table = ReportTable(kReport);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(
      *table,
      "                            zero_shot          no_teacher           distilled                gold\n"
      "language  records  accuracy  macro-F1  accuracy  macro-F1  accuracy  macro-F1  accuracy  macro-F1\n"
      "de          1,234      41.0      40.0      40.0      39.0      71.7      70.0     100.0       0.0\n"
      "pt_BR          12      10.0      20.0      30.0      40.0      50.0      60.0      70.0      80.0\n"
      "mean        1,246      25.5      30.0      35.0      39.5      60.8      65.0      85.0      40.0\n"
      "\n"
      "points of the mean, with 95% bootstrap intervals:\n"
      "distilled - gold          accuracy -24.2 [-25.0, -20.0]   macro-F1 +25.0 [+20.0, +30.0]\n"
      "\n"
      "teacher   3,072,643 parameters, 12.35 MB, one text 1.5 ms (forward alone 1.23), 32 texts 30 ms (forward alone "
      "20)\n"
      "student   0.05 MB, one text 0.0123 ms, 32 texts 0.1 ms, 100.4 times as fast with one\n");
}

TEST(ReportTable, ShowsOnlyWhatIsThere) {
  const absl::StatusOr<std::string> table = ReportTable(
      R"({"metrics": ["top_k"], "top_k": 3, "bootstrap": null, "differences": {},
          "languages": {"de": {"records": 1, "no_teacher": {"top_k": 0.25}, "gold": {"top_k": 0.5}},
                        "ja": {"records": 0}},
          "mean": {"records": 1, "no_teacher": {"top_k": 0.25}, "gold": {"top_k": 0.5}}})");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(*table,
            "                     no_teacher          gold\n"
            "language  records         top-3         top-3\n"
            "de              1          25.0          50.0\n"
            "ja              0             -             -\n"
            "mean            1          25.0          50.0\n");
}

TEST(ReportTable, OneTableAMetricWhereOneIsTooWide) {
  const std::string scores = R"({"accuracy": 0.5, "macro_f1": 0.25})";
  std::string models;
  for (const char* model : {"zero_shot", "no_teacher", "pseudo_label", "distilled", "gold", "gold_all"}) {
    absl::StrAppend(&models, R"(, ")", model, R"(": )", scores);
  }
  const absl::StatusOr<std::string> table =
      ReportTable(absl::StrCat(R"({"metrics": ["accuracy", "macro_f1"], "bootstrap": null, "differences":
          {"gold_all": {"accuracy": {"difference": 0}, "macro_f1": {"difference": -0.01}}}, "languages": {}, "mean": {"records": 1)",
                               models, "}}"));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(*table,
            "                      zero_shot    no_teacher  pseudo_label     distilled          gold      gold_all\n"
            "language  records      accuracy      accuracy      accuracy      accuracy      accuracy      accuracy\n"
            "mean            1          50.0          50.0          50.0          50.0          50.0          50.0\n"
            "\n"
            "                      zero_shot    no_teacher  pseudo_label     distilled          gold      gold_all\n"
            "language  records      macro-F1      macro-F1      macro-F1      macro-F1      macro-F1      macro-F1\n"
            "mean            1          25.0          25.0          25.0          25.0          25.0          25.0\n"
            "\n"
            "points of the mean:\n"
            "distilled - gold_all      accuracy +0.0   macro-F1 -1.0\n");
}

TEST(ReportTable, RefusesWhatIsNoReport) {
  for (const char* text :
       {"", "{", "[]", "{}", R"({"languages": {}, "mean": {}})", R"({"languages": {"de": 3}, "mean": {"records": 1}})",
        R"({"languages": {"de": {"records": "x"}}, "mean": {"records": 1}})"}) {
    EXPECT_EQ(ReportTable(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
}

}  // namespace
}  // namespace polystill::cli
