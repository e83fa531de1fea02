#include "soft_labels/store_manifest.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/manifest.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"
#include "soft_labels/store_units.h"

namespace polystill::soft_labels {
namespace {

constexpr char kFormat[] = "polystill.labels/1";

std::string SideName(v1::Side side) { return EnumName(v1::Side_descriptor()->FindValueByNumber(side)); }

std::string Where(const v1::Selection& selection) {
  const std::map<std::string, std::string> sorted(selection.where().begin(), selection.where().end());
  return absl::StrCat("{", absl::StrJoin(sorted, ", ", absl::PairFormatter("=")), "}");
}

// What two jobs may differ in, as their flags call it.
using Facts = std::vector<std::pair<std::string, std::string>>;

Facts FactsOf(const v1::LabelStoreManifest& store) {
  const v1::LabelSpec& spec = store.spec();
  const v1::DescribeReply& teacher = store.teacher();
  return {{"--teacher (digest)", teacher.digest()},
          {"--teacher (backend)", teacher.backend()},
          {"--teacher (tokeniser)", teacher.tokenizer_sha256()},
          {"--teacher (signature)", WriteYaml(teacher.signature())},
          {"--reads", SideName(store.reads())},
          {"--outputs", absl::StrJoin(spec.outputs(), ",")},
          {"--codec", CodecName(spec.codec())},
          {"--temperature", absl::StrCat(spec.temperature())},
          {"--k", absl::StrCat(spec.k())},
          {"--draws-per-token", absl::StrCat(spec.draws())},
          {"--seed", absl::StrCat(spec.seed())},
          {"--where", Where(store.selection())},
          {"--languages", absl::StrJoin(store.selection().languages(), ",")},
          {"--part-records", absl::StrCat(store.part_records())},
          {"--corpus (digest of its files and columns)", store.corpus_digest()}};
}

}  // namespace

std::string FormatStoreManifest(const v1::LabelStoreManifest& manifest) {
  v1::LabelStoreManifest body = manifest;
  body.set_format(kFormat);
  body.clear_sha256();
  body.mutable_selection()->clear_tokenizer();  // what there is of it, the teacher's signature says
  return checkpoint::SealManifest(WriteYaml(body));
}

absl::StatusOr<v1::LabelStoreManifest> ReadStoreManifest(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path));
  RETURN_IF_ERROR(checkpoint::CheckSeal(yaml, path));
  v1::LabelStoreManifest manifest;
  RETURN_IF_ERROR(checkpoint::ReadManifest(yaml, path, kFormat, &manifest));
  return manifest;
}

absl::StatusOr<v1::LabelStoreManifest> ReadStore(const std::string& folder) {
  const auto has = [&](const char* name) { return std::filesystem::exists(absl::StrCat(folder, "/", name)); };
  if (has(kStoreManifestFile)) return ReadStoreManifest(absl::StrCat(folder, "/", kStoreManifestFile));
  if (!has(kStoreJobFile)) {
    return absl::NotFoundError(
        absl::StrCat(folder, " is no label store: it holds no ", kStoreManifestFile, "; `polystill label` writes one"));
  }
  return absl::NotFoundError(
      absl::StrCat(folder, ": its labels are not complete; go on with the `polystill label` that began it"));
}

absl::Status CheckSameLabels(const v1::LabelStoreManifest& began, const v1::LabelStoreManifest& now) {
  const Facts before = FactsOf(began), after = FactsOf(now);
  std::vector<std::string> differences;
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i].second == after[i].second) continue;
    // Of other choices, the corpus is another one too.
    if (i + 1 == before.size() && !differences.empty()) continue;
    differences.push_back(
        absl::StrCat(before[i].first, " was '", before[i].second, "' and is '", after[i].second, "'"));
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the labels in it are others: ", absl::StrJoin(differences, ", "),
                                                    "; go on as it began, or choose another --out"));
}

absl::Status CheckStored(const v1::LabelStoreManifest& store, const std::string& output, const CodecSettings& wanted) {
  const v1::LabelSpec& spec = store.spec();
  const auto differs = [](const std::string& key, const auto& holds, const auto& asks, const std::string& flag) {
    return absl::FailedPreconditionError(absl::StrCat("the store holds labels of ", key, ": ", holds,
                                                      ", the loss asks for ", asks, "; write ", key, ": ", holds,
                                                      ", or label again with ", flag, " ", asks));
  };
  if (std::find(spec.outputs().begin(), spec.outputs().end(), output) == spec.outputs().end()) {
    const std::string held = absl::StrJoin(spec.outputs(), ",");
    return absl::FailedPreconditionError(
        absl::StrCat("the store holds ", held, " and no ", output, "; label again with --outputs ", held, ",", output));
  }
  if (wanted.draws_anew) {
    return absl::FailedPreconditionError(
        "the store holds one draw of each record; write draws: fixed, or let a teacher server answer");
  }
  if (wanted.codec != spec.codec())
    return differs("codec", CodecName(spec.codec()), CodecName(wanted.codec), "--codec");
  if (wanted.temperature != spec.temperature()) {
    return differs("temperature", spec.temperature(), wanted.temperature, "--temperature");
  }
  if (wanted.k != spec.k()) return differs("k", spec.k(), wanted.k, "--k");
  if (wanted.draws != spec.draws()) return differs("draws_per_token", spec.draws(), wanted.draws, "--draws-per-token");
  return absl::OkStatus();
}

absl::Status CheckStoredSide(const v1::LabelStoreManifest& store, v1::Side reads, v1::Task task) {
  if (task == v1::TASK_MASKED_LM) {
    return absl::FailedPreconditionError(
        "with task: masked_lm other tokens are hidden in each pass, of which a store holds nothing; write package or "
        "address");
  }
  if (store.reads() == reads) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the store's teacher read ", SideName(store.reads()), ", the run file says ", SideName(reads),
                   "; write reads: ", SideName(store.reads()), ", or label again with --reads ", SideName(reads)));
}

absl::Status CheckHolds(const v1::LabelStoreManifest& store, const v1::CorpusIndex& index) {
  const StoreUnits units(store);
  for (const v1::CorpusIndex::Language& language : index.languages()) {
    for (const v1::CorpusIndex::Block& block : language.blocks()) {
      const v1::CorpusIndex::File& file = index.files(block.file());
      if (!units.HasFile(file.sha256())) {
        return absl::FailedPreconditionError(
            absl::StrCat("the store is of another corpus: ", file.path(), " (sha256 ", file.sha256(),
                         ") is none of its files; give it the corpus that was labelled, or label this one"));
      }
      const int64_t held = units.RecordsOf(file.sha256(), block, language.name());
      if (held >= block.records()) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "the store holds ", held, " of ", block.records(), " records of language ", language.name(),
          " in a block of ", file.path(), ": it is of --where ", Where(store.selection()), " and --languages '",
          absl::StrJoin(store.selection().languages(), ","), "'; choose records within these, or label again"));
    }
  }
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
