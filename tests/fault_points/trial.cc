#include "tests/fault_points/trial.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/sha256.h"

namespace polystill::fault_points {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPointsOfCaches = 20;

constexpr unsigned kPatienceSeconds = 60;

const char* NameOf(Fault fault) {
  switch (fault) {
    case Fault::kCount:
      return "no fault";
    case Fault::kKill:
      return "SIGKILL";
    case Fault::kPowerCut:
      return "power cut";
    case Fault::kPowerCutNamesStay:
      return "power cut that names survive";
    case Fault::kDiskFull:
      return "full disk";
    case Fault::kIoError:
      return "I/O error";
  }
  return "";
}

// What a process says, over a pipe that is read until it has ended: a letter, four bytes of length, the text.
class Report {
 public:
  explicit Report(int pipe) : pipe_(pipe) {}

  void Done() const { Say('d', ""); }
  void Reached(const Point& point) const { Say(point.needs_space ? 'n' : point.can_fail ? 'f' : 'p', point.name); }
  void Returned(const absl::Status& status) const {
    Say('s', absl::StrCat(static_cast<int>(status.code()), " ", status.message()));
  }
  void Found(const std::string& state) const { Say('r', state); }
  void Descriptors(int64_t more) const { Say('o', absl::StrCat(more)); }

 private:
  void Say(char kind, const std::string& text) const {
    std::string frame(1, kind);
    const auto size = static_cast<uint32_t>(text.size());
    frame.append(reinterpret_cast<const char*>(&size), sizeof(size)).append(text);
    for (size_t at = 0; at < frame.size();) {
      const long wrote = ::syscall(SYS_write, pipe_, frame.data() + at, frame.size() - at);
      if (wrote <= 0) ::_exit(3);
      at += static_cast<size_t>(wrote);
    }
  }

  const int pipe_;
};

struct Outcome {
  int wait_status = 0;
  int64_t done = 0;
  std::vector<Point> points;
  // At each point.
  std::vector<int64_t> done_at;
  std::optional<absl::Status> returned;
  std::string state;
  int64_t descriptors = 0;

  bool killed() const { return WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL; }
  bool ended() const { return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0; }
};

void Take(char kind, const std::string& text, Outcome* outcome) {
  if (kind == 'd') ++outcome->done;
  if (kind == 'n' || kind == 'f' || kind == 'p') {
    outcome->points.push_back({text, kind != 'p', kind == 'n'});
    outcome->done_at.push_back(outcome->done);
  }
  if (kind == 'r') outcome->state = text;
  if (kind == 'o') outcome->descriptors = std::stoll(text);
  if (kind != 's') return;
  const size_t gap = text.find(' ');
  outcome->returned = absl::Status(static_cast<absl::StatusCode>(std::stoi(text.substr(0, gap))), text.substr(gap + 1));
}

Outcome ReadAll(int pipe) {
  std::string said;
  char buffer[1 << 16];
  for (ssize_t got = 0; (got = ::read(pipe, buffer, sizeof(buffer))) > 0;) {
    said.append(buffer, static_cast<size_t>(got));
  }
  Outcome outcome;
  for (size_t at = 0; at + 5 <= said.size();) {
    uint32_t size = 0;
    std::memcpy(&size, said.data() + at + 1, sizeof(size));
    if (at + 5 + size > said.size()) break;  // cut by the end of the process
    Take(said[at], said.substr(at + 5, size), &outcome);
    at += 5 + size;
  }
  return outcome;
}

// Runs `work` in a process of its own, whose log is not shown.
Outcome InProcess(const std::function<void(const Report&)>& work) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    ::alarm(kPatienceSeconds);
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(null, STDOUT_FILENO);
    work(Report(ends[1]));
    ::_exit(0);
  }
  ::close(ends[1]);
  Outcome outcome = ReadAll(ends[0]);
  ::close(ends[0]);
  ::waitpid(child, &outcome.wait_status, 0);
  return outcome;
}

int64_t OpenDescriptors() { return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator{}); }

// The same once there are no more than `usual`, or after a while: a thread of Arrow's may be the last to let a file go.
int64_t OpenDescriptors(int64_t usual) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  int64_t found = OpenDescriptors();
  while (found > usual && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    found = OpenDescriptors();
  }
  return found;
}

// Plain names of all that lies below a folder.
std::set<std::string> NamesIn(const std::string& root) {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(root)) names.insert(PlainName(root, entry.path()));
  return names;
}

std::string DigestOf(const std::string& root) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    std::string& content = files[PlainName(root, entry.path())];
    if (!entry.is_regular_file()) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    content = "file " + std::string(std::istreambuf_iterator<char>(file), {});
  }
  Sha256 digest;
  for (const auto& [name, content] : files) digest.Update(absl::StrCat(name.size(), name, content.size(), content));
  return digest.Hex();
}

