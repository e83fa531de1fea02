#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "checkpoint/publish.h"
#include "coordinator/sqlite.h"
#include "coordinator/state_store.h"
#include "evaluation/predictions.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "soft_labels/store_folder.h"
#include "soft_labels/store_manifest.h"
#include "soft_labels/store_writer.h"
#include "soft_labels/test_store.h"
#include "tests/fault_points/subjects.h"

namespace polystill::fault_points {
namespace {

namespace fs = std::filesystem;
using Done = std::function<void()>;

// Status, address, report, tokeniser, trained weights: WriteFileAtomically, in folders that are not there yet.
class AtomicFile : public Subject {
 public:
  std::string name() const override { return "file"; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    for (const char* content : {"running", "finished, and longer"}) {
      RETURN_IF_ERROR(WriteFileAtomically(folder + "/a/b/status.json", content));
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    const auto content = ReadFile(folder + "/a/b/status.json");
    if (absl::IsNotFound(content.status())) return "none";
    return content.ok() ? *content : content.status().ToString();
  }
};

// Checkpoints and packages, whatever is in them: a new folder, then another in its place.
class PublishedFolder : public Subject {
 public:
  std::string name() const override { return "folder"; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    for (const char* content : {"one", "two"}) {
      RETURN_IF_ERROR(checkpoint::PublishFolder(folder + "/models/english", [&](const std::string& temporary) {
        RETURN_IF_ERROR(WriteFileAtomically(temporary + "/weights", absl::StrCat("weights of ", content)));
        return WriteFileAtomically(temporary + "/manifest", content);
      }));
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    const std::string path = folder + "/models/english";
    if (!fs::exists(path)) return "none";
    std::string found;
    for (const char* name : {"/weights", "/manifest"}) {
      absl::StrAppend(&found, ReadFile(path + name).value_or("torn"), "\n");
    }
    return found;
  }
};

class CoordinatorState : public Subject {
 public:
  std::string name() const override { return "coordinator_state"; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    ASSIGN_OR_RETURN(const auto store, coordinator::StateStore::Open(folder + "/coordinator.sqlite"));
    done();
    v1::RunSpec spec;
    spec.set_name("package-topics");
    v1::PlanSegment segment;
    segment.set_first_step(7);
    v1::RunStatus::Stage stage;
    stage.set_name("distilled");
    stage.set_done(10);
    const coordinator::StateStore::Checkpoint first{10, 2, "checkpoints/10", "ab"}, last{20, 2, "checkpoints/20", "cd"};
    const std::function<absl::Status()> writes[] = {
        [&] { return store->PutSpec(spec); },
        [&] { return store->PutInput("corpus", "d1"); },
        [&] { return store->AddSegment("distilled", segment); },
        [&] {
          return store->PutGeneration({2, "distilled", {"a", "b"}});
        },
        [&] { return store->PutWantedWorkers(3); },
        [&] { return store->AdmitCheckpoint("distilled", first, stage); },
        [&] { return store->FinishJob("distilled", "digest", last, stage); },
        [&] { return store->DropCheckpoint("distilled", first.path); },
    };
    for (const auto& write : writes) {
      RETURN_IF_ERROR(write());
      done();
    }
    return absl::OkStatus();
  }

  // Every row that is there. By SQLite alone, since StateStore begins a term when it opens.
  std::string Read(const std::string& folder) const override {
    const std::string path = folder + "/coordinator.sqlite";
    if (!fs::exists(path)) return "";
    coordinator::Sqlite database(path);
    if (const absl::Status opened = database.Open(); !opened.ok()) return opened.ToString();
    const auto check = database.Query("PRAGMA integrity_check");
    if (!check.ok() || check->at(0).at(0) != "ok") return "damaged";
    std::string found;
    for (const char* table : {"facts", "members", "segments", "finished_jobs", "checkpoints", "stages"}) {
      const auto rows = database.Query(absl::StrCat("SELECT * FROM ", table));
      if (!rows.ok()) continue;  // not made yet
      for (const coordinator::SqlRow& row : *rows) {
        absl::StrAppend(&found, row[0] == "term" ? "# " : "", table);
        for (const std::string& value : row) absl::StrAppend(&found, " ", value);
        absl::StrAppend(&found, "\n");
      }
    }
    return found;
  }
};

// A job that writes all parts; and where `loses`, a part of the store goes then, and the job is asked for again.
class LabelStore : public Subject {
 public:
  explicit LabelStore(bool loses) : loses_(loses) {}
  std::string name() const override { return loses_ ? "label_store_that_loses_a_part" : "label_store"; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    RETURN_IF_ERROR(WriteParts(folder, done));
    if (!loses_) return absl::OkStatus();
    const std::string labels = absl::StrCat(folder, "/store/", soft_labels::kStoreLabelsFolder);
    std::error_code error;
    fs::remove(absl::StrCat(labels, "/", kParts[0]), error);
    if (error) return FileError(error.value(), labels, "remove");
    RETURN_IF_ERROR(SyncPath(labels));
    done();
    return WriteParts(folder, done);
  }

