#include <google/protobuf/descriptor.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/exit_codes.h"
#include "cli/label_command.h"
#include "runtime/allocator.h"
#include "runtime/files.h"
#include "runtime/nearest_name.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"
#include "soft_labels/codec.h"

namespace {

using namespace polystill;
using polystill::cli::LabelCommandOptions;

constexpr char kExamples[] =
    "Examples:\n"
    "  polystill label --teacher runs/demo/models/teacher-english --corpus data/package_topics --reads source_text \\\n"
    "      --where split=train --where pool=B --out labels\n"
    "      starts a teacher server on all cores; then, in a run file: teachers: [{name: english, store: labels,\n"
    "      reads: source_text}], with losses of codec: dense_fp32\n"
    "  polystill label --teacher gpu1:7070,gpu2:7070 --corpus s3://bucket/corpus --languages de,fr --out labels \\\n"
    "      --codec sampled --draws-per-token 64 --temperature 2\n"
    "      asks servers that run\n"
    "The same command again goes on after any stop or crash. Labels are Parquet files below OUT/labels.\n"
    "\n"
    "Exit status: 0 fine, 1 failed, 2 wrong usage or other labels in OUT, 130 interrupted.";

struct Arguments {
  LabelCommandOptions options;
  std::string reads = "text";
  std::string codec = "dense_fp32";
  double temperature = 1;
  int k = 32;
  int draws = 64;
  std::vector<std::string> where, columns, languages, outputs;
};

// "KEY=VALUE" as a pair.
absl::StatusOr<std::pair<std::string, std::string>> Split(const char* flag, const std::string& text) {
  const std::vector<std::string> words = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (words.size() == 2 && !words[0].empty()) return std::make_pair(words[0], words[1]);
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", text, ": write it as KEY=VALUE, e.g. split=train"));
}

absl::Status FillSelection(const Arguments& arguments, v1::Selection* selection) {
  for (const std::string& text : arguments.where) {
    ASSIGN_OR_RETURN(const auto condition, Split("--where", text));
    (*selection->mutable_where())[condition.first] = condition.second;
  }
  v1::Columns& columns = *selection->mutable_corpus()->mutable_columns();
  FillDefaults(&columns);
  for (const std::string& text : arguments.columns) {
    ASSIGN_OR_RETURN(const auto column, Split("--columns", text));
    const auto* field = v1::Columns::descriptor()->FindFieldByName(column.first);
    if (field == nullptr) {
      std::vector<std::string> known;
      for (int i = 0; i < v1::Columns::descriptor()->field_count(); ++i) {
        known.push_back(v1::Columns::descriptor()->field(i)->name());
      }
      return absl::InvalidArgumentError(absl::StrCat("--columns ", text, ": no column is called '", column.first, "'",
                                                     Suggestion(column.first, known)));
    }
    columns.GetReflection()->SetString(&columns, field, column.second);
  }
  for (const std::string& language : arguments.languages) selection->add_languages(language);
  const std::string& path = selection->corpus().path();
  if (IsUri(path)) return absl::OkStatus();
  if (!std::filesystem::exists(path)) {
    return absl::InvalidArgumentError(absl::StrCat("--corpus ", path, ": no such file or folder"));
  }
  selection->mutable_corpus()->set_path(std::filesystem::absolute(path).lexically_normal().string());
  return absl::OkStatus();
}

absl::Status FillSpec(const Arguments& arguments, v1::LabelSpec* spec) {
  const v1::Codec codec = spec->codec();
  if (soft_labels::HasTemperature(codec)) spec->set_temperature(arguments.temperature);
  if (codec == v1::CODEC_TOP_K) spec->set_k(arguments.k);
  if (codec == v1::CODEC_SAMPLED) spec->set_draws(arguments.draws);
  if (codec != v1::CODEC_SAMPLED) spec->clear_seed();
  for (const std::string& output : arguments.outputs) spec->add_outputs(output);
  return absl::OkStatus();
}

// How an enum's values are written -> their numbers.
std::map<std::string, int> ValuesOf(const google::protobuf::EnumDescriptor* type) {
  std::map<std::string, int> values;
  for (int i = 0; i < type->value_count(); ++i) {
    if (type->value(i)->number() != 0) values[EnumName(type->value(i))] = type->value(i)->number();
  }
  return values;
}

void AddFlags(CLI::App& app, Arguments& arguments) {
  LabelCommandOptions& options = arguments.options;
  soft_labels::LabelJobOptions& job = options.job;
  const auto codecs = ValuesOf(v1::Codec_descriptor());
  const auto sides = ValuesOf(v1::Side_descriptor());
  app.add_option("--teacher", options.teacher,
                 "folder of a teacher package, for which servers are started here, or host:port of servers that run, "
                 "comma between them; of a host name, all that are behind it")
      ->required();
  app.add_option("--corpus", *job.selection.mutable_corpus()->mutable_path(),
                 "folder with *.parquet and *.jsonl files, or one such file")
      ->required();
  app.add_option("--out", job.out, "folder of the label store; new, or begun by the same command")->required();
  app.add_option("--reads", arguments.reads, "the side of the records that the teacher reads")
      ->check(CLI::IsMember(sides))
      ->capture_default_str();
  app.add_option("--where", arguments.where,
                 "KEY=VALUE of id, language, split, group or pool, as in a run file; may be repeated; all records when "
                 "left out")
      ->allow_extra_args(false);
  app.add_option("--languages", arguments.languages, "languages to label, comma between them; all when left out")
      ->delimiter(',');
  app.add_option("--columns", arguments.columns,
                 "KEY=NAME, e.g. text=body, comma between them: the corpus's names of the columns")
      ->allow_extra_args(false)
      ->delimiter(',');
  app.add_option("--outputs", arguments.outputs, "logits, embedding, comma between them; logits when left out")
      ->delimiter(',');
  app.add_option("--codec", arguments.codec, "how labels are encoded, as in a loss of a run file")
      ->check(CLI::IsMember(codecs))
      ->capture_default_str();
  app.add_option("--temperature", arguments.temperature, "codecs top_k and sampled: T")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--k", arguments.k, "codec top_k: ids a row of logits")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--draws-per-token", arguments.draws, "codec sampled: draws a row of logits")
      ->check(CLI::Range(1, soft_labels::kMaxDraws))
      ->capture_default_str();
  app.add_option_function<uint64_t>(
         "--seed", [&job](const uint64_t& seed) { job.spec.set_seed(seed); },
         "codec sampled: what is drawn; a run of the same seed is answered the same")
      ->default_str("0");
  app.add_option("--replicas", options.replicas, "with a package: servers to start")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "with a package: threads of all servers together; 0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_flag("--cuda", options.cuda, "with a package: compute on GPUs, a server on each");
  app.add_option("--part-records", job.part_records, "records of a file, at most: what is asked again after a crash")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
}