std::string WithoutMarked(const std::string& state) {
  std::vector<std::string> lines = absl::StrSplit(state, '\n');
  std::erase_if(lines, [](const std::string& line) { return absl::StartsWith(line, "#"); });
  return absl::StrJoin(lines, "\n");
}

class Trial {
 public:
  Trial(const Subject& subject, const std::string& folder)
      : subject_(subject), root_(folder + "/root"), images_(folder + "/images") {}

  Verdict Run();
  std::set<std::string> Points();

 private:
  void Clear() {
    fs::remove_all(root_);
    fs::remove_all(images_);
    fs::create_directories(root_);
  }
  void Prepare() {
    Clear();
    InProcess([&](const Report& report) { report.Returned(subject_.Prepare(root_)); });
  }
  // One Write, from nothing, with this fault.
  Outcome WriteWith(Fault fault, int64_t at);
  Outcome WriteAgain() const;
  std::string ReadState() const;
  void LearnStates();
  void TryKill(int64_t at);
  void TryPowerCuts(Fault fault);
  // That a process which stopped here, so far, has left what a reader and another process may find.
  void Judge(Fault fault, int64_t done);
  void TryFailure(Fault fault, int64_t at);
  void GoOn();
  bool IsAllowed(const std::string& state, int64_t done, bool keeps_done) const;
  void Where(Fault fault, int64_t at, int64_t done) {
    const auto index = static_cast<size_t>(at);
    where_ = absl::StrCat(subject_.name(), ", ", NameOf(fault), " at point ", at, " (",
                          index < points_.size() ? points_[index].name : "end", "), ", done, " writes done");
  }
  void Find(const std::string& what) { verdict_.findings.push_back(absl::StrCat(where_, ": ", what)); }

  const Subject& subject_;
  const std::string root_;
  const std::string images_;
  Verdict verdict_;
  std::vector<Point> points_;
  // After each write; the first one is before any.
  std::vector<std::string> states_;
  std::set<std::string> names_;
  int64_t descriptors_ = 0;
  std::set<std::string> seen_;
  std::string where_;
  int64_t stride_ = 1;
};

Outcome Trial::WriteWith(Fault fault, int64_t at) {
  Clear();
  const Outcome outcome = InProcess([&](const Report& report) {
    const int64_t before = OpenDescriptors();
    Arm({fault, at, root_, images_, stride_}, [&](const Point& point) { report.Reached(point); });
    report.Returned(subject_.Write(root_, [&] { report.Done(); }));
    Disarm();
    // A power cut is computed from files that are held open.
    const bool cuts = fault == Fault::kPowerCut || fault == Fault::kPowerCutNamesStay;
    if (!cuts) report.Descriptors(OpenDescriptors(before + descriptors_) - before);
  });
  return outcome;
}

Outcome Trial::WriteAgain() const {
  return InProcess([&](const Report& report) { report.Returned(subject_.Write(root_, [&] { report.Done(); })); });
}

std::string Trial::ReadState() const {
  const Outcome outcome = InProcess([&](const Report& report) { report.Found(subject_.Read(root_)); });
  return outcome.ended() ? outcome.state : "the reader crashed";
}

void Trial::LearnStates() {
  for (int64_t wanted = 0; wanted <= verdict_.writes; ++wanted) {
    Clear();
    if (wanted > 0) {
      InProcess([&](const Report&) {
        int64_t done = 0;
        (void)subject_.Write(root_, [&] {
          if (++done == wanted) ::_exit(0);
        });
      });
    }
    names_.merge(NamesIn(root_));
    states_.push_back(ReadState());
  }
}

bool Trial::IsAllowed(const std::string& state, int64_t done, bool keeps_done) const {
  const auto last = static_cast<size_t>(std::min(done + 1, verdict_.writes));
  for (size_t i = keeps_done ? static_cast<size_t>(done) : 0; i <= last; ++i) {
    if (state == states_[i]) return true;
  }
  return false;
}

void Trial::GoOn() {
  const Outcome outcome = WriteAgain();
  if (!outcome.returned.has_value() || !outcome.returned->ok()) {
    return Find(absl::StrCat("cannot go on: ",
                             outcome.returned.has_value() ? outcome.returned->ToString() : "the writer crashed"));
  }
  const std::string state = ReadState();
  if (WithoutMarked(state) == WithoutMarked(states_.back())) return;
  Find(absl::StrCat("went on to '", state, "', not to '", states_.back(), "'"));
}

void Trial::Judge(Fault fault, int64_t done) {
  // Most points change nothing that a reader could see.
  if (!seen_.insert(absl::StrCat(DigestOf(root_), done, static_cast<int>(fault))).second) return;
  const std::string state = ReadState();
  if (!IsAllowed(state, done, !subject_.is_cache() || fault == Fault::kKill)) {
    Find(absl::StrCat("left '", state, "', not '", states_[static_cast<size_t>(done)], "' or what comes next"));
  }
  GoOn();
}

