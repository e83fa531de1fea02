#include "coordinator/state_store.h"

#include <functional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/sqlite.h"
#include "runtime/fault_point.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr char kInputFact[] = "input:";

// PRAGMA user_version of the file. A change of the tables takes the next number. A file of format 1, which has no table
// `members`, is taken over as it is.
constexpr int kFormat = 2;

// facts: "term", "generation", "workers" (numbers), "spec" (a serialised RunSpec), "input:KEY" (the digest of what a
// key names). members: of the last generation. segments: a job's plan, a serialised PlanSegment each. finished_jobs: in
// the order of `rowid`. stages: a serialised RunStatus.Stage each.
constexpr const char* kSchema[] = {
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS members (rank INTEGER PRIMARY KEY, job TEXT NOT NULL, worker TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS segments (job TEXT, first_step INTEGER, segment BLOB NOT NULL, "
    "PRIMARY KEY (job, first_step)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS finished_jobs (job TEXT NOT NULL UNIQUE, weights_digest TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS checkpoints (job TEXT, step INTEGER, generation INTEGER NOT NULL, path TEXT NOT NULL, "
    "digest TEXT NOT NULL, PRIMARY KEY (job, step)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS stages (name TEXT PRIMARY KEY, stage BLOB NOT NULL) WITHOUT ROWID",
};

int64_t NumberIn(const std::string& text) {
  int64_t number = 0;
  return absl::SimpleAtoi(text, &number) ? number : 0;
}

}  // namespace

class StateStore::Database : public Sqlite {
 public:
  using Sqlite::Sqlite;

  absl::Status Prepare(const Options& options) {
    RETURN_IF_ERROR(Open());
    // For the coordinator of another term to end its transaction.
    RETURN_IF_ERROR(Execute("PRAGMA busy_timeout=5000"));
    RETURN_IF_ERROR(Execute("PRAGMA journal_mode=WAL"));
    RETURN_IF_ERROR(Execute("PRAGMA synchronous=FULL"));
    RETURN_IF_ERROR(Execute(absl::StrCat("PRAGMA max_page_count=", options.max_bytes / kPageBytes)));
    ASSIGN_OR_RETURN(const auto version, Query("PRAGMA user_version"));
    const int64_t format = version.empty() ? 0 : NumberIn(version[0][0]);
    if (format < 0 || format > kFormat) {
      return absl::FailedPreconditionError(absl::StrCat(path(), ": has format ", format, ", this release knows ",
                                                        kFormat, "; go on with the release that began the run"));
    }
    for (const char* table : kSchema) RETURN_IF_ERROR(Execute(table));
    FAULT_POINT("tables made");
    return Execute(absl::StrCat("PRAGMA user_version=", kFormat));
  }

  // `write` as one transaction: it is durable as a whole, or changes nothing.
  absl::Status Write(const std::function<absl::Status()>& write) {
    RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
    absl::Status status = write();
    FAULT_POINT("transaction written");
    if (status.ok()) status = Execute("COMMIT");
    FAULT_POINT("transaction committed");
    if (!status.ok()) (void)Execute("ROLLBACK");
    return status;
  }

  absl::Status PutFact(const std::string& name, SqlValue value) {
    return Execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", {name, std::move(value)});
  }

  absl::StatusOr<std::string> Fact(const std::string& name) {
    ASSIGN_OR_RETURN(auto rows, Query("SELECT value FROM facts WHERE name = ?", {name}));
    if (rows.empty()) return absl::NotFoundError(absl::StrCat(path(), ": holds no ", name));
    return std::move(rows[0][0]);
  }

  // A number that is 0 until it is put.
  absl::StatusOr<int64_t> Number(const std::string& name) {
    const auto text = Fact(name);
    if (absl::IsNotFound(text.status())) return 0;
    if (!text.ok()) return text.status();
    return NumberIn(*text);
  }
};

StateStore::StateStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
StateStore::~StateStore() = default;

absl::StatusOr<std::unique_ptr<StateStore>> StateStore::Open(const std::string& path, Options options) {
  auto database = std::make_unique<Database>(path);
  RETURN_IF_ERROR(database->Prepare(options));
  std::unique_ptr<StateStore> store(new StateStore(std::move(database)));
  RETURN_IF_ERROR(store->BeginTerm());
  return store;
}

absl::Status StateStore::BeginTerm() {
  return database_->Write([this]() -> absl::Status {
    ASSIGN_OR_RETURN(const int64_t before, database_->Number("term"));
    term_ = before + 1;
    return database_->PutFact("term", term_);
  });
}

absl::Status StateStore::CheckTerm() {
  ASSIGN_OR_RETURN(const int64_t term, database_->Number("term"));
  if (term == term_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      database_->path(), ": a later coordinator has taken over: its term is ", term, ", this one's ", term_));
}

absl::Status StateStore::Write(const std::function<absl::Status()>& write) {
  return database_->Write([&]() -> absl::Status {
    RETURN_IF_ERROR(CheckTerm());
    return write();
  });
}

absl::Status StateStore::PutSpec(const v1::RunSpec& spec) {
  return Write([&] { return database_->PutFact("spec", Blob{spec.SerializeAsString()}); });
}

absl::StatusOr<v1::RunSpec> StateStore::Spec() {
  ASSIGN_OR_RETURN(const std::string bytes, database_->Fact("spec"));
  v1::RunSpec spec;
  if (!spec.ParseFromString(bytes)) return absl::DataLossError(absl::StrCat(database_->path(), ": torn spec"));
  return spec;
}