  std::string Read(const std::string& folder) const override {
    const std::string path = folder + "/store";
    const auto has = [&](const char* name) { return fs::exists(absl::StrCat(path, "/", name)); };
    if (!has(soft_labels::kStoreManifestFile) && !has(soft_labels::kStoreJobFile)) return "none";
    const bool accepted = soft_labels::ReadStore(path).ok();
    const auto store = soft_labels::StoreFolder::Open(path, Job());
    if (!store.ok()) return store.status().ToString();
    if ((*store)->sealed()) return "sealed";
    // Right once a part is lost, until a job looks at the parts.
    if (accepted) return "a store that is not whole is read";
    std::string found = "job";
    for (const std::string& name : kParts) {
      if (!(*store)->FinishedPart(name).name().empty()) absl::StrAppend(&found, " ", name);
    }
    return found;
  }

 private:
  static absl::Status WriteParts(const std::string& folder, const Done& done) {
    const v1::LabelStoreManifest job = Job();
    ASSIGN_OR_RETURN(const auto store, soft_labels::StoreFolder::Open(folder + "/store", job));
    done();
    v1::LabelStoreManifest manifest = job;
    for (const std::string& name : kParts) {
      v1::LabelStoreManifest::Part& part = *manifest.add_parts();
      *part.mutable_file() = store->FinishedPart(name);
      part.mutable_unit()->set_records(1);
      if (part.file().name().empty()) {
        ASSIGN_OR_RETURN(*part.mutable_file(), WritePart(store->PathOfPart(name), name, job.spec()));
        RETURN_IF_ERROR(store->NoteFinished(part.file()));
      }
      done();
    }
    if (!store->sealed()) {
      manifest.mutable_head()->set_name(soft_labels::kStoreHeadFile);
      manifest.mutable_head()->set_sha256(Sha256Hex("head"));
      RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder, "/store/", soft_labels::kStoreHeadFile), "head"));
      RETURN_IF_ERROR(store->Seal(manifest));
    }
    done();
    return absl::OkStatus();
  }

  static absl::StatusOr<v1::FileDigest> WritePart(const std::string& path, const std::string& name,
                                                  const v1::LabelSpec& spec) {
    ASSIGN_OR_RETURN(const auto writer, soft_labels::PartWriter::Create(path, spec, soft_labels::TestOutputs(spec)));
    RETURN_IF_ERROR(writer->Append(soft_labels::TestLabels(name, "de", spec)));
    return writer->Finish();
  }

  static v1::LabelStoreManifest Job() {
    v1::LabelStoreManifest job;
    *job.mutable_teacher() = soft_labels::TestTeacher();
    *job.mutable_spec() = soft_labels::TestSpec(v1::CODEC_DENSE_FP32);
    job.set_reads(v1::SIDE_TEXT);
    job.set_corpus_digest(Sha256Hex("corpus"));
    job.set_part_records(1000);
    return job;
  }

  inline static const std::vector<std::string> kParts = {"part-000000.parquet", "part-000001.parquet"};
  const bool loses_;
};

class Predictions : public Subject {
 public:
  std::string name() const override { return "predictions"; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    for (const char* id : {"first", "second"}) {
      ASSIGN_OR_RETURN(const auto writer,
                       evaluation::PredictionsWriter::Create(PathIn(folder), {"games", "net"}, {"distilled"}));
      RETURN_IF_ERROR(writer->Append({{id, "de", "group", 1, {{0.25f, 0.75f}}}}));
      RETURN_IF_ERROR(writer->Finish());
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    const auto reader = evaluation::PredictionsReader::Open(PathIn(folder));
    if (absl::IsNotFound(reader.status())) return "none";
    if (!reader.ok()) return reader.status().ToString();
    const auto rows = (*reader)->Next();
    if (!rows.ok()) return rows.status().ToString();
    return rows->empty() ? "empty" : rows->front().id;
  }

 private:
  static std::string PathIn(const std::string& folder) { return folder + "/run/predictions.parquet"; }
};

}  // namespace

Subjects PlainSubjects() {
  return {std::make_shared<AtomicFile>(),       std::make_shared<PublishedFolder>(),
          std::make_shared<CoordinatorState>(), std::make_shared<LabelStore>(false),
          std::make_shared<LabelStore>(true),   std::make_shared<Predictions>()};
}

}  // namespace polystill::fault_points