void Trial::TryKill(int64_t at) {
  ++verdict_.trials;
  const Outcome outcome = WriteWith(Fault::kKill, at);
  Where(Fault::kKill, at, outcome.done);
  // A writer with threads of its own may end earlier than it did.
  if (!outcome.killed() && !subject_.is_cache()) return Find("the process was not killed");
  Judge(Fault::kKill, outcome.done);
}

void Trial::TryPowerCuts(Fault fault) {
  const Outcome outcome = WriteWith(fault, 0);
  std::string image;
  for (int64_t at = 0; at <= static_cast<int64_t>(outcome.points.size()); ++at) {
    const std::string next = absl::StrCat(images_, "/", at);
    if (fs::exists(next)) image = next;
    const bool ends = at == static_cast<int64_t>(outcome.points.size());
    if (!ends && at % stride_ != 0) continue;
    ++verdict_.trials;
    const int64_t done = ends ? outcome.done : outcome.done_at[static_cast<size_t>(at)];
    if (!seen_.insert(absl::StrCat(image, " ", done, static_cast<int>(fault))).second) continue;
    Where(fault, at, done);
    fs::remove_all(root_);
    fs::copy(image, root_, fs::copy_options::recursive);
    Judge(fault, done);
  }
}

void Trial::TryFailure(Fault fault, int64_t at) {
  ++verdict_.trials;
  const Outcome outcome = WriteWith(fault, at);
  Where(fault, at, outcome.done);
  if (!outcome.ended() || !outcome.returned.has_value()) return Find("the writer crashed");
  const absl::Status& status = *outcome.returned;
  if (!status.ok() && !absl::StrContains(status.message(), root_)) {
    Find(absl::StrCat("the error names no file: ", status.ToString()));
  }
  if (!status.ok() && fault == Fault::kDiskFull && !absl::IsResourceExhausted(status)) {
    Find(absl::StrCat("not RESOURCE_EXHAUSTED: ", status.ToString()));
  }
  if (outcome.descriptors > descriptors_) {
    Find(absl::StrCat("leaves ", outcome.descriptors - descriptors_, " descriptors open"));
  }
  for (const std::string& name : NamesIn(root_)) {
    if (!names_.contains(name) && !subject_.is_cache()) Find(absl::StrCat("leaves ", name, " behind"));
  }
  if (!seen_.insert(absl::StrCat(DigestOf(root_), outcome.done, status.ok())).second) return;
  const std::string state = ReadState();
  const int64_t done = status.ok() && !subject_.is_cache() ? verdict_.writes : outcome.done;
  if (!IsAllowed(state, done, !subject_.is_cache())) {
    Find(absl::StrCat("returned ", status.ToString(), " and left '", state, "', not '",
                      states_[static_cast<size_t>(done)], "' or what comes next"));
  }
  GoOn();
}

Verdict Trial::Run() {
  Prepare();
  const Outcome whole = WriteWith(Fault::kCount, 0);
  where_ = absl::StrCat(subject_.name(), ", no fault");
  if (!whole.ended() || !whole.returned.has_value() || !whole.returned->ok()) {
    Find(whole.returned.has_value() ? whole.returned->ToString() : "the writer crashed");
    return verdict_;
  }
  names_ = NamesIn(root_);
  points_ = whole.points;
  descriptors_ = whole.descriptors;
  verdict_.writes = whole.done;
  verdict_.points_reached = static_cast<int64_t>(points_.size());
  LearnStates();
  // RocksDB makes a thousand calls: of a cache, whose losses cost only work, some are tried.
  if (subject_.is_cache()) stride_ = std::max<int64_t>(verdict_.points_reached / kPointsOfCaches, 1);
  for (int64_t at = 0; at < verdict_.points_reached; at += stride_) TryKill(at);
  for (const Fault fault : {Fault::kPowerCut, Fault::kPowerCutNamesStay}) TryPowerCuts(fault);
  for (const auto& [fault, first] : {std::pair(Fault::kDiskFull, 1), std::pair(Fault::kIoError, 2)}) {
    for (int64_t at = stride_ == 1 ? 0 : first; at < verdict_.points_reached; at += stride_) {
      const Point& point = points_[static_cast<size_t>(at)];
      if (fault == Fault::kDiskFull ? point.needs_space : point.can_fail) TryFailure(fault, at);
    }
  }
  return verdict_;
}

std::set<std::string> Trial::Points() {
  Prepare();
  std::set<std::string> names;
  for (const Point& point : WriteWith(Fault::kCount, 0).points) names.insert(point.name);
  return names;
}

}  // namespace

Verdict Try(const Subject& subject, const std::string& folder) {
  Verdict verdict = Trial(subject, folder).Run();
  fs::remove_all(folder);
  return verdict;
}

std::set<std::string> PointsOf(const Subject& subject, const std::string& folder) {
  std::set<std::string> names = Trial(subject, folder).Points();
  fs::remove_all(folder);
  return names;
}

}  // namespace polystill::fault_points