absl::Status Fill(Arguments* arguments) {
  LabelCommandOptions& options = arguments->options;
  options.job.reads = static_cast<v1::Side>(ValuesOf(v1::Side_descriptor()).at(arguments->reads));
  options.job.spec.set_codec(static_cast<v1::Codec>(ValuesOf(v1::Codec_descriptor()).at(arguments->codec)));
  RETURN_IF_ERROR(FillSelection(*arguments, &options.job.selection));
  RETURN_IF_ERROR(FillSpec(*arguments, &options.job.spec));
  ASSIGN_OR_RETURN(options.programs, ProgramFolder());
  options.terminal = ::isatty(STDOUT_FILENO) == 1;
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  polystill::KeepFreedMemory();
  spdlog::set_default_logger(spdlog::stderr_color_mt("label"));
  Arguments arguments;
  CLI::App app("Writes a teacher's soft labels of a corpus to a label store, from which students learn without it.",
               "polystill label");
  app.footer(kExamples);
  AddFlags(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? cli::kExitFine : cli::kExitUsage;
  }
  if (const absl::Status filled = Fill(&arguments); !filled.ok()) {
    std::cerr << "polystill label: " << filled.message() << std::endl;
    return cli::kExitUsage;
  }
  return cli::Label(std::move(arguments.options), std::cout, std::cerr);
}