absl::Status StateStore::PutGeneration(const Generation& generation) {
  return Write([&]() -> absl::Status {
    RETURN_IF_ERROR(database_->PutFact("generation", generation.number));
    RETURN_IF_ERROR(database_->Execute("DELETE FROM members"));
    for (size_t rank = 0; rank < generation.members.size(); ++rank) {
      RETURN_IF_ERROR(database_->Execute("INSERT INTO members VALUES (?, ?, ?)",
                                         {static_cast<int64_t>(rank), generation.job, generation.members[rank]}));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<StateStore::Generation> StateStore::LastGeneration() {
  Generation generation;
  ASSIGN_OR_RETURN(generation.number, database_->Number("generation"));
  ASSIGN_OR_RETURN(const auto rows, database_->Query("SELECT job, worker FROM members ORDER BY rank"));
  for (const SqlRow& row : rows) {
    generation.job = row[0];
    generation.members.push_back(row[1]);
  }
  return generation;
}

absl::Status StateStore::PutWantedWorkers(int64_t workers) {
  return Write([&] { return database_->PutFact("workers", workers); });
}

absl::StatusOr<int64_t> StateStore::WantedWorkers() { return database_->Number("workers"); }

absl::Status StateStore::AddSegment(const std::string& job, const v1::PlanSegment& segment) {
  return Write([&] {
    return database_->Execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)",
                              {job, int64_t{segment.first_step()}, Blob{segment.SerializeAsString()}});
  });
}

absl::StatusOr<std::vector<v1::PlanSegment>> StateStore::Segments(const std::string& job) {
  ASSIGN_OR_RETURN(const auto rows,
                   database_->Query("SELECT segment FROM segments WHERE job = ? ORDER BY first_step", {job}));
  std::vector<v1::PlanSegment> segments(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (segments[i].ParseFromString(rows[i][0])) continue;
    return absl::DataLossError(absl::StrCat(database_->path(), ": torn plan segment of ", job));
  }
  return segments;
}

absl::Status StateStore::PutInput(const std::string& key, const std::string& digest) {
  return Write([&] { return database_->PutFact(kInputFact + key, digest); });
}

absl::StatusOr<std::map<std::string, std::string>> StateStore::Inputs() {
  ASSIGN_OR_RETURN(const auto rows, database_->Query("SELECT name, value FROM facts"));
  std::map<std::string, std::string> inputs;
  for (const SqlRow& row : rows) {
    if (absl::StartsWith(row[0], kInputFact)) inputs[row[0].substr(sizeof(kInputFact) - 1)] = row[1];
  }
  return inputs;
}

absl::Status StateStore::PutStage(const v1::RunStatus::Stage& stage) {
  if (stage.name().empty()) return absl::OkStatus();
  return database_->Execute("INSERT OR REPLACE INTO stages VALUES (?, ?)",
                            {stage.name(), Blob{stage.SerializeAsString()}});
}

absl::Status StateStore::AdmitCheckpoint(const std::string& job, const Checkpoint& checkpoint,
                                         const v1::RunStatus::Stage& stage) {
  return Write([&]() -> absl::Status {
    RETURN_IF_ERROR(PutStage(stage));
    return database_->Execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)",
                              {job, checkpoint.step, checkpoint.generation, checkpoint.path, checkpoint.digest});
  });
}

absl::Status StateStore::DropCheckpoint(const std::string& job, const std::string& path) {
  return Write([&] { return database_->Execute("DELETE FROM checkpoints WHERE job = ? AND path = ?", {job, path}); });
}

absl::StatusOr<std::vector<v1::RunStatus::Stage>> StateStore::Stages() {
  ASSIGN_OR_RETURN(const auto rows, database_->Query("SELECT stage FROM stages ORDER BY name"));
  std::vector<v1::RunStatus::Stage> stages(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!stages[i].ParseFromString(rows[i][0])) {
      return absl::DataLossError(absl::StrCat(database_->path(), ": torn row of a stage"));
    }
  }
  return stages;
}

absl::Status StateStore::FinishJob(const std::string& job, const std::string& weights_digest,
                                   const Checkpoint& checkpoint, const v1::RunStatus::Stage& stage) {
  return Write([&]() -> absl::Status {
    RETURN_IF_ERROR(PutStage(stage));
    RETURN_IF_ERROR(database_->Execute("INSERT OR REPLACE INTO finished_jobs VALUES (?, ?)", {job, weights_digest}));
    if (checkpoint.path.empty()) return absl::OkStatus();
    // With early stopping or projections the admitted one has another digest than the job's result.
    return database_->Execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?, ?, ?)",
                              {job, checkpoint.step, checkpoint.generation, checkpoint.path, checkpoint.digest});
  });
}

absl::StatusOr<std::vector<StateStore::FinishedJob>> StateStore::FinishedJobs() {
  ASSIGN_OR_RETURN(const auto rows, database_->Query("SELECT job, weights_digest FROM finished_jobs ORDER BY rowid"));
  std::vector<FinishedJob> jobs;
  for (const SqlRow& row : rows) jobs.push_back({row[0], row[1]});
  return jobs;
}

absl::StatusOr<std::vector<StateStore::Checkpoint>> StateStore::Checkpoints(const std::string& job) {
  ASSIGN_OR_RETURN(
      const auto rows,
      database_->Query("SELECT step, generation, path, digest FROM checkpoints WHERE job = ? ORDER BY step", {job}));
  std::vector<Checkpoint> checkpoints;
  for (const SqlRow& row : rows) checkpoints.push_back({NumberIn(row[0]), NumberIn(row[1]), row[2], row[3]});
  return checkpoints;
}

}  // namespace polystill::coordinator
