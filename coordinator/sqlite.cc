#include "coordinator/sqlite.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

int Bind(sqlite3_stmt* statement, int index, const SqlValue& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) return sqlite3_bind_int64(statement, index, *number);
  if (const auto* text = std::get_if<std::string>(&value)) {
    return sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  const std::string& bytes = std::get<Blob>(value).bytes;
  return sqlite3_bind_blob64(statement, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
}

SqlRow RowOf(sqlite3_stmt* statement) {
  SqlRow row;
  for (int column = 0; column < sqlite3_column_count(statement); ++column) {
    const auto* data = static_cast<const char*>(sqlite3_column_blob(statement, column));
    row.emplace_back(data == nullptr ? "" : data, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
  }
  return row;
}

// Why no file can be made beside `path`; 0 when one can. SQLite tries to read what it could not make, and reports that
// it is not there.
int ReasonForNoFile(const std::string& path) {
  const std::string probe = absl::StrCat(path, ".probe-", ::getpid());
  const int file = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return errno;
  ::close(file);
  ::unlink(probe.c_str());
  return 0;
}

}  // namespace

absl::Status Sqlite::ErrorOf(int code) const {
  const std::string what = absl::StrCat(path_, ": ", sqlite3_errmsg(database_));
  int error_number = sqlite3_system_errno(database_);
  switch (code & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(absl::StrCat(what, " (disk full, or the file has reached its cap)"));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(absl::StrCat(what,
                                              "; the coordinator's state is damaged: start the run anew with "
                                              "--overwrite"));
    case SQLITE_CANTOPEN:
      if (const int reason = ReasonForNoFile(path_); reason != 0) error_number = reason;
      [[fallthrough]];
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      if (error_number != 0) return FileError(error_number, path_, "keep the coordinator's state");
      [[fallthrough]];
    default:
      return absl::InternalError(what);
  }
}

absl::Status Sqlite::Open() {
  const int code = sqlite3_open_v2(path_.c_str(), &database_,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(code);
}

absl::StatusOr<std::vector<SqlRow>> Sqlite::Query(const std::string& sql, const std::vector<SqlValue>& values) {
  sqlite3_stmt* statement = nullptr;
  int code = sqlite3_prepare_v2(database_, sql.c_str(), -1, &statement, nullptr);
  for (size_t i = 0; i < values.size() && code == SQLITE_OK; ++i) {
    code = Bind(statement, static_cast<int>(i) + 1, values[i]);
  }
  std::vector<SqlRow> rows;
  if (code == SQLITE_OK) {
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) rows.push_back(RowOf(statement));
  }
  absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : ErrorOf(code);
  sqlite3_finalize(statement);
  if (!status.ok()) return status;
  return rows;
}

absl::Status Sqlite::Execute(const std::string& sql, const std::vector<SqlValue>& values) {
  return Query(sql, values).status();
}

}  // namespace polystill::coordinator
